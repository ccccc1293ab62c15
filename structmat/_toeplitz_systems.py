"""Toeplitz systems: recursions and iterations with NumPy, accepted by their residual, and arrays of any library.

One matrix is a `ToeplitzSystem`. `solutions`, `inverse_vectors` and `schur`, which finds reflection coefficients and
Cholesky factors, take stacks of any library, and have derivatives.
"""

from __future__ import annotations

import math
import operator
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.arithmetic import conjugate, quotient, real_part
from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, library_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import broadcast_shapes, concat_last, reversed_cyclically
from structmat._arrays.tracing import untraced
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError, warn_caller
from structmat._fourier.embedding import fast_length, kernel_of_diagonals
from structmat._fourier.engines import PLAIN
from structmat._fourier.plans import Convolution, PlanByMethod, cut_off, reversal
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._fourier.steps import Step
from structmat._fourier.transforms import transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class Bezoutian(PlanByMethod):
    """The sum of two products, each of a lower and an upper triangular Toeplitz matrix, by their spectra."""

    _core_axes = {"lower_x": 1, "upper_x": 1, "lower_y": 1, "upper_y": 1}

    lower_x: Any
    upper_x: Any
    """Half spectra (`real`) or full spectra of the first product."""
    lower_y: Any
    upper_y: Any
    """Those of the second one."""
    n: int
    length: int
    """The length of transforms, at least 2 n - 1."""
    is_real: bool
    flips: tuple[bool, bool]
    """Whether the rows and the columns are in reverse order."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def cost(self) -> float:
        return 3.0 * self.length  # six transforms, where a convolution has two

    def _by(self, method: str, xp: Namespace) -> Step:
        forward, backward = transforms(PLAIN.get(method, method), self.length, xp, real=self.is_real)
        in_place = is_numpy(xp) and not self.is_stack
        times: Any = operator.imul if in_place else operator.mul
        plus: Any = operator.iadd if in_place else operator.add
        n, (flipped_rows, flipped_cols), reverse = self.n, self.flips, reversal(xp)

        def product(x: Any, out: Any = None) -> Any:
            X = forward(reverse(x) if flipped_cols else x)
            total = times(forward(backward(X * self.upper_x)[..., :n]), self.lower_x)
            X = times(forward(backward(times(X, self.upper_y))[..., :n]), self.lower_y)
            y = backward(plus(total, X))[..., :n]
            y = reverse(y) if flipped_rows else y
            return cut_off(y, out) if in_place else y

        return Step(product, writes=in_place)


def bezoutian(x: Array, y: Array, xp: Namespace, *, flips: tuple[bool, bool] = (False, False)) -> Bezoutian:
    """Return the plan of the matrix ``L(x) U(1, -y[n-1], ..., -y[1]) + L(y) U(0, x[n-1], ..., x[1])``.

    L and U are the lower and upper triangular Toeplitz matrices with that first column and first row.
    """
    n, real = x.shape[-1], not is_complex(x.dtype, xp)
    length = fast_length(2 * n - 1)

    def upper(first: float, tail: Array) -> Array:
        """Return the first column of the circulant that has U in its corner."""
        one = xp.full(1, first, dtype=tail.dtype, device=device_of(tail))
        gap = xp.zeros(length - n, dtype=tail.dtype, device=device_of(tail))
        return concat_last([one, gap, tail], xp)

    vectors = (x, upper(1.0, -y[..., 1:]), y, upper(0.0, x[..., 1:]))
    a, b, c, d = (spectrum(v, xp, real=real, n=length) for v in vectors)
    return Bezoutian(a, b, c, d, n, length, real, flips)


def central_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the diagonals near the main one, of those that lie as far from it their mean."""
    n = lower.shape[-1]
    k = xp.arange(n, device=device_of(lower))
    return xp.where(2 * k == n, lower / 2 + wrapped / 2, xp.where(2 * k < n, lower, wrapped))


class Recursion(NamedTuple):
    """What Levinson's recursion finds of a Toeplitz matrix."""

    x: NDArray[Any]
    """``T x = e_0``; NaN where a leading section is singular."""
    y: NDArray[Any]
    """``T y = (s, t[1 - n], ..., t[-1])`` with some s, NaN alike."""
    sign: complex
    """The phase of the determinant."""
    log: float
    """The logarithm of its absolute value."""
    is_definite: bool
    """Whether T is Hermitian and definite: no leading section is worse conditioned than T then."""


