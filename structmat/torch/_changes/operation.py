"""Adding a change to a layer's output: the one differentiable operation of all adapters.

Eager code goes through one `torch.autograd.Function`, which keeps nothing for the backward pass but the layer's input.
Compilers take the same as one operation; exporters and the transforms of `torch.func` see plain operations.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from structmat._torch_modes import autocast_dtype, for_compilers, has_transforms, sees_operations
from structmat.torch._changes.dense import change_as_matrix, differentiable_gradients
from structmat.torch._changes.rows import Samples, Working, change_rows, chunked_change, chunked_gradients

__all__ = ["apply_change", "fuses", "get_one_dtype", "without_autocast"]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast would run the sums over rows in half precision."""
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)


def fuses(base: Any, x: Tensor, classes: Collection[type] = (nn.Linear,)) -> bool:
    """Whether a base is a plain frozen layer of a class that nobody watches, so that one operation can do it all.

    Calls are watched by hooks of the module, by those for all modules, of a profiler, say, for which torch has no
    public names, or by a forward pass of its own.
    """
    if type(base) not in classes or "forward" in base.__dict__:
        return False
    every = nn.modules.module
    if (
        base._forward_hooks
        or base._forward_pre_hooks
        or base._backward_hooks
        or base._backward_pre_hooks
        or every._global_forward_hooks
        or every._global_forward_pre_hooks
        or every._global_backward_hooks
        or every._global_backward_pre_hooks
    ):
        return False
    weight, bias = base.weight, base.bias
    if type(weight) is not nn.Parameter or weight.requires_grad or (bias is not None and bias.requires_grad):
        return False
    same = weight.dtype == x.dtype and (bias is None or bias.dtype == x.dtype)
    return same or get_one_dtype(x, weight, bias)


