"""From an operator without a closed form to a solution, whatever the library: refinement, checks, gradients in torch.

A solver is run on what is left of the right-hand side until the true residual has reached the tolerance, so that no
recursion for residuals has to be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isnan
from typing import Any

import numpy as np

from structmat._arrays import device_of, is_numpy, library_of
from structmat._arrays.derivatives import is_differentiated
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems import _conjugate_gradients
from structmat.linear_systems._gradients import Rules, differentiable, pulled_back, recording_nothing
from structmat.linear_systems._measures import (
    IterationSettings,
    Measure,
    by_gradient,
    by_residual,
    norm_of,
    relative_residual,
    size_of,
)
from structmat.linear_systems._nearest import preconditioner
from structmat.linear_systems._result import ConvergenceError, SolveResult
from structmat.linear_systems._scaling import ScaledSystem
from structmat.operators import LinearOperator

__all__ = ["ignored", "least_squares", "solution"]

_PASSES = 6
"""How often a solver is run at most, each time on what the runs before have left."""


IterationCallback = Callable[[int], object]
"""Hears the number of iterations so far."""
Step = Callable[[Array, float, int, IterationCallback], "tuple[Array, int]"]
"""From right-hand side, tolerance and number of iterations to a solution and the number that it took."""


def ignored(_: int) -> None:
    """Do nothing, where nobody wants to hear the number of iterations."""


def solution(
    operator: LinearOperator,
    b: Array,
    settings: IterationSettings,
    xp: Namespace,
    callback: IterationCallback = ignored,
) -> SolveResult:
    """Return the solutions of square systems.

    Parameters
    ----------
    operator : LinearOperator
        In the precision of computations.
    b : array, shape (..., n)
        Right-hand sides, of the dtype of the solutions and with all batch axes.
    settings : IterationSettings
    xp : namespace
        That of `b`.
    callback : callable
        Hears the number of iterations, but where JAX iterates.
    """
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        found, done = _jax_solvers.solution(operator, b, settings)
        return _checked(found, done, b, settings, xp)
    if not is_differentiated([b, *operator._arrays()], xp):
        return _solution(operator, b, settings, xp, callback)

    def solved(operator: LinearOperator, b: Array, settings: IterationSettings) -> SolveResult:
        return _solution(operator, b, settings, xp, callback)

    def pulled(g: Array, x: Array, b: Array, operator: LinearOperator, settings: IterationSettings) -> tuple[Any, ...]:  # noqa: ARG001
        """``db`` has the gradient ``A^-H g``, and ``dA x`` minus that."""
        M = settings.preconditioner
        M = M.H if isinstance(M, LinearOperator) else M
        adjoint = solution(operator.H, g, settings._replace(preconditioner=M), xp).x
        return adjoint, *pulled_back(lambda A: A._matvec(x, xp), operator, -adjoint, xp)

    def pushed(
        x: Array,
        b: Array,  # noqa: ARG001
        operator: LinearOperator,
        settings: IterationSettings,
        db: Array,
        change: Any,
    ) -> Array:
        """``dx = A^-1 (db - dA x)``."""
        return solution(operator, db - change(lambda A: A._matvec(x, xp)), settings, xp).x

    return differentiable(operator, b, settings, Rules(solved, pulled, pushed), xp)


def _solution(
    operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace, callback: IterationCallback
) -> SolveResult:
    """Iterate."""
    with recording_nothing(xp):
        system = ScaledSystem.of(operator, b, xp)
        M = preconditioner(system, settings, xp)
        M = None if M is None else M.prepare()
        prepared = system.operator.prepare()
        system = system._replace(operator=prepared)

        def step(rest: Array, rtol: float, limit: int, report: IterationCallback) -> tuple[Array, int]:
            if is_numpy(xp):
                from structmat.linear_systems import _scipy_solvers  # noqa: PLC0415  # scipy.sparse takes its time

                return _scipy_solvers.solutions(prepared, rest, M, settings.assume, rtol, limit, report)
            if settings.assume == "positive definite":
                return _conjugate_gradients.conjugate_gradients(prepared, rest, M, rtol, limit, xp, report)
            norm = xp.zeros_like(xp.real(rest[..., 0]))
            return _conjugate_gradients.least_squares(prepared, rest, norm, rtol, limit, xp, report, M)

        return _refined(system, step, by_residual(system.b, settings, xp), settings, xp, callback)


def least_squares(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return the least-squares solutions of least norm; arguments as for `solution`."""
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        found, done = _jax_solvers.least_squares(operator, b, settings)
        return _checked(found, done, b, settings, xp)
    if not is_differentiated([b, *operator._arrays()], xp):
        return _least_squares(operator, b, settings, xp)

    def solved(operator: LinearOperator, b: Array, settings: IterationSettings) -> SolveResult:
        return _least_squares(operator, b, settings, xp)

    def inverse(A: LinearOperator, v: Array) -> Array:
        return least_squares(A, v, settings, xp).x

    def pulled(g: Array, x: Array, b: Array, operator: LinearOperator, _: IterationSettings) -> tuple[Any, ...]:
        """The adjoint of `pushed`."""
        rest, beside = b - operator._matvec(x, xp), inverse(operator.H, x)
        first = inverse(operator.H, g)
        cotangents = (-first, inverse(operator, first), g - inverse(operator, operator._matvec(g, xp)))
        return first, *pulled_back(_products(x, rest, beside, xp), operator, cotangents, xp)

    def pushed(x: Array, b: Array, operator: LinearOperator, _: IterationSettings, db: Array, change: Any) -> Array:
        """That of a pseudo-inverse whose rank does not change [1]_.

        ``dx = A^+ (db - dA x) + A^+ (A^+)^H dA^H (b - A x) + (I - A^+ A) dA^H (A^+)^H x``

        References
        ----------
        .. [1] Golub, G. H., Pereyra, V., The differentiation of pseudo-inverses and nonlinear least squares problems
           whose variables separate, SIAM J. Numer. Anal. 10, 1973.
        """
        rest, beside = b - operator._matvec(x, xp), inverse(operator.H, x)
        of_x, of_rest, of_beside = change(_products(x, rest, beside, xp))
        along = db - of_x + inverse(operator.H, of_rest) - operator._matvec(of_beside, xp)
        return inverse(operator, along) + of_beside

    return differentiable(operator, b, settings, Rules(solved, pulled, pushed), xp)


