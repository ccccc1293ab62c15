"""Splits a polynomial in the cyclic shift, with diagonal coefficients, into linear factors, one null sequence each.

A null sequence is a solution u of the polynomial on sequences with ``u[i - n] = z * u[i]``. With ``nu = z**(1 / n)``
and the periodic ``w[i] = u[i] * nu**i``, the linear polynomial with that solution is

    P - diag(u[i - 1] / u[i]) = diag(w[i - 1]) (P - nu I) diag(1 / w[i]),

a right factor of the polynomial. It takes every other null sequence to one of the quotient: ``u[i - 1] - a[i] * u[i]``
with the diagonal ``a`` above. So null sequences are used up one by one.
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


def deflate(u: NDArray[np.complex128], z: NDArray[np.complex128], *, extended: bool) -> LinearFactors:
    """Return the linear factors of the polynomial with the null sequences `u` (k, n) of multipliers `z` (k,).

    Next comes always the sequence of the flattest modulus, because a factor multiplies errors by the range of its
    diagonals. `extended` works in long double: rounding here dominates the error, and grows as the square of n.
    """
    rows, n = u.shape
    u = u.astype(np.clongdouble if extended else np.complex128)
    z = z.astype(u.dtype)
    i = np.arange(n)
    log_nu = np.log(z) / n
    envelope = np.exp(2 * log_nu.real.astype(np.float64)[:, None] * i)  # |w|^2 is |u|^2 times this
    mean, least = np.empty(rows), np.empty(rows)
    chunk = max(1, _CHUNK_BYTES // (n * u.itemsize))

    def measure(part: slice) -> None:
        squares = (u[part].real ** 2 + u[part].imag ** 2).astype(np.float64) * envelope[part]
        mean[part], least[part] = squares.mean(axis=1), squares.min(axis=1)

    for start in range(0, rows, chunk):
        measure(slice(start, start + chunk))
    w, nu = np.empty_like(u), np.empty_like(z)
    for left in range(rows, 0, -1):
        cost = np.log(mean[:left] / least[:left]) - _DISTANCE * np.log(mean[:left] / mean[:left].max())
        k = int(cost.argmin())
        w[rows - left] = u[k] * np.exp(log_nu[k] * i) / np.sqrt(mean[k])
        nu[rows - left] = np.exp(log_nu[k])
        a = np.roll(u[k], 1)
        a[0] *= z[k]
        a /= u[k]
        last = left - 1
        for array in (u, z, log_nu, envelope):
            array[k] = array[last]
        for start in range(0, last, chunk):
            part = slice(start, min(start + chunk, last))
            product = u[part] * a
            first = u[part, -1] * z[part] - product[:, 0]
            np.subtract(u[part, :-1], product[:, 1:], out=product[:, 1:])
            product[:, 0] = first
            u[part] = product
            measure(part)
    return LinearFactors(w, nu)
