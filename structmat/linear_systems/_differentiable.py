"""Iteration with derivatives: solvers for the implicit rules of a library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat.linear_systems import _iteration
from structmat.linear_systems._bands import solutions_by_band
from structmat.linear_systems._iteration import IterationSettings
from structmat.linear_systems._least_squares_system import LeastSquaresSystem
from structmat.linear_systems._results import Report, Solutions, SolveResult
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class _SystemSolver(Solver):
    """Solves square systems by iteration, for `Rules.solution`."""

    settings: IterationSettings
    report: Report

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        solutions = solutions_by_band(A, b, self.settings.rtol, xp) if self.settings.bands else None
        if solutions is None:
            solutions = _iteration.solve_square(A, M, b, self.settings, xp)
        if not rules_of(xp).compiles:  # values can be read here, in the systems of derivatives too
            self.report.require_converged(solutions, M, b, self.settings.rtol, xp)
        return solutions.x, solutions[1:]


@dataclass(frozen=True)
class _LeastSquaresSolver(Solver):
    """Solves systems with a `LeastSquaresSystem`; the information is that of the problem that was asked for.

    The solutions of ``r + B x = b_1, B^H r = b_2`` are ``x = B^+ (b_1 - y), r = b_1 - B x`` with ``y = (B^H)^+ b_2``:
    two least-squares problems, so that no step squares the condition number. One with a right-hand side of zeros takes
    no iteration.
    """

    settings: IterationSettings
    report: Report
    is_tall: bool

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        B: LinearOperator = A.operator
        first, second = A.parts(b)
        least_squares = _LeastSquares(self.settings, self.report)
        y, information_of_wide = least_squares(B.H, second)
        x, information_of_tall = least_squares(B, first - y)
        residual = first - B._matvec(x, xp)
        return concat_last([residual, x], xp), information_of_tall if self.is_tall else information_of_wide


@dataclass(frozen=True)
class _LeastSquares:
    """Solves least-squares problems by iteration, without derivatives; solutions are those of least norm."""

    settings: IterationSettings
    report: Report

    def __call__(self, A: LinearOperator, b: Array) -> tuple[Array, tuple[Any, ...]]:
        xp = namespace_of(self.report.owner, b)
        solutions = _iteration.solve_least_squares(A, b, self.settings, xp)
        if not rules_of(xp).compiles:
            self.report.require_converged(solutions, None, b, self.settings.rtol, xp)
        return solutions.x, solutions[1:]


@dataclass(frozen=True)
class _Differentiable:
    """Calls a solver through the implicit rule of the library, so that x has derivatives."""

    solver: Solver

    def __call__(self, A: Any, M: Any, b: Array) -> tuple[Array, tuple[Any, ...]]:
        return rules_of(namespace_of("solve", b)).solution(self.solver, A, M, b)


def solve_with_derivatives(
    A: LinearOperator, M: LinearOperator | None, b: Array, settings: IterationSettings, report: Report, xp: Namespace
) -> SolveResult:
    """Return solutions of square systems by iteration, with their derivatives.

    The matrix, and a preconditioner where one is given, are in the precision of computations; `b` is of the dtype of
    the solutions and has all batch axes.
    """
    solve = rules_of(xp).compiled(_Differentiable(_SystemSolver(settings, report)))
    x, information = solve(A, M, b)
    return _result(Solutions(x, *information), M, b, settings, report, xp)


def lstsq_with_derivatives(
    A: LinearOperator, b: Array, settings: IterationSettings, report: Report, xp: Namespace
) -> SolveResult:
    """Return least-squares solutions of least norm by iteration, with their derivatives where the rank is full."""
    rules = rules_of(xp)
    if rules.is_differentiated([b, *A._arrays()]):
        is_tall = A.shape[0] >= A.shape[1]
        system = LeastSquaresSystem(A if is_tall else A.H)
        zeros = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
        right = concat_last([b, zeros] if is_tall else [zeros, b], xp)
        solve = rules.compiled(_Differentiable(_LeastSquaresSolver(settings, report, is_tall)))
        both, information = solve(system, None, right)
        residual, solution = system.parts(both)
        x = solution if is_tall else residual
    else:
        x, information = rules.compiled(_LeastSquares(settings, report))(A, b)
    return _result(Solutions(x, *information), None, b, settings, report, xp)


def _result(
    solutions: Solutions,
    M: LinearOperator | None,
    b: Array,
    settings: IterationSettings,
    report: Report,
    xp: Namespace,
) -> SolveResult:
    """Return a result, after the check that solutions are good enough, if that has not been checked before.

    In a trace solutions that are not good enough are NaN.
    """
    rules = rules_of(xp)
    x, residual, done, iterations = solutions
    if rules.is_traced(done):
        x = xp.where(done[..., None], x, xp.full_like(x, float("nan")))
        return SolveResult(x, residual, iterations)
    if rules.compiles:
        report.require_converged(solutions, M, b, settings.rtol, xp)
        iterations = int(iterations)
    return SolveResult(x, residual, iterations)
