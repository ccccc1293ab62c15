"""Adding a change to outputs, and its gradients, in chunks of rows that are small enough to stay in cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from structmat.torch._adapter.autocast import without_autocast
from structmat.torch._adapter.change import (
    Kept,
    Working,
    change_rows,
    finished,
    gradient_rows,
    precision,
    summed_product,
)
from structmat.torch._adapter.dense_bfloat16 import add_dense_change, dense_gradients, multiplies_dense
from structmat.torch._adapter.merged import merges, weight_plus_change

__all__ = ["Mode", "as_rows", "chunked_change", "chunked_gradients"]

Mode: TypeAlias = Literal["recompute", "cache"]

# On a CPU, measured on one and two threads. A chunk has so many elements at most, or it leaves the cache; more threads
# get as much each. Below, the cost of calls counts.
_CHUNK = 2**17
# Rows are transformed so many at once; what is left over, one by one.
_TOGETHER = 16
# Batches give as many chunks at least: temporaries stay smaller than what the layer takes and returns, and the system
# need not give and take their memory each time.
_LEAST = 8
# On other devices chunks only bound the memory of temporaries.
_DEVICE_CHUNK = 2**26


def as_rows(x: Tensor) -> Tensor:
    """Return all rows of the last axis as a matrix: inside of the function, so that no copy is kept."""
    return x.reshape(-1, x.shape[-1])


def _chunk(x: Tensor, factors: Sequence[Tensor]) -> int:
    """Return the number of rows of a chunk."""
    width = sum(f.numel() if f.ndim == 1 else max(f.shape[:2]) * f.shape[2] for f in factors) // len(factors)
    if x.device.type != "cpu":
        return max(_TOGETHER, _DEVICE_CHUNK // width)
    most = _CHUNK * max(2, torch.get_num_threads()) // 2 // width
    rows = min(most, x.numel() // x.shape[-1] // _LEAST)
    return max(1, rows // _TOGETHER) * _TOGETHER


def _split(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return the chunks of tensors of as many rows."""
    if tensors[0].shape[0] <= rows:
        return iter((tensors,))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def chunked_change(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    factors: Sequence[Tensor],
    alpha: float,
    mode: Mode = "recompute",
) -> tuple[Tensor, list[Tensor]]:
    """Return ``y + alpha D C D x``, or ``W x + bias + alpha D C D x``, and what to keep for the backward pass."""
    with without_autocast(x):
        if mode == "recompute" and weight is not None and merges(x, weight, factors, precision(x, weight, *factors)):
            return _product(x, weight_plus_change(weight, factors, alpha, x.dtype), bias), []
        result = _product(x, cast("Tensor", weight), bias) if y is None else y.new_empty(y.shape)
        result = result.contiguous()  # as it is already, so that its rows are a view
        out = as_rows(result)
        base = out if y is None else as_rows(y)
        if mode == "recompute" and multiplies_dense(base, x, factors):
            add_dense_change(base, as_rows(x), factors, alpha, out)
            return result, []
        dtype = precision(x, base, *factors)
        working = Working.of(factors, alpha, dtype)
        kept: list[Tensor] = []
        for xs, bases, outs in _split(_chunk(x, factors), as_rows(x), base, out):
            h, scale, steps = change_rows(xs.to(dtype), working)
            if out.dtype == dtype:
                torch.addcmul(bases, h, scale, out=outs)
            else:  # rounded once, after the addition
                outs.copy_(bases.to(dtype).addcmul_(h, scale))
            if mode == "cache":
                kept += [tensor for step in steps for tensor in step]
    return result, kept


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the outputs of a linear layer as no view, which nobody could change in place after a custom function."""
    rows = linear(as_rows(x), weight, bias)
    return torch.ops.aten._unsafe_view(rows, (*x.shape[:-1], weight.shape[0]))


def chunked_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    factors: Sequence[Tensor],
    kept: Sequence[Tensor],
    alpha: float,
    *,
    needs_x: bool = True,
) -> list[Tensor | None]:
    """Return the gradient of `x`, that of the weight's product included, and those of the factors."""
    x_rows, dy_rows = as_rows(x), as_rows(dy)
    if not kept and multiplies_dense(dy_rows, x, factors):
        dx, gradients = dense_gradients(dy_rows, x_rows, weight, factors, alpha, needs_x=needs_x)
        return [None if dx is None else dx.view(x.shape), *gradients]
    dtype = precision(x, dy, *factors)
    working = Working.of(factors, alpha, dtype)
    adjoints, remaining = working.adjoints(), iter(kept)
    result = None
    if needs_x:
        # From dy, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
        result = dy.new_zeros(x.shape, dtype=x.dtype) if weight is None else dy @ weight
        result = result.contiguous()
    dx = x_rows if result is None else as_rows(result)  # the former only to have as many chunks
    totals: list[Tensor] = []
    # Kept tensors have the chunks of the forward pass, which the number of threads decides.
    rows = kept[0].shape[0] if kept else _chunk(x, factors)
    for xs, dys, dxs in _split(rows, x_rows, dy_rows, dx):
        wide = xs.to(dtype)
        if kept:
            steps = [Kept(next(remaining), next(remaining)) for _ in adjoints]
        else:
            _, _, steps = change_rows(wide, working)
        own = dys.dtype != dtype
        g, scale, sums = gradient_rows(dys.to(dtype), working, adjoints, steps, overwrite=own)
        if result is not None and result.dtype == dtype:
            dxs.addcmul_(g, scale)
        elif result is not None:
            dxs.copy_(dxs.to(dtype).addcmul_(g, scale))
        sums.append(summed_product(g, wide, overwrite=True))
        totals = [total.add_(part) for total, part in zip(totals, sums, strict=True)] if totals else sums
        del g  # room in the cache for the next chunk
    return [result, *finished(totals, factors, alpha)]
