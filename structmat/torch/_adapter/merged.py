"""The weight plus a change, as a dense matrix for one product: for batches of more rows than the matrix has.

Products by matrices cost the same with a change in the weight as without. The matrix lives as long as the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from structmat.torch._adapter.circulant_rows import circulant_rows, room

__all__ = ["merges", "weight_plus_change"]


def merges(x: Tensor, weight: Tensor, factors: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Whether outputs of `x` come from the weight plus the change, which loses no digits.

    On a CPU, for three factors, where the matrix has no more entries than the larger of the inputs and the outputs.
    """
    return (
        x.device.type == "cpu"
        and len(factors) == 3
        and weight.dtype == x.dtype == dtype
        and x.numel() // x.shape[-1] >= min(weight.shape)
    )


def weight_plus_change(weight: Tensor | None, factors: Sequence[Tensor], alpha: float, dtype: torch.dtype) -> Tensor:
    """Return ``W + alpha D C D``, or the change alone, in `dtype`; its entries are single products: no transform."""
    wide = torch.promote_types(dtype, torch.float32)
    left, circulants, right = (factor.to(wide) for factor in factors)
    left = (alpha * left)[:, None]
    (rows, cols), (p, q, b) = (len(left), len(right)), circulants.shape
    right = pad(right, (0, q * b - cols)).reshape(q, b)
    result = left.new_empty(p * b, q * b, dtype=dtype)
    memory = None if dtype == wide else room(circulants)
    for here, pieces in circulant_rows(circulants):
        out = result[here] if memory is None else memory[: pieces.numel()]
        change = torch.mul(pieces, right, out=out.view(pieces.shape)).view(-1, q * b)
        change = change[: max(0, rows - here.start), :cols]
        if weight is None:
            change *= left[here]
        else:
            torch.addcmul(weight[here].to(wide), change, left[here], out=change)
        if memory is not None:  # rounded once
            result[here][: len(change), :cols] = change
    return result[:rows, :cols]
