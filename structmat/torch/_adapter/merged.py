"""The weight plus a change, as a dense matrix for one product: for batches of more rows than the matrix has.

Products by matrices cost the same with a change in the weight as without. The matrix lives as long as the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["merges", "weight_plus_change"]

# Entries that are computed at once: they stay in cache, and the cost of calls is small.
_PIECE = 2**17


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


def weight_plus_change(weight: Tensor, factors: Sequence[Tensor], alpha: float) -> Tensor:
    """Return ``W + alpha D C D``, whose entries are single products: no transform."""
    left, circulants, right = (factor.to(weight.dtype) for factor in factors)
    left = (alpha * left)[:, None]
    (rows, cols), (p, q, b) = weight.shape, circulants.shape
    right = pad(right, (0, q * b - cols)).reshape(q, b)
    height, several = min(b, max(1, _PIECE // (q * b))), max(1, _PIECE // (q * b * b))
    period = (height + 1) * b
    result = weight.new_empty(p * b, q * b)
    first_rows = circulants.flip(2).roll(1, 2)
    for i in range(0, p, several):
        # Vectors behind each other: one that starts b - 1 later is shifted by one, as the next row of a circulant is.
        repeated = first_rows[i : i + several].repeat(1, 1, height + 1)
        for top in range(0, b, height):
            shape = (len(repeated), min(height, b - top), q, b)
            pieces = repeated.as_strided(shape, (q * period, b - 1, period, 1), -top % b)
            here = slice(i * b + top, i * b + top + shape[0] * shape[1])
            change = torch.mul(pieces, right, out=result[here].view(shape)).view(-1, q * b)
            change = change[: max(0, rows - here.start), :cols]
            torch.addcmul(weight[here], change, left[here], out=change)
    return result[:rows, :cols]
