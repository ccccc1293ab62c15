"""A change in bfloat16 as a dense matrix: for processors that multiply such matrices faster than they transform rows.

With ``M = g^T x`` summed over the rows, the gradient of each factor is a sum over a matrix of the layer's size,
whatever the number of rows. The matrix of the change and M are rounded to bfloat16 and sums are in float32, as in all
products of torch in bfloat16. Both live as long as the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from structmat.torch._adapter.change import precision
from structmat.torch._adapter.circulant_rows import LagSums, circulant_rows, room
from structmat.torch._adapter.merged import weight_plus_change

__all__ = ["add_dense_change", "dense_gradients", "multiplies_dense"]

# Entries of the matrix, measured on one thread: with more, transforms take less time for any number of rows. With
# fewer, as many rows as outputs repay it, or sqrt(m n) if that is less.
_LARGEST = 3 * 2**20


def has_matrix_unit() -> bool:
    """Whether the processor has a unit for products of matrices in bfloat16: AMX."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and supported()


def multiplies_dense(y: Tensor, x: Tensor, factors: Sequence[Tensor]) -> bool:
    """Whether rows of outputs `y` (R, m) get the change of `x`, and its gradients, from a dense matrix."""
    m, n = factors[0].shape[0], factors[-1].shape[0]
    return (
        y.dtype == x.dtype == torch.bfloat16
        and precision(*factors) == torch.float32
        and y.device.type == "cpu"
        and len(factors) == 3
        and m * n <= _LARGEST
        and m * min(m, n) <= y.shape[0] ** 2
        and has_matrix_unit()
        # Gradients that are mapped over a batch: by `torch.autograd.grad` itself, or by `torch.func`.
        and not torch._C._functorch.is_legacy_batchedtensor(y)
        and not torch._C._are_functorch_transforms_active()
    )


def add_dense_change(y: Tensor, x: Tensor, factors: Sequence[Tensor], alpha: float, out: Tensor) -> Tensor:
    """Return ``y + alpha D C D x`` of rows."""
    return torch.addmm(y, x, weight_plus_change(None, factors, alpha, y.dtype).T, out=out)


def dense_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, factors: Sequence[Tensor], alpha: float, *, needs_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Return the gradient of rows `x`, that of the weight's product included, and those of the three factors.

    The weight plus the change is rounded here, to as many digits as the weight has.
    """
    dx = dy @ weight_plus_change(weight, factors, alpha, dy.dtype) if needs_x else None
    # A copy of the transpose: products of many rows by transposed views take far longer.
    return dx, _sums(dy.T.contiguous() @ x, factors, alpha)


def _sums(products: Tensor, factors: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """Return the gradients of the factors from the products (m, n) of gradients and inputs, summed over the rows."""
    left, circulants, right = (factor.to(torch.float32) for factor in factors)
    (rows, cols), (p, q, b) = (len(left), len(right)), circulants.shape
    left, right = (pad(each, (0, size - len(each))) for each, size in ((left, p * b), (right, q * b)))
    of_left, of_circulants, of_right = torch.zeros_like(left), LagSums(circulants), torch.zeros_like(right)
    first, second = room(circulants), room(circulants)
    for here, pieces in circulant_rows(circulants):
        entries = first[: pieces.numel()].view(-1, q * b)
        cropped = entries[: max(0, rows - here.start), :cols]
        if cropped.shape != entries.shape:
            entries.zero_()  # what was there before may be NaN
        cropped.copy_(products[here])
        weighted = torch.mul(pieces, entries.view(pieces.shape), out=second[: pieces.numel()].view(pieces.shape))
        weighted = weighted.view(-1, q * b)
        torch.mv(weighted, right, out=of_left[here])
        of_right.addmv_(weighted.T, left[here])
        entries *= left[here, None]
        of_circulants.add(here, entries.view(pieces.shape), right.view(q, b))
    sums = of_left[:rows], of_circulants.total(), of_right[:cols]
    return [(alpha * total).to(factor.dtype) for total, factor in zip(sums, factors, strict=True)]
