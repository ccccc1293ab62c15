"""Lengths that are transformed fast, and circulants of such lengths around Toeplitz matrices and other circulants."""

from __future__ import annotations

from structmat._arrays.libraries import device_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace

_FAST = (
    (135, 256), (9, 16), (75, 128), (5, 8), (675, 1024), (45, 64), (3, 4), (25, 32), (3375, 4096), (27, 32), (225, 256),
    (15, 16),
)  # fmt: skip
"""Odd products of 3 and 5 as fractions of a power of two, ascending from 1/2 to 1 in steps of at most 1/15."""

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67)
"""The prime factors of lengths that are transformed as they are; others are embedded in longer ones."""


def fast_length(n: int) -> int:
    """Return a length from `n` on that every library transforms fast: 2^k, or 2^k times a fraction of `_FAST`."""
    power = 1
    while power < n:
        power *= 2
    for odd, whole in _FAST:
        if power % whole == 0 and power // whole * odd >= n:
            return power // whole * odd
    return power


def is_fast(n: int) -> bool:
    """Tell whether libraries transform length `n` itself fast enough, as it has no large prime factor."""
    if n & (n - 1) == 0:
        return True
    for prime in _PRIMES:
        while n % prime == 0:
            n //= prime
        if n == 1:
            return True
    return False


def kernel_of_diagonals(below: Array, above: Array, xp: Namespace) -> Array:
    """Return the first column of a circulant of a fast length whose corner is the Toeplitz matrix of these diagonals.

    `below` holds the m diagonals from the main one downward, `above` the n - 1 from the one next to it upward.
    """
    length = fast_length(below.shape[-1] + above.shape[-1])
    gap = length - below.shape[-1] - above.shape[-1]
    zeros = xp.zeros(gap, dtype=below.dtype, device=device_of(below))
    return concat_last([below, zeros, xp.flip(above, axis=-1)], xp)


def cyclic_kernel(c: Array, xp: Namespace) -> Array:
    """Return `c`, or where its length is not fast the first column of a larger circulant with that of `c` as corner."""
    return c if is_fast(c.shape[-1]) else kernel_of_diagonals(c, xp.flip(c[..., 1:], axis=-1), xp)
