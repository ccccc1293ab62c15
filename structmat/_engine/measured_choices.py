"""What was measured: which method is fastest for which size. `benchmarks/engine_table.py` prints these numbers anew."""

from __future__ import annotations

import math
import sys

__all__ = [
    "ALIAS",
    "CHOICES",
    "CHUNK",
    "COLUMNS",
    "DUCC",
    "DUCC_CONVOLUTION",
    "DUCC_STEPS",
    "FEWEST",
    "LARGEST_PRIME",
    "LARGEST_PRIME_ELSEWHERE",
    "PLAIN",
    "SCIPY",
    "SCIPY_CONVOLUTION",
    "SCIPY_STEPS",
    "STEPS",
    "TORCH",
    "TORCH_CHUNK",
    "TORCH_LARGE",
    "TORCH_STEPS",
    "WORTH_CHUNKS",
    "direct_sizes",
    "direct_up_to",
]

CHUNK = 2**20
"""Bytes of a batch that are transformed together, so that they stay in the cache of one core."""

FEWEST = 4
"""Number of vectors that engines take at a time: so many are transformed together however long they are."""

WORTH_CHUNKS = 2**19
"""Bytes of a batch above which it is cut into four chunks at least.

Memory allocators give free memory back to the system when it is some two blocks of the largest size, and fresh pages
for the temporaries of the next product take as long as its transforms. Those of a quarter stay.
"""

TORCH_LARGE, TORCH_CHUNK = 2**23, 2**21
"""Bytes of a batch above which torch's are computed in chunks, and of those; smaller ones it computes faster whole.

A chunk has a cache line of vectors at least: fewer are slow."""

ALIAS = 4096
"""Distance in bytes of addresses that share one place of the innermost cache."""

LARGEST_PRIME = {"numpy": 67, "torch": 67}
"""By library: a length with a larger prime factor is embedded in a longer one without."""

LARGEST_PRIME_ELSEWHERE = 97
"""The same for other libraries."""

COLUMNS = ((2**18, 2.0, 0.5), (2**20, 256.0, 0.0), (math.inf, 1024.0, 0.0))
"""For the four-step method: up to each length n, columns of about ``a * n**p``, as ``(n, a, p)``."""

SCIPY, SCIPY_CONVOLUTION, SCIPY_STEPS = "scipy.fft", "scipy.fftpack.convolve", "scipy.fft in four steps"
DUCC, DUCC_CONVOLUTION, DUCC_STEPS = "ducc0.fft", "ducc0.fft.convolve_axis", "ducc0.fft in four steps"
TORCH, TORCH_STEPS = "torch.fft", "torch.fft in four steps"

STEPS = (SCIPY_STEPS, DUCC_STEPS, TORCH_STEPS)

PLAIN = {
    SCIPY_CONVOLUTION: SCIPY,
    SCIPY_STEPS: SCIPY,
    DUCC_CONVOLUTION: DUCC,
    DUCC_STEPS: DUCC,
    TORCH_STEPS: TORCH,
}
"""By method that convolves: the one that only transforms."""

_BATCH = ((math.inf, SCIPY),)

CHOICES: dict[tuple[str, str, bool], tuple[tuple[float, str], ...]] = {
    ("scipy", "float32", False): ((4096, SCIPY_CONVOLUTION), (math.inf, SCIPY_STEPS)),
    ("scipy", "float64", False): ((16384, SCIPY_CONVOLUTION), (math.inf, SCIPY_STEPS)),
    ("scipy", "complex64", False): ((2047, SCIPY), (math.inf, SCIPY_STEPS)),
    ("scipy", "complex128", False): ((4095, SCIPY), (math.inf, SCIPY_STEPS)),
    ("scipy", "float32", True): _BATCH,
    ("scipy", "float64", True): _BATCH,
    ("scipy", "complex64", True): _BATCH,
    ("scipy", "complex128", True): _BATCH,
    ("ducc0", "float32", False): ((1024, DUCC_CONVOLUTION), (2**15, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "float32", True): ((math.inf, DUCC_CONVOLUTION),),
    ("ducc0", "float64", False): ((1024, DUCC_CONVOLUTION), (8191, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "float64", True): ((2**17, DUCC_CONVOLUTION), (math.inf, SCIPY)),
    ("ducc0", "complex64", False): ((800, DUCC_CONVOLUTION), (2**16, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "complex64", True): ((math.inf, DUCC_CONVOLUTION),),
    ("ducc0", "complex128", False): ((800, DUCC_CONVOLUTION), (2**16, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "complex128", True): ((2**13, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("torch", "float32", False): ((8191, TORCH), (math.inf, TORCH_STEPS)),
    ("torch", "float64", False): ((4096, TORCH), (math.inf, TORCH_STEPS)),
}
"""By engine, dtype and whether there is a batch: the fastest method up to each length."""

_COUNTS = (1, 8, 64, 512)
_DIRECT: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("numpy", "float32"): (320, 144, 132, 132),
    ("numpy", "float64"): (220, 168, 132, 124),
    ("numpy", "complex64"): (356, 108, 108, 108),
    ("numpy", "complex128"): (244, 124, 124, 92),
    ("ducc0", "float32"): (280, 132, 68, 68),
    ("ducc0", "float64"): (212, 124, 52, 52),
    ("ducc0", "complex64"): (180, 68, 20, 20),
    ("ducc0", "complex128"): (124, 60, 20, 20),
    ("torch", "float32"): (356, 244, 124, 124),
    ("torch", "float64"): (220, 132, 124, 124),
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
