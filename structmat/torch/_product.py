"""Adding a change to a layer's output: the one differentiable operation of all adapters.

Eager code goes through one `torch.autograd.Function`. It works on chunks of rows, small enough to stay in cache, and
keeps nothing for the backward pass but the layer's input ("lean") or the spectra as well ("fast"). Compilers and
exporters see plain operations, which they schedule themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from structmat.torch._rows import Kept, change_rows, circulant_gradient, gradient_rows, precision, spectra

__all__ = ["Mode", "add_change", "autocasts", "linear_with_change"]

Mode: TypeAlias = Literal["lean", "fast"]

# Elements of a chunk for each thread of a CPU: signal, spectrum and product together fill most of a core's cache.
_CHUNK = 2**17
# On other devices chunks only bound the memory of temporaries.
_DEVICE_CHUNK = 2**26


def add_change(y: Tensor, x: Tensor, factors: Sequence[Tensor], alpha: float, mode: Mode = "lean") -> Tensor:
    """Return ``y + alpha D C D x`` for rows on the last axis of `x`, in the dtype of `y`; neither is changed.

    `factors` holds diagonals (m,) and grids of circulants (p, q, b), in the order of the product.
    """
    return _applied(y, x, None, None, factors, alpha, mode)


def linear_with_change(
    x: Tensor, weight: Tensor, bias: Tensor | None, factors: Sequence[Tensor], alpha: float, mode: Mode = "lean"
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
    if torch.compiler.is_compiling():
        return _plainly(y, x, weight, bias, factors, alpha, mode)[0]
    if not x.numel():  # which transforms refuse; gradients are zeros all the same
        base = linear(x, weight, bias) if y is None else y + 0 * x.sum()
        return base + 0 * sum(f.sum() for f in factors).to(base.dtype)
    return _AddedChange.apply(y, x, weight, bias, alpha, mode, *factors)[0]


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
    mode: Mode,
) -> tuple[Tensor, ...]:
    """The same by plain operations on all rows at once."""
    with _without_autocast(x):
        base = linear(x, cast("Tensor", weight), bias) if y is None else y
        dtype = precision(x, base, *factors)
        working = [f.to(dtype) for f in factors]
        h, scale, steps = change_rows(_rows(x).to(dtype), working, spectra(working), alpha)
        out = (base + (h * scale).reshape(base.shape)).to(base.dtype)
        return out, *_joined([steps] if mode == "fast" else [])


def _rows(x: Tensor) -> Tensor:
    """Return all rows of the last axis as a matrix: inside of the function, so that no copy is kept."""
    return x.reshape(-1, x.shape[-1])


def _chunks(x: Tensor, factors: Sequence[Tensor]) -> list[slice]:
    """Return the rows of each chunk."""
    width = max(len(f) if f.ndim == 1 else max(f.shape[:2]) * f.shape[2] for f in factors)
    budget = _CHUNK * torch.get_num_threads() if x.device.type == "cpu" else _DEVICE_CHUNK
    rows = max(16, budget // width)
    return [slice(start, start + rows) for start in range(0, len(x), rows)]


def _joined(chunks: Sequence[Sequence[Kept]]) -> list[Tensor]:
    """Return what was kept of each step as tensors with the rows of all chunks."""
    flat = [[tensor for step in steps for tensor in step] for steps in chunks]
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*flat, strict=True)]


class _AddedChange(torch.autograd.Function):
    """``y + alpha D C D x``, or ``W x + bias + alpha D C D x`` where a weight is given instead of y.

    Returns a tuple: the sum, and in the fast mode what was kept of all steps.
    """

    @staticmethod
    def forward(
        y: Tensor | None,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        alpha: float,
        mode: Mode,
        *factors: Tensor,
    ) -> tuple[Tensor, ...]:
        with _without_autocast(x):
            result = linear(x, cast("Tensor", weight), bias) if y is None else y.new_empty(y.shape)
            result = result.contiguous()  # as it is already, so that its rows are a view
            x, out = _rows(x), _rows(result)
            base = out if y is None else _rows(y)
            dtype = precision(x, base, *factors)
            working = [f.to(dtype) for f in factors]
            grids = spectra(working)
            kept: list[list[Kept]] = []
            for rows in _chunks(x, factors):
                h, scale, steps = change_rows(x[rows].to(dtype), working, grids, alpha)
                if out.dtype == dtype:
                    torch.addcmul(base[rows], h, scale, out=out[rows])
                else:  # rounded once, after the addition
                    out[rows] = torch.addcmul(base[rows].to(dtype), h, scale)
                if mode == "fast":
                    kept.append(steps)
        return result, *_joined(kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, x, weight, _, ctx.alpha, _, *factors = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.n_factors = len(factors)
        ctx.save_for_backward(x, weight, *factors, *output[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
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

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        alpha, mode = inputs[4:6]

        def forward(y: Any, x: Tensor, weight: Any, bias: Any, *factors: Tensor) -> tuple[Tensor, ...]:
            return _plainly(y, x, weight, bias, factors, alpha, mode)

        mapped = torch.vmap(forward, (*in_dims[:4], *in_dims[6:]), randomness=info.randomness)
        out = mapped(*inputs[:4], *inputs[6:])
        return out, (0,) * len(out)


def _differentiable_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, factors: Sequence[Tensor], _: Sequence[Tensor], alpha: float
) -> list[Tensor]:
    """Return the gradients of `x` and the factors by plain operations on all rows at once."""
    dtype = precision(x, dy, *factors)
    working = [f.to(dtype) for f in factors]
    grids = spectra(working)
    xs, dys = _rows(x).to(dtype), _rows(dy).to(dtype)
    _, _, steps = change_rows(xs, working, grids, alpha)
    g, scale, sums = gradient_rows(xs, dys, working, grids, alpha, steps)
    dx = (g * scale).to(x.dtype).reshape(x.shape)
    return [dx if weight is None else dy @ weight + dx, *_of_factors(sums, factors)]


def _chunked_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, factors: Sequence[Tensor], kept: Sequence[Tensor], alpha: float
) -> list[Tensor]:
    """Return the same, chunk by chunk."""
    dtype = precision(x, dy, *factors)
    working = [f.to(dtype) for f in factors]
    grids = spectra(working)
    # From dy, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
    result = dy.new_zeros(x.shape, dtype=x.dtype) if weight is None else dy @ weight
    result = result.contiguous()
    x, dy, dx = _rows(x), _rows(dy), _rows(result)
    totals: list[Tensor] = []
    for rows in _chunks(x, factors):
        xs = x[rows].to(dtype)
        if kept:
            steps = [Kept(kept[i][rows], kept[i + 1][rows]) for i in range(0, len(kept), 2)]
        else:
            _, _, steps = change_rows(xs, working, grids, alpha)
        g, scale, sums = gradient_rows(xs, dy[rows].to(dtype), working, grids, alpha, steps)
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
        if dx.dtype == dtype:
            dx[rows].addcmul_(g, scale)
        else:
            dx[rows] = torch.addcmul(dx[rows].to(dtype), g, scale)
    return [result, *_of_factors(totals, factors)]


def _of_factors(sums: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of the factors, in their dtypes, from what `gradient_rows` gives."""
    return [
        (circulant_gradient(total, f.shape[-1]) if f.ndim == 3 else total).to(f.dtype)
        for total, f in zip(sums, factors, strict=True)
    ]
