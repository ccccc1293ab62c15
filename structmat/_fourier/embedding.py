"""Lengths that are transformed fast, and circulants of such lengths in which other matrices are embedded."""

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
"""The prime factors of lengths that are transformed as they are; other lengths are embedded in longer ones."""


def fast_length(n: int) -> int:
    """Return the least length from `n` on that every library transforms fast: 2^k, or 2^k times one of `_FAST`."""
    power_of_two = 1
    while power_of_two < n:
        power_of_two *= 2
    for numerator, denominator in _FAST:
        if power_of_two % denominator == 0 and power_of_two // denominator * numerator >= n:
            return power_of_two // denominator * numerator
    return power_of_two


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
    """Return the first column of a circulant of a fast length whose leading corner is an m x n Toeplitz matrix.

    `below` holds the entries of its m diagonals from the main one downward, `above` those of the n - 1 diagonals from
    the one above the main one upward.
    """
    length = fast_length(below.shape[-1] + above.shape[-1])
    gap = length - below.shape[-1] - above.shape[-1]
    zeros = xp.zeros(gap, dtype=below.dtype, device=device_of(below))
    return concat_last([below, zeros, xp.flip(above, axis=-1)], xp)


def cyclic_kernel(c: Array, xp: Namespace) -> Array:
    """Return the first column of a circulant of a fast length whose leading corner is the circulant with column `c`.

    That is `c` itself where its own length is fast.
    """
    return c if is_fast(c.shape[-1]) else kernel_of_diagonals(c, xp.flip(c[..., 1:], axis=-1), xp)
