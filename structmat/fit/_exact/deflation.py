"""Splits a polynomial in the cyclic shift, with diagonal coefficients, into linear factors, one null sequence each.

A null sequence is a solution u of the polynomial on sequences with ``u[i - n] = z * u[i]``. With ``nu = z**(1 / n)``
and the periodic ``w[i] = u[i] * nu**i``, the linear polynomial with that solution is

    P - diag(u[i - 1] / u[i]) = diag(w[i - 1]) (P - nu I) diag(1 / w[i]),

a right factor of the polynomial. It takes every other null sequence to one of the quotient: ``u[i - 1] - a[i] * u[i]``
with the diagonal ``a`` above. So null sequences are used up one by one. They are kept as `w` and `nu`, which are of
moderate size whatever z is; the step is ``nu' * w'[i - 1] - nu * w[i - 1] / w[i] * w'[i]`` on these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LinearFactors", "deflate", "has_extended_precision"]

# How much the order of the factors prefers long vectors, those far from all that were used, beside flat ones. Without,
# circulants lose digits: all of their null sequences are flat.
_DISTANCE = 0.25

# Rows are worked on in chunks that stay in the cache of a core.
_CHUNK_BYTES = 2**19


def has_extended_precision() -> bool:
    """Return whether NumPy's long double is more precise than its double on this machine."""
    return bool(np.finfo(np.longdouble).eps < np.finfo(np.float64).eps)


class LinearFactors(NamedTuple):
    """Linear factors ``diag(roll(w)) (P - nu I) diag(1 / w)``, the rightmost first."""

    w: NDArray[Any]
    """(k, n)"""
    nu: NDArray[Any]
    """(k,)"""

    def vectors(self, lead: complex) -> list[NDArray[np.complex128]]:
        """Return the diagonals and first columns of `lead` times the product, left to right: ``2k + 1`` of them."""
        k, n = self.w.shape
        before = np.roll(self.w, 1, axis=1)
        vectors = [lead * before[-1]]
        for j in range(k - 1, -1, -1):
            column = np.zeros(n, dtype=self.w.dtype)
            column[0] -= self.nu[j]
            column[1 % n] += 1
            vectors += [column, (before[j - 1] if j else 1) / self.w[j]]
        return [vector.astype(np.complex128) for vector in vectors]


def deflate(w: NDArray[np.inexact[Any]], nu: NDArray[np.inexact[Any]], *, extended: bool) -> LinearFactors:
    """Return the linear factors of the polynomial with the null sequences ``w[i] * nu**-i``, `w` (k, n) and `nu` (k,).

    Next comes always the sequence of the flattest modulus, because a factor multiplies errors by the range of its
    diagonals. `extended` works in long double: rounding here dominates the error, and grows as the square of n.
    """
    rows, n = w.shape
    dtype = np.clongdouble if extended else np.complex128
    w, nu = w.astype(dtype), nu.astype(dtype)
    mean, least = np.empty(rows), np.empty(rows)
    chunk = max(1, _CHUNK_BYTES // (n * w.itemsize))

    def measure(part: slice) -> None:
        squares = (w[part].real ** 2 + w[part].imag ** 2).astype(np.float64)
        mean[part], least[part] = squares.mean(axis=1), squares.min(axis=1)

    for start in range(0, rows, chunk):
        measure(slice(start, start + chunk))
    factors = LinearFactors(np.empty_like(w), np.empty_like(nu))
    for left in range(rows, 0, -1):
        cost = np.log(mean[:left] / least[:left]) - _DISTANCE * np.log(mean[:left] / mean[:left].max())
        k = int(cost.argmin())
        factors.w[rows - left] = w[k] / np.sqrt(mean[k])
        factors.nu[rows - left] = nu[k]
        a = nu[k] * np.roll(w[k], 1) / w[k]
        last = left - 1
        for array in (w, nu):
            array[k] = array[last]
        for start in range(0, last, chunk):
            part = slice(start, min(start + chunk, last))
            product = w[part] * a
            shifted = np.roll(w[part], 1, axis=1)
            shifted *= nu[part, None]
            np.subtract(shifted, product, out=w[part])
            measure(part)
    return factors