def levinson(c: NDArray[Any], r: NDArray[Any]) -> Recursion:
    """Return what determines inverse and determinant by Levinson's recursion [1]_, of first column and first row.

    Leading sections must be well conditioned. The sections of size m have ``T_m a = rho e_0`` and
    ``T_m b = rho e_{m-1}`` with ``a[0] = b[m-1] = 1``; the product of all rho is the determinant. Of a Hermitian or
    symmetric matrix b is a in reverse order, conjugated or not.

    References
    ----------
    .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 4.7, 2013.
    """
    n = len(c)
    symmetric, hermitian = np.array_equal(c[1:], r[1:]), np.array_equal(c, np.append(c[:1], r[1:]).conj())
    backwards = np.ascontiguousarray(c[::-1])  # t[n-1], ..., t[0]
    # a grows from the front of its array, b from the end.
    a, b, shifted = (np.zeros(n, c.dtype) for _ in range(3))
    a[0] = b[-1] = 1
    rho = c[0]
    sign, log, is_definite = np.ones((), c.dtype)[()], 0.0, hermitian
    with np.errstate(all="ignore"):
        for m in range(1, n + 1):
            size = abs(rho)
            if not 0 < size < np.inf:
                return Recursion(np.full(n, np.nan), np.full(n, np.nan), 0j, -np.inf, is_definite=False)
            sign *= rho / size
            log += float(np.log(size))
            if m == n:
                break
            below = (backwards[n - 1 - m : n - 1] @ a[:m]) / rho
            if symmetric or hermitian:
                above = below if symmetric else below.conjugate()
                mirrored = a[m::-1] if symmetric else a[m::-1].conj()  # b moved down by one, with zero in front
                np.multiply(mirrored, below, out=shifted[: m + 1])
                a[: m + 1] -= shifted[: m + 1]
            else:
                above = (r[1 : m + 1] @ b[n - m :]) / rho
                front, back = a[: m + 1], b[n - m - 1 :]
                np.multiply(front, above, out=shifted[: m + 1])
                front -= below * back
                back -= shifted[: m + 1]
            ratio = 1 - below * above
            is_definite = is_definite and ratio.real > 0
            rho *= ratio
        if symmetric or hermitian:
            b = a[::-1] if symmetric else a[::-1].conj()
        return Recursion(a / rho, -np.append(np.zeros(1, c.dtype), b[:-1]), complex(sign), log, is_definite)


BAND = 32
"""The most diagonals beside the main one that are eliminated as a band: no other way is faster, or more accurate."""

DENSE = 128
"""Up to this size elimination of the dense matrix is as fast as the recursions."""

LONG = 1024
"""From this size on iteration is tried before a recursion."""

LARGEST = 4096
"""The largest matrix that is written out where nothing else is accurate: 128 MiB, about a second."""

FEW = 2
"""Up to so many right-hand sides are solved one by one; more of them share the inverse."""

STEPS = 25
"""Of GMRES: a matrix with a smooth symbol needs fewer, and for others a recursion costs no more."""

ROUGH = 1e-8
"""The largest relative residual that is left, with a warning, where no way reaches a smaller one.

A Gaussian kernel of 300 points without noise, which is singular to working precision, leaves 1e-5 to 1e-2 where it may
not be eliminated, by the rounding of the machine: that is an error on all of them.
"""

LONG_SOLUTION = 1e-6
"""The size of a solution, relative to the largest that double precision has for a matrix, above which residuals are
measured by the right-hand side: beside a solution of any size any residual would be small."""

UNEVEN = 5e-3
"""Of rows: transforms leave an error of eps times the sum of all diagonals in each."""

TRUSTED = 1e-8
"""The relative correction of the vectors of an inverse up to which the corrected ones are taken."""

TRUSTED_LOGARITHM = 1e-13
"""That up to which the logarithm of a recursion is taken, which has no correction, unless the matrix is definite.

Of 36 random indefinite and general matrices of 129 to 513 rows the logarithm was off by 0.1 to 17 times the correction,
up to 4e-8, and that of LAPACK by 1e-15 to 2e-12. Of definite ones recursion and LAPACK were off alike.
"""

NOTICEABLE = 1e-10
"""The relative correction from which a logarithm that nothing more accurate is found for comes with a warning."""


@cache
def _lapack(dtype: Any) -> Any:
    return scipy.linalg.get_lapack_funcs(("getrf", "getrs", "gecon", "gbtrf", "gbtrs"), dtype=dtype)


class Factors(NamedTuple):
    """Triangular factors by LAPACK."""

    diagonal: NDArray[Any]
    """That of the upper one."""
    pivots: NDArray[Any]
    systems: Callable[..., Any]
    """Solves systems with the matrix, or with its adjoint (`trans` of 2)."""

    def size_of_inverse(self) -> float:
        """Return a lower bound of the 1-norm of the inverse, mostly near it, by two systems: a step of Hager's method.

        For bands LAPACK's own takes O(n^2) where they are ill-conditioned.
        """
        v = _uneven(len(self.diagonal))
        with np.errstate(all="ignore"):
            x, _ = self.systems(b=v)
            z, _ = self.systems(b=np.where(x == 0, 1, x / np.abs(x)), trans=2)
            sizes = np.append(np.abs(z), np.sum(np.abs(x)) / np.sum(np.abs(v)))
        return float(np.max(np.where(np.isnan(sizes), np.inf, sizes)))


