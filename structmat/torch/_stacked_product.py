"""Products of rows by stacked matrices with changes: each row belongs to one matrix of the stack, that of its expert.

The rows of an expert lie together: its last one ends where `ends` says. As for single layers, one operation computes
the weight's product and the change, and keeps nothing for the backward pass but its inputs; experts without rows cost
nothing. On a CPU the rows of each expert go through the chunks of `_change`; for small matrices, where the cost of
these calls counts, the sums of the matrices and their changes are made for all experts at once. On other devices, where
a loop would launch thousands of small kernels, each row is multiplied by vectors of its own, gathered from those of the
experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from structmat.torch._autograd import without_autocast
from structmat.torch._change import chunked_change, chunked_gradients
from structmat.torch._other_tools import sees_operations

__all__ = ["adjoint_vectors", "loops_over_experts", "stacked_change"]

_ROWS = 2**24
"""Entries of rows that are computed at once where each row has vectors of its own: bounds the memory of temporaries."""

# Nanoseconds on a CPU, of one thread: of the way by chunks for each expert and for each entry of a row and of its
# product, and of the way by sums for each entry of the matrices and for each product by one; forward and backward. With
# 8 experts and 2,048 rows, the change of matrices of 64 x 64 takes 3.1 ms by chunks and 0.4 by sums, of 256 x 128 5.8
# and 4.0, of 512 x 256 14 and 20.
_OF_EXPERTS, _OF_ROWS, _OF_ENTRIES, _OF_PRODUCTS = 3.2e5, 5.0, 15.0, 1 / 60


def loops_over_experts(x: Tensor) -> bool:
    """Return whether the rows of each expert are computed by themselves, so that products and changes are fused."""
    return x.device.type == "cpu" and not sees_operations()


def stacked_change(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    ends: Tensor,
    vectors: Sequence[Tensor],
    gain: float,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return ``y + gain D C D x`` with the vectors of each row's expert; no argument is changed.

    Parameters
    ----------
    y : Tensor, shape (S, rows), optional
        What the change is added to. By default the product by the weight, in the same operation, where
        `loops_over_experts` holds.
    x : Tensor, shape (S, cols)
        Rows, those of an expert behind each other.
    weight : Tensor, shape (E, rows, cols), optional
        Frozen matrices; only without `y`.
    ends : Tensor of integers, shape (E,)
        Where the rows of each expert end. Rows behind the last end belong to no expert: their change is zero, and
        without `y` so is their product.
    vectors : sequence of Tensor, shapes (E, m) and (E, p, q, b)
        Diagonals and grids of circulants of all experts, in the order of the product.
    gain : float
        What the product is multiplied by.
    dtype : torch.dtype, optional
        That `x` and `weight` are used in, as autocast casts them.
    """
    if y is not None and sees_operations():
        change = _change_of_rows(_cast(x, dtype), _experts_of_rows(ends, x), vectors, gain, y)
        return (y + change).to(y.dtype)
    return cast("Tensor", _StackedChange.apply(y, x, weight, ends, dtype, gain, *vectors))


class _StackedChange(torch.autograd.Function):
    """``y + gain D C D x``, or ``W x + gain D C D x`` where weights are given instead of y."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor | None,
        x: Tensor,
        weight: Tensor | None,
        ends: Tensor,
        dtype: torch.dtype | None,
        gain: float,
        *vectors: Tensor,
    ) -> Tensor:
        ctx.gain, ctx.dtype = gain, dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, ends, *vectors)
        with without_autocast(x):
            if y is not None and not loops_over_experts(x):
                ids = _experts_of_rows(ends, x)
                result = torch.empty_like(y)
                for here in _pieces(x):
                    change = _change_of_rows(_cast(x[here], dtype), ids[here], vectors, gain, y)
                    result[here] = y[here] + change
                return result
            rows = cast("Tensor", weight).shape[1] if y is None else y.shape[1]
            result = x.new_empty(x.shape[0], rows, dtype=y.dtype if y is not None else dtype or x.dtype)
            groups = list(_groups(ends))
            end = groups[-1][1].stop if groups else 0
            if y is None and _takes_sums(x, cast("Tensor", weight), groups, vectors, dtype):
                matrices = _sums(cast("Tensor", weight), groups, vectors, gain)
                for matrix, (_, here) in zip(matrices, groups, strict=True):
                    torch.mm(_cast(x[here], dtype), matrix.T, out=result[here])
                groups = []
            for expert, here in groups:
                base = None if y is None else y[here]
                matrix = None if y is not None else _cast(cast("Tensor", weight)[expert], dtype)
                own = [vector[expert] for vector in vectors]
                result[here] = chunked_change(base, _cast(x[here], dtype), matrix, None, own, gain)
            result[end:] = 0 if y is None else y[end:]
            return result

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, ends, *vectors = ctx.saved_tensors
        if dy is None:
            return (None,) * (6 + len(vectors))
        needs_y, needs_x = ctx.needs_input_grad[:2]
        with without_autocast(x):
            # With gradients enabled here, someone differentiates the gradient: plain operations then.
            if torch.is_grad_enabled():
                dx, *gradients = _differentiable_gradients(dy, x, weight, ends, vectors, ctx.gain, ctx.dtype)
            elif not loops_over_experts(x):
                dx, *gradients = _gradients_of_rows(dy, x, ends, vectors, ctx.gain, ctx.dtype)
            else:
                dx, *gradients = _grouped_gradients(dy, x, weight, ends, vectors, ctx.gain, ctx.dtype, needs_x=needs_x)
        return dy if needs_y else None, dx if needs_x else None, None, None, None, None, *gradients


def _cast(given: Tensor, dtype: torch.dtype | None) -> Tensor:
    return given if dtype is None else given.to(dtype)


# ---- by loops over the experts


def _groups(ends: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield the experts that have rows, and where these are."""
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            yield expert, slice(start, end)
            start = end


