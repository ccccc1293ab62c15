"""The operation as compilers take it: whole, so that compiled models run the same chunks and keep as little."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from structmat.torch._adapter.autocast import without_autocast
from structmat.torch._adapter.chunked import chunked_change, chunked_gradients

__all__ = ["compiled_change"]


# With schemas, since torch 2.6 can't read `list[Tensor]` from a signature.
@torch.library.custom_op(
    "structmat::add_change",
    mutates_args=(),
    schema="(Tensor? y, Tensor x, Tensor? weight, Tensor? bias, Tensor[] factors, float alpha) -> Tensor",
)
def compiled_change(
    y: Tensor | None, x: Tensor, weight: Tensor | None, bias: Tensor | None, factors: list[Tensor], alpha: float
) -> Tensor:
    """The same for compilers, which take it as it is: it keeps nothing but the layer's input there too."""
    if not x.numel():
        return _empty(y, x, weight)
    return chunked_change(y, x, weight, bias, factors, alpha)[0]


@torch.library.custom_op(
    "structmat::change_gradients",
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor? weight, Tensor[] factors, float alpha) -> Tensor[]",
)
def _compiled_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, factors: list[Tensor], alpha: float
) -> list[Tensor]:
    if not x.numel():
        return [torch.zeros_like(x), *map(torch.zeros_like, factors)]
    with without_autocast(x):
        return cast("list[Tensor]", chunked_gradients(dy, x, weight, factors, [], alpha))


@compiled_change.register_fake
def _empty(y: Tensor | None, x: Tensor, weight: Tensor | None, *_: Any) -> Tensor:
    return y.new_empty(y.shape) if y is not None else x.new_empty(*x.shape[:-1], cast("Tensor", weight).shape[0])


@_compiled_gradients.register_fake
def _empty_gradients(_: Tensor, x: Tensor, __: Tensor | None, factors: list[Tensor], ___: float) -> list[Tensor]:
    return [x.new_empty(x.shape), *(factor.new_empty(factor.shape) for factor in factors)]


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch names it
    y, x, weight, _, factors, ctx.alpha = inputs
    ctx.adds = y is not None
    ctx.save_for_backward(x, weight, *factors)


def _backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, weight, *factors = ctx.saved_tensors
    dx, *gradients = _compiled_gradients(dy, x, weight if ctx.needs_input_grad[1] else None, factors, ctx.alpha)
    return dy if ctx.adds else None, dx, None, None, gradients, None


compiled_change.register_autograd(_backward, setup_context=_keep_input)