def _products(x: Array, rest: Array, beside: Array, xp: Namespace) -> Callable[[LinearOperator], tuple[Array, ...]]:
    """Return the products with a matrix that the derivative of a least-squares solution is made of."""

    def products(A: LinearOperator) -> tuple[Array, Array, Array]:
        return A._matvec(x, xp), A._rmatvec(rest, xp), A._rmatvec(beside, xp)

    return products


def _least_squares(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Iterate."""
    with recording_nothing(xp):
        system = ScaledSystem.of(operator, b, xp)
        prepared = system.operator.prepare()
        system = system._replace(operator=prepared)
        norm = norm_of(prepared, b, xp)

        def step(rest: Array, rtol: float, limit: int, report: IterationCallback) -> tuple[Array, int]:
            if is_numpy(xp):
                from structmat.linear_systems import _scipy_solvers  # noqa: PLC0415  # scipy.sparse takes its time

                return _scipy_solvers.least_squares(prepared, rest, rtol, limit)
            return _conjugate_gradients.least_squares(prepared, rest, norm, rtol, limit, xp, report)

        measure = by_gradient(prepared, system.b, norm, settings, xp)
        return _refined(system, step, measure, settings, xp)


def _refined(
    system: ScaledSystem,
    step: Step,
    measure: Measure,
    settings: IterationSettings,
    xp: Namespace,
    callback: IterationCallback = ignored,
) -> SolveResult:
    """Return what the steps add up to, or raise the error that says how far they came."""
    operator, b = system.operator, system.b
    x = xp.zeros((*b.shape[:-1], operator.shape[1]), dtype=b.dtype, device=device_of(b))
    rest, taken = b, 0
    size, done = measure(x, rest)
    lost = ~xp.all(xp.isfinite(operator._rmatvec(b / size_of(b, xp), xp)), axis=-1)
    done = done | lost  # as no iteration brings NaN to an end
    for tolerance in (settings.rtol / 2 * 0.1**k for k in range(_PASSES)):  # a solver may measure by another norm
        if bool(xp.all(done)) or taken >= settings.max_iter:
            break
        unsolved = xp.where(done[..., None], xp.zeros_like(rest), rest)
        scale = size_of(unsolved, xp)  # as solvers square their vectors
        report = partial(_added, callback, taken)
        change, count = step(unsolved / scale, tolerance, settings.max_iter - taken, report)
        taken += count
        before, trial = size, x + scale * change
        left = b - operator._matvec(trial, xp)
        size, done = measure(trial, left)
        done = done | lost
        better = size <= before  # not where it is NaN
        x, rest = (xp.where(better[..., None], new, old) for new, old in ((trial, x), (left, rest)))
        if bool(xp.all(done | ~(size < before / 2))):
            break
    residual = xp.where(lost, xp.full_like(size, float("nan")), relative_residual(rest, b, xp))
    done = measure(x, rest)[1] & ~lost
    return _checked(SolveResult(system.solution(x), residual, taken), done, b, settings, xp)


def _added(callback: IterationCallback, before: int, more: int) -> None:
    callback(before + more)


def _checked(result: SolveResult, done: Array, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return a result, or raise where it is not good enough; in a trace of JAX it is known by now to be NaN there."""
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        if _jax_solvers.is_traced(done):
            return result._replace(x=xp.where(done[..., None], result.x, xp.full_like(result.x, float("nan"))))
    if not bool(xp.all(done)):
        raise _failure(result, b, settings, xp)
    return result


def _failure(result: SolveResult, b: Array, settings: IterationSettings, xp: Namespace) -> ConvergenceError:
    count = "" if result.iterations is None else f" after {result.iterations} iterations"
    largest = float(xp.max(result.residual))
    M = settings.preconditioner
    if not bool(xp.all(xp.isfinite(b))):
        advice = "b holds NaN or infinity"
    elif isinstance(M, LinearOperator) and not _is_finite_product(M, b, xp):
        advice = "the preconditioner gives NaN or infinity"
    elif isnan(largest):
        advice = "the matrix holds NaN or infinity, or its products do"
    else:
        advice = "raise rtol or max_iter"
        if settings.owner == "solve":
            advice += ", give a better preconditioner, or use lstsq for a singular matrix"
        if settings.assume != "general":
            advice += f'; if the matrix may not be {settings.assume}, assume="general"'
    text = (
        f"{settings.owner}: the relative residual is {largest:.2g}{count}, not "
        f"{settings.rtol:.2g}; {advice}. The error's attribute `result` holds what was reached"
    )
    return ConvergenceError(text, result)


def _is_finite_product(M: LinearOperator, b: Array, xp: Namespace) -> bool:
    with np.errstate(all="ignore"):
        return bool(xp.all(xp.isfinite(M._matvec(b, xp))))
