"""One Toeplitz matrix: which way its systems are solved, and when a solution, an inverse or a determinant is accepted.

Small matrices, and those whose rows differ so much that transforms would hide some, are eliminated, narrow bands too.
Of others the fastest way is tried first: iteration, a recursion, the inverse. A solution is accepted if its backward
error is at the level of rounding in every row; where none is, the matrix is eliminated as long as it can be written
out.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.namespaces import numpy_namespace
from structmat._errors import warn_caller
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.elimination import Factors, band_factors, dense_factors, uneven_vector
from structmat._toeplitz_systems.inverse import Bezoutian, bezoutian
from structmat._toeplitz_systems.iteration import solutions_by_iteration
from structmat._toeplitz_systems.recursions import levinson, solutions_by_recursion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_EPS = float(np.finfo(float).eps)
"""The machine epsilon of double precision, in which everything is computed."""


class ToeplitzSystem:
    """What solves systems with a Toeplitz matrix T of first column `c` and first row `r`, its parts made when needed.

    Warnings are given on behalf of the method `owner`, if any. What is `ready` is for many right-hand sides, one after
    the other, so that the inverse is worth its making. T is scaled by a power of two, so that numbers of any size are
    as good as others.
    """

    def __init__(self, c: NDArray[Any], r: NDArray[Any], owner: str | None = None, *, ready: bool = False) -> None:
        self.owner = owner
        self.n = len(c)
        self.ready = ready
        self._has_warned = False
        self._iteration_fails = False
        self.eps = float(np.finfo(c.dtype).eps)
        """The machine epsilon of the numbers that T was given in."""
        wide = np.complex128 if np.iscomplexobj(c) else np.float64
        constants = np.append(r[:0:-1], c).astype(wide)
        size = float(np.max(np.abs(constants)))
        self.is_finite = math.isfinite(size)
        self.exponent = int(_extreme_exponents(size)) if self.is_finite else 0
        self.constants = _scaled(constants, -self.exponent) if self.exponent else constants
        """The diagonals, from the upper right corner to the lower left one."""
        self.c = self.constants[self.n - 1 :]
        self.r = self.constants[: self.n][::-1]

    # What is known of the matrix

    @cached_property
    def dense(self) -> NDArray[Any]:
        """The matrix itself."""
        return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(self.constants[::-1], self.n)[::-1])

    @cached_property
    def plan(self) -> Convolution:
        """The products with T."""
        kernel = kernel_of_diagonals(self.c, self.r[1:], numpy_namespace)
        return Convolution.of(kernel, (self.n, self.n), numpy_namespace)

    def _product(self, x: NDArray[Any]) -> Any:
        return self.plan.apply(x, numpy_namespace)

    @cached_property
    def row_sums(self) -> NDArray[Any]:
        """The sums of the moduli in each row."""
        sums = np.append(0.0, np.cumsum(np.abs(self.constants)))
        return (sums[self.n :] - sums[: self.n])[: self.n]

    @cached_property
    def norm(self) -> Any:
        """The largest of these sums: the norm of T that belongs to the largest entry, and its 1-norm."""
        return np.max(self.row_sums)

    @cached_property
    def is_uneven(self) -> bool:
        """Whether some rows are so small that the rounding errors of transforms would hide what they say."""
        return bool(np.min(self.row_sums) < thresholds.UNEVEN * np.sum(np.abs(self.constants)))

    @cached_property
    def band(self) -> tuple[int, int] | None:
        """How many diagonals below and above the main one hold anything, where a large matrix has few of them."""
        if self.n <= thresholds.DENSE or self.constants[0] or self.constants[-1]:
            return None
        below, above = (int(np.max(np.flatnonzero(v), initial=0)) for v in (self.c, self.r))
        return (below, above) if below + above <= thresholds.BAND else None

    @cached_property
    def factors(self) -> Factors:
        """The triangular factors of the matrix, of its band where it is one."""
        if self.band:
            below, above = self.band
            diagonals = self.constants[self.n - 1 - above : self.n + below]
            rounding = self.eps * self.norm
            factors = band_factors(diagonals, self.band, self.n, norm=self.norm, rounding=rounding)
        else:
            factors = dense_factors(self.dense, self.norm)
        if factors is None:
            raise self._singular()
        if not factors.condition <= 1 / self.eps:
            self._warn_of_condition(factors.condition)
        return factors

    @cached_property
    def inverse(self) -> Bezoutian:
        """The products with the inverse, by its two vectors."""
        x, y = self.vectors
        return bezoutian(x, y, numpy_namespace)

    def _singular(self) -> np.linalg.LinAlgError:
        return np.linalg.LinAlgError(f"{self.owner}: the matrix is singular to working precision")

    def _warn_of_condition(self, value: float) -> None:
        if self.owner and not self._has_warned:
            self._has_warned = True
            text = f"{self.owner}: the matrix is ill-conditioned (about {value:.1g}); the result may be inaccurate"
            warn_caller(text, scipy.linalg.LinAlgWarning)

    # Solutions

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return x with ``T x = b`` along the last axis, in double precision; NaN where b or T is not finite.

        A matrix that is singular to working precision is an error, and one for which nothing but elimination is
        accurate and that is too large to be written out.
        """
        if np.iscomplexobj(b) and not np.iscomplexobj(self.constants):
            return self.solve(b.real) + 1j * self.solve(b.imag)
        if not b.size:
            return b.astype(self.constants.dtype)
        rows = b.reshape(-1, self.n).astype(self.constants.dtype)
        sizes = np.max(np.abs(rows), axis=-1, keepdims=True, initial=0.0)
        known = np.isfinite(sizes[:, 0]) & self.is_finite
        exponents = _extreme_exponents(sizes)
        if np.all(known) and not (self.exponent or np.any(exponents)):
            return self._solved(rows).reshape(b.shape)
        x = np.full(rows.shape, np.nan, rows.dtype)
        if np.any(known):
            solved = self._solved(_scaled(rows, -exponents)[known])
            x[known] = _scaled(solved, exponents[known] - self.exponent)
        return x.reshape(b.shape)

    def _solved(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions for rows of numbers of ordinary size."""
        if self.n <= thresholds.DENSE or (self.n <= thresholds.LARGEST and self.is_uneven):
            return self._eliminated(b)
        x = self._eliminated(b) if self.band else self._accepted(b)
        sizes = np.max(np.abs(b), axis=-1)
        growth = self.norm * np.max(np.max(np.abs(x), axis=-1) / np.where(sizes > 0, sizes, 1))
        if not growth <= 1 / self.eps:  # a lower bound of the condition number
            self._warn_of_condition(float(growth))
        return x

    def _accepted(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the first solution of each system that is accepted, else the one with the smallest backward error."""
        if not np.all(self.row_sums):
            raise self._singular()
        allowed = thresholds.ROUNDING * _EPS * math.sqrt(self.n)
        x = np.zeros_like(b)
        errors = np.full(len(b), np.inf)
        unsolved = np.arange(len(b))
        for solver in self._solvers(len(b)):
            found, error = self._refined(solver, b[unsolved], allowed)
            better = error < errors[unsolved]
            x[unsolved[better]] = found[better]
            errors[unsolved[better]] = error[better]
            unsolved = unsolved[errors[unsolved] > allowed]
            if not len(unsolved):
                break
        if len(unsolved) and self.n > thresholds.LARGEST:
            self._require_small_residuals(x[unsolved], b[unsolved])
        return x

    def _require_small_residuals(self, x: NDArray[Any], b: NDArray[Any]) -> None:
        """Warn of solutions that are not accepted, or raise an error where their residuals are large."""
        residuals = b - self._product(x)
        largest = float(np.max(np.linalg.norm(residuals, axis=-1) / np.linalg.norm(b, axis=-1)))
        text = f"{self.owner}: the matrix is ill-conditioned; a relative residual of {largest:.1g} is left"
        if not largest <= thresholds.ROUGH:
            raise np.linalg.LinAlgError(f"{text}, and the matrix is too large to be written out")
        if self.owner:
            warn_caller(text, scipy.linalg.LinAlgWarning)

    def _solvers(self, count: int) -> Iterator[Callable[[NDArray[Any]], Any]]:
        """Yield what solves `count` systems, more or less exactly: the fastest first."""
        if count <= thresholds.FEW and not self.ready:
            if self.n >= thresholds.LONG:
                yield self._iterated
            yield self._recursed
        with suppress(np.linalg.LinAlgError):
            self.inverse  # noqa: B018  # which is made here
            yield lambda b: self.inverse.apply(b, numpy_namespace)
        yield self._eliminated if self.n <= thresholds.LARGEST else self._recursed

    def _refined(
        self, solver: Callable[[NDArray[Any]], Any], b: NDArray[Any], allowed: float
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return solutions, refined as long as that at least halves their backward errors, and these errors."""
        with np.errstate(all="ignore"):
            x = solver(b)
            residuals, errors = self._residuals(x, b)
            again = errors > allowed
            while np.any(again):
                better = x[again] + solver(residuals[again])
                better_residuals, better_errors = self._residuals(better, b[again])
                helps = better_errors < errors[again] / 2
                if not np.any(helps):
                    break
                rows = np.flatnonzero(again)[helps]
                x[rows] = better[helps]
                residuals[rows] = better_residuals[helps]
                errors[rows] = better_errors[helps]
                again = errors > allowed
            # Beside a long solution any residual is small: it is one if a correction hardly changes it.
            sizes = np.max(np.abs(x), axis=-1)
            doubtful_size = thresholds.DOUBTFUL_SOLUTION * self._largest_solutions(b)
            doubtful = (errors <= allowed) & (sizes > doubtful_size)
            if np.any(doubtful):
                corrections = np.max(np.abs(solver(residuals[doubtful])), axis=-1)
                unsteady = corrections > thresholds.STEADY * sizes[doubtful]
                errors[doubtful] *= np.where(unsteady, sizes[doubtful] / doubtful_size[doubtful], 1)
        return x, errors

    def _largest_solutions(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the size of the largest solutions that T has for b if its condition is at most 1 / eps."""
        return np.max(np.abs(b), axis=-1) / self.norm / _EPS

    def _residuals(self, x: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the residuals, and the smallest change of T relative to its rows that makes each solution exact.

        Rows are measured each by itself: those with small entries are not hidden by large ones. Solutions that are
        larger than T lets them be are measured by `b`, or any residual would be small beside them.
        """
        residuals = b - self._product(x)
        largest = np.max(np.abs(residuals) / self.row_sums, axis=-1)
        sizes = np.minimum(np.max(np.abs(x), axis=-1), thresholds.LONG_SOLUTION * self._largest_solutions(b))
        errors = np.where(largest == 0, 0.0, largest / sizes)
        return residuals, np.where(np.isfinite(errors), errors, np.inf)

    def _eliminated(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by elimination of the dense matrix, or of its band."""
        return self.factors.solve(b)

    def _recursed(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by a recursion; NaN where a leading section is singular."""
        return solutions_by_recursion(self.c, self.r, b)

    def _iterated(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by iteration; NaN where it fails, and from then on."""
        if self._iteration_fails:
            return np.full_like(b, np.nan)
        found = solutions_by_iteration(self.c, self.r, self._product, b)
        self._iteration_fails = not np.all(np.isfinite(found))
        return found

    # The inverse

    @cached_property
    def vectors(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])`` with the s for which y is shortest.

        The formula of the inverse loses eps times the product of their norms, which for another s may be as much larger
        as T is ill-conditioned. Where a correction is not small, both are refined by residuals of a higher precision:
        the formula needs more digits of them than a solution has.
        """
        known = self._known_sides()
        with np.errstate(all="ignore"):
            v = self._rough_vectors(known)
            for _ in range(thresholds.CORRECTIONS):
                v, correction = self._corrected(v, known)
                if correction <= thresholds.TRUSTED or not correction < 1:
                    break
            if (self.n <= thresholds.LARGEST or self.band) and (self.is_uneven or not correction <= thresholds.TRUSTED):
                v = self._refined_vectors(known)
            elif not correction <= thresholds.TRUSTED:
                self._refuse()
        if not np.all(np.isfinite(v)):
            raise self._singular()
        return v[0], v[1]

    def _rough_vectors(self, known: NDArray[Any]) -> NDArray[Any]:
        """Return both vectors by the fastest way."""
        if self.n <= thresholds.DENSE or self.band:
            return self._eliminated(known)
        if self.n >= thresholds.LONG:
            v = self._iterated(known)
            if np.all(np.isfinite(v)):
                return v
        return self._recursed(known)

    def _known_sides(self) -> NDArray[Any]:
        """Return the right-hand sides of both vectors, with zero for the entry s that is free."""
        known = np.zeros((2, self.n), self.constants.dtype)
        known[0, 0] = 1
        known[1, 1:] = self.r[:0:-1]
        return known

    def _corrected(self, v: NDArray[Any], known: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Return both vectors after one correction by the inverse that they make, and its relative size."""
        v = _with_shortest_y(v)
        if not np.all(np.isfinite(v)):
            return v, math.inf
        residuals = known - self._product(v)
        residuals[1, 0] = 0  # where any number is right
        x, y = v
        correction: Any = bezoutian(x, y, numpy_namespace).apply(residuals, numpy_namespace)
        sizes = np.linalg.norm(v, axis=-1)
        relative = np.linalg.norm(correction, axis=-1) / np.where(sizes > 0, sizes, 1)
        return _with_shortest_y(v + correction), float(np.max(relative))

    def _refined_vectors(self, known: NDArray[Any]) -> NDArray[Any]:
        """Return both vectors by elimination, with residuals in extended precision where the machine has it."""
        extended = np.clongdouble if np.iscomplexobj(known) else np.longdouble
        below, above = self.band or (self.n - 1, self.n - 1)
        t = self.constants[self.n - 1 - above : self.n + below].astype(extended)
        v = self._eliminated(known).astype(extended)
        for _ in range(thresholds.REFINEMENTS):
            v = _with_shortest_y(v)
            residuals = known - np.array([np.convolve(t, each)[above : above + self.n] for each in v])
            residuals[1, 0] = 0
            correction = self._eliminated(residuals.astype(known.dtype))
            v += correction
            if np.all(np.max(np.abs(correction), axis=-1) <= _EPS * np.max(np.abs(v), axis=-1)):
                break
        return _with_shortest_y(v).astype(known.dtype)

    def _refuse(self) -> None:
        text = "too ill-conditioned, or its leading sections are, for recursions, and too large to be eliminated"
        raise np.linalg.LinAlgError(f"{self.owner}: the matrix is {text}; use numpy.linalg on to_dense()")

    def inverse_vectors(self, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return `vectors` for the matrix as it was given, in a dtype; NaN for one that is not finite.

        There is a warning if products with the inverse in that dtype are far less accurate than solutions.
        """
        if not self.is_finite:
            return (np.full(self.n, np.nan, dtype),) * 2
        x, y = (v.astype(dtype) for v in self.vectors)
        size_x, size_y = (float(np.sum(np.abs(v))) for v in (x, y))
        most_lost = self.eps * size_x * (1 + 2 * size_y) * self.norm
        if self.owner and not most_lost <= thresholds.LOSSLESS * self.eps:
            self._warn_of_lost_digits(x, y)
        return _scaled(x, -self.exponent), y

    def _warn_of_lost_digits(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Warn if the product of the inverse with one vector is far less accurate than the solution for it."""
        wide = self.constants.dtype
        v = uneven_vector(self.n).astype(x.dtype)
        if self.n <= thresholds.LARGEST:
            b = np.convolve(self.constants, v.astype(wide), "valid")
        else:
            b = self._product(v.astype(wide))
        b = b.astype(x.dtype)
        by_inverse: Any = bezoutian(x, y, numpy_namespace).apply(b, numpy_namespace)
        solved = self._solved(b[None].astype(wide))[0]
        lost, best = (float(np.linalg.norm(z - v)) / float(np.linalg.norm(v)) for z in (by_inverse, solved))
        if not lost <= thresholds.LOSSY * max(best, self.eps / 2):
            text = f"products with this inverse have relative errors of about {lost:.1g}; `solve` is more accurate"
            warn_caller(f"{self.owner}: {text}", scipy.linalg.LinAlgWarning)

    # The determinant

    def slogdet(self) -> tuple[Any, float]:
        """Return the phase of the determinant, zero where T is singular, and the logarithm of its absolute value."""
        if not self.is_finite:
            return math.nan, math.nan
        if not (np.any(self.c[1:]) and np.any(self.r[1:])):
            sign, log = self._determinant_of_triangle()
        elif self.n <= thresholds.DENSE or self.band:
            sign, log = self._determinant_of_factors()
        else:
            sign, log = self._determinant_by_recursion()
        if not np.iscomplexobj(self.constants):
            sign = float(np.sign(np.real(sign)))
        return sign, log + self.n * self.exponent * math.log(2) if sign else -math.inf

    def _determinant_of_triangle(self) -> tuple[Any, float]:
        size = abs(self.c[0])
        if not size:
            return 0.0, -math.inf
        return (self.c[0] / size) ** self.n, self.n * math.log(size)

    def _determinant_by_recursion(self) -> tuple[Any, float]:
        """Return phase and logarithm by Levinson's recursion, or of the factors where these are more accurate."""
        with np.errstate(all="ignore"):
            found = levinson(self.c, self.r)
            _, correction = self._corrected(np.array([found.x, found.y]), self._known_sides())
        if correction <= (thresholds.TRUSTED if found.is_definite else thresholds.TRUSTED_LOGARITHM):
            return found.sign, found.log
        if self.n <= thresholds.LARGEST:
            return self._determinant_of_factors()
        if not correction <= thresholds.TRUSTED:
            self._refuse()
        if self.owner and correction > thresholds.NOTICEABLE:
            error = thresholds.LOGARITHM_PER_CORRECTION * correction
            text = f"the logarithm may be off by about {error:.1g}, as leading sections are ill-conditioned"
            warn_caller(f"{self.owner}: {text}", scipy.linalg.LinAlgWarning)
        return found.sign, found.log

    def _determinant_of_factors(self) -> tuple[Any, float]:
        try:
            return self.factors.slogdet()
        except np.linalg.LinAlgError:
            if self.band:  # of which the last pivot may have been too small for a number
                self._warn_of_condition(math.inf)
            return 0.0, -math.inf


def _extreme_exponents(sizes: Any) -> NDArray[Any]:
    """Return exponents of two by which numbers of extreme size are divided; zeros for others."""
    exponents = np.frexp(np.where(np.isfinite(sizes), sizes, 1.0))[1]
    return np.where(np.abs(exponents) > thresholds.ORDINARY_EXPONENT, exponents, 0)


def _with_shortest_y(v: NDArray[Any]) -> NDArray[Any]:
    """Return x and y less the multiple of x that makes y shortest: it changes the free entry s alone."""
    x, y = v
    return np.array([x, y - np.vdot(x, y) / np.vdot(x, x) * x])


def _scaled(v: NDArray[Any], exponents: Any) -> NDArray[Any]:
    """Return a vector, or rows, times powers of two that may be beyond the range of numbers."""
    parts = np.ascontiguousarray(v).view(v.real.dtype)
    with np.errstate(over="ignore", under="ignore"):
        scaled: NDArray[Any] = np.ldexp(parts, exponents).view(v.dtype)
    return scaled
