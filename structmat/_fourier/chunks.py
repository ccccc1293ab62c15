"""Large batches are transformed in chunks of vectors, so that each chunk stays in the cache of one core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 2**19
"""The size in bytes of a chunk of NumPy vectors."""

FEWEST = 4
"""The least number of vectors in a chunk, however long they are: engines transform so many at a time."""

TORCH_LARGE = 2**23
"""The size in bytes of a batch above which torch transforms it faster in chunks than whole."""

TORCH_CHUNK = 2**21
"""The size in bytes of these chunks. They have as many vectors as fill a cache line at least: fewer are slow."""


def rows_in_chunk(numbers: int, itemsize: int) -> int:
    """Return how many vectors a chunk has, where the product of each reads and writes that many numbers."""
    fitting = CHUNK // (numbers * itemsize)
    return max(FEWEST, fitting - fitting % FEWEST)  # a remainder would be transformed one by one


def in_chunks(product: Callable[[Any], Any], x: Any, rows: int, size: int | None) -> Any:
    """Return the products of all vectors along the last axis of `x`, computed for at most `size` of them at a time.

    `rows` is the length of a vector of the result.
    """
    batch = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])
    size = len(x) if size is None else size
    if 0 < len(x) <= size:
        return product(x).reshape(*batch, rows)
    flat = np.empty((len(x), rows), x.dtype)
    for start in range(0, len(x), size or 1):
        flat[start : start + size] = product(x[start : start + size])
    return flat.reshape(*batch, rows)
