"""Iteration in several passes, each on what those before have left, and elimination where it does not end."""

from __future__ import annotations

from typing import Any, NamedTuple

from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._elimination import eliminated
from structmat.linear_systems._krylov import Count, KrylovMethod, quiet
from structmat.linear_systems._preconditioner import inverse_of_nearest, iterations_on_trial, of_moderate_size
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._scaling import System, norm_or_one, operator_norm
from structmat.linear_systems._stopping import (
    Measure,
    by_gradient,
    by_residual,
    is_as_small_as_rounding,
    relative_residual,
)
from structmat.operators import LinearOperator

_PASSES = 6
"""How often a method is run at most, each time on the residual that the runs before have left."""


class IterationSettings(NamedTuple):
    """The options of an iteration."""

    method: KrylovMethod
    """The Krylov method."""
    rtol: float
    """The relative residual at which to end."""
    max_iter: int
    """The most iterations, of all passes together."""
    positive: bool = False
    """Whether the matrix is positive definite; the nearest matrix is made positive definite too."""
    nearest: bool = False
    """Whether the nearest circulant or diagonal matrix is the preconditioner where none is given."""
    eliminates: bool = False
    """Whether the system is eliminated where iteration does not reach `rtol`."""


def solve_square(
    operator: LinearOperator, given: LinearOperator | None, b: Array, settings: IterationSettings, xp: Namespace
) -> Solutions:
    """Return solutions of square systems, without derivatives.

    The matrix, and a preconditioner where one is given, are in the precision of computations. `b` is of the dtype of
    the solutions and has all batch axes.
    """
    with quiet(xp):
        system = System.of(operator, b, xp)
        M: LinearOperator | None = None
        if given is not None:
            M = of_moderate_size(given, system.b, xp)
        elif settings.nearest:
            M = inverse_of_nearest(system.operator, system.b, xp, positive=settings.positive)
        on_trial = M is not None and given is None and not settings.positive
        measure = by_residual(system.b, settings.rtol, xp)
        return _in_passes(system, M, measure, settings, xp, on_trial=on_trial)


def solve_least_squares(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> Solutions:
    """Return least-squares solutions of least norm, without derivatives; arguments as for `solve_square`."""
    with quiet(xp):
        system = System.of(operator, b, xp)
        norm = operator_norm(system.operator, system.b, xp)
        measure = by_gradient(system.operator, system.b, norm, settings.rtol, xp)
        return _in_passes(system, None, measure, settings, xp, norm=norm)


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


def _in_passes(
    system: System,
    preconditioner: LinearOperator | None,
    measure: Measure,
    settings: IterationSettings,
    xp: Namespace,
    *,
    on_trial: bool = False,
    norm: Array | None = None,
) -> Solutions:
    """Return solutions by several passes of a method, each on the residuals that the one before has left.

    One pass may not suffice, since a method may end by another norm than that of the `Measure`. A preconditioner
    `on_trial` is left out after some iterations that have not sufficed.
    """
    rules = rules_of(xp)
    A: LinearOperator = system.operator.prepare()
    M: LinearOperator | None = None if preconditioner is None else preconditioner.prepare()
    b = system.b
    product = A._matvec if A.shape[0] == A.shape[1] else A._rmatvec
    # Where products are NaN or infinite no iteration ends: those right-hand sides are left out.
    not_finite = ~xp.all(xp.isfinite(product(b / norm_or_one(b, xp), xp)), axis=-1)

    def passes(progress: _Progress, M: LinearOperator | None, most: int) -> _Progress:
        def goes_on(now: _Progress) -> Any:
            may_go_on = (now.passes < _PASSES) & (now.iterations < settings.max_iter)
            return ~xp.all(now.done) & now.helped & may_go_on

        def step(now: _Progress) -> _Progress:
            unsolved = xp.where(now.done[..., None], xp.zeros_like(now.residual), now.residual)
            scale = norm_or_one(unsolved, xp)  # since methods square the entries of vectors
            correction, iterations = settings.method.run(
                A,
                unsolved / scale,
                M,
                rtol=settings.rtol / 2 * 0.1**now.passes,
                max_iter=rules.least(most, settings.max_iter - now.iterations),
                norm=norm,
            )
            new_x = now.x + scale * correction
            new_residual = b - A._matvec(new_x, xp)
            error, enough = measure(new_x, new_residual)
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
            )

        return rules.loop(goes_on, step, progress)

    x = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
    error, done = measure(x, b)
    any_at_all = xp.any(xp.ones_like(done))  # true, as an array, unless there are no right-hand sides
    progress = _Progress(x, b, error, done | not_finite, 0, 0, any_at_all)
    if on_trial:
        progress = passes(progress, M, iterations_on_trial(settings.max_iter, A))
        progress = passes(progress._replace(helped=any_at_all), None, settings.max_iter)
    else:
        progress = passes(progress, M, settings.max_iter)

    x = progress.x
    residual = progress.residual
    done = progress.done & ~not_finite
    if settings.eliminates:

        def by_elimination() -> tuple[Array, Array, Array]:
            unchanged = done | not_finite
            if M is not None:  # a preconditioner with NaN or infinity is an error, which elimination would hide
                unchanged = unchanged | ~xp.all(xp.isfinite(M._matvec(b, xp)))
            new_x = xp.where(unchanged[..., None], x, eliminated(system.operator, x, b, xp))
            new_residual = b - A._matvec(new_x, xp)
            enough = measure(new_x, new_residual)[1] | is_as_small_as_rounding(A, new_x, new_residual, b, xp)
            return new_x, new_residual, enough & ~not_finite

        x, residual, done = rules.branch(~xp.all(done | not_finite), by_elimination, lambda: (x, residual, done))
    relative = relative_residual(residual, b, xp)
    relative = xp.where(not_finite, xp.full_like(relative, float("nan")), relative)
    return Solutions(system.solution(x), relative, done, progress.iterations)
