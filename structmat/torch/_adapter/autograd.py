"""Adding a change to a layer's output: the one differentiable operation of all adapters.

Eager code goes through one `torch.autograd.Function`. It works on chunks of rows, small enough to stay in cache, and
keeps nothing for the backward pass but the layer's input ("recompute") or the spectra as well ("cache"). Compilers take
the former as one operation; exporters and the transforms of `torch.func` see plain operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import linear

from structmat.torch._adapter.autocast import product_dtype, without_autocast
from structmat.torch._adapter.change import (
    Working,
    change_rows,
    change_rows_by_matrices,
    finished,
    gradient_rows,
    precision,
    summed_product,
    transposed,
)
from structmat.torch._adapter.chunked import Mode, as_rows, chunked_change, chunked_gradients
from structmat.torch._adapter.compiled import compiled_change

__all__ = ["add_change", "linear_with_change"]


def add_change(y: Tensor, x: Tensor, factors: Sequence[Tensor], alpha: float, mode: Mode = "recompute") -> Tensor:
    """Return ``y + alpha D C D x`` for rows on the last axis of `x`, in the dtype of `y`; neither is changed.

    `factors` holds diagonals (m,) and grids of circulants (p, q, b), in the order of the product. Where outputs have
    the dtype of autocast, inputs are cast to it, as those of the base that made the outputs were.
    """
    return _applied(y, x, None, None, factors, alpha, mode)


def linear_with_change(
    x: Tensor, weight: Tensor, bias: Tensor | None, factors: Sequence[Tensor], alpha: float, mode: Mode = "recompute"
) -> Tensor:
    """Return ``W x + bias + alpha D C D x`` with a frozen weight: added in place, in both directions.

    Under autocast all is cast as a linear layer casts it, for the time of the operation alone.
    """
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
    # Exporters, tracers, the transforms of torch.func and derivatives in forward mode need plain operations, whose
    # gradients they know.
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    dtype = product_dtype(x)
    dtype = dtype if y is None or y.dtype == dtype else x.dtype
    compiling = _is_compiling_only()
    exporting = torch.jit.is_tracing() or (not compiling if torch.compiler.is_compiling() else _is_recording())
    whole = compiling and not transformed and mode == "recompute"
    # Transforms cannot take zero rows, so exported programs cannot either; gradients are zeros.
    empty = not exporting and not whole and not x.numel()
    if not (exporting or compiling or transformed or empty):
        return _AddedChange.apply(y, x, weight, bias, alpha, mode, dtype, *factors)
    given = x.to(dtype), _cast(weight, dtype), _cast(bias, dtype)
    if whole:
        return compiled_change(y, *given, list(factors), alpha)
    return _unchanged(y, *given, factors) if empty else _plainly(y, *given, factors, alpha)


def _cast(given: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if given is None else given.to(dtype)


def _unchanged(
    y: Tensor | None, x: Tensor, weight: Tensor | None, bias: Tensor | None, factors: Sequence[Tensor]
) -> Tensor:
    """Return the base's outputs of no rows, of which all factors have a gradient: zeros."""
    with without_autocast(x):
        base = linear(x, cast("Tensor", weight), bias) if y is None else y + 0 * x.sum()
        return base + 0 * sum(f.sum() for f in factors).to(base.dtype)


def _plainly(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    factors: Sequence[Tensor],
    alpha: float,
) -> Tensor:
    """The same by plain operations on all rows at once."""
    with without_autocast(x):
        base = linear(x, cast("Tensor", weight), bias) if y is None else y
        dtype = precision(x, base, *factors)
        if torch.onnx.is_in_onnx_export() and not _has_transforms(factors):
            change = change_rows_by_matrices(as_rows(x), factors, alpha, dtype)
        else:
            h, scale, _ = change_rows(as_rows(x).to(dtype), Working.of(factors, alpha, dtype))
            change = h * scale
        return (base + change.reshape(base.shape)).to(base.dtype)


