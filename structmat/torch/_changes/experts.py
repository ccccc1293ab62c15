"""Changes of rows of which each belongs to one matrix of a stack, that of its expert.

The rows of an expert lie together, and end where `ends` says; rows behind the last end belong to none. On a CPU the
rows of each expert go through the operation of single layers, one expert after the other, so that experts without rows
cost nothing. On other devices, where a loop would launch thousands of small kernels, each row is a sample with a change
of its own, that of its expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from structmat._torch_modes import sees_operations
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._changes.operation import apply_change
from structmat.torch._changes.rows import Samples

__all__ = ["by_expert", "loops_over_experts", "rows_by_expert", "stacked_change"]

_ROWS = 2**24
"""Entries of rows that are computed at once where each row has vectors of its own: bounds the memory of temporaries."""


def loops_over_experts(x: Tensor) -> bool:
    """Return whether the rows of each expert are computed by themselves."""
    return x.device.type == "cpu" and not sees_operations()


def stacked_change(y: Tensor, x: Tensor, ends: Tensor, vectors: Sequence[Tensor], gain: float) -> Tensor:
    """Return ``y + gain D C D x`` with the vectors of each row's expert; neither `y` nor `x` is changed.

    Parameters
    ----------
    y : Tensor, shape (S, rows)
        Its dtype is that of the result.
    x : Tensor, shape (S, cols)
        Rows, those of an expert behind each other.
    ends : Tensor of integers, shape (E,)
        Where the rows of each expert end. The change of the rows of no expert is zero.
    vectors : sequence of Tensor, shapes (E, m) and (E, p, q, b)
        Diagonals and grids of circulants of all experts, in the order of the product.
    gain : float
        What the product is multiplied by.
    """
    if loops_over_experts(x):
        own = by_expert(vectors)
        groups = zip(rows_by_expert(y, ends), rows_by_expert(x, ends), strict=True)
        pieces = [apply_change(ys, xs, None, None, own[e], gain) for (e, ys), (_, xs) in groups]
        # Rows behind the last end are of no expert, and stay as they are.
        return torch.cat([*pieces, y[sum(map(len, pieces)) :]])
    ids = torch.searchsorted(ends, torch.arange(x.shape[0], device=x.device, dtype=ends.dtype), right=True)
    numbers = ids.clamp(max=len(ends) - 1)
    # Rows of no expert have the change of the last one, times zero.
    samples = Samples(numbers, (ids == numbers).to(wide_dtype(*vectors)))
    # The vectors of each row take more memory than the rows.
    size = x.shape[0] if sees_operations() else max(1, _ROWS // max(1, x.shape[1]))
    if x.shape[0] <= size:
        return apply_change(y, x, None, None, vectors, gain, samples)
    parts = zip(y.split(size), x.split(size), *(each.split(size) for each in samples), strict=True)
    return torch.cat([apply_change(ys, xs, None, None, vectors, gain, Samples(*own)) for ys, xs, *own in parts])


def by_expert(vectors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Return the vectors of each expert: split once, so that gradients are put together once."""
    return list(zip(*(vector.unbind() for vector in vectors), strict=True))


def rows_by_expert(x: Tensor, ends: Tensor) -> list[tuple[int, Tensor]]:
    """Return the experts that have rows, with these; if none has rows, no rows of one.

    The rows are split at once: the gradient of a slice would have the size of all rows.
    """
    stops = ends.tolist()
    sizes = [stop - start for start, stop in zip([0, *stops], stops, strict=False)]
    *groups, _ = x.split([*sizes, len(x) - sum(sizes)])
    return [(expert, rows) for expert, rows in enumerate(groups) if len(rows)] or [(0, groups[0])]
