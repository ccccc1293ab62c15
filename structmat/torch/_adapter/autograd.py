"""Adding a change to a layer's output: the one differentiable operation of all adapters.

Eager code goes through one `torch.autograd.Function`. It works on chunks of rows, small enough to stay in cache, and
keeps nothing for the backward pass but the layer's input ("recompute") or the spectra as well ("cache"). Compilers,
exporters and the transforms of `torch.func` see plain operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import linear

from structmat.torch._adapter.rows import (
    Kept,
    Working,
    change_rows,
    change_rows_by_matrices,
    finished,
    gradient_rows,
    precision,
)

__all__ = ["Mode", "add_change", "autocasts", "linear_with_change"]

Mode: TypeAlias = Literal["recompute", "cache"]

# Elements of a chunk on a CPU, measured on one and two threads: smaller ones drown in the cost of calls, larger ones
# leave the cache. More threads get as much each.
_CHUNK = 2**17
# On other devices chunks only bound the memory of temporaries.
_DEVICE_CHUNK = 2**26


def add_change(y: Tensor, x: Tensor, factors: Sequence[Tensor], alpha: float, mode: Mode = "recompute") -> Tensor:
    """Return ``y + alpha D C D x`` for rows on the last axis of `x`, in the dtype of `y`; neither is changed.

    `factors` holds diagonals (m,) and grids of circulants (p, q, b), in the order of the product.
    """
    return _applied(y, x, None, None, factors, alpha, mode)


def linear_with_change(
    x: Tensor, weight: Tensor, bias: Tensor | None, factors: Sequence[Tensor], alpha: float, mode: Mode = "recompute"
) -> Tensor:
    """Return ``W x + bias + alpha D C D x`` with a frozen weight: added in place, in both directions."""
    return _applied(None, x, weight, bias, factors, alpha, mode)


def _applied(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    factors: Sequence[Tensor],
    alpha: float,
    mode: Mode,
) -> Tensor:
    # Compilers, tracers, the transforms of torch.func and derivatives in forward mode need plain operations, whose
    # gradients they know.
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed:
        return _plainly(y, x, weight, bias, factors, alpha)
    if not x.numel():  # which transforms refuse; gradients are zeros all the same
        base = linear(x, weight, bias) if y is None else y + 0 * x.sum()
        return base + 0 * sum(f.sum() for f in factors).to(base.dtype)
    return _AddedChange.apply(y, x, weight, bias, alpha, mode, *factors)


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x`; some, such as "meta", have none."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast would run the sums over rows in half precision."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


def _plainly(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    factors: Sequence[Tensor],
    alpha: float,
) -> Tensor:
    """The same by plain operations on all rows at once."""
    with _without_autocast(x):
        base = linear(x, cast("Tensor", weight), bias) if y is None else y
        dtype = precision(x, base, *factors)
        if torch.onnx.is_in_onnx_export() and not _has_transforms(factors):
            change = change_rows_by_matrices(_rows(x), factors, alpha, dtype)
        else:
            h, scale, _ = change_rows(_rows(x).to(dtype), Working.of(factors, alpha, dtype))
            change = h * scale
        return (base + change.reshape(base.shape)).to(base.dtype)


def _has_transforms(factors: Sequence[Tensor]) -> bool:
    """Whether a file of ONNX computes circulants well by transforms.

    The older exporter has none, and those of ONNX Runtime lose digits where lengths are no powers of two: for 384 the
    errors in float32 are 3e-5, in place of 3e-7.
    """
    return not torch.jit.is_tracing() and all(f.shape[2].bit_count() == 1 for f in factors[1::2])


def _rows(x: Tensor) -> Tensor:
    """Return all rows of the last axis as a matrix: inside of the function, so that no copy is kept."""
    return x.reshape(-1, x.shape[-1])


def _chunk(x: Tensor, factors: Sequence[Tensor]) -> int:
    """Return the number of rows of a chunk."""
    width = sum(f.numel() if f.ndim == 1 else max(f.shape[:2]) * f.shape[2] for f in factors) // len(factors)
    budget = _CHUNK * max(2, torch.get_num_threads()) // 2 if x.device.type == "cpu" else _DEVICE_CHUNK
    return max(16, budget // width)


def _split(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return the chunks of tensors of as many rows."""
    if tensors[0].shape[0] <= rows:
        return iter((tensors,))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


