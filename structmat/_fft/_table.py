"""What was measured: which method is fastest for which size. `benchmarks/engine_table.py` prints these numbers anew."""

from __future__ import annotations

import math
import sys

__all__ = [
    "ALIAS",
    "CHOICES",
    "CHUNK",
    "DUCC",
    "DUCC_CONVOLUTION",
    "FEWEST",
    "MANY",
    "PRIMES",
    "SCIPY",
    "direct_sizes",
    "direct_up_to",
]

CHUNK = 2**20
"""Bytes of a batch that are transformed together, so that they stay in the cache of one core."""

FEWEST = 4
"""Number of vectors that are transformed together however long they are, as engines take several at a time."""

ALIAS = 4096
"""Distance in bytes of addresses that share one place of the innermost cache."""

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
"""A length with another prime factor is embedded in a longer one without."""

MANY = 8
"""Number of vectors from which they count as many."""

SCIPY, DUCC, DUCC_CONVOLUTION = "scipy.fft", "ducc0.fft", "ducc0.fft.convolve_axis"

CHOICES: dict[tuple[str, bool], tuple[tuple[float, str], ...]] = {
    ("float32", False): ((1024, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("float32", True): ((math.inf, DUCC_CONVOLUTION),),
    ("float64", False): ((1024, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("float64", True): ((2**17, DUCC_CONVOLUTION), (math.inf, SCIPY)),
    ("complex64", False): ((800, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("complex64", True): ((math.inf, DUCC_CONVOLUTION),),
    ("complex128", False): ((800, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("complex128", True): ((2**13, DUCC_CONVOLUTION), (math.inf, DUCC)),
}
"""NumPy with ducc0: by dtype and whether there are many vectors, the fastest method up to each length."""

_COUNTS = (1, 8, 64, 512)
_DIRECT: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("numpy", "float32"): (520, 144, 132, 132),
    ("numpy", "float64"): (356, 168, 132, 124),
    ("numpy", "complex64"): (356, 108, 108, 108),
    ("numpy", "complex128"): (244, 124, 124, 92),
    ("ducc0", "float32"): (356, 132, 68, 68),
    ("ducc0", "float64"): (212, 124, 52, 52),
    ("ducc0", "complex64"): (180, 68, 20, 20),
    ("ducc0", "complex128"): (124, 60, 20, 20),
    ("torch", "float32"): (356, 244, 124, 124),
    ("torch", "float64"): (284, 132, 124, 124),
    ("torch", "complex64"): (124, 124, 68, 40),
    ("torch", "complex128"): (124, 92, 60, 40),
}
"""By engine and dtype: up to which size a dense product is faster, for at least as many vectors as `_COUNTS` says."""


def direct_sizes(library: str, dtype: str) -> dict[int, int]:
    """Return the size up to which the dense product is faster, by the least number of vectors for which that holds."""
    return dict(zip(_COUNTS, _DIRECT.get((library, dtype), (0, 0, 0, 0)), strict=True))


def direct_up_to(size: float, library: str, dtype: str) -> int:
    """Return the largest number of vectors for which the dense product is faster than transforms at that size.

    `size` is the number of entries of the matrix over the length that is transformed: n for a circulant.
    """
    beaten = [count for count, limit in direct_sizes(library, dtype).items() if size > limit]
    return beaten[0] - 1 if beaten else sys.maxsize
