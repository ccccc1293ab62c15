"""Solutions by iteration with derivatives: solvers as the rules of a library take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat.linear_systems import _iteration
from structmat.linear_systems._iteration import IterationSettings
from structmat.linear_systems._least_squares_system import LeastSquaresSystem
from structmat.linear_systems._results import Report, Solutions, SolveResult
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class _SystemSolver(Solver):
    """Finds solutions of square systems, as `Rules.solution` takes it."""

    settings: IterationSettings
    report: Report

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        found = _iteration.solved(A, M, b, self.settings, xp)
        if not rules_of(xp).compiles:  # where values are known, in derivatives too
            self.report.require_converged(found, M, b, self.settings.rtol, xp)
        return found.x, found[1:]


@dataclass(frozen=True)
class _LeastSquaresSolver(Solver):
    """Finds solutions of a `LeastSquaresSystem`, and how good the projection is that was asked for.

    Of ``r + B x = b_1, B^H r = b_2`` they are ``x = B^+ (b_1 - y), r = b_1 - B x`` with ``y = (B^H)^+ b_2``, so that no
    step squares the condition number. The projection of zeros takes no iteration.
    """

    settings: IterationSettings
    report: Report
    is_tall: bool

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        B: LinearOperator = A.operator
        first, second = A.parts(b)
        projected = _Projection(self.settings, self.report)
        y, about_wide = projected(B.H, second)
        x, about_tall = projected(B, first - y)
        residual = first - B._matvec(x, xp)
        return concat_last([residual, x], xp), about_tall if self.is_tall else about_wide


@dataclass(frozen=True)
class _Projection:
    """Finds least-squares solutions of least norm, without derivatives."""

    settings: IterationSettings
    report: Report

    def __call__(self, A: LinearOperator, b: Array) -> tuple[Array, tuple[Any, ...]]:
        xp = namespace_of(self.report.owner, b)
        found = _iteration.least_squares(A, b, self.settings, xp)
        if not rules_of(xp).compiles:
            self.report.require_converged(found, None, b, self.settings.rtol, xp)
        return found.x, found[1:]


@dataclass(frozen=True)
class _Differentiable:
    """Finds what a solver does, with derivatives."""

    solver: Solver

    def __call__(self, A: Any, M: Any, b: Array) -> tuple[Array, tuple[Any, ...]]:
        return rules_of(namespace_of("solve", b)).solution(self.solver, A, M, b)


def solution(
    A: LinearOperator, M: LinearOperator | None, b: Array, settings: IterationSettings, report: Report, xp: Namespace
) -> SolveResult:
    """Return solutions of square systems by iteration, with their derivatives.

    The matrix, and a preconditioner where one is given, are in the precision of computations; `b` is of the dtype of
    the solutions and has all batch axes.
    """
    find = rules_of(xp).compiled(_Differentiable(_SystemSolver(settings, report)))
    x, about = find(A, M, b)
    return _result(Solutions(x, *about), M, b, settings, report, xp)


def least_squares(
    A: LinearOperator, b: Array, settings: IterationSettings, report: Report, xp: Namespace
) -> SolveResult:
    """Return least-squares solutions of least norm by iteration, with their derivatives where the rank is full."""
    rules = rules_of(xp)
    if rules.is_differentiated([b, *A._arrays()]):
        is_tall = A.shape[0] >= A.shape[1]
        system = LeastSquaresSystem(A if is_tall else A.H)
        zeros = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
        right = concat_last([b, zeros] if is_tall else [zeros, b], xp)
        find = rules.compiled(_Differentiable(_LeastSquaresSolver(settings, report, is_tall)))
        both, about = find(system, None, right)
        residual, solution = system.parts(both)
        x = solution if is_tall else residual
    else:
        x, about = rules.compiled(_Projection(settings, report))(A, b)
    return _result(Solutions(x, *about), None, b, settings, report, xp)


def _result(
    found: Solutions,
    M: LinearOperator | None,
    b: Array,
    settings: IterationSettings,
    report: Report,
    xp: Namespace,
) -> SolveResult:
    """Return a result, or raise where it is not good enough and that is known only now; in a trace it is NaN there."""
    rules, (x, residual, done, iterations) = rules_of(xp), found
    if rules.is_traced(done):
        x = xp.where(done[..., None], x, xp.full_like(x, float("nan")))
        return SolveResult(x, residual, iterations)
    if rules.compiles:
        report.require_converged(found, M, b, settings.rtol, xp)
        iterations = int(iterations)
    return SolveResult(x, residual, iterations)
