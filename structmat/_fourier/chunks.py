"""How many vectors are transformed together, so that they stay in the cache of one core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from structmat._fourier.steps import Step

CHUNK = 2**19
"""Bytes of a batch that are transformed together, so that they stay in the cache of one core."""

FEWEST = 4
"""Number of vectors that engines take at a time: so many are transformed together however long they are."""

TORCH_LARGE, TORCH_CHUNK = 2**23, 2**21
"""Bytes of a batch above which torch's are computed in chunks, and of those; smaller ones it computes faster whole.

A chunk has a cache line of vectors at least: fewer are slow."""


def rows_in_chunk(numbers: int, itemsize: int) -> int:
    """Return how many vectors to transform together when each moves that many numbers."""
    fitting = CHUNK // (numbers * itemsize)
    return max(FEWEST, fitting - fitting % FEWEST)  # a rest would be transformed one by one


def in_chunks(step: Step, x: Any, rows: int, size: int | None, out: Any = None) -> Any:
    """Return the products of all vectors along the last axis of `x`, computed for at most `size` of them at a time.

    `rows` is the length of a vector of the result, which is `out` where that is given.
    """
    batch = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])
    size = len(x) if size is None else size
    if 0 < len(x) <= size and out is None:
        return step.product(x).reshape(*batch, rows)
    flat = np.empty((len(x), rows), x.dtype) if out is None else out.reshape(-1, rows)
    for start in range(0, len(x), size or 1):
        step.into(x[start : start + size], flat[start : start + size])
    return flat.reshape(*batch, rows)
