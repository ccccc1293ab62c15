"""Solutions with derivatives: several ways one after the other, by the implicit rules of a library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat.linear_systems._results import Report, Solutions, SolveResult, Way
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class Ways:
    """The ways to solve systems that are taken one after the other until all solutions are good enough."""

    ways: tuple[Way, ...]
    rtol: float
    report: Report

    def solutions(self, A: LinearOperator, M: LinearOperator | None, b: Array, xp: Namespace) -> Solutions:
        """Return solutions, after the check that all are good enough where values can be read."""
        rules = rules_of(xp)
        tried: Solutions | None = None
        for way in self.ways:
            tried = way(A, M, b, None, xp) if tried is None else _continued(way, A, M, b, tried, xp)
        found = cast("Solutions", tried)  # the last way always serves
        if not rules.compiles:  # values can be read here, in the systems of derivatives too
            self.report.require_converged(found, M, b, self.rtol, xp)
        return found


def _continued(
    way: Way, A: LinearOperator, M: LinearOperator | None, b: Array, before: Solutions, xp: Namespace
) -> Solutions:
    """Return the solutions of one more way where those before are not all good enough."""

    def next_solutions() -> Solutions:
        return way(A, M, b, before, xp) or before

    is_final = before.done | xp.isnan(before.residual)  # what is not finite has no solution by any way
    found: Solutions = rules_of(xp).branch(xp.all(is_final), lambda: before, next_solutions)
    return found


@dataclass(frozen=True)
class _SystemSolver(Solver):
    """Solves square systems by several ways, for `Rules.solution`."""

    ways: Ways

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        solutions = self.ways.solutions(A, M, b, xp)
        return solutions.x, solutions[1:]


@dataclass(frozen=True, eq=False, repr=False)
class _LeastSquaresSystem(LinearOperator):
    """The Hermitian matrix ``[I, B; B^H, 0]`` of vectors ``(r, x)``, of a matrix B of full column rank.

    With right-hand sides ``(b, 0)`` the part x is the least-squares solution of ``B x = b`` and r its residual; with
    ``(0, b)`` the part r is the solution of least norm of ``B^H r = b``.
    """

    _core_axes = {"operator": None}

    operator: LinearOperator
    """The matrix B."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of B together, twice."""
        return (sum(self.operator.shape), sum(self.operator.shape))

    def parts(self, vectors: Array) -> tuple[Array, Array]:
        """Return r and x of vectors, or the two parts of right-hand sides."""
        rows = self.operator.shape[0]
        return vectors[..., :rows], vectors[..., rows:]

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        residual, solution = self.parts(x)
        first = residual + self.operator._matvec(solution, xp)
        return concat_last([first, self.operator._rmatvec(residual, xp)], xp)

    def _transpose(self) -> LinearOperator:
        return _LeastSquaresSystem(self.operator._conj())

    def _conj(self) -> LinearOperator:
        return _LeastSquaresSystem(self.operator._conj())


@dataclass(frozen=True)
class _LeastSquaresSolver(Solver):
    """Solves systems with a `_LeastSquaresSystem`; the information is that of the problem that was asked for.

    The solutions of ``r + B x = b_1, B^H r = b_2`` are ``x = B^+ (b_1 - y), r = b_1 - B x`` with ``y = (B^H)^+ b_2``:
    two least-squares problems, so that no step squares the condition number. One with a right-hand side of zeros takes
    no iteration.
    """

    ways: Ways
    is_tall: bool

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        B: LinearOperator = A.operator
        first, second = A.parts(b)
        least_squares = _LeastSquares(self.ways)
        y, information_of_wide = least_squares(B.H, second)
        x, information_of_tall = least_squares(B, first - y)
        residual = first - B._matvec(x, xp)
        return concat_last([residual, x], xp), information_of_tall if self.is_tall else information_of_wide


@dataclass(frozen=True)
class _LeastSquares:
    """Solves least-squares problems without derivatives; solutions are those of least norm."""

    ways: Ways

    def __call__(self, A: LinearOperator, b: Array) -> tuple[Array, tuple[Any, ...]]:
        solutions = self.ways.solutions(A, None, b, namespace_of(self.ways.report.owner, b))
        return solutions.x, solutions[1:]


@dataclass(frozen=True)
class _Differentiable:
    """Calls a solver through the implicit rule of the library, so that x has derivatives."""

    solver: Solver

    def __call__(self, A: Any, M: Any, b: Array) -> tuple[Array, tuple[Any, ...]]:
        return rules_of(namespace_of("solve", b)).solution(self.solver, A, M, b)


def solve_with_derivatives(
    A: LinearOperator, M: LinearOperator | None, b: Array, ways: Ways, xp: Namespace
) -> SolveResult:
    """Return solutions of square systems with their derivatives.

    The matrix, and a preconditioner where one is given, are in the precision of computations; `b` is of the dtype of
    the solutions and has all batch axes.
    """
    solve = rules_of(xp).compiled(_Differentiable(_SystemSolver(ways)))
    x, information = solve(A, M, b)
    return _result(Solutions(x, *information), M, b, ways, xp)


def lstsq_with_derivatives(A: LinearOperator, b: Array, ways: Ways, xp: Namespace) -> SolveResult:
    """Return least-squares solutions of least norm, with their derivatives where the rank is full."""
    rules = rules_of(xp)
    if rules.is_differentiated([b, *A._arrays()]):
        is_tall = A.shape[0] >= A.shape[1]
        system = _LeastSquaresSystem(A if is_tall else A.H)
        zeros = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
        right = concat_last([b, zeros] if is_tall else [zeros, b], xp)
        solve = rules.compiled(_Differentiable(_LeastSquaresSolver(ways, is_tall)))
        both, information = solve(system, None, right)
        residual, solution = system.parts(both)
        x = solution if is_tall else residual
    else:
        x, information = rules.compiled(_LeastSquares(ways))(A, b)
    return _result(Solutions(x, *information), None, b, ways, xp)


def _result(solutions: Solutions, M: LinearOperator | None, b: Array, ways: Ways, xp: Namespace) -> SolveResult:
    """Return a result, after the check that solutions are good enough, if that has not been checked before.

    In a trace solutions that are not good enough are NaN.
    """
    rules = rules_of(xp)
    x, residual, done, iterations = solutions
    if rules.is_traced(done):
        x = xp.where(done[..., None], x, xp.full_like(x, float("nan")))
        return SolveResult(x, residual, iterations)
    if rules.compiles:
        ways.report.require_converged(solutions, M, b, ways.rtol, xp)
        iterations = int(iterations)
    return SolveResult(x, residual, iterations)
