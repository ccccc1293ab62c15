"""Systems of one matrix whose solutions are accepted by their backward errors, refined, or found in another way.

A subclass has the matrix: products with it, the sums of its rows, its triangular factors, and the ways to solve its
systems, the fastest one first. A solution is accepted if its backward error is at the level of rounding in every row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.arithmetic import times_power_of_two
from structmat._arrays.linear_algebra import VECTORS
from structmat._arrays.namespaces import numpy_namespace
from structmat._errors import warn_caller
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.accuracy_warnings import warn_of_condition
from structmat._toeplitz_systems.elimination import TriangularFactors
from structmat._toeplitz_systems.refinement import Rows, RowsWay, refined_while_it_helps
from structmat._toeplitz_systems.scaling import extreme_exponents, is_ordinary
from structmat._ways import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_EPS = float(np.finfo(float).eps)
"""The machine epsilon of double precision, in which everything is computed."""


class Determinant(NamedTuple):
    """The determinant of a matrix, and what tells how accurate it is."""

    sign: Any
    """Its phase, zero where the matrix is singular."""
    log: float
    """The logarithm of its absolute value."""
    inverse: Callable[[NDArray[Any]], Any] | None = None
    """Multiplies rows by the inverse, as what has found the determinant does; None where nothing was rounded."""
    lost: float = 0.0
    """How far off the logarithm may be as leading sections are worse conditioned than the matrix."""


def too_large_to_be_written_out() -> str:
    """Return the end of an error of a matrix that nothing but elimination serves, and of which it takes too much."""
    return f"is too large to be written out (above {thresholds.LAST_RESORT:,} rows); use numpy.linalg on to_dense()"


class AcceptedSystem(ABC):
    """Systems with one n x n matrix T, in double precision.

    Warnings are given on behalf of the method `owner`, if any. A `ready` system is for many right-hand sides, one after
    the other, so that it is worth computing the inverse.
    """

    constants: NDArray[Any]
    """The numbers that determine T, in double precision."""
    is_finite: bool
    """Whether all of them are."""
    exponent: int = 0
    """The exponent of the power of two by which T was divided."""

    def __init__(self, n: int, dtype: Any, owner: str | None, *, ready: bool) -> None:
        self.n = n
        self.owner = owner
        self.ready = ready
        self._has_warned = False
        self.eps = float(np.finfo(dtype).eps)
        """The machine epsilon of the numbers that T was given in."""

    # What a subclass has

    @abstractmethod
    def _product(self, x: NDArray[Any]) -> Any:
        """Return the products of T with the rows of x."""

    @property
    @abstractmethod
    def row_sums(self) -> NDArray[Any]:
        """The sums of the moduli in each row."""

    @property
    @abstractmethod
    def is_uneven(self) -> bool:
        """Whether the entries of some rows are so small that rounding errors of transforms would hide them."""

    @abstractmethod
    def _eliminated(self) -> TriangularFactors | None:
        """Return the triangular factors of the matrix, or None where a pivot is zero."""

    @abstractmethod
    def _ways(self, count: int) -> list[tuple[str, float | None, Callable[[NDArray[Any]], Any]]]:
        """Return ways to solve `count` systems, more or less exactly, as the parts of a `RowsWay`.

        A solver returns NaN where it has no solutions.
        """

    @cached_property
    def factors(self) -> TriangularFactors:
        """The triangular factors of the matrix."""
        factors = self._eliminated()
        if factors is None:
            raise self._singular()
        if not factors.condition <= 1 / self.eps:
            self._warn_of_condition(factors.condition)
        return factors

    @cached_property
    def norm(self) -> Any:
        """The largest of the sums of the rows: the infinity norm of T."""
        return self.row_sums.max()

    def _largest_correction(self, errors: Any) -> Any:
        """Return bounds of corrections, relative to solutions of such backward errors; infinity where there is none."""
        return np.full_like(errors, math.inf)

    @property
    def is_eliminated_at_last(self) -> bool:
        """Whether the matrix is written out where there would be an error in its place."""
        return self.n <= thresholds.LAST_RESORT

    # Errors and warnings

    def _singular(self) -> np.linalg.LinAlgError:
        text = "the matrix is singular to working precision; use structmat.lstsq(op, b)"
        return np.linalg.LinAlgError(f"{self.owner}: {text}")

    def _warn_of_condition(self, value: float) -> None:
        if self.owner and not self._has_warned:
            self._has_warned = True
            warn_of_condition(value, self.owner)

    def _warn_of_logarithm(self, correction: float) -> None:
        """Warn if that relative correction of what a recursion finds shows that its logarithm is not accurate."""
        if self.owner and correction > thresholds.NOTICEABLE:
            error = thresholds.LOGARITHM_PER_CORRECTION * correction
            text = f"the logarithm may be off by about {error:.1g}, as leading sections are ill-conditioned"
            warn_caller(f"{self.owner}: {text}", scipy.linalg.LinAlgWarning)

    def _warn_of_growth(self, x: NDArray[Any], b: NDArray[Any]) -> None:
        """Warn if the rows of x are so much longer than those of b that the matrix is singular to working precision."""
        norms = np.abs(b).max(axis=-1)
        norms[norms == 0] = 1
        with np.errstate(over="ignore"):
            growth = self.norm * (np.abs(x).max(axis=-1) / norms).max()
        if not growth <= 1 / self.eps:  # a lower bound of the condition number
            self._warn_of_condition(float(growth))

    # Solutions

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return x with ``T x = b`` along the last axis, in double precision; NaN where b or T is not finite.

        A matrix that is singular to working precision is an error, and one for which nothing but elimination is
        accurate and that is too large to be written out.
        """
        if b.dtype.kind == "c" and self.constants.dtype.kind != "c":
            return self.solve(b.real) + 1j * self.solve(b.imag)
        if not b.size:
            return b.astype(self.constants.dtype)
        rows = b.reshape(-1, self.n).astype(self.constants.dtype, copy=False)
        if len(rows) == 1 and self.is_finite and not self.exponent and is_ordinary(np.abs(rows).max()):
            return self._solve_rows(rows).reshape(b.shape)
        largest = np.abs(rows).max(axis=-1, keepdims=True)
        exponents = extreme_exponents(largest)
        finite = np.isfinite(largest[:, 0]) & self.is_finite
        if finite.all() and not (self.exponent or exponents.any()):
            return self._solve_rows(rows).reshape(b.shape)
        x = np.full(rows.shape, np.nan, rows.dtype)
        if np.any(finite):
            scaled_x = self._solve_rows(times_power_of_two(rows[finite], -exponents[finite], numpy_namespace))
            x[finite] = times_power_of_two(scaled_x, exponents[finite] - self.exponent, numpy_namespace)
        return x.reshape(b.shape)

    def _solve_rows(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the solutions for the rows of b, whose numbers are neither very large nor very small."""
        if self.n <= thresholds.DENSE or (self.n <= thresholds.LARGEST and self.is_uneven):
            return self._solve_by_elimination(b)
        x = self._solve_with_acceptance(b)
        self._warn_of_growth(x, b)
        return x

    def _solve_with_acceptance(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the first solution of each system that is accepted, else the one with the smallest backward error."""
        if not np.all(self.row_sums):
            raise self._singular()
        allowed = thresholds.ROUNDING * _EPS * math.sqrt(self.n)
        rows = Rows(b, allowed)
        settle(
            rows,
            [
                RowsWay(name, takes, partial(self._solve_with_refinement, solver, allowed=allowed))
                for name, takes, solver in self._ways(len(b))
            ],
        )
        x, unsolved = rows.x, rows.errors > allowed
        if np.any(unsolved) and self.n > thresholds.LARGEST:
            x[unsolved] = self._with_small_residuals(x[unsolved], b[unsolved], allowed)
        return x

    def _with_small_residuals(self, x: NDArray[Any], b: NDArray[Any], allowed: float) -> NDArray[Any]:
        """Return solutions that are not accepted, with a warning, or those of elimination where residuals are large.

        Where the matrix is too large for that it is an error.
        """
        residuals = b - self._product(x)
        largest = float(np.max(np.linalg.norm(residuals, axis=-1) / np.linalg.norm(b, axis=-1)))
        text = f"{self.owner}: the matrix is ill-conditioned; a relative residual of {largest:.1g} is left"
        if not largest <= thresholds.ROUGH:
            if not self.is_eliminated_at_last:
                raise np.linalg.LinAlgError(f"{text}, and the matrix {too_large_to_be_written_out()}")
            return self._solve_with_refinement(self._solve_by_elimination, b, allowed)[0]
        if self.owner:
            warn_caller(text, scipy.linalg.LinAlgWarning)
        return x

    def _solve_with_refinement(
        self, solver: Callable[[NDArray[Any]], Any], b: NDArray[Any], allowed: float
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return solutions, refined as long as that at least halves their backward errors, and these errors."""
        with np.errstate(all="ignore"):
            measured = partial(self._residuals_and_errors, b)
            wanted = thresholds.EXACT * _EPS * math.sqrt(self.n)
            x, residuals, errors = refined_while_it_helps(solver, measured, solver(b), wanted, numpy_namespace)
            errors = errors[:, 0]
            # Beside a solution of large norm any residual is small. It is accepted if a correction hardly changes it.
            norms = np.max(np.abs(x), axis=-1)
            least_doubtful = thresholds.DOUBTFUL_SOLUTION * self._largest_norms(b)
            doubtful = (errors <= allowed) & (norms > least_doubtful)
            if np.any(doubtful):
                doubtful &= ~(self._largest_correction(errors) <= thresholds.STEADY)
            if np.any(doubtful):
                corrections = np.max(np.abs(solver(residuals[doubtful])), axis=-1)
                unsteady = corrections > thresholds.STEADY * norms[doubtful]
                errors[doubtful] *= np.where(unsteady, norms[doubtful] / least_doubtful[doubtful], 1)
        return x, errors

    def _becomes_exact(
        self, x: NDArray[Any], b: NDArray[Any], solver: Callable[..., Any], product: Callable[..., Any]
    ) -> bool:
        """Refine one solution until its backward error is that of rounding, and tell whether it is to be accepted.

        The rules are those of `_solve_with_refinement`, for one row at a time and a few refinements: with that in its
        place such a system of 129 rows takes 1.43 times as long, one of 256 rows 1.27 and one of 512 rows 1.12.
        """
        allowed = thresholds.EXACT * _EPS * math.sqrt(self.n)
        longest = np.abs(b).max() / (self.norm * _EPS)
        for _ in range(thresholds.QUICK_REFINEMENTS):
            length = np.abs(x).max()
            if not length <= longest:
                return False
            residual = b - product(x)
            error = (np.abs(residual) / self.row_sums).max()
            if error <= allowed * min(length, thresholds.LONG_SOLUTION * longest):
                if length <= thresholds.DOUBTFUL_SOLUTION * longest:
                    return True
                steady = thresholds.STEADY * length
                return bool(self._largest_correction(error) <= steady or np.abs(solver(residual)).max() <= steady)
            x += solver(residual)
        return False

    def _largest_norms(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the largest norms that solutions for the rows of b can have if T has a condition of at most 1 / eps.

        These norms, as those of the rows of b, are infinity norms.
        """
        return np.max(np.abs(b), axis=-1) / self.norm / _EPS

    def _residuals_and_errors(self, b: NDArray[Any], x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the residuals, and the backward error of each solution as a column.

        That is the smallest change of T, relative to each of its rows, for which the solution is exact. Since each row
        is measured by itself, large rows do not hide the errors of small ones. Where the norm of a solution is larger
        than T allows, it is measured by that of `b`, or any residual would be small beside it.
        """
        residuals = b - self._product(x)
        largest = np.max(np.abs(residuals) / self.row_sums, axis=-1)
        norms = np.minimum(np.max(np.abs(x), axis=-1), thresholds.LONG_SOLUTION * self._largest_norms(b))
        errors = np.where(largest == 0, 0.0, largest / norms)
        return residuals, np.where(np.isfinite(errors), errors, np.inf)[:, None]

    def _solve_by_elimination(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by elimination of the dense matrix, or of its band."""
        return self.factors.solve(b)

    # The determinant

    def _determinant_of_factors(self) -> Determinant:
        """Return the determinant by triangular factors; a matrix that has none is singular."""
        try:
            return Determinant(*self.factors.slogdet(), self._solve_by_elimination)
        except np.linalg.LinAlgError:
            return Determinant(0.0, -math.inf)

    def _lost_by_recursion(self, correction: float, *, is_definite: bool) -> float:
        """Return how far off the logarithm of a recursion may be, by that relative correction of what it finds.

        Of definite matrices it tells of quasi-periodic covariances, of which logarithms were off by up to 1.5 times the
        root of n times the correction where `_error_of` without it was too small by a factor of 20.
        """
        of_definite = thresholds.LOGARITHM_PER_DEVIATION * math.sqrt(self.n)
        return correction * (of_definite if is_definite else thresholds.LOGARITHM_PER_CORRECTION)

    def _error_of(self, found: Determinant, largest: float) -> float:
        """Return how far off a logarithm may be by rounding errors, beside those of its last sum.

        A change of T by R changes the logarithm by the trace of ``T^-1 R``. Where the entries of R are rounding errors
        of the largest entry of T, the standard deviation of the trace is that times the Frobenius norm of the inverse,
        which solutions for random vectors tell.
        """
        if found.inverse is None:
            return 0.0
        z = np.random.default_rng(0).standard_normal((VECTORS, self.n)).astype(self.constants.dtype)
        with np.errstate(all="ignore"):
            norm = math.sqrt(np.sum(np.abs(found.inverse(z)) ** 2) / VECTORS)
        return thresholds.LOGARITHM_PER_DEVIATION * math.sqrt(self.n) * _EPS * largest * norm + found.lost
