"""Convolutions whose kernel has a change D C D: one differentiable operation, which keeps the input alone.

The kernel and its change are matrices, see `KernelGeometry`. There are two ways to add the change, which give the same
but for rounding:

- The dense change, whose entries are single products, is added to the kernel, and the convolution is one. The backward
  pass computes the kernel again, and gets the gradients of the vectors from that of the kernel. It is the faster way
  where the kernel has many places, compared with its entries, and the only one for several groups.
- The change is multiplied by rows, as in a linear layer, and its outputs are added to those of the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor

from structmat.torch._changes.dense import (
    change_as_matrix,
    costs_less_dense,
    dense_change,
    differentiable_gradients,
    gradients_of_change,
    wide_dtype,
)
from structmat.torch._changes.kernel_geometry import KernelGeometry
from structmat.torch._changes.operation import autocast_dtype, without_autocast
from structmat.torch._changes.rows import chunked_change, chunked_gradients
from structmat.torch._other_tools.compilers import sees_operations

__all__ = ["changed_convolution", "takes_rows"]

# Windows are gathered and products added up, which takes 0.4 of the rest; and the way by rows is taken where it is
# faster than the dense one by a fifth at least. Both passes of convolutions of 3 x 3, ms by the dense way and by rows:
# 64 channels, 8 of 56 x 56: 72, 201; 256, 8 of 14 x 14: 71, 76; 320, one of 64 x 64: 240, 323 (dense). 512, 8 of 7 x 7:
# 97, 56; 640, one of 32 x 32: 338, 216; 1,280, two of 8 x 8: 802, 187 (by rows, as in residual and diffusion networks).
_OF_WINDOWS = 1.4 * 1.2
# Entries of windows, or of their products, that the way by rows makes at once on a CPU. Passes with four images of
# 16 x 16 and 320 channels take 57 ms so, and 71 ms with all windows at once; with 2**16 they take as long, and those of
# kernels of size 1 a tenth longer.
_WINDOWS = 2**19


def takes_rows(x: Tensor, geometry: KernelGeometry, n_factors: int) -> bool:
    """Return whether the change is better multiplied by rows than made dense."""
    if geometry.groups > 1 or sees_operations() or not x.numel():
        return False
    # A dense change of more factors needs products of matrices.
    if n_factors > 3:
        return True
    if x.device.type != "cpu":
        return False
    entries = prod(geometry.matrix_shape)
    row_entries = _OF_WINDOWS * geometry.n_rows(x) * sum(geometry.matrix_shape)
    return not costs_less_dense(entries, entries * x.shape[0] * prod(geometry.places(x)), row_entries)


def changed_convolution(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    geometry: KernelGeometry,
    vectors: Sequence[Tensor],
    gain: float,
) -> Tensor:
    """Return `y` plus the convolution of `x` with a change; or, for a given weight, the convolution with their sum.

    Neither is changed. Under autocast all is cast as for a convolution. The sum with a weight of half precision would
    lose digits of the change: give `y` there.
    """
    dtype = autocast_dtype(x) or x.dtype
    if sees_operations():
        with without_autocast(x):
            return _plainly(y, x, weight, bias, geometry, dtype, vectors, gain)
    by_rows = y is not None and takes_rows(x, geometry, len(vectors))
    return _ChangedConvolution.apply(y, x, weight, bias, geometry, by_rows, dtype, gain, *vectors)


def _cast(given: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if given is None else given.to(dtype)


def _plainly(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    geometry: KernelGeometry,
    dtype: torch.dtype,
    vectors: Sequence[Tensor],
    gain: float,
) -> Tensor:
    """The same by plain operations, in the dense way."""
    kernel = geometry.as_kernel(change_as_matrix(vectors, gain, wide_dtype(*vectors, weight)))
    if weight is not None:
        kernel = weight + kernel
    out = geometry.convolve(x.to(dtype), kernel.to(dtype), _cast(bias, dtype))
    return out if y is None else (y + out).to(y.dtype)


class _ChangedConvolution(torch.autograd.Function):
    """`changed_convolution`, in one of the two ways."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor | None,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        geometry: KernelGeometry,
        by_rows: bool,
        dtype: torch.dtype,
        gain: float,
        *vectors: Tensor,
    ) -> Tensor:
        ctx.geometry, ctx.by_rows, ctx.dtype, ctx.gain = geometry, by_rows, dtype, gain
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *vectors)
        with without_autocast(x):
            if y is not None and by_rows:
                return _added_by_rows(y, x, geometry, vectors, gain)
            kernel = _changed_kernel(weight, geometry, vectors, gain, dtype)
            added = geometry.convolve(x.to(dtype), kernel, _cast(bias, dtype))
            return added if y is None else torch.empty_like(y).copy_(y + added)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, *vectors = ctx.saved_tensors
        if dy is None:
            return (None,) * (8 + len(vectors))
        needs_y, needs_x = ctx.needs_input_grad[:2]
        with without_autocast(x):
            # With gradients enabled here, someone differentiates the gradient.
            compute = _differentiable_gradients if torch.is_grad_enabled() else _gradients
            dx, gradients = compute(ctx, dy, x, weight, vectors, needs_x=needs_x)
        return dy if needs_y else None, _cast(dx, x.dtype), *(None,) * 6, *gradients


