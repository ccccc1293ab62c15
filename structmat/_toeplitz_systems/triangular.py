"""Triangular Toeplitz matrices: solutions, inverses, roots and powers by Newton's iteration for power series.

A lower triangular Toeplitz matrix L(c) is the power series ``c_0 + c_1 z + ... + c_{n-1} z^{n-1}`` modulo z^n: products
of matrices are products of series, which FFTs compute. So the inverse is the reciprocal, ``L(c)^p = L(c^p)``, and all
of them are lower triangular Toeplitz matrices again. Newton's iteration doubles the number of known coefficients [1]_:

- the reciprocal g of c: where g is known modulo z^m, ``g - g (c g - 1)`` is it modulo z^(2m);
- the square root r together with its reciprocal g: ``r - g (r^2 - c) / 2``;
- the logarithm is the integral of ``c' / c``, and the exponential f of h is ``f + f (h - log f)``;
- other powers are ``exp(p log c)``.

An upper triangular matrix is the lower one of its first row with rows and columns in reverse order.

**Accuracy.** A transform leaves errors relative to the largest of the coefficients that it is given, and the leading
section of a triangular system is a system of its own, whatever comes behind. So products are taken in *sections*: the
coefficients m to 2m - 1 are computed from the first 2m of both factors. Newton's iteration does so by itself. A
solution is accepted if in each section the residuals are at the level of rounding beside the rows of the matrix there
and the largest entry of the solution so far, and a power g of c if those of ``c g' = p c' g`` are. That fails where
the coefficients of g grow, or those of c cancel: of ``(1 + k)^2``, whose reciprocal is bounded, half of the digits are
gone after 300 coefficients. Such series are computed coefficient by coefficient, in O(n^2) operations: solutions by
substitution, powers by the recurrence of Euler [2]_,

    k c_0 g_k = sum_{j=1}^k ((p + 1) j - k) c_j g_{k-j}.

References
----------
.. [1] Brent, R. P., Kung, H. T., Fast algorithms for manipulating formal power series, J. ACM 25, 1978.
.. [2] Henrici, P., Applied and Computational Complex Analysis, vol. 1, section 1.6, 1974.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.conversion import on_host, to_numpy
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, namespace, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import concat_last, padded, windows
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._rules import Solver
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.refinement import Rows, RowsWay
from structmat._ways import settle


def triangle(c: Array, r: Array, xp: Namespace) -> str | None:
    """Return whether Toeplitz matrices are all "lower" or all "upper" triangular; None where neither can be seen.

    In a trace that is known of a first row that is no part of it, such as a constant.
    """
    rules = rules_of(xp)
    for side, vector in (("lower", r), ("upper", c)):
        values = rules.concrete(vector)
        if values is not None and not np.any(to_numpy(values)[..., 1:]):
            return side
    return None


def as_lower(c: Array, r: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the vectors of triangular Toeplitz matrices, their first columns or first rows, and which are lower."""
    is_lower = xp.all(r[..., 1:] == 0.0, axis=-1, keepdims=True)
    row = concat_last([c[..., :1], r[..., 1:]], xp)
    return xp.where(is_lower, c, row), is_lower


# Power series along the last axis, of any library, with its derivatives


