"""Iteration in several passes, each on what those before have left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import Count
from structmat.linear_systems import _thresholds
from structmat.linear_systems._krylov_method import KrylovMethod, quiet
from structmat.linear_systems._preconditioner import inverse_of_nearest, iterations_on_trial, of_moderate_size
from structmat.linear_systems._problem import Candidate, LinearSystem
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._scaling import System, norm_or_one, operator_norm
from structmat.linear_systems._stopping import (
    ByGradient,
    ByResidual,
    Measure,
    is_as_small_as_rounding,
    relative_residual,
)
from structmat.linear_systems._written_out import is_written_out
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class ByIteration:
    """The way to solutions by a Krylov method, of square systems or of least squares as the method has it."""

    has_derivatives: ClassVar[bool] = False

    turn: int | None = None
    """So many iterations at most, in turns with a direct factor that may take as long; None for all there may be."""

    name: ClassVar[str] = "iteration"

    def cost(self, system: LinearSystem) -> float | None:
        """Return the most iterations; None where elimination takes less than any, or no factor takes turns with it."""
        if system.is_solved or system.iterations_before_elimination == 0:
            return None
        most = system.most_iterations
        if self.turn is None:
            return most
        return self.turn if self.turn < most and system.takes_turns else None

    def run(self, system: LinearSystem) -> Candidate:
        """Return solutions."""
        xp, options, given = system.xp, system.options, system.preconditioner
        before = system.iterations_before_elimination
        name = type(options.method).__name__
        settings = _Settings(
            options.method,
            options.rtol,
            system.most_iterations if self.turn is None else self.turn,
            accepts_rounding=before is None or not is_written_out(system.operator),
            gives_up=before is not None,
            least_squares=options.least_squares,
        )
        with quiet(xp):
            scaled = System.of(system.operator, system.b, xp)
            if options.least_squares:
                norm = operator_norm(scaled.operator, scaled.b, xp)
                by_gradient = ByGradient(scaled.operator, scaled.b, norm, options.rtol, xp)
                return Candidate(_Refinement.of(scaled, None, by_gradient, settings, xp, norm).solutions(), name)
            M = None
            if given is not None:
                M = of_moderate_size(given, scaled.b, xp)
            elif options.nearest:
                M = inverse_of_nearest(scaled.operator, scaled.b, xp, positive=options.positive)
            on_trial = M is not None and given is None and not options.positive
            measure = ByResidual.of(scaled.b, options.rtol, xp)
            return Candidate(_Refinement.of(scaled, M, measure, settings, xp).solutions(on_trial=on_trial), name)


class _Settings(NamedTuple):
    """How passes are made, and when they end."""

    method: KrylovMethod
    rtol: float
    max_iter: int
    """The most iterations, of all passes together."""
    accepts_rounding: bool
    """Whether solutions at the level of rounding are good enough, as no other way follows that takes little time."""
    gives_up: bool
    """Whether iteration ends where it makes little progress, as another way follows."""
    least_squares: bool
    """Whether solutions are those of least norm that minimise the residual."""


class _Progress(NamedTuple):
    """The state between two passes."""

    x: Array
    residual: Array
    """The residuals ``b - A x``."""
    error: Array
    """How large the residuals are, as the `Measure` of the problem says."""
    done: Array
    """Which solutions are good enough."""
    iterations: Count
    passes: Count
    helped: Any
    """Whether the last pass has halved the error of some solution that is not good enough yet."""
    goes_on: Any
    """Whether iteration may reach the tolerance, as far as a trial tells."""
    start: float = 1.0
    """The largest error before the passes, by which their tolerance is divided."""


class _Refinement(NamedTuple):
    """A scaled problem that is solved by passes of a method, each on what those before have left of it."""

    system: System
    A: LinearOperator
    """The matrix of the system, prepared."""
    M: LinearOperator | None
    """The preconditioner, prepared."""
    measure: Measure
    settings: _Settings
    norm: Array | None
    """The norm of the matrix, if the method ends by it."""
    not_finite: Array
    """Which right-hand sides are left out, since their products are NaN or infinite, so that no iteration ends."""
    xp: Namespace

    @classmethod
    def of(
        cls,
        system: System,
        M: LinearOperator | None,
        measure: Measure,
        settings: _Settings,
        xp: Namespace,
        norm: Array | None = None,
    ) -> _Refinement:
        A: LinearOperator = system.operator.prepare()
        product = A._matvec if A.shape[0] == A.shape[1] else A._rmatvec
        not_finite = ~xp.all(xp.isfinite(product(system.b / norm_or_one(system.b, xp), xp)), axis=-1)
        prepared = None if M is None else M.prepare()
        return cls(system, A, prepared, measure, settings, norm, not_finite, xp)

    def solutions(self, *, on_trial: bool = False) -> Solutions:
        """Return solutions by several passes of a method, each on the residuals that the one before has left.

        One pass may not suffice, since a method may end by another norm than that of the `Measure`. A preconditioner
        `on_trial` is left out after some iterations that have not sufficed. A solution is good enough by the `Measure`,
        or, where no other way follows, if its backward error is at the level of rounding.
        """
        xp, A, b, settings = self.xp, self.A, self.system.b, self.settings
        rules = rules_of(xp)
        x = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
        error, done = self.measure(x, b)
        any_at_all = xp.any(xp.ones_like(done))  # true, as an array, unless there are no right-hand sides
        found = _Progress(x, b, error, done | self.not_finite, 0, 0, any_at_all, any_at_all)
        if settings.gives_up and not (settings.least_squares or rules.compiles):
            found = self._after_trial(found, any_at_all)
        if on_trial:
            found = self._after_passes(found, self.M, iterations_on_trial(settings.max_iter, A))
            found = self._after_passes(found._replace(helped=found.goes_on), None, settings.max_iter)
        else:
            found = self._after_passes(found, self.M, settings.max_iter)
        x, residual, done = found.x, found.residual, found.done
        if settings.accepts_rounding:
            done = rules.branch(
                ~xp.all(done),
                lambda: done | is_as_small_as_rounding(A, x, residual, b, xp),
                lambda: done,
            )
        relative = relative_residual(residual, b, xp)
        relative = xp.where(self.not_finite, xp.full_like(relative, float("nan")), relative)
        return Solutions(self.system.solution(x), relative, done & ~self.not_finite, found.iterations)

    def _after_trial(self, progress: _Progress, any_at_all: Any) -> _Progress:
        """Return the state after one pass, by whose rate iteration goes on or not."""
        xp, rtol, most = self.xp, self.settings.rtol, self.settings.max_iter
        found = self._after_passes(progress, self.M, min(_thresholds.TRIAL, most), passes=1)
        error = float(xp.max(xp.where(found.done, xp.zeros_like(found.error), found.error)))
        needed = found.iterations * math.log(rtol) / math.log(error) if 0 < error < 1 else math.inf
        goes_on = any_at_all & (needed <= _thresholds.MARGIN * most)
        return found._replace(passes=0, helped=goes_on, goes_on=goes_on, start=min(error, 1.0) or 1.0)

    def _after_passes(
        self, progress: _Progress, M: LinearOperator | None, most: int, passes: int = _thresholds.PASSES
    ) -> _Progress:
        """Return the state after some more passes of at most so many iterations."""
        xp, A, b, settings = self.xp, self.A, self.system.b, self.settings
        rules = rules_of(xp)

        def goes_on(now: _Progress) -> Any:
            may_go_on = (now.passes < passes) & (now.iterations < settings.max_iter)
            return ~xp.all(now.done) & now.helped & may_go_on

        def step(now: _Progress) -> _Progress:
            unsolved = xp.where(now.done[..., None], xp.zeros_like(now.residual), now.residual)
            scale = norm_or_one(unsolved, xp)  # since methods square the entries of vectors
            correction, iterations = settings.method.run(
                A,
                unsolved / scale,
                M,
                rtol=settings.rtol / 2 * 0.1**now.passes / progress.start,
                max_iter=rules.least(most, settings.max_iter - now.iterations),
                norm=self.norm,
            )
            new_x = now.x + scale * correction
            new_residual = b - A._matvec(new_x, xp)
            error, enough = self.measure(new_x, new_residual)
            better = (error <= now.error)[..., None]  # false where it is NaN
            done = now.done | (enough & better[..., 0])
            return _Progress(
                x=xp.where(better, new_x, now.x),
                residual=xp.where(better, new_residual, now.residual),
                error=xp.where(better[..., 0], error, now.error),
                done=done,
                iterations=now.iterations + iterations,
                passes=now.passes + 1,
                helped=xp.any(~done & (error < now.error / 2)),
                goes_on=now.goes_on,
                start=now.start,
            )

        return rules.loop(goes_on, step, progress)