def _gradients(
    ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, vectors: Sequence[Tensor], *, needs_x: bool
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """Return the gradients of `x` and of the vectors."""
    if ctx.by_rows:
        return _gradients_by_rows(dy, x, ctx.geometry, vectors, ctx.gain, needs_x=needs_x)
    kernel = _changed_kernel(weight, ctx.geometry, vectors, ctx.gain, ctx.dtype)
    dx, dkernel = ctx.geometry.gradients(
        dy.to(ctx.dtype), x.to(ctx.dtype), kernel, needs_x=needs_x, needs_kernel=any(ctx.needs_input_grad[8:])
    )
    if dkernel is None:
        return dx, [None] * len(vectors)
    gradient = ctx.geometry.as_matrix(dkernel).to(wide_dtype(*vectors, weight))
    return dx, gradients_of_change(gradient, vectors, ctx.gain)


def _differentiable_gradients(
    ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, vectors: Sequence[Tensor], *, needs_x: bool
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """Return the same by plain operations, which can be differentiated again."""
    out = _plainly(None, x, weight, None, ctx.geometry, ctx.dtype, vectors, ctx.gain)
    dx, *gradients = differentiable_gradients(out, (x, *vectors), dy)
    return dx if needs_x else None, gradients


# ---- the dense way


def _changed_kernel(
    weight: Tensor | None, geometry: KernelGeometry, vectors: Sequence[Tensor], gain: float, dtype: torch.dtype
) -> Tensor:
    """Return a weight plus its change, or the change alone, in a dtype."""
    wide = wide_dtype(*vectors, weight)
    change = geometry.as_kernel(dense_change(geometry.matrix_shape, vectors, gain, wide))
    # Outputs are stored as the kernel is: with the channels last, say.
    if weight is None:
        return change.new_empty(change.shape, dtype=dtype).copy_(change)
    if weight.dtype == wide == dtype:
        # A copy in the order (out, k_1, ..., k_d, in) comes first: for 128 channels and 3 x 3 both take 0.2 ms, and the
        # sum with a change in the order of the matrix 0.6.
        together = change.movedim(1, -1).contiguous().movedim(-1, 1)
        return torch.add(weight, together, out=torch.empty_like(weight))
    return torch.empty_like(weight, dtype=dtype).copy_(weight + change)


# ---- the way by rows


def _pieces(x: Tensor, geometry: KernelGeometry, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the samples of `x`, and of other tensors, so many at a time that their windows take little memory."""
    size = x.shape[0]
    if x.device.type == "cpu":
        size = max(1, _WINDOWS // (geometry.n_rows(x[:1]) * max(geometry.matrix_shape)))
    return zip(*(each.split(size) for each in (x, *others)), strict=True)


def _added_by_rows(y: Tensor, x: Tensor, geometry: KernelGeometry, vectors: Sequence[Tensor], gain: float) -> Tensor:
    """Return `y` plus the convolution of `x` with the change, which is computed in float32 at least."""
    result = torch.empty_like(y)
    dtype = wide_dtype(*vectors, x)
    for xs, ys, results in _pieces(x, geometry, y, result):
        rows = geometry.windows(xs)
        # One zero for all outputs, which takes no memory: the change alone is computed.
        nothing = rows.new_zeros(1, dtype=dtype).expand(rows.shape[0], geometry.matrix_shape[0])
        change = geometry.folded(chunked_change(nothing, rows, None, None, vectors, gain), xs)
        torch.add(ys, change, out=results)
    return result


def _gradients_by_rows(
    dy: Tensor, x: Tensor, geometry: KernelGeometry, vectors: Sequence[Tensor], gain: float, *, needs_x: bool
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    dtype = wide_dtype(*vectors)
    wide = [vector.to(dtype) for vector in vectors]
    # From dy, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
    dx = dy.new_empty_strided(x.shape, torch.empty_like(x).stride(), dtype=x.dtype)
    totals: list[Tensor] = []
    for xs, dys, dxs in _pieces(x, geometry, dy, dx):
        rows, dproducts = geometry.windows(xs), geometry.gradient_of_products(dys, xs)
        drows, *found = chunked_gradients(dproducts, rows, None, wide, gain, needs_x=needs_x)
        if drows is not None:
            dxs.copy_(geometry.gradient_of_windows(drows, xs))
        parts = cast("list[Tensor]", found)
        totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
    return dx if needs_x else None, [_cast(total, v.dtype) for total, v in zip(totals, vectors, strict=True)]
