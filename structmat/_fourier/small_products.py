"""Products with small matrices, which are faster without transforms, or without a plan."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from structmat._fourier import engines
from structmat._fourier.convolutions import ducc_convolution
from structmat._fourier.embedding import is_fast

_COUNTS = (1, 8, 64, 512)
"""The least numbers of vectors for which the four limits of an entry of `DENSE_UP_TO` hold."""

DENSE_UP_TO: dict[tuple[str, str], tuple[int, int, int, int]] = {
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
"""For each engine and dtype, the sizes up to which a dense product measured faster, one for each of `_COUNTS`."""


def dense_up_to(size: float, engine: str, dtype: str) -> int:
    """Return the largest number of vectors for which the dense product is faster than transforms at that size.

    `size` is the number of entries of the matrix over the length that is transformed: n for a circulant.
    """
    limits = DENSE_UP_TO.get((engine, dtype), (0, 0, 0, 0))
    beaten = [count for count, limit in zip(_COUNTS, limits, strict=True) if size > limit]
    return beaten[0] - 1 if beaten else sys.maxsize


FEW = 256
"""The size n up to which a single product of NumPy arrays is computed without a plan.

For these sizes the sums of n^2 terms take 2 to 10 microseconds in real numbers and 3 to 25 in complex ones, and the one
call of ducc0 takes 2 to 5. The three transforms of SciPy take 14 to 19 even for the shortest vectors, and making a plan
for them takes 15 more. A solution, whose product has the eigenvalues given, takes 0.65 to 0.9 of the time that it takes
by a plan; for 1,000 entries both are as fast, and for 20,000 the plan is 1.2 times faster.
"""


def are_few(rows: int, cols: int) -> bool:
    """Tell whether a matrix has so few entries that a single product is faster without a plan."""
    return rows * cols <= FEW**2


def product_by_sums(diagonals: Any, x: Any) -> Any:
    """Return the product of a Toeplitz matrix and one vector, both NumPy arrays.

    `diagonals` holds the entry of each diagonal, from the upper right corner to the lower left one.
    """
    return np.convolve(diagonals, x, "valid")


def cyclic_product_without_plan(c: Any, x: Any) -> Any:
    """Return the product of a circulant with first column `c` and one vector, NumPy arrays, where it needs no plan.

    It is None where a plan is made for it.
    """
    n = c.shape[0]
    if engines.ducc() and c.dtype == x.dtype and is_fast(n):
        return ducc_convolution(c, x) if n <= engines.ONE_CALL else None
    return product_by_sums(np.concatenate((c[1:], c)), x) if n <= FEW else None