def _is_compiling_only() -> bool:
    """Whether a compiler asks, and no exporter, whose programs run where this package is not."""
    # Older versions of torch cannot tell: there compilers see plain operations.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return torch.compiler.is_compiling() and not exporting()


def _is_recording() -> bool:
    """Whether `make_fx` records a graph."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _has_transforms(factors: Sequence[Tensor]) -> bool:
    """Whether a file of ONNX computes circulants well by transforms.

    The older exporter has none, and those of ONNX Runtime lose digits where lengths are no powers of two: for 384 the
    errors in float32 are 3e-5, in place of 3e-7.
    """
    return not torch.jit.is_tracing() and all(f.shape[2].bit_count() == 1 for f in factors[1::2])


class _AddedChange(torch.autograd.Function):
    """``y + alpha D C D x``, or ``W x + bias + alpha D C D x`` where a weight is given instead of y.

    Inputs, weight and bias are used in `dtype`, and kept as they are given: layers may have the same inputs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor | None,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        alpha: float,
        mode: Mode,
        dtype: torch.dtype,
        *factors: Tensor,
    ) -> Tensor:
        given = x.to(dtype), _cast(weight, dtype), _cast(bias, dtype)
        trains = any(ctx.needs_input_grad[7:])
        result, kept = chunked_change(y, *given, factors, alpha, mode if trains else "recompute")
        ctx.alpha, ctx.dtype, ctx.n_factors, ctx.trains = alpha, dtype, len(factors), trains
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x if trains else None, weight, *factors, *kept)
        return result

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * (7 + ctx.n_factors)
        x, weight, *tensors = ctx.saved_tensors
        factors, kept = tensors[: ctx.n_factors], tensors[ctx.n_factors :]
        needs_y, needs_x = ctx.needs_input_grad[:2]
        if not ctx.trains:
            dx = _of_inputs_alone(dy, _cast(weight, ctx.dtype), factors, ctx.alpha) if needs_x else None
            return dy if needs_y else None, dx, *[None] * (5 + ctx.n_factors)
        with without_autocast(x):
            given = x.to(ctx.dtype), _cast(weight, ctx.dtype) if needs_x else None
            # With gradients enabled here, someone differentiates the gradient: nothing in place then.
            compute = _differentiable_gradients if torch.is_grad_enabled() else chunked_gradients
            dx, *gradients = compute(dy, *given, factors, kept, ctx.alpha, needs_x=needs_x)
        return dy if needs_y else None, dx, None, None, None, None, None, *gradients


def _of_inputs_alone(dy: Tensor, weight: Tensor | None, factors: Sequence[Tensor], alpha: float) -> Tensor:
    """Return the gradient of the inputs where the factors are frozen: the transposed layer, which needs no inputs."""
    adjoint = transposed(factors)
    y = dy.new_zeros(*dy.shape[:-1], len(adjoint[0])) if weight is None else None
    given = y, dy, None if weight is None else weight.T, None
    # As below; nor can what is written in place have the axis of a batch of gradients.
    if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(dy):
        return _plainly(*given, adjoint, alpha)
    return chunked_change(*given, adjoint, alpha)[0]


def _differentiable_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    factors: Sequence[Tensor],
    _: Sequence[Tensor],
    alpha: float,
    *,
    needs_x: bool,
) -> list[Tensor | None]:
    """Return the gradients of `x` and the factors by plain operations on all rows at once."""
    dtype = precision(x, dy, *factors)
    working = Working.of(factors, alpha, dtype)
    xs, dys = as_rows(x).to(dtype), as_rows(dy).to(dtype)
    _, _, steps = change_rows(xs, working)
    g, scale, sums = gradient_rows(dys, working, working.adjoints(), steps)
    sums.append(summed_product(g, xs, overwrite=False))
    gradients = finished(sums, factors, alpha)
    if not needs_x:
        return [None, *gradients]
    dx = (g * scale).to(x.dtype).reshape(x.shape)
    return [dx if weight is None else dy @ weight + dx, *gradients]