class _AddedChange(torch.autograd.Function):
    """``y + alpha D C D x``, or ``W x + bias + alpha D C D x`` where a weight is given instead of y."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor | None,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        alpha: float,
        mode: Mode,
        *factors: Tensor,
    ) -> Tensor:
        with _without_autocast(x):
            result = linear(x, cast("Tensor", weight), bias) if y is None else y.new_empty(y.shape)
            result = result.contiguous()  # as it is already, so that its rows are a view
            out = _rows(result)
            base = out if y is None else _rows(y)
            dtype = precision(x, base, *factors)
            working = Working.of(factors, alpha, dtype)
            kept: list[Tensor] = []
            for xs, bases, outs in _split(_chunk(x, factors), _rows(x), base, out):
                h, scale, steps = change_rows(xs.to(dtype), working)
                if out.dtype == dtype:
                    torch.addcmul(bases, h, scale, out=outs)
                else:  # rounded once, after the addition
                    outs.copy_(torch.addcmul(bases.to(dtype), h, scale))
                if mode == "cache":
                    kept += [tensor for step in steps for tensor in step]
        ctx.alpha, ctx.n_factors = alpha, len(factors)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *factors, *kept)
        return result

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * (6 + ctx.n_factors)
        x, weight, *tensors = ctx.saved_tensors
        factors, kept = tensors[: ctx.n_factors], tensors[ctx.n_factors :]
        needs_y, needs_x = ctx.needs_input_grad[:2]
        with _without_autocast(x):
            # With gradients enabled here, someone differentiates the gradient: nothing in place then.
            compute = _differentiable_gradients if torch.is_grad_enabled() else _chunked_gradients
            dx, *gradients = compute(dy, x, weight if needs_x else None, factors, kept, ctx.alpha)
        return dy if needs_y else None, dx if needs_x else None, None, None, None, None, *gradients


def _differentiable_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, factors: Sequence[Tensor], _: Sequence[Tensor], alpha: float
) -> list[Tensor]:
    """Return the gradients of `x` and the factors by plain operations on all rows at once."""
    dtype = precision(x, dy, *factors)
    working = Working.of(factors, alpha, dtype)
    xs, dys = _rows(x).to(dtype), _rows(dy).to(dtype)
    _, _, steps = change_rows(xs, working)
    g, scale, sums = gradient_rows(xs, dys, working, working.adjoints(), steps)
    dx = (g * scale).to(x.dtype).reshape(x.shape)
    return [dx if weight is None else dy @ weight + dx, *finished(sums, factors, alpha)]


def _chunked_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, factors: Sequence[Tensor], kept: Sequence[Tensor], alpha: float
) -> list[Tensor]:
    """Return the same, chunk by chunk."""
    dtype = precision(x, dy, *factors)
    working = Working.of(factors, alpha, dtype)
    adjoints, remaining = working.adjoints(), iter(kept)
    # From dy, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
    result = dy.new_zeros(x.shape, dtype=x.dtype) if weight is None else dy @ weight
    result = result.contiguous()
    x, dy, dx = _rows(x), _rows(dy), _rows(result)
    totals: list[Tensor] = []
    for xs, dys, dxs in _split(_chunk(x, factors), x, dy, dx):
        wide = xs.to(dtype)
        if kept:
            steps = [Kept(next(remaining), next(remaining)) for _ in adjoints]
        else:
            _, _, steps = change_rows(wide, working)
        g, scale, sums = gradient_rows(wide, dys.to(dtype), working, adjoints, steps)
        totals = [total + part for total, part in zip(totals, sums, strict=True)] if totals else sums
        if dx.dtype == dtype:
            dxs.addcmul_(g, scale)
        else:
            dxs.copy_(torch.addcmul(dxs.to(dtype), g, scale))
        del g  # room in the cache for the next chunk
    return [result, *finished(totals, factors, alpha)]
