"""One Toeplitz matrix: which way its systems are solved, and when an inverse or a determinant is accepted.

Small matrices are eliminated, and narrow bands too. Of others the fastest way is tried first. For a few right-hand
sides that is a compiled recursion, or products with an inverse by blocks; for large matrices iteration; for many
right-hand sides the inverse. A solution is accepted if its backward error is at the level of rounding in every row;
where none is, and where rows differ so much that transforms would hide some, the matrix is eliminated as long as it can
be written out.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.arithmetic import times_power_of_two
from structmat._arrays.namespaces import numpy_namespace
from structmat._fourier.embedding import fast_length, kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._fourier.spectra import spectrum
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.acceptance import AcceptedSystem, Determinant, too_large_to_be_written_out
from structmat._toeplitz_systems.accuracy_warnings import warn_of_lost_digits
from structmat._toeplitz_systems.elimination import (
    TriangularFactors,
    band_factors,
    dense_factors,
    dense_matrix,
    uneven_vector,
)
from structmat._toeplitz_systems.inverse import Bezoutian, bezoutian, with_shortest_y
from structmat._toeplitz_systems.levinson import levinson, solve_by_recursion
from structmat._toeplitz_systems.recursion_by_blocks import vectors_by_blocks
from structmat._toeplitz_systems.refinement import corrected_by_itself, refined_to_the_last_digit
from structmat._toeplitz_systems.scaling import extreme_exponents, is_ordinary
from structmat._toeplitz_systems.strang_preconditioner import solve_by_iteration
from structmat._toeplitz_systems.triangular import TriangularSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_EPS = float(np.finfo(float).eps)
"""The machine epsilon of double precision, in which everything is computed."""


@lru_cache(maxsize=16)
def _gaussian_window(n: int) -> tuple[NDArray[Any], int]:
    """Return the window on n diagonals and the length of its transform; kept, as they take 4 of the 12 us for 200."""
    window = np.exp(-((thresholds.WINDOW / n * np.arange(n)) ** 2))
    window.flags.writeable = False
    return window, fast_length(2 * n - 1)


class ToeplitzSystem(AcceptedSystem):
    """Systems with a Toeplitz matrix T of first column `c` and first row `r`; its parts are computed when needed.

    Warnings are given on behalf of the method `owner`, if any. A `ready` system is for many right-hand sides, one after
    the other, so that it is worth computing the inverse. T is scaled by a power of two, so that very large and very
    small numbers neither overflow nor underflow.
    """

    def __init__(self, c: NDArray[Any], r: NDArray[Any], owner: str | None = None, *, ready: bool = False) -> None:
        super().__init__(len(c), c.dtype, owner, ready=ready)
        self._iteration_fails = False
        wide = np.complex128 if np.iscomplexobj(c) else np.float64
        constants = np.concatenate((r[:0:-1], c), dtype=wide)
        largest = float(np.abs(constants).max())
        self.is_finite = math.isfinite(largest)
        self.exponent = 0 if is_ordinary(largest) or not self.is_finite else int(extreme_exponents(largest))
        self.largest = math.ldexp(largest, -self.exponent)
        """The largest modulus of an entry, after T was scaled."""
        if self.exponent:
            constants = times_power_of_two(constants, -self.exponent, numpy_namespace)
        self.constants = constants
        """The diagonals, from the upper right corner to the lower left one."""
        self.c = self.constants[self.n - 1 :]
        self.r = self.constants[: self.n][::-1]

    # Properties of the matrix

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
        sums: NDArray[Any] = np.cumsum(np.abs(self.constants))
        row_sums = sums[self.n - 1 :].copy()
        row_sums[1:] -= sums[: self.n - 1]
        return row_sums

    @cached_property
    def norm(self) -> Any:
        """The largest of these sums: the infinity norm of T, which is its 1-norm too."""
        return np.abs(self._central_diagonals()).sum() if self.band else super().norm

    @cached_property
    def is_uneven(self) -> bool:
        """Whether the entries of some rows are so small that rounding errors of transforms would hide them."""
        return bool(np.min(self.row_sums) < thresholds.UNEVEN * np.sum(np.abs(self.constants)))

    @cached_property
    def band(self) -> tuple[int, int] | None:
        """How far nonzero diagonals extend below and above the main one, for a large matrix with few of them."""
        if self.n <= thresholds.BANDED or self.constants[0] or self.constants[-1]:
            return None
        near = thresholds.BAND + 1
        if self.c[near:].any() or self.r[near:].any():
            return None
        below, above = (max(v[:near].nonzero()[0].tolist(), default=0) for v in (self.c, self.r))
        return (below, above) if below + above <= thresholds.BAND else None

    def _central_diagonals(self) -> NDArray[Any]:
        """Return the diagonals of the band, all of them where there is none."""
        below, above = self.band or (self.n - 1, self.n - 1)
        return self.constants[self.n - 1 - above : self.n + below]

    @cached_property
    def triangle(self) -> TriangularSystem | None:
        """The systems with the matrix if it is large and triangular, and no band."""
        if self.n <= thresholds.DENSE or self.band or (self.c[-1] and self.r[-1]):  # the last ones mostly tell
            return None
        if np.any(self.c[1:]) and np.any(self.r[1:]):
            return None
        if not self.c[0]:
            raise self._singular()
        is_upper = bool(np.any(self.r[1:]))
        return TriangularSystem(self.r if is_upper else self.c, is_upper=is_upper)

    def _eliminated(self) -> TriangularFactors | None:
        """Return the triangular factors of the matrix, of its band if it has one."""
        if self.band:
            rounding = self.eps * self.norm
            return band_factors(self._central_diagonals(), self.band, self.n, norm=self.norm, rounding=rounding)
        return dense_factors(dense_matrix(self.constants))

    @cached_property
    def is_hermitian(self) -> bool:
        """Whether T is its own adjoint."""
        return bool((self.c == (self.r.conj() if self.r.dtype.kind == "c" else self.r)).all())

    @cached_property
    def least_eigenvalue(self) -> float:
        """A lower bound of the eigenvalues of a Hermitian T: of a larger circulant with T in its corner. Else zero."""
        if self.n <= thresholds.DENSE or not self.is_hermitian:
            return 0.0
        column = kernel_of_diagonals(self.c, self.r[1:], numpy_namespace)
        eigenvalues: Any = spectrum(column, numpy_namespace, real=not np.iscomplexobj(column))
        return max(0.0, float(eigenvalues.real.min()))

    @cached_property
    def is_numerically_singular(self) -> bool:
        """Whether T is large, Hermitian, and singular but for rounding, as the matrix of a smooth kernel is.

        The spectrum of its diagonals under a Gaussian window has Rayleigh quotients of T, since the window is the
        autocorrelation of another one. Their least is an upper bound of the least eigenvalue, up to rounding, which
        smooth symbols come close to: for the kernels of the tests it is 1 to 4 times that. Small residuals tell nothing
        here: with 129 to 2,000 points of a Gaussian kernel without noise, recursions left errors of 1e3 to 5e4 beside a
        smooth solution, and elimination leaves 1 to 5.
        """
        if self.n <= thresholds.DENSE or not self.is_hermitian:
            return False
        window, length = _gaussian_window(self.n)
        windowed = self.c * window
        transform = np.fft.fft if windowed.dtype.kind == "c" else np.fft.rfft
        least = abs(2 * transform(windowed, length).real.min() - windowed[0].real)
        return bool(least <= max(self.eps, thresholds.ZERO_QUOTIENT * _EPS) * self.norm)

    def _largest_correction(self, errors: Any) -> Any:
        least = self.least_eigenvalue
        return math.sqrt(self.n) * self.norm * errors / least if least else super()._largest_correction(errors)

    @cached_property
    def is_led_by_diagonal(self) -> bool:
        """Whether no diagonal is larger than the main one, as in definite matrices, where recursions are accurate."""
        return bool(abs(self.c[0]) >= self.largest)

    @cached_property
    def rough_inverse(self) -> Bezoutian:
        """The same by vectors that are not corrected."""
        with np.errstate(all="ignore"):
            x, y = self.rough_vectors
            return bezoutian(x, y, numpy_namespace)

    @cached_property
    def inverse(self) -> Bezoutian:
        """The products with the inverse, by its two vectors."""
        x, y = self.vectors
        return bezoutian(x, y, numpy_namespace)

    # Solutions

    def _solve_rows(self, b: NDArray[Any]) -> NDArray[Any]:
        if self.triangle:
            x = self.triangle.solve(b)
            if np.isnan(x).any():
                raise self._singular()
        elif self.band or (self.is_numerically_singular and self.n <= thresholds.LARGEST):
            x = self._solve_by_elimination(b)
        elif (quick := self._solve_quickly(b)) is not None:
            if self.eps == _EPS:  # they are too short for a warning
                return quick
            x = quick
        else:
            x = super()._solve_rows(b)
            if self.is_numerically_singular:
                self._warn_of_condition(1 / self.eps)
            return x
        self._warn_of_growth(x, b)
        return x

    def _solve_quickly(self, b: NDArray[Any]) -> NDArray[Any] | None:
        """Return solutions for a few right-hand sides by the fastest way, or None where it is not accurate."""
        if not thresholds.LEAST_QUICK <= self.n <= thresholds.MOST_QUICK or len(b) > thresholds.FEW or self.ready:
            return None
        if self.n <= thresholds.DENSE and self.eps > _EPS:  # where elimination tells the condition of single precision
            return None
        if self.is_led_by_diagonal or self.n < thresholds.BY_BLOCKS:
            solver = partial(solve_by_recursion, self.constants)
        else:
            solver = partial(self.rough_inverse.apply, xp=numpy_namespace)
        x = np.empty_like(b)
        with np.errstate(all="ignore"):
            if self.n <= thresholds.DENSE and self._may_be_ill_conditioned(solver):
                return None
            for row, right in zip(x, b, strict=True):
                row[:] = solver(right)
                if not self._becomes_exact(row, right, solver, self._product_by_sums):
                    return None
        return x

    def _may_be_ill_conditioned(self, solver: Callable[..., Any]) -> bool:
        """Tell whether elimination has to say what the condition is, by the solution for a vector without any pattern.

        The right-hand side of a smooth solution does not show it: a Gaussian kernel of 100 points without noise left a
        residual at the level of rounding and an error of 1e4, where that of LAPACK is 1.
        """
        v = uneven_vector(self.n).astype(self.constants.dtype)
        growth = self.norm * np.abs(solver(v)).max() / np.abs(v).max()
        return not growth * thresholds.FAR <= 1 / _EPS

    def _product_by_sums(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the product with one vector, in which nothing of small rows is hidden.

        With 1,024 rows it takes 114 microseconds: all that transforms need made such a system take 1.23 times as long
        as SciPy, and sums 1.12.
        """
        return np.convolve(self.constants, x, "valid")

    def _ways(self, count: int) -> list[tuple[str, float | None, Callable[[NDArray[Any]], Any]]]:
        """Return ways to solve `count` systems: iteration, what two vectors of the inverse tell, and elimination."""
        n = self.n
        is_iterated = count <= thresholds.FEW and not self.ready and n >= thresholds.LONG
        is_eliminated = n <= thresholds.LARGEST
        return [
            ("iteration", thresholds.GMRES_STEPS if is_iterated else None, self._solve_by_iteration),
            ("inverse", n, lambda b: self.rough_inverse.apply(b, numpy_namespace)),
            ("corrected inverse", 2 * n, self._solve_by_corrected_inverse),
            ("elimination", n**2 if is_eliminated else None, self._solve_by_elimination),
            ("recursion", None if is_eliminated else n * count + 2 * n, self._solve_by_recursion),
        ]

    def _solve_by_corrected_inverse(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by the inverse, whose vectors are corrected; NaN where these cannot be trusted."""
        inverse = None
        if self._is_eliminated_soon or self._vectors_by_themselves[1] <= thresholds.TRUSTED:
            with suppress(np.linalg.LinAlgError):
                inverse = self.inverse
        x: NDArray[Any] = np.full_like(b, np.nan) if inverse is None else inverse.apply(b, numpy_namespace)
        return x

    def _solve_by_recursion(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by a recursion; they are NaN where a leading section is singular."""
        return solve_by_recursion(self.constants, b)

    def _solve_by_iteration(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by iteration; they are NaN where it fails, and in all later calls, which do not try it."""
        if self._iteration_fails:
            return np.full_like(b, np.nan)
        x = solve_by_iteration(self.c, self.r, lambda v: self.plan.apply(v, numpy_namespace), b)
        self._iteration_fails = not np.all(np.isfinite(x))
        return x

    # The inverse

    @cached_property
    def vectors(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])`` with the s for which the norm of y is least.

        Errors of the formula of the inverse are eps times the product of both norms, and for another s this product may
        be larger by the condition of T. Where a correction is not small, both vectors are refined by residuals of a
        higher precision, since the formula needs more digits of them than a solution has.
        """
        right_hand_sides = self._right_hand_sides()
        if self.triangle:
            x, y = with_shortest_y(self.triangle.solve(right_hand_sides))
            return x, y
        v, correction = self._vectors_by_themselves
        with np.errstate(all="ignore"):
            if not correction <= thresholds.TRUSTED or (self._is_eliminated_soon and self.is_uneven):
                if not (self.band or self.is_eliminated_at_last):
                    raise self._refusal()
                v = self._refined_vectors(right_hand_sides)
        if not np.all(np.isfinite(v)):
            raise self._singular()
        return v[0], v[1]

    @cached_property
    def _vectors_by_themselves(self) -> tuple[NDArray[Any], float]:
        """Both vectors, corrected by the inverse that they determine, and the last relative correction."""
        with np.errstate(all="ignore"):
            v, _, correction = corrected_by_itself(self._corrected, self.rough_vectors)
        return v, correction

    @property
    def _is_eliminated_soon(self) -> bool:
        """Whether elimination takes so little that it serves where another way is not accurate to rounding."""
        return self.n <= thresholds.LARGEST or self.band is not None

    @cached_property
    def rough_vectors(self) -> NDArray[Any]:
        """Both vectors by the fastest way."""
        if self.n >= thresholds.BY_BLOCKS and (self.n < thresholds.LONG or self._iteration_fails):
            return vectors_by_blocks(self.constants)
        right_hand_sides = self._right_hand_sides()
        if self.n <= thresholds.DENSE or self.band:
            return self._solve_by_elimination(right_hand_sides)
        if self.n >= thresholds.LONG:
            v = self._solve_by_iteration(right_hand_sides)
            return vectors_by_blocks(self.constants) if self._iteration_fails else v
        return self._solve_by_recursion(right_hand_sides)

    def _right_hand_sides(self) -> NDArray[Any]:
        """Return the right-hand sides of the systems of both vectors, with zero for the entry s, which is free."""
        right_hand_sides = np.zeros((2, self.n), self.constants.dtype)
        right_hand_sides[0, 0] = 1
        right_hand_sides[1, 1:] = self.r[:0:-1]
        return right_hand_sides

    def _corrected(self, v: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Return both vectors after one correction by the inverse that they determine, and the relative correction."""
        v = with_shortest_y(v)
        if not np.all(np.isfinite(v)):
            return v, math.inf
        residuals = self._right_hand_sides() - self._product(v)
        residuals[1, 0] = 0  # since any number s is right
        x, y = v
        correction: Any = bezoutian(x, y, numpy_namespace).apply(residuals, numpy_namespace)
        norms = np.linalg.norm(v, axis=-1)
        relative = np.linalg.norm(correction, axis=-1) / np.where(norms > 0, norms, 1)
        return with_shortest_y(v + correction), float(np.max(relative))

    def _refined_vectors(self, right_hand_sides: NDArray[Any]) -> NDArray[Any]:
        """Return both vectors by elimination, with residuals in extended precision where the machine has it."""
        extended = np.clongdouble if np.iscomplexobj(right_hand_sides) else np.longdouble
        above = self.band[1] if self.band else self.n - 1
        t = self._central_diagonals().astype(extended)

        def residuals(v: NDArray[Any]) -> Any:
            products = np.array([np.convolve(t, each)[above : above + self.n] for each in v])
            left = (right_hand_sides - products).astype(right_hand_sides.dtype)
            left[1, 0] = 0
            return left

        v = self._solve_by_elimination(right_hand_sides).astype(extended)
        solve, xp = self._solve_by_elimination, numpy_namespace
        v = refined_to_the_last_digit(solve, residuals, v, xp, adjusted=with_shortest_y)
        return v.astype(right_hand_sides.dtype)

    def _refusal(self) -> np.linalg.LinAlgError:
        """Return the error for a large matrix for which no way is accurate but elimination."""
        text = "is too ill-conditioned, or its leading sections are, for recursions, and"
        return np.linalg.LinAlgError(f"{self.owner}: the matrix {text} {too_large_to_be_written_out()}")

    def inverse_vectors(self, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return `vectors` in a dtype, of the matrix before it was scaled; they are NaN if it is not finite.

        There is a warning if products with the inverse in that dtype are far less accurate than solutions.
        """
        if not self.is_finite:
            return (np.full(self.n, np.nan, dtype),) * 2
        x, y = (v.astype(dtype) for v in self.vectors)
        norm_x, norm_y = (float(np.sum(np.abs(v))) for v in (x, y))
        most_lost = self.eps * norm_x * (1 + 2 * norm_y) * self.norm
        if self.owner and not most_lost <= thresholds.LOSSLESS * self.eps:
            self._warn_of_lost_digits(x, y, self.owner)
        return times_power_of_two(x, -self.exponent, numpy_namespace), y

    def _warn_of_lost_digits(self, x: NDArray[Any], y: NDArray[Any], owner: str) -> None:
        """Warn if the product of the inverse with one vector is far less accurate than the solution for it."""
        double_precision = self.constants.dtype
        v = uneven_vector(self.n).astype(x.dtype)
        if self.n <= thresholds.LARGEST:
            b = np.convolve(self.constants, v.astype(double_precision), "valid")
        else:
            b = self._product(v.astype(double_precision))
        b = b.astype(x.dtype)
        by_inverse: Any = bezoutian(x, y, numpy_namespace).apply(b, numpy_namespace)
        by_solving = self._solve_rows(b[None].astype(double_precision))[0]
        lost, best = (float(np.linalg.norm(z - v)) / float(np.linalg.norm(v)) for z in (by_inverse, by_solving))
        if not lost <= thresholds.LOSSY * max(best, self.eps / 2):
            warn_of_lost_digits(lost, owner)

    # The determinant

    def slogdet(self, *, with_error: bool = False) -> tuple[Any, float, float]:
        """Return the phase of the determinant, zero where T is singular, and the logarithm of its absolute value.

        The third number is, if it is asked for, how far off the logarithm may be beside the rounding of its last sum.
        """
        if not self.is_finite:
            return math.nan, math.nan, math.nan
        if not (np.any(self.c[1:]) and np.any(self.r[1:])):
            found = self._determinant_of_triangle()
        elif self.n <= thresholds.DENSE or self.band:
            found = self._determinant_of_factors()
        else:
            found = self._determinant_by_recursion()
        sign = found.sign
        if self.is_hermitian or not np.iscomplexobj(self.constants):
            sign = float(np.sign(np.real(sign)))
        log = found.log + self.n * self.exponent * math.log(2) if sign else -math.inf
        return sign, log, self._error_of(found, self.largest) if with_error else 0.0

    def _determinant_of_triangle(self) -> Determinant:
        modulus = abs(self.c[0])
        if not modulus:
            return Determinant(0.0, -math.inf)
        return Determinant((self.c[0] / modulus) ** self.n, self.n * math.log(modulus))

    def _determinant_by_recursion(self) -> Determinant:
        """Return the determinant by Levinson's recursion, or of the factors where these are more accurate."""
        with np.errstate(all="ignore"):
            recursion = levinson(self.c, self.r)
            vectors, correction = self._corrected(np.array([recursion.x, recursion.y]))
        is_trusted = correction <= (thresholds.TRUSTED if recursion.is_definite else thresholds.TRUSTED_LOGARITHM)
        is_rough = correction <= thresholds.TRUSTED
        if not is_trusted:
            if self.n <= thresholds.LARGEST or (self.is_eliminated_at_last and not is_rough):
                return self._determinant_of_factors()
            if not is_rough:
                raise self._refusal()
            self._warn_of_logarithm(correction)
        lost = self._lost_by_recursion(correction, is_definite=recursion.is_definite)

        def inverse(rows: NDArray[Any]) -> Any:
            x, y = vectors
            return bezoutian(x, y, numpy_namespace).apply(rows, numpy_namespace)

        return Determinant(recursion.sign, recursion.log, inverse, lost)

    def _determinant_of_factors(self) -> Determinant:
        found = super()._determinant_of_factors()
        if self.band and not found.sign:  # whose last pivot may be zero only because it was too small for a number
            self._warn_of_condition(math.inf)
        return found
