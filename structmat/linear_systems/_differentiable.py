"""Solutions with derivatives: several ways one after the other, by the implicit rules of a library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat._ways import settle
from structmat.linear_systems._problem import LinearSystem, Options
from structmat.linear_systems._results import Solutions
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class Ways:
    """Ways to solutions without derivatives, as a function of the matrix and of the right-hand sides."""

    ways: tuple[Any, ...]
    options: Options
    others: tuple[Any, ...] = ()
    """The ways for the systems of derivatives, which have to be solved; none for the first ones, which others follow.
    """

    def solutions(self, A: LinearOperator, M: LinearOperator | None, b: Array, xp: Namespace) -> Solutions:
        """Return the best solutions."""
        system = LinearSystem(A, M, b, self.options, xp)
        settle(system, self.ways)
        found = cast("Solutions", system.best)  # one way always serves
        if not self.others and not rules_of(xp).compiles and not bool(xp.all(found.done)):
            raise system.failure()
        return found

    @property
    def for_changes(self) -> Ways:
        """Those for the systems of derivatives."""
        return Ways(self.others or self.ways, self.options)


@dataclass(frozen=True)
class _SystemSolver(Solver):
    """Solves square systems by several ways, for `Rules.solution`."""

    ways: Ways

    @property
    def for_changes(self) -> Solver:
        """That of the systems of derivatives."""
        return replace(self, ways=self.ways.for_changes)

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

    @property
    def for_changes(self) -> Solver:
        """That of the systems of derivatives."""
        return replace(self, ways=self.ways.for_changes)

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
        solutions = self.ways.solutions(A, None, b, namespace_of(self.ways.options.owner, b))
        return solutions.x, solutions[1:]


@dataclass(frozen=True)
class _Differentiable:
    """Calls a solver through the implicit rule of the library, so that x has derivatives."""

    solver: Solver

    def __call__(self, A: Any, M: Any, b: Array) -> tuple[Array, tuple[Any, ...]]:
        return rules_of(namespace_of("solve", b)).solution(self.solver, A, M, b)


def solve_with_derivatives(
    A: LinearOperator, M: LinearOperator | None, b: Array, ways: Ways, xp: Namespace
) -> Solutions:
    """Return solutions of square systems with their derivatives; in a trace those that are not good enough are NaN.

    The matrix, and a preconditioner where one is given, are in the precision of computations; `b` is of the dtype of
    the solutions and has all batch axes.
    """
    solve = rules_of(xp).compiled(_Differentiable(_SystemSolver(ways)))
    x, information = solve(A, M, b)
    return _read(Solutions(x, *information), A, M, b, ways, xp)


def lstsq_with_derivatives(A: LinearOperator, b: Array, ways: Ways, xp: Namespace) -> Solutions:
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
    return _read(Solutions(x, *information), A, None, b, ways, xp)


def _read(
    solutions: Solutions, A: LinearOperator, M: LinearOperator | None, b: Array, ways: Ways, xp: Namespace
) -> Solutions:
    """Return solutions with a number of iterations that can be read, after the check where others do not follow.

    In a trace solutions that are not good enough are NaN.
    """
    rules = rules_of(xp)
    x, _, done, iterations = solutions
    if rules.is_traced(done):
        return solutions._replace(x=xp.where(done[..., None], x, xp.full_like(x, float("nan"))))
    if not rules.compiles:
        return solutions
    system = LinearSystem(A, M, b, ways.options, xp)
    system.best = solutions._replace(iterations=int(iterations))
    if not ways.others and not bool(xp.all(done)):
        raise system.failure()
    return system.best
