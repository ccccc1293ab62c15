"""Nested tensors, whose samples have different numbers of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["rows_of_nested"]


def rows_of_nested(x: Tensor, row_axes: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the rows of all samples of a nested tensor as one tensor, and what nests other rows as these were.

    `row_axes` is the number of the last axes that belong to a row.
    """
    if x.layout == torch.jagged:
        given: Any = x
        nested: Any = torch.nested.nested_tensor_from_jagged
        # Views leave some of the values out, of which their lengths tell.
        of_samples = {"offsets": given.offsets(), "lengths": given.lengths(), "jagged_dim": given._ragged_idx}
        return given.values(), partial(nested, **of_samples)
    samples = x.unbind()
    axes = [sample.ndim - row_axes for sample in samples]
    rows = [sample.reshape(-1, *sample.shape[axis:]) for sample, axis in zip(samples, axes, strict=True)]
    counts = [len(each) for each in rows]

    def nested_again(values: Tensor) -> Tensor:
        pieces = zip(values.split(counts), samples, axes, strict=True)
        return torch.nested.as_nested_tensor(
            [piece.reshape(*sample.shape[:axis], *piece.shape[1:]) for piece, sample, axis in pieces]
        )

    return torch.cat(rows), nested_again