def _grouped_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    ends: Tensor,
    vectors: Sequence[Tensor],
    gain: float,
    dtype: torch.dtype | None,
    *,
    needs_x: bool,
) -> list[Tensor | None]:
    """Return the gradient of `x`, that of the weight's product included, and those of the vectors."""
    dx = torch.empty_like(x) if needs_x else None
    gradients = [torch.zeros_like(vector) for vector in vectors]
    groups = list(_groups(ends))
    end = groups[-1][1].stop if groups else 0
    if weight is not None and _takes_sums(x, weight, groups, vectors, dtype):
        if dx is not None:
            for matrix, (_, here) in zip(_sums(weight, groups, vectors, gain), groups, strict=True):
                dx[here] = dy[here] @ matrix
        of_matrices = torch.stack([dy[here].T @ _cast(x[here], dtype) for _, here in groups])
        parts = _gradients_of_sums(of_matrices, [_of_groups(vector, groups) for vector in vectors], gain)
        for gradient, part in zip(gradients, parts, strict=True):
            gradient[[expert for expert, _ in groups]] = part.to(gradient.dtype)
        groups = []
    for expert, here in groups:
        own = [vector[expert] for vector in vectors]
        matrix = None if weight is None or not needs_x else _cast(weight[expert], dtype)
        part, *found = chunked_gradients(dy[here], _cast(x[here], dtype), matrix, own, gain, needs_x=needs_x)
        if dx is not None:
            dx[here] = cast("Tensor", part)
        for gradient, each in zip(gradients, found, strict=True):
            gradient[expert] = cast("Tensor", each)
    if dx is not None:
        dx[end:] = 0
    return [dx, *gradients]


# ---- by sums of matrices and their changes


def _takes_sums(
    x: Tensor,
    weight: Tensor,
    groups: Sequence[tuple[int, slice]],
    vectors: Sequence[Tensor],
    dtype: torch.dtype | None,
) -> bool:
    """Return whether the sums of the experts' matrices and their changes, which lose no digits, cost less."""
    if not groups or len(vectors) != 3 or (dtype or x.dtype) != weight.dtype:
        return False
    if weight.dtype != torch.promote_types(torch.promote_types(weight.dtype, vectors[0].dtype), torch.float32):
        return False
    n_rows, (_, rows, cols) = groups[-1][1].stop, weight.shape
    by_chunks = _OF_EXPERTS * len(groups) + _OF_ROWS * n_rows * (rows + cols)
    return (_OF_ENTRIES * len(groups) + _OF_PRODUCTS * n_rows) * rows * cols < by_chunks


def _sums(
    weight: Tensor, groups: Sequence[tuple[int, slice]], vectors: Sequence[Tensor], gain: float
) -> Sequence[Tensor]:
    """Return ``W + gain D C D`` of the experts that have rows."""
    left, circulants, right = (_of_groups(vector, groups).to(weight.dtype) for vector in vectors)
    (_, rows, cols), (count, p, q, side) = weight.shape, circulants.shape
    changes = weight.new_empty(count, p, side, q, side)
    torch.mul(_dense(circulants), _widened(right, q * side).view(count, 1, 1, q, side), out=changes)
    changes = changes.view(count, p * side, q * side)[:, :rows, :cols]
    return torch.addcmul(_of_groups(weight, groups), changes, gain * left[:, :, None]).unbind()


def _of_groups(given: Tensor, groups: Sequence[tuple[int, slice]]) -> Tensor:
    """Return the parts of the experts that have rows; a copy only if others have none."""
    return given if len(groups) == len(given) else given[[expert for expert, _ in groups]]


def _gradients_of_sums(gradient: Tensor, vectors: Sequence[Tensor], gain: float) -> list[Tensor]:
    """Return the gradients of the vectors from that of the sums, (E, rows, cols)."""
    left, circulants, right = (vector.to(gradient.dtype) for vector in vectors)
    (_, rows, cols), (count, p, q, side) = gradient.shape, circulants.shape
    wide = pad(gradient, (0, q * side - cols, 0, p * side - rows))
    scaled_left, wide_right = _widened(gain * left, p * side), _widened(right, q * side)
    product = (wide.view(count, p, side, q, side) * _dense(circulants)).reshape(wide.shape)
    lefts = gain * torch.bmm(product, wide_right[:, :, None])[:, :rows, 0]
    rights = torch.bmm(scaled_left[:, None], product)[:, 0, :cols]
    scaled = (wide * wide_right[:, None]).mul_(scaled_left[:, :, None]).view(count * p, side, q, side)
    twice = torch.cat((scaled, scaled), 3)
    # Those of one entry of a circulant stand on one diagonal, without a wrap.
    steps = (twice.stride(0), twice.stride(1) + 1, twice.stride(2), 1)
    diagonals = twice.as_strided((count * p, side, q, side), steps).sum(1)
    return [lefts, diagonals.flip(2).roll(1, 2).view(circulants.shape), rights]