class ToeplitzSystem:
    """What solves systems with a Toeplitz matrix T of first column `c` and first row `r`, its parts made when needed.

    Warnings are given on behalf of the method `owner`, if any. What is `ready` is for many right-hand sides, one after
    the other, so that the inverse is worth its making. T is scaled by a power of two, so that numbers of any size are
    as good as others.
    """

    def __init__(self, c: NDArray[Any], r: NDArray[Any], owner: str | None = None, *, ready: bool = False) -> None:
        self.owner, self.n, self.ready = owner, len(c), ready
        self._has_warned = self._iteration_fails = False
        self.eps = float(np.finfo(c.dtype).eps)
        wide = np.complex128 if np.iscomplexobj(c) else np.float64
        constants = np.append(r[:0:-1], c).astype(wide)
        size = float(np.max(np.abs(constants)))
        self.is_finite = math.isfinite(size)
        self.exponent = int(_exponents(size)) if self.is_finite else 0
        self.constants = _scaled(constants, -self.exponent) if self.exponent else constants
        """The diagonals, from the upper right corner to the lower left one."""
        self.c, self.r = self.constants[self.n - 1 :], self.constants[: self.n][::-1]

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
        """The largest of these sums, which is as large as that of the columns."""
        return np.max(self.row_sums)

    @cached_property
    def is_uneven(self) -> bool:
        """Whether some rows are so small that the rounding errors of transforms would hide what they say."""
        return bool(np.min(self.row_sums) < UNEVEN * np.sum(np.abs(self.constants)))

    @cached_property
    def band(self) -> tuple[int, int] | None:
        """How many diagonals below and above the main one hold anything, where a large matrix has few of them."""
        if self.n <= DENSE or self.constants[0] or self.constants[-1]:
            return None
        below, above = (int(np.max(np.flatnonzero(v), initial=0)) for v in (self.c, self.r))
        return (below, above) if below + above <= BAND else None

    @cached_property
    def factors(self) -> Factors:
        """The triangular factors of the matrix, of its band where it is one."""
        getrf, getrs, gecon, gbtrf, gbtrs = _lapack(self.constants.dtype)
        if self.band:
            below, above = self.band
            stored = np.zeros((2 * below + above + 1, self.n), self.constants.dtype, order="F")
            stored[below:] = self.constants[self.n - 1 - above : self.n + below, None]
            found, pivots, info = gbtrf(stored, below, above, overwrite_ab=True)
            if info == self.n:
                # Whether the last pivot of a singular band is zero or as small as rounding depends on the machine.
                found[below + above, -1] = self.eps * self.norm
                info = 0
            factors = Factors(found[below + above], pivots, partial(gbtrs, found, below, above, ipiv=pivots))
        else:
            found, pivots, info = getrf(self.dense)
            factors = Factors(np.diagonal(found), pivots, partial(getrs, found, pivots))
        if info:
            raise self._singular()
        condition = self.norm * factors.size_of_inverse() if self.band else 1 / max(gecon(found, self.norm)[0], 1e-300)
        if not condition <= 1 / self.eps:
            self._warn_of_condition(condition)
        return factors

    def _singular(self) -> np.linalg.LinAlgError:
        return np.linalg.LinAlgError(f"{self.owner}: the matrix is singular to working precision")

    @cached_property
    def inverse(self) -> Bezoutian:
        """The products with the inverse, by its two vectors."""
        x, y = self.vectors
        return bezoutian(x, y, numpy_namespace)

    def _warn_of_condition(self, value: float) -> None:
        if self.owner and not self._has_warned:
            self._has_warned = True
            text = f"{self.owner}: the matrix is ill-conditioned (about {value:.1g}); the result may be inaccurate"
            warn_caller(text, scipy.linalg.LinAlgWarning)

    # Solutions

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return x with ``T x = b`` along the last axis, in double precision; NaN where b or T is not finite.

        A matrix that is singular to working precision is an error, or too large to be written out and not solved else.
        """
        if np.iscomplexobj(b) and not np.iscomplexobj(self.constants):
            return self.solve(b.real) + 1j * self.solve(b.imag)
        if not b.size:
            return b.astype(self.constants.dtype)
        rows = b.reshape(-1, self.n).astype(self.constants.dtype)
        sizes = np.max(np.abs(rows), axis=-1, keepdims=True, initial=0.0)
        known = np.isfinite(sizes[:, 0]) & self.is_finite
        exponents = _exponents(sizes)
        if np.all(known) and not (self.exponent or np.any(exponents)):
            return self._solved(rows).reshape(b.shape)
        x = np.full(rows.shape, np.nan, rows.dtype)
        if np.any(known):
            solved = self._solved(_scaled(rows, -exponents)[known])
            x[known] = _scaled(solved, exponents[known] - self.exponent)
        return x.reshape(b.shape)

    def _solved(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions for rows of numbers of ordinary size."""
        if self.n <= DENSE or (self.n <= LARGEST and self.is_uneven):
            return self._eliminated(b)
        x = self._eliminated(b) if self.band else self._chosen(b)
        sizes = np.max(np.abs(b), axis=-1)
        growth = self.norm * np.max(np.max(np.abs(x), axis=-1) / np.where(sizes > 0, sizes, 1))
        if not growth <= 1 / self.eps:  # a lower bound of the condition number
            self._warn_of_condition(float(growth))
        return x

    def _chosen(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the solutions with the smallest residuals, of the first that do if they are small enough."""
        if not np.all(self.row_sums):
            raise self._singular()
        allowed = 4 * np.finfo(float).eps * math.sqrt(self.n)
        x, errors, left = np.zeros_like(b), np.full(len(b), np.inf), np.arange(len(b))
        for solver in self._solvers(len(b)):
            found, error = self._refined(solver, b[left], allowed)
            better = error < errors[left]
            x[left[better]], errors[left[better]] = found[better], error[better]
            left = left[errors[left] > allowed]
            if not len(left):
                break
        if len(left) and self.n > LARGEST:
            rest = b[left] - self._product(x[left])
            most = float(np.max(np.linalg.norm(rest, axis=-1) / np.linalg.norm(b[left], axis=-1)))
            text = f"{self.owner}: the matrix is ill-conditioned; a relative residual of {most:.1g} is left"
            if not most <= ROUGH:
                raise np.linalg.LinAlgError(f"{text}, and the matrix is too large to be written out")
            if self.owner:
                warn_caller(text, scipy.linalg.LinAlgWarning)
        return x

    def _solvers(self, count: int) -> Iterator[Callable[[NDArray[Any]], Any]]:
        """Yield what solves systems, more or less exactly: the fastest first."""
        if count <= FEW and not self.ready:
            if self.n >= LONG:
                yield self._iterated
            yield self._recursed
        with suppress(np.linalg.LinAlgError):
            self.inverse  # noqa: B018  # which is made here
            yield lambda b: self.inverse.apply(b, numpy_namespace)
        yield self._eliminated if self.n <= LARGEST else self._recursed

    def _refined(
        self, solver: Callable[[NDArray[Any]], Any], b: NDArray[Any], allowed: float
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return solutions, refined as long as that helps, and their backward errors."""
        with np.errstate(all="ignore"):
            x = solver(b)
            rest, errors = self._residual(x, b)
            while np.any(again := errors > allowed):
                better = x[again] + solver(rest[again])
                left, error = self._residual(better, b[again])
                helps = error < errors[again] / 2
                if not np.any(helps):
                    break
                rows = np.flatnonzero(again)[helps]
                x[rows], rest[rows], errors[rows] = better[helps], left[helps], error[helps]
            # Beside a long solution any residual is small: it is one if a correction does not change it.
            sizes = np.max(np.abs(x), axis=-1)
            most = 1e-10 / np.finfo(float).eps * np.max(np.abs(b), axis=-1) / self.norm
            if np.any(long := (errors <= allowed) & (sizes > most)):
                moved = np.max(np.abs(solver(rest[long])), axis=-1) > 0.01 * sizes[long]
                errors[long] *= np.where(moved, sizes[long] / most[long], 1)
        return x, errors

    def _residual(self, x: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the residuals, and the smallest change of T relative to its rows that makes each solution exact.

        Rows are measured each by itself: those with small entries are not hidden by large ones. Solutions that are
        larger than T lets them be are measured by `b`, or any residual would be small beside them.
        """
        rest = b - self._product(x)
        largest = np.max(np.abs(rest) / self.row_sums, axis=-1)
        most = LONG_SOLUTION / np.finfo(float).eps * np.max(np.abs(b), axis=-1) / self.norm
        errors = np.where(largest == 0, 0.0, largest / np.minimum(np.max(np.abs(x), axis=-1), most))
        return rest, np.where(np.isfinite(errors), errors, np.inf)

    def _eliminated(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by elimination of the dense matrix, or of its band."""
        return np.transpose(self.factors.systems(b=b.T)[0])

    def _refuse(self) -> None:
        text = "too ill-conditioned, or its leading sections are, for recursions, and too large to be eliminated"
        raise np.linalg.LinAlgError(f"{self.owner}: the matrix is {text}; use numpy.linalg on to_dense()")

    def _recursed(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by SciPy's recursion, which is compiled; NaN where a leading section is singular."""
        try:
            return scipy.linalg.solve_toeplitz((self.c, self.r), b.T, check_finite=False).T
        except np.linalg.LinAlgError:
            return np.full_like(b, np.nan)

    def _iterated(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return solutions by a few steps of GMRES with Strang's circulant as preconditioner [1]_, or NaN.

        References
        ----------
        .. [1] Chan, R. H., Ng, M. K., Conjugate gradient methods for Toeplitz systems, SIAM Rev. 38, 1996.
        """
        n, real = self.n, not np.iscomplexobj(self.constants)
        circulant = central_diagonals(self.c, np.append(self.c[:1], self.r[:0:-1]), numpy_namespace)
        s: Any = spectrum(circulant, numpy_namespace, real=real)
        size = np.abs(s)
        if self._iteration_fails or not size.min() > 1e-8 * size.max():  # a preconditioner no better than none
            return np.full_like(b, np.nan)

        def preconditioned(v: NDArray[Any]) -> Any:
            xp = numpy_namespace
            return from_spectrum(spectrum(v.ravel(), xp, real=real) / s, n, xp, real=real)

        make, gmres = scipy.sparse.linalg.LinearOperator, scipy.sparse.linalg.gmres
        T = make((n, n), lambda v: self._product(v.ravel()), dtype=b.dtype)
        M = make((n, n), preconditioned, dtype=b.dtype)
        found = np.full_like(b, np.nan)
        for x, row in zip(found, b, strict=True):
            x[:], _ = gmres(T, row, rtol=1e-10, restart=STEPS, maxiter=1, M=M)
            if not np.linalg.norm(row - self._product(x)) <= 1e-8 * np.linalg.norm(row):  # else it is refined
                x[:] = np.nan
                break  # the others will hardly do better
        self._iteration_fails = not np.all(np.isfinite(found))
        return found

    # The inverse and the determinant

    @cached_property
    def vectors(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])`` with the s for which y is shortest.

        The formula of the inverse loses eps times the product of their norms, which for another s may be as much larger
        as T is ill-conditioned. Where a correction is not small, both are refined by residuals of a higher precision:
        the formula needs more digits of them than a solution has.
        """
        known = self._known()
        with np.errstate(all="ignore"):
            if self.n <= DENSE or self.band:
                v = self._eliminated(known)
            elif self.n < LONG or not np.all(np.isfinite(v := self._iterated(known))):
                v = self._recursed(known)
            for _ in range(3):
                v, change = self._corrected(v, known)
                if change <= TRUSTED or not change < 1:
                    break
            if (self.n <= LARGEST or self.band) and (self.is_uneven or not change <= TRUSTED):
                v = self._refined_vectors(known)
            elif not change <= TRUSTED:
                self._refuse()
        if not np.all(np.isfinite(v)):
            raise self._singular()
        return v[0], v[1]

    def _known(self) -> NDArray[Any]:
        """Return the right-hand sides of both vectors, with zero for the entry s that is free."""
        known = np.zeros((2, self.n), self.constants.dtype)
        known[0, 0], known[1, 1:] = 1, self.r[:0:-1]
        return known

    def _corrected(self, v: NDArray[Any], known: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Return both vectors after one correction by the inverse that they make, and how large that is."""
        v = _shortened(v)
        if not np.all(np.isfinite(v)):
            return v, math.inf
        rest = known - self._product(v)
        rest[1, 0] = 0  # where any number is right
        x, y = v
        inverse = bezoutian(x, y, numpy_namespace)
        change: Any = inverse.apply(rest, numpy_namespace)
        sizes = np.linalg.norm(v, axis=-1)
        relative = np.linalg.norm(change, axis=-1) / np.where(sizes > 0, sizes, 1)
        return _shortened(v + change), float(np.max(relative))

    def _refined_vectors(self, known: NDArray[Any]) -> NDArray[Any]:
        """Return both vectors by elimination, with residuals in extended precision where the machine has it."""
        extended = np.clongdouble if np.iscomplexobj(known) else np.longdouble
        below, above = self.band or (self.n - 1, self.n - 1)
        t = self.constants[self.n - 1 - above : self.n + below].astype(extended)
        v = self._eliminated(known).astype(extended)
        for _ in range(10):
            v = _shortened(v)
            rest = known - np.array([np.convolve(t, each)[above : above + self.n] for each in v])
            rest[1, 0] = 0
            change = self._eliminated(rest.astype(known.dtype))
            v += change
            if np.all(np.max(np.abs(change), axis=-1) <= np.finfo(float).eps * np.max(np.abs(v), axis=-1)):
                break
        return _shortened(v).astype(known.dtype)

    def inverse_vectors(self, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return `vectors` for the matrix as it was given, in a dtype; NaN for one that is not finite.

        There is a warning if products with the inverse in that dtype are far less accurate than solutions.
        """
        if not self.is_finite:
            return (np.full(self.n, np.nan, dtype),) * 2
        x, y = (v.astype(dtype) for v in self.vectors)
        size_x, size_y = (float(np.sum(np.abs(v))) for v in (x, y))
        bound = self.eps * size_x * (1 + 2 * size_y) * self.norm  # of what the formula loses
        if self.owner and not bound <= 1000 * self.eps:
            self._warn_of_lost_digits(x, y)
        return _scaled(x, -self.exponent), y

    def _warn_of_lost_digits(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        wide = self.constants.dtype
        v = _uneven(self.n).astype(x.dtype)
        b = np.convolve(self.constants, v.astype(wide), "valid") if self.n <= LARGEST else self._product(v.astype(wide))
        b = b.astype(x.dtype)
        plan = bezoutian(x, y, numpy_namespace)
        found: tuple[Any, Any] = plan.apply(b, numpy_namespace), self._solved(b[None].astype(wide))[0]
        lost, best = (float(np.linalg.norm(z - v)) / float(np.linalg.norm(v)) for z in found)
        if not lost <= 300 * max(best, self.eps / 2):
            text = f"products with this inverse have relative errors of about {lost:.1g}; `solve` is more accurate"
            warn_caller(f"{self.owner}: {text}", scipy.linalg.LinAlgWarning)

    def slogdet(self) -> tuple[Any, float]:
        """Return the phase of the determinant, zero where T is singular, and the logarithm of its absolute value."""
        if not self.is_finite:
            return math.nan, math.nan
        if not (np.any(self.c[1:]) and np.any(self.r[1:])):
            sign, log = self._determinant_of_triangle()
        elif self.n <= DENSE or self.band:
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
            _, change = self._corrected(np.array([found.x, found.y]), self._known())
        if change <= (TRUSTED if found.is_definite else TRUSTED_LOGARITHM):
            return found.sign, found.log
        if self.n <= LARGEST:
            return self._determinant_of_factors()
        if not change <= TRUSTED:
            self._refuse()
        if self.owner and change > NOTICEABLE:
            text = f"the logarithm may be off by about {10 * change:.1g}, as leading sections are ill-conditioned"
            warn_caller(f"{self.owner}: {text}", scipy.linalg.LinAlgWarning)
        return found.sign, found.log

    def _determinant_of_factors(self) -> tuple[Any, float]:
        try:
            diagonal, pivots, _ = self.factors
        except np.linalg.LinAlgError:
            if self.band:  # of which the last pivot may have been too small for a number
                self._warn_of_condition(math.inf)
            return 0.0, -math.inf
        odd = np.count_nonzero(pivots != np.arange(self.n)) % 2
        sizes = np.abs(diagonal)
        return (-1) ** odd * np.prod(diagonal / sizes), float(np.sum(np.log(sizes)))


def _exponents(sizes: Any) -> NDArray[Any]:
    """Return exponents of two by which numbers of extreme size are divided; zeros for others."""
    exponents = np.frexp(np.where(np.isfinite(sizes), sizes, 1.0))[1]
    return np.where(np.abs(exponents) > 64, exponents, 0)


def _uneven(n: int) -> NDArray[Any]:
    """Return a vector that is orthogonal to nothing of a pattern."""
    return np.modf(0.6180339887498949 * np.arange(1, n + 1))[0] - 0.3


def _shortened(v: NDArray[Any]) -> NDArray[Any]:
    """Return x and y less the multiple of x that makes it shortest."""
    x, y = v
    return np.array([x, y - np.vdot(x, y) / np.vdot(x, x) * x])


def _scaled(v: NDArray[Any], exponents: Any) -> NDArray[Any]:
    """Return a vector, or rows, times powers of two that may be beyond the range of numbers."""
    parts = np.ascontiguousarray(v).view(v.real.dtype)
    with np.errstate(over="ignore", under="ignore"):
        scaled: NDArray[Any] = np.ldexp(parts, exponents).view(v.dtype)
    return scaled


# For arrays of any library, with their derivatives


def tangents(x: Array, y: Array, dc: Array, dr: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return the changes of x, y and the logarithm of the determinant where first column and first row change.

    ``dx = -T^-1 dT x``, ``dy = T^-1 (d(0, t[1 - n], ..., t[-1]) - dT y)`` and ``d log det T = tr(T^-1 dT)``.
    """
    n, inverse = x.shape[-1], bezoutian(x, y, xp)
    change = Convolution.of(kernel_of_diagonals(dc, dr[..., 1:], xp), (n, n), xp)
    moved = concat_last([xp.zeros_like(dr[..., :1]), xp.flip(dr[..., 1:], axis=-1)], xp)
    column, row = _diagonal_sums(x, y, xp)
    return (
        -inverse.apply(change.apply(x, xp), xp),
        inverse.apply(moved - change.apply(y, xp), xp),
        xp.sum(column * dc + row * dr, axis=-1),
    )


def _diagonal_sums(x: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of T^-1 along its diagonals, from the main one upward and downward.

    Row and column sums of L(x) U(p): the sum along diagonal s is that of ``(n - max(m, m - s)) x[m] p[m - s]``.
    """
    n = x.shape[-1]
    weights = xp.astype(n - xp.arange(n, device=device_of(x)), x.dtype)
    one, zero = xp.ones_like(x[..., :1]), xp.zeros_like(x[..., :1])
    upward = downward = xp.zeros_like(x)
    for v, first, tail in ((x, one, -y), (y, zero, x)):
        p = concat_last([first, xp.flip(tail[..., 1:], axis=-1)], xp)
        upward = upward + _lags(v, weights * p, xp)[1]
        downward = downward + _lags(weights * v, p, xp)[0]
    return upward, concat_last([zero, downward[..., 1:]], xp)  # the main diagonal counts once


def _lags(u: Array, v: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of ``u[i] v[j]`` over ``i - j = s`` and over ``j - i = s``, for s = 0, ..., n - 1."""
    n, real = u.shape[-1], not is_complex(u.dtype, xp)
    length = fast_length(2 * n - 1)
    gap = xp.zeros(length - n, dtype=v.dtype, device=device_of(v))
    backwards = concat_last([v[..., :1], gap, xp.flip(v[..., 1:], axis=-1)], xp)
    U, V = (spectrum(a, xp, real=real, n=length) for a in (u, backwards))
    sums = from_spectrum(U * V, length, xp, real=real)
    return sums[..., :n], reversed_cyclically(sums, xp)[..., :n]


class InverseVectors(NamedTuple):
    """What determines inverse and determinant of a Toeplitz matrix T, or of each of a stack."""

    x: Array
    """``T x = e_0``, shape ``(..., n)``; NaN where T is singular, in torch and JAX."""
    y: Array
    """``T y = (s, t[1 - n], ..., t[-1])`` with some s."""
    sign: Array
    """Of a real determinant the sign; one for a complex one; zero where T is singular. Not differentiable."""
    logdet: Array
    """The logarithm of the absolute value of the determinant, or of a complex determinant itself; zero for a sign of
    zero, since complex infinities do not divide."""


def solutions(c: Array, r: Array, b: Array, xp: Namespace, owner: str | None) -> Array:
    """Return x with ``T x = b`` along the last axis, on behalf of a method, without which there are no warnings.

    Where a matrix is singular NaN in torch and JAX, an error in other libraries.
    """
    if is_numpy(xp):
        return solutions_on_host(c, r, b, owner, strict=True)
    library = library_of(xp)
    if library == "torch":
        return untraced(_solutions_in_torch, xp)(c, r, b, xp, owner)
    if library == "jax":
        return sys.modules["structmat.jax"].toeplitz_solutions(c, r, b)  # imported with the first array of JAX
    found = solutions_on_host(to_numpy(c), to_numpy(r), to_numpy(b), owner, strict=True)
    return xp.asarray(found, device=device_of(b))


def inverse_vectors(
    c: Array, r: Array, xp: Namespace, owner: str | None, *, determinant: bool = False
) -> InverseVectors:
    """Return what determines inverse and, if asked for, the determinant; errors are as for `solutions`."""
    shape = (*broadcast_shapes("Toeplitz", tuple(c.shape[:-1]), tuple(r.shape[:-1])), c.shape[-1])
    c, r = (xp.broadcast_to(v, shape) for v in (c, r))
    library = library_of(xp)
    if library == "torch":
        return InverseVectors(*untraced(_vectors_in_torch, xp)(c, r, determinant, xp, owner))
    if library == "jax":
        return InverseVectors(*sys.modules["structmat.jax"].inverse_vectors(c, r, determinant))
    found = vectors_on_host(to_numpy(c), to_numpy(r), owner, determinant=determinant, strict=True)
    return InverseVectors(*(xp.asarray(v, device=device_of(c)) for v in found))


def transposed(function: Callable[[Array], Array], xp: Namespace) -> Callable[[Array], Array]:
    """Return the product with the transpose of a Toeplitz matrix or its inverse: rows and columns in reverse order."""
    return lambda v: xp.flip(function(xp.flip(v, axis=-1)), axis=-1)


def products(c: Array, r: Array, xp: Namespace) -> Callable[[Array], Array]:
    """Return the product with a Toeplitz matrix."""
    n = c.shape[-1]
    plan = Convolution.of(kernel_of_diagonals(c, r[..., 1:], xp), (n, n), xp)
    return lambda v: plan.apply(v, xp)


def solutions_on_host(c: Any, r: Any, b: Any, owner: str | None = None, *, strict: bool = False) -> Any:
    """Return `solutions` of NumPy arrays, NaN where a matrix is singular unless that is an error (`strict`)."""
    matrices = np.broadcast_shapes(c.shape[:-1], r.shape[:-1])
    shape, n = np.broadcast_shapes(matrices, b.shape[:-1]), c.shape[-1]
    c, r = (np.broadcast_to(v, (*matrices, n)) for v in (c, r))
    b = np.broadcast_to(b, (*shape, n))
    x = np.full(b.shape, np.nan, np.result_type(c, b))
    lead = (1,) * (len(shape) - len(matrices)) + matrices
    for index in np.ndindex(lead):
        # all right-hand sides of one matrix together
        place = tuple(i if size > 1 else slice(None) for i, size in zip(index, lead, strict=True))
        mine = index[len(lead) - len(matrices) :]
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[place] = ToeplitzSystem(c[mine], r[mine], owner).solve(b[place])
    return x


def vectors_on_host(
    c: Any, r: Any, owner: str | None = None, *, determinant: bool, strict: bool = False
) -> tuple[Any, Any, Any, Any]:
    """Return the fields of `InverseVectors` for NumPy arrays of one shape, NaN as for `solutions_on_host`.

    Where the determinant is asked for and singular matrices are errors, x and y are left out.
    """
    x, y = np.full((2, *c.shape), np.nan, c.dtype)
    sign, log = np.ones(c.shape[:-1], c.dtype), np.zeros(c.shape[:-1])
    for index in np.ndindex(c.shape[:-1]):
        system = ToeplitzSystem(c[index], r[index], owner)
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            if determinant:
                sign[index] = np.nan
                sign[index], log[index] = system.slogdet()
            if not (determinant and strict):
                x[index], y[index] = system.inverse_vectors(c.dtype)
    log = np.where(sign == 0, 0, log)
    if not np.iscomplexobj(c):
        return x, y, sign, log.astype(c.dtype)
    regular = np.where(np.isnan(sign), np.nan, sign != 0).astype(c.real.dtype)
    return x, y, regular, (log + 1j * np.angle(sign)).astype(c.dtype)


def _aligned(in_dims: Any, arrays: Any) -> list[Any]:
    """Return tensors with the axis of `vmap` in front, those without it as they are, and aligned for broadcasting."""
    moved = [v if axis is None else v.movedim(axis, 0) for v, axis in zip(arrays, in_dims, strict=True)]
    mapped = [axis is not None for axis in in_dims]
    rank = max(v.ndim + (not each) for v, each in zip(moved, mapped, strict=True))
    return [v[(slice(None), *[None] * (rank - v.ndim))] if each else v for v, each in zip(moved, mapped, strict=True)]


@cache
def _torch_functions(torch: Namespace) -> tuple[Any, Any]:  # two classes
    """Return the functions of autograd. They serve under ``torch.func`` too, whose batch axes are those of a stack."""

    def moved(found: Any, device: Any) -> Any:
        return torch.asarray(found, device=device)

    class Vectors(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(c: Any, r: Any, determinant: bool, owner: str | None) -> tuple[Array, ...]:
            found = vectors_on_host(to_numpy(c.detach()), to_numpy(r.detach()), owner, determinant=determinant)
            return tuple(moved(v, c.device) for v in found)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
            ctx.mark_non_differentiable(output[2])
            ctx.save_for_backward(*output[:2])

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (dx, dy, _, dlog), (x, y) = gradients, ctx.saved_tensors
            zeros = torch.zeros_like(x)
            _, pull = torch.func.vjp(lambda dc, dr: tangents(x, y, dc, dr, torch), zeros, zeros)
            return (*pull((dx, dy, dlog)), None, None)

        @staticmethod
        def vmap(info: Any, in_dims: Any, c: Any, r: Any, determinant: bool, owner: str | None) -> Any:
            lead = [
                v.expand(info.batch_size, *v.shape) if axis is None else v.movedim(axis, 0)
                for v, axis in zip((c, r), in_dims, strict=False)
            ]
            return Vectors.apply(*lead, determinant, owner), (0, 0, 0, 0)

    class Solutions(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(c: Any, r: Any, b: Any, owner: str | None) -> Array:
            device = c.device
            c, r, b = (to_numpy(v.detach()) for v in (c, r, b))
            return moved(solutions_on_host(c, r, b, owner), device)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            *tensors, ctx.owner = inputs
            ctx.save_for_backward(*tensors, output)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            c, r, b, x = ctx.saved_tensors
            adjoint = transposed(lambda v: solutions(c.conj(), r.conj(), v, torch, ctx.owner), torch)
            _, pull = torch.func.vjp(lambda c, r, b: b - products(c, r, torch)(x), c, r, b)
            return (*pull(adjoint(gradient)), None)

        @staticmethod
        def vmap(_: Any, in_dims: Any, c: Any, r: Any, b: Any, owner: str | None) -> Any:
            return Solutions.apply(*_aligned(in_dims[:3], (c, r, b)), owner), 0

    return Vectors, Solutions


def _vectors_in_torch(c: Array, r: Array, determinant: bool, torch: Namespace, owner: str | None) -> tuple[Array, ...]:
    found: tuple[Array, ...] = _torch_functions(torch)[0].apply(c, r, determinant, owner)
    return found


def _solutions_in_torch(c: Array, r: Array, b: Array, torch: Namespace, owner: str | None) -> Array:
    return _torch_functions(torch)[1].apply(c, r, b, owner)


# Schur's algorithm for Hermitian matrices, in any library. With the shift Z, T - Z T Z^H = u u^H - v v^H for u the
# first column over the root of the corner entry, and v the same with a zero in front. Each step shifts u down and turns
# u and v by the hyperbolic rotation after which v has one more zero in front; then u is the next column of the factor.


def schur(c: Array, r: Array, xp: Namespace, owner: str, *, with_factor: bool) -> tuple[Array, Array | None]:
    """Return reflection coefficients and, if asked for, the Cholesky factor of the Hermitian part of a matrix."""
    first = _hermitian_part(c, r, xp, owner)
    corner = real_part(first[..., :1], xp)
    known = (corner > 0) & (corner < xp.inf)
    root = xp.sqrt(xp.where(known, corner, xp.full_like(corner, xp.nan)))
    u = concat_last([xp.astype(root, first.dtype), quotient(first[..., 1:], root, xp)], xp)
    if library_of(xp) == "jax":
        coefficients, factor = sys.modules["structmat.jax"].schur(u)  # imported with the first array of JAX
    else:
        with np.errstate(all="ignore"):
            coefficients, factor = (_in_numpy if is_numpy(xp) else _in_any_library)(u, xp, with_factor=with_factor)
    if can_raise_for_values(xp):
        passed = np.concatenate([np.asarray(known), np.asarray(one_less_square(coefficients, xp)) > 0], axis=-1)
        orders = np.nonzero(~passed)[-1] + 1
        if orders.size:
            text = f"the matrix is not positive definite: its leading section of order {orders.min()} is not"
            text += "" if bool(xp.all(xp.isfinite(first))) else ", as it holds NaN or infinity"
            raise np.linalg.LinAlgError(f"{owner}: {text}")
    return coefficients, factor


def _hermitian_part(c: Array, r: Array, xp: Namespace, owner: str) -> Array:
    """Return the first column of ``(T + T^H) / 2``, after the check that it is that of T where values may be read."""
    adjoint = conjugate(concat_last([c[..., :1], r[..., 1:]], xp), xp)
    if can_raise_for_values(xp):
        allowed = 8 * xp.finfo(c.dtype).eps * xp.max(xp.abs(c), axis=-1, keepdims=True)
        if bool(xp.any(xp.abs(c - adjoint) > allowed)):
            text = "the matrix must be Hermitian: c[0] is not real, or r[1:] not the conjugate of c[1:]"
            raise ArgumentValueError(owner, None, text)
    return c / 2 + adjoint / 2


def one_less_square(k: Array, xp: Namespace) -> Array:
    """Return ``1 - |k|^2`` without cancellation of a real k near one."""
    if is_complex(k.dtype, xp):
        a, b = xp.real(k), xp.imag(k)
        return (1 - a) * (1 + a) - b * b
    return (1 - k) * (1 + k)


def _steps(u: Array, xp: Namespace) -> Iterator[tuple[Array, Array]]:
    """Yield the reflection coefficients and the next columns from their diagonal on; `structmat.jax` has the same."""
    v = u
    for _ in range(1, u.shape[-1]):
        u, v = u[..., :-1], v[..., 1:]
        k = v[..., :1] / u[..., :1]
        square = one_less_square(k, xp)
        root = xp.sqrt(square)
        corner = square * u[..., :1]  # which stays real, and becomes 0 / 0 where the matrix is singular
        u = concat_last([corner, (u - conjugate(k, xp) * v)[..., 1:]], xp) / root
        v = root * v - k * u  # of the new u: both rotated alike would not be stable
        yield k, u


def _in_numpy(u: Any, xp: Namespace, *, with_factor: bool) -> tuple[Any, Any]:
    """Return both, the factor as the transpose of a matrix whose rows are written one by one."""
    coefficients = np.empty_like(u[..., 1:])
    columns = np.zeros((*u.shape, u.shape[-1]), u.dtype) if with_factor else None
    if columns is not None:
        columns[..., 0, :] = u
    for m, (k, column) in enumerate(_steps(u, xp)):
        coefficients[..., m : m + 1] = k
        if columns is not None:
            columns[..., m + 1, m + 1 :] = column
    return coefficients, None if columns is None else columns.swapaxes(-2, -1)


def _in_any_library(u: Array, xp: Namespace, *, with_factor: bool) -> tuple[Array, Array | None]:
    """Return both from arrays that are not changed, so that torch has derivatives."""
    zeros = xp.zeros(u.shape[-1], dtype=u.dtype, device=device_of(u))
    coefficients, columns = [u[..., :0]], [u]
    for m, (k, column) in enumerate(_steps(u, xp)):
        coefficients.append(k)
        if with_factor:
            columns.append(concat_last([zeros[: m + 1], column], xp))
    return concat_last(coefficients, xp), xp.stack(columns, axis=-1) if with_factor else None
