"""Iteration in several passes, each on what those before have left, and elimination where it does not end."""

from __future__ import annotations

from typing import Any, NamedTuple

from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._elimination import eliminated
from structmat.linear_systems._krylov import Count, KrylovMethod, quiet
from structmat.linear_systems._preconditioner import inverse_of_nearest, iterations_on_trial, of_moderate_size
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._scaling import System, norm_of, size_of
from structmat.linear_systems._stopping import (
    Measure,
    by_gradient,
    by_residual,
    is_as_small_as_rounding,
    relative_residual,
)
from structmat.operators import LinearOperator

_PASSES = 6
"""How often a solver is run at most, each time on what the runs before have left."""


class IterationSettings(NamedTuple):
    """How to iterate."""

    method: KrylovMethod
    """The solver."""
    rtol: float
    """The relative residual at which to end."""
    max_iter: int
    """The most iterations, of all passes together."""
    positive: bool = False
    """Whether the matrix is positive definite, as the preconditioner is then."""
    nearest: bool = False
    """Whether to take the nearest circulant or diagonal matrix where no preconditioner is given."""
    eliminates: bool = False
    """Whether the matrix is written out where iteration does not reach `rtol`."""


def solved(
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
        return _in_passes(system, M, on_trial, None, measure, settings, xp)


def least_squares(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> Solutions:
    """Return least-squares solutions of least norm, without derivatives; arguments as for `solved`."""
    with quiet(xp):
        system = System.of(operator, b, xp)
        norm = norm_of(system.operator, system.b, xp)
        measure = by_gradient(system.operator, system.b, norm, settings.rtol, xp)
        return _in_passes(system, None, False, norm, measure, settings, xp)


class _Progress(NamedTuple):
    """What passes carry on."""

    x: Array
    rest: Array
    """What is left of the right-hand sides."""
    size: Array
    """How large that is, by the test of the problem."""
    done: Array
    iterations: Count
    passes: Count
    helped: Any
    """Whether the last pass has halved what was left of some right-hand side that needs more."""


def _in_passes(
    system: System,
    preconditioner: LinearOperator | None,
    on_trial: bool,
    norm: Array | None,
    measure: Measure,
    settings: IterationSettings,
    xp: Namespace,
) -> Solutions:
    """Return what a solver finds in several passes, as it may measure by another norm than that of the test."""
    rules = rules_of(xp)
    A: LinearOperator = system.operator.prepare()
    M: LinearOperator | None = None if preconditioner is None else preconditioner.prepare()
    b = system.b
    product = A._matvec if A.shape[0] == A.shape[1] else A._rmatvec
    lost = ~xp.all(xp.isfinite(product(b / size_of(b, xp), xp)), axis=-1)  # as no iteration brings NaN to an end

    def passes(progress: _Progress, M: LinearOperator | None, most: int) -> _Progress:
        def goes_on(now: _Progress) -> Any:
            is_left = (now.passes < _PASSES) & (now.iterations < settings.max_iter)
            return ~xp.all(now.done) & now.helped & is_left

        def step(now: _Progress) -> _Progress:
            unsolved = xp.where(now.done[..., None], xp.zeros_like(now.rest), now.rest)
            scale = size_of(unsolved, xp)  # as solvers square their vectors
            change, made = settings.method.run(
                A,
                unsolved / scale,
                M,
                rtol=settings.rtol / 2 * 0.1**now.passes,
                max_iter=rules.least(most, settings.max_iter - now.iterations),
                norm=norm,
            )
            trial = now.x + scale * change
            remaining = b - A._matvec(trial, xp)
            size, enough = measure(trial, remaining)
            better = (size <= now.size)[..., None]  # not where it is NaN
            done = now.done | (enough & better[..., 0])
            return _Progress(
                x=xp.where(better, trial, now.x),
                rest=xp.where(better, remaining, now.rest),
                size=xp.where(better[..., 0], size, now.size),
                done=done,
                iterations=now.iterations + made,
                passes=now.passes + 1,
                helped=xp.any(~done & (size < now.size / 2)),
            )

        return rules.loop(goes_on, step, progress)

    x = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
    size, done = measure(x, b)
    some = xp.any(xp.ones_like(done))  # true, as an array, unless there are no right-hand sides
    progress = _Progress(x, b, size, done | lost, 0, 0, some)
    if on_trial:
        progress = passes(progress, M, iterations_on_trial(settings.max_iter, A))
        progress = passes(progress._replace(helped=some), None, settings.max_iter)
    else:
        progress = passes(progress, M, settings.max_iter)

    x, rest, done = progress.x, progress.rest, progress.done & ~lost
    if settings.eliminates:

        def written_out() -> tuple[Array, Array, Array]:
            kept = done | lost
            if M is not None:  # where it is of no use at all that is an error, which elimination would hide
                kept = kept | ~xp.all(xp.isfinite(M._matvec(b, xp)))
            found = xp.where(kept[..., None], x, eliminated(system.operator, x, b, xp))
            left = b - A._matvec(found, xp)
            good = measure(found, left)[1] | is_as_small_as_rounding(A, found, left, b, xp)
            return found, left, good & ~lost

        x, rest, done = rules.branch(~xp.all(done | lost), written_out, lambda: (x, rest, done))
    residual = relative_residual(rest, b, xp)
    residual = xp.where(lost, xp.full_like(residual, float("nan")), residual)
    return Solutions(system.solution(x), residual, done, progress.iterations)