def _widened(vectors: Tensor, size: int) -> Tensor:
    """Return vectors with zeros behind them."""
    return pad(vectors, (0, size - vectors.shape[-1]))


def _dense(circulants: Tensor) -> Tensor:
    """Return circulants (E, p, q, b) as matrices (E, p, b, q, b), a view of rows that are written behind each other."""
    count, p, q, side = circulants.shape
    period = (side + 1) * side
    repeated = circulants.flip(3).roll(1, 3).repeat(1, 1, 1, side + 1)
    # A row that starts b - 1 later is shifted by one.
    steps = (p * q * period, q * period, side - 1, period, 1)
    return repeated.as_strided((count, p, side, q, side), steps)


# ---- by rows with vectors of their own


def _experts_of_rows(ends: Tensor, x: Tensor) -> Tensor:
    """Return the expert of each row; rows of none have the number of experts."""
    return torch.searchsorted(ends, torch.arange(x.shape[0], device=x.device, dtype=ends.dtype), right=True)


def _pieces(x: Tensor) -> Iterator[slice]:
    """Yield where pieces of the rows are, which together are all."""
    height = max(1, _ROWS // max(1, x.shape[1]))
    for top in range(0, x.shape[0], height):
        yield slice(top, top + height)


def _change_of_rows(x: Tensor, ids: Tensor, vectors: Sequence[Tensor], gain: float, y: Tensor) -> Tensor:
    """Return what the changes add to the outputs y of rows, by plain operations on all rows at once."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    for vector in vectors:
        dtype = torch.promote_types(dtype, vector.dtype)
    wide = [vector.to(dtype) for vector in vectors]
    known = ids.clamp(max=len(wide[0]) - 1)
    h = x.to(dtype)
    for left, circulants, right in zip(wide[-3::-2], wide[-2::-2], wide[-1::-2], strict=False):
        _, p, q, side = circulants.shape
        blocks = pad(h * right[known], (0, q * side - h.shape[1])).reshape(-1, 1, q, side)
        spectra = (torch.fft.rfft(circulants)[known] * torch.fft.rfft(blocks)).sum(2)
        h = torch.fft.irfft(spectra, n=side).reshape(-1, p * side)[:, : left.shape[1]]
    change = gain * (h * wide[0][known])
    return torch.where((ids == known)[:, None], change, 0)


def _gradients_of_rows(
    dy: Tensor, x: Tensor, ends: Tensor, vectors: Sequence[Tensor], gain: float, dtype: torch.dtype | None
) -> list[Tensor | None]:
    """Return the gradients of the change of rows: of `x`, and of the vectors."""
    ids = _experts_of_rows(ends, x)
    own = [vector.detach().requires_grad_() for vector in vectors]
    dx = torch.empty_like(x)
    totals: list[Tensor] = []
    for here in _pieces(x):
        with torch.enable_grad():
            rows = x[here].detach().requires_grad_()
            change = _change_of_rows(_cast(rows, dtype), ids[here], own, gain, dy)
            dx[here], *parts = torch.autograd.grad(change, [rows, *own], dy[here].to(change.dtype))
        totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
    return [dx, *(totals or map(torch.zeros_like, own))]


def _differentiable_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    ends: Tensor,
    vectors: Sequence[Tensor],
    gain: float,
    dtype: torch.dtype | None,
) -> list[Tensor | None]:
    """Return the gradients of `x` and of the vectors by plain operations, which can be differentiated again."""
    wanted = [each for each in (x, *vectors) if each.requires_grad]
    if not wanted:
        return [None] * (1 + len(vectors))
    change = _change_of_rows(_cast(x, dtype), _experts_of_rows(ends, x), vectors, gain, dy)
    found = iter(torch.autograd.grad(change, wanted, dy.to(change.dtype), create_graph=True))
    dx, *gradients = [next(found) if each.requires_grad else None for each in (x, *vectors)]
    if dx is not None and weight is not None:
        parts = [dy[here] @ _cast(weight[expert], dtype) for expert, here in _groups(ends)]
        base = torch.cat([*parts, dx.new_zeros(len(dx) - sum(map(len, parts)), dx.shape[1])])
        dx = base + dx
    return [dx, *gradients]


# ---- the other way round


def adjoint_vectors(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the vectors of the adjoint products, whose factors are the adjoint ones in reverse order."""
    return [v if v.ndim == 2 else v.transpose(1, 2).flip(3).roll(1, 3) for v in reversed(vectors)]