def get_one_dtype(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether inputs, weight and bias of different dtypes get one from autocast."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return False
    return autocast_dtype(weight) == dtype and (bias is None or autocast_dtype(bias) == dtype)


def apply_change(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: Sequence[Tensor],
    gain: float,
    samples: Samples | None = None,
) -> Tensor:
    """Return ``y + gain D C D x`` for rows on the last axis of `x`, in the dtype of `y`; neither is changed.

    If `y` is None, it is the product of a base for which `fuses` holds: then both are computed in one operation, added
    in place, in both directions. `vectors` are diagonals (m,) and grids of circulants (p, q, b), in the order of the
    product. Under autocast all is cast as a linear layer casts it, for the time of the operation alone; where outputs
    are not of its dtype, inputs are as they were given.

    Where samples have different changes, the vectors are stacks of those of several, and `samples` tells which one each
    sample has; `x` holds the rows of one sample after the other, as many of each.
    """
    # Asked here too, as it is off in most forward passes.
    is_cast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
    dtype = autocast_dtype(x) if is_cast else None
    if dtype is not None and y is not None and y.dtype != dtype:
        dtype = x.dtype
    operations = sees_operations()
    if not operations and x.numel():
        if torch.is_grad_enabled():
            return _AddedChange.apply(y, x, weight, bias, dtype, gain, samples, *vectors)
        if dtype is None:
            return chunked_change(y, x, weight, bias, vectors, gain, samples)
        return _in_dtype(dtype, y, x, weight, bias, vectors, gain, samples)
    if dtype is not None:
        x, weight, bias = x.to(dtype), _cast(weight, dtype), _cast(bias, dtype)
    if operations and for_compilers():
        numbers, scales = (None, None) if samples is None else (samples.numbers, samples.scales)
        return _compiled_change(y, x, weight, bias, list(vectors), gain, numbers, scales)
    if operations and (torch.compiler.is_compiling() or torch.jit.is_tracing() or x.numel()):
        return _plainly(y, x, weight, bias, vectors, gain, samples)
    return _unchanged(y, x, weight, bias, vectors)


def _in_dtype(
    dtype: torch.dtype,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: Sequence[Tensor],
    gain: float,
    samples: Samples | None,
) -> Tensor:
    """Return the outputs under autocast; inputs, weight and bias are used in `dtype`."""
    with without_autocast(x):
        given = x.to(dtype), _cast(weight, dtype), _cast(bias, dtype)
        return chunked_change(y, *given, vectors, gain, samples)


def _cast(given: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if given is None else given.to(dtype)


def _unchanged(
    y: Tensor | None, x: Tensor, weight: Tensor | None, bias: Tensor | None, vectors: Sequence[Tensor]
) -> Tensor:
    """Return the base's outputs of no rows, which transforms don't take; all vectors have a gradient: zeros."""
    with without_autocast(x):
        base = linear(x, cast("Tensor", weight), bias) if y is None else y + 0 * x.sum()
        return base + 0 * sum(vector.sum() for vector in vectors).to(base.dtype)


def _plainly(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: Sequence[Tensor],
    gain: float,
    samples: Samples | None = None,
) -> Tensor:
    """The same by plain operations on all rows at once."""
    with without_autocast(x):
        base = linear(x, cast("Tensor", weight), bias) if y is None else y
        working = Working.of(vectors, gain, x, base, samples)
        rows = x.reshape(*((-1,) if samples is None else samples.lead), x.shape[-1])
        if samples is not None or has_transforms(vectors):
            h, scale = change_rows(rows.to(working.dtype), working)
            change = h * scale
        else:
            change = linear(rows.to(working.dtype), change_as_matrix(vectors, gain, working.dtype))
        return (base + change.reshape(base.shape)).to(base.dtype)


class _AddedChange(torch.autograd.Function):
    """``y + gain D C D x``, or ``W x + bias + gain D C D x`` where a weight is given instead of y.

    Inputs, weight and bias are used in `dtype`, if one is given, and kept as they are: layers may have the same inputs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor | None,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        dtype: torch.dtype | None,
        gain: float,
        samples: Samples | None,
        *vectors: Tensor,
    ) -> Tensor:
        ctx.gain, ctx.dtype, ctx.samples = gain, dtype, samples
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *vectors)
        if dtype is None:
            return chunked_change(y, x, weight, bias, vectors, gain, samples)
        return _in_dtype(dtype, y, x, weight, bias, vectors, gain, samples)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, *vectors = ctx.saved_tensors
        if dy is None:
            return (None,) * (7 + len(vectors))
        needs_y, needs_x = ctx.needs_input_grad[:2]
        # With gradients enabled here, someone differentiates the gradient: nothing in place then.
        compute = _differentiable_gradients if torch.is_grad_enabled() else chunked_gradients
        with without_autocast(x):
            given = x, weight if needs_x else None
            if ctx.dtype is not None:
                given = x.to(ctx.dtype), _cast(given[1], ctx.dtype)
            dx, *gradients = compute(dy, *given, vectors, ctx.gain, ctx.samples, needs_x=needs_x)
        return dy if needs_y else None, dx, *(None,) * 5, *gradients


def _differentiable_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    vectors: Sequence[Tensor],
    gain: float,
    samples: Samples | None,
    *,
    needs_x: bool,
) -> list[Tensor | None]:
    """Return the gradients of `x` and the vectors by plain operations, which can be differentiated again."""
    y = dy.new_zeros(dy.shape)
    change = _plainly(y, x, None, None, vectors, gain, samples)
    dx, *gradients = differentiable_gradients(change, (x, *vectors), dy)
    if needs_x and dx is not None and weight is not None:
        dx = dy @ weight + dx
    return [dx if needs_x else None, *gradients]


# ---- as compilers take it: whole, so that compiled models run the same chunks and keep as little

# With schemas, since torch 2.6 can't read `list[Tensor]` from a signature.


@torch.library.custom_op(
    "structmat::add_change",
    mutates_args=(),
    schema=(
        "(Tensor? y, Tensor x, Tensor? weight, Tensor? bias, Tensor[] vectors, float gain, "
        "Tensor? numbers, Tensor? scales) -> Tensor"
    ),
)
def _compiled_change(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: list[Tensor],
    gain: float,
    numbers: Tensor | None,
    scales: Tensor | None,
) -> Tensor:
    if not x.numel():
        return _empty(y, x, weight)
    with without_autocast(x):
        return chunked_change(y, x, weight, bias, vectors, gain, _samples(numbers, scales))


@torch.library.custom_op(
    "structmat::change_gradients",
    mutates_args=(),
    schema=(
        "(Tensor dy, Tensor x, Tensor? weight, Tensor[] vectors, float gain, Tensor? numbers, Tensor? scales) "
        "-> Tensor[]"
    ),
)
def _compiled_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    vectors: list[Tensor],
    gain: float,
    numbers: Tensor | None,
    scales: Tensor | None,
) -> list[Tensor]:
    if not x.numel():
        return [torch.zeros_like(x), *map(torch.zeros_like, vectors)]
    with without_autocast(x):
        samples = _samples(numbers, scales)
        return cast("list[Tensor]", chunked_gradients(dy, x, weight, vectors, gain, samples))


def _samples(numbers: Tensor | None, scales: Tensor | None) -> Samples | None:
    return None if numbers is None else Samples(numbers, cast("Tensor", scales))


@_compiled_change.register_fake
def _empty(y: Tensor | None, x: Tensor, weight: Tensor | None, *_: Any) -> Tensor:
    return y.new_empty(y.shape) if y is not None else x.new_empty(*x.shape[:-1], cast("Tensor", weight).shape[0])


@_compiled_gradients.register_fake
def _empty_gradients(_: Tensor, x: Tensor, __: Tensor | None, vectors: list[Tensor], *___: Any) -> list[Tensor]:
    return [x.new_empty(x.shape), *(vector.new_empty(vector.shape) for vector in vectors)]


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch names it
    y, x, weight, _, vectors, ctx.gain, numbers, scales = inputs
    ctx.adds = y is not None
    ctx.save_for_backward(x, weight, numbers, scales, *vectors)


def _backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, weight, numbers, scales, *vectors = ctx.saved_tensors
    weight = weight if ctx.needs_input_grad[1] else None
    dx, *gradients = _compiled_gradients(dy, x, weight, vectors, ctx.gain, numbers, scales)
    return dy if ctx.adds else None, dx, None, None, gradients, None, None, None


_compiled_change.register_autograd(_backward, setup_context=_keep_input)