def sections(n: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last but one index of each section of n coefficients."""
    first, stop = 0, thresholds.PRODUCT_BY_SUMS
    while first < n:
        yield first, min(stop, n)
        first, stop = stop, 2 * stop


def product(a: Array, b: Array, first: int, stop: int, xp: Namespace) -> Array:
    """Return the coefficients from `first` on and before `stop` of a product; those that are missing are zero."""
    a, b = (v[..., : min(stop, v.shape[-1])] for v in (a, b))
    if stop <= thresholds.PRODUCT_BY_SUMS:
        a, b = padded(a, stop, xp), padded(b, stop, xp)
        diagonals = concat_last([xp.flip(a, axis=-1), xp.zeros_like(a[..., 1:])], xp)
        rows = xp.flip(windows(diagonals, stop, xp), axis=-2)[..., first:, :]
        return xp.matmul(rows, b[..., None])[..., 0]
    length = fast_length(max(stop, a.shape[-1] + b.shape[-1] - 1 - first))  # what wraps around stays below `first`
    if is_complex(a.dtype, xp) or is_complex(b.dtype, xp):
        spectra = (xp.fft.fft(v, n=length, axis=-1) for v in (a, b))
        inverse = xp.fft.ifft
    else:
        spectra = (xp.fft.rfft(v, n=length, axis=-1) for v in (a, b))
        inverse = xp.fft.irfft
    left, right = spectra
    return inverse(left * right, n=length, axis=-1)[..., first:stop]


def product_in_sections(a: Array, b: Array, xp: Namespace) -> Array:
    """Return the first n coefficients of the product of two series of n, each one as accurate as those before it."""
    return concat_last([product(a, b, first, stop, xp) for first, stop in sections(a.shape[-1])], xp)


def _steps(n: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers of coefficients that are known before and after each step of Newton's iteration."""
    known = 1
    while known < n:
        yield known, min(2 * known, n)
        known *= 2


def reciprocal(c: Array, xp: Namespace) -> Array:
    """Return 1 / c."""
    g = 1 / c[..., :1]
    for known, wanted in _steps(c.shape[-1]):
        g = _longer_reciprocal(g, c, known, wanted, xp)
    return g


def _longer_reciprocal(g: Array, c: Array, known: int, wanted: int, xp: Namespace) -> Array:
    error = product(c, g, known, wanted, xp)  # of the coefficients that c g - 1 has from there on
    return concat_last([g, -product(g, error, 0, wanted - known, xp)], xp)


def square_root_and_reciprocal(c: Array, corner: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the root of c with a given root of its first coefficient, and the reciprocal of that root."""
    r = corner
    g = 1 / corner
    for known, wanted in _steps(c.shape[-1]):
        error = product(r, r, known, wanted, xp) - c[..., known:wanted]
        r = concat_last([r, product(g, error, 0, wanted - known, xp) / -2], xp)
        g = _longer_reciprocal(g, r, known, wanted, xp)
    return r, g


def _weights(c: Array, xp: Namespace) -> Array:
    """Return 0, 1, ..., n - 1, by which coefficients are multiplied in ``z c'``."""
    return xp.astype(xp.arange(c.shape[-1], device=device_of(c)), c.dtype)


def logarithm(c: Array, xp: Namespace) -> Array:
    """Return the logarithm of a series with the first coefficient one."""
    k = _weights(c, xp)
    derivative = product_in_sections(k * c, reciprocal(c, xp), xp)
    return concat_last([xp.zeros_like(c[..., :1]), derivative[..., 1:] / k[1:]], xp)


def exponential(h: Array, xp: Namespace) -> Array:
    """Return the exponential of a series with the first coefficient zero."""
    f = xp.ones_like(h[..., :1])
    for known, wanted in _steps(h.shape[-1]):
        error = (h[..., :wanted] - logarithm(padded(f, wanted, xp), xp))[..., known:]
        f = concat_last([f, product(f, error, 0, wanted - known, xp)], xp)
    return f


def power(c: Array, p: float, corner: Array, xp: Namespace) -> Array:
    """Return c^p whose first coefficient, of `corner`, is that of c to this power."""
    if p == -1:
        return reciprocal(c, xp)
    if abs(p) == 0.5:
        root, inverse_root = square_root_and_reciprocal(c, corner if p > 0 else 1 / corner, xp)
        return root if p > 0 else inverse_root
    return corner * exponential(p * logarithm(c / c[..., :1], xp), xp)


def error_of_power(c: Array, g: Array, p: float, xp: Namespace) -> Array:
    """Return the largest error of the coefficients of ``c g' - p c' g``, in units of what is accepted."""
    k = _weights(c, xp)
    residual = product_in_sections(c, k * g, xp) - p * product_in_sections(k * c, g, xp)
    return _largest_error(residual / xp.where(k == 0, xp.ones_like(k), k * max(1.0, abs(p))), c, g, xp)


def _largest_error(residual: Array, c: Array, x: Array, xp: Namespace) -> Array:
    """Return the largest residual of a product of c and x in units of what is accepted.

    That of a row is compared with the sum of the moduli of c up to there, times the largest entry that x has in the
    section or before.
    """
    row_sums = xp.cumulative_sum(xp.abs(c), axis=-1)
    moduli = xp.abs(x)
    errors = []
    for first, stop in sections(residual.shape[-1]):
        found = xp.max(xp.abs(residual[..., first:stop]) / row_sums[..., first:stop], axis=-1)
        largest = xp.max(moduli[..., :stop], axis=-1)
        errors.append(xp.where(found == 0.0, xp.zeros_like(largest), found / largest))
    unit = thresholds.ROUNDING * float(xp.finfo(residual.dtype).eps) * math.sqrt(residual.shape[-1])
    return xp.max(xp.stack(errors), axis=0) / unit


@cache
def _power_and_error(p: float) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return the function of c and the first coefficient that returns c^p and its error; one for each p."""

    def power_and_error(c: Array, corner: Array) -> tuple[Array, Array]:
        xp = namespace(c)
        g = power(c, p, corner, xp)
        return g, error_of_power(c, g, p, xp)

    return power_and_error


def whole_power(c: Array, p: int, xp: Namespace) -> Array:
    """Return the product of p factors c, by squares."""
    result = concat_last([xp.ones_like(c[..., :1]), xp.zeros_like(c[..., 1:])], xp)
    square = c
    while p:
        if p % 2:
            result = product_in_sections(result, square, xp)
        p //= 2
        if p:
            square = product_in_sections(square, square, xp)
    return result


def accepted_power(c: Array, p: float, corner: Array, xp: Namespace) -> Array:
    """Return c^p, whose first coefficient is `corner`, for any library, by the fastest way that is accurate.

    Where derivatives may be asked for, what is not accepted is NaN.
    """
    if float(p).is_integer() and p >= 0:
        return whole_power(c, int(p), xp)
    rules = rules_of(xp)
    with np.errstate(all="ignore"):
        g, errors = rules.compiled(_power_and_error(p))(c, corner)
    if rules.is_differentiated([c]):
        return xp.where((errors <= 1.0)[..., None], g, xp.full_like(g, math.nan))
    if bool(xp.all(errors <= 1.0)):
        return g
    results = [(tuple(g.shape), g.dtype)]
    (by_recurrence,) = on_host(lambda c, corner: (power_by_recurrence(c, p, corner),), results, [c, corner], xp)
    return xp.astype(by_recurrence, g.dtype)


def power_by_recurrence(c: Any, p: float, corner: Any) -> Any:
    """Return c^p of NumPy arrays, one coefficient after the other, in double precision."""
    c = c.astype(np.result_type(c, np.float64))
    g = np.zeros_like(c)
    g[..., :1] = corner
    j = np.arange(c.shape[-1])
    for k in range(1, c.shape[-1]):
        factors = ((p + 1) * j[1 : k + 1] - k) * c[..., 1 : k + 1]
        g[..., k] = np.sum(factors * g[..., k - 1 :: -1][..., :k], axis=-1) / (k * c[..., 0])
    return g


# Solutions


def solution_and_error(c: Array, g: Array, b: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return x with ``L(c) x = b``, by the reciprocal g of c, and its error in units of what is accepted."""
    x = product_in_sections(g, b, xp)
    return x, _largest_error(b - product_in_sections(c, x, xp), c, x, xp)


class TriangularSystem:
    """Systems with one triangular matrix, for NumPy arrays in double precision; `vector` is its column or row.

    The diagonal is not zero. Where `is_upper`, right-hand sides and solutions are in reverse order.
    """

    def __init__(self, vector: Any, *, is_upper: bool) -> None:
        self.c = vector
        self.order = slice(None, None, -1 if is_upper else 1)

    @cached_property
    def reciprocal(self) -> Any:
        """The first column of the inverse, as Newton's iteration finds it."""
        return reciprocal(self.c, numpy_namespace)

    def solve(self, b: Any) -> Any:
        """Return the solutions for the rows of b."""
        b = b[:, self.order]
        with np.errstate(all="ignore"):
            if len(self.c) < thresholds.BY_NEWTON:
                return substitution(self.c, b)[:, self.order]
            rows = Rows(b, 1.0)
            newton = RowsWay("Newton", 1, self._by_newton)
            settle(rows, (newton, RowsWay("substitution", len(self.c), self._by_substitution)))
        return rows.x[:, self.order]

    def _by_newton(self, b: Any) -> tuple[Any, Any]:
        """Return solutions by Newton's iteration, and their errors in units of what is accepted."""
        return solution_and_error(self.c, self.reciprocal, b, numpy_namespace)

    def _by_substitution(self, b: Any) -> tuple[Any, Any]:
        """Return solutions by substitution, which are all accepted."""
        return substitution(self.c, b), np.zeros(len(b))


def substitution(c: Any, b: Any) -> Any:
    """Return the solutions for the rows of b, of NumPy arrays, by substitution in blocks."""
    n = len(c)
    x = np.zeros_like(b, np.result_type(b, c))
    size = min(thresholds.SUBSTITUTED, n)
    diagonals = np.concatenate([c[size - 1 :: -1], np.zeros(size - 1, c.dtype)])
    block = np.lib.stride_tricks.sliding_window_view(diagonals, size)[::-1]
    for first in range(0, n, size):
        stop = min(first + size, n)
        rows = stop - first
        right = b[:, first:stop]
        if first:
            right = right - np.array([np.convolve(c[1:stop], row[:first], "valid") for row in x])
        solved = scipy.linalg.solve_triangular(block[:rows, :rows], right.T, lower=True, check_finite=False)
        x[:, first:stop] = solved.T
    return x


@dataclass(frozen=True)
class SolverByNewton(Solver):
    """Solves systems with Toeplitz operators that are known to be triangular, on the device of their arrays.

    Systems whose solutions are not accepted are solved by another solver.
    """

    otherwise: Solver

    def __call__(self, A: Any, M: None, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        rules = rules_of(xp)
        x, accepted = rules.compiled(_solved)(A.c, A.r, b)
        return rules.branch(accepted, lambda: x, lambda: self.otherwise(A, M, b, xp)[0]), ()


def _solved(c: Array, r: Array, b: Array) -> tuple[Array, Array]:
    """Return the solutions with triangular Toeplitz matrices, and whether all of them are accepted."""
    xp = namespace(c, b)
    dtype = b.dtype
    if rules_of(xp).has_double_precision(device_of(c)):
        wide = xp.complex128 if is_complex(dtype, xp) else xp.float64
        c, r, b = (xp.astype(v, wide) for v in (c, r, b))
    column, is_lower = as_lower(c, r, xp)
    right = xp.where(is_lower, b, xp.flip(b, axis=-1))
    x, errors = solution_and_error(column, reciprocal(column, xp), right, xp)
    return xp.astype(xp.where(is_lower, x, xp.flip(x, axis=-1)), dtype), xp.all(errors <= 1.0)
