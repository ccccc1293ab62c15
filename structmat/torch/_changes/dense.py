"""A change as a dense matrix, its gradients, and when that is the faster way.

With three factors the entries of a change are single products, so that no transform is needed: entry (i, j) is
``gain left[i] c[i - j] right[j]``, where c is the circulant of their block. All functions take stacks of changes, with
the vectors of each on a first axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from structmat._torch_modes import sees_operations

__all__ = [
    "change_as_matrix",
    "costs_less_dense",
    "dense_change",
    "dense_gradients",
    "differentiable_gradients",
    "gradients_of_change",
    "summed",
    "weight_plus_change",
    "wide_dtype",
]

# Entries of a dense change that are computed at once: on a CPU they stay in cache, and the cost of calls is small; on
# other devices they only bound the memory of temporaries.
_PIECE, _DEVICE_PIECE = 2**16, 2**26

# What steps of training take on a CPU with one thread, in nanoseconds, both passes: of the way by rows for each call
# and for each entry of a row and of its product, and of the dense way for each entry of the matrices and for each
# product by one. Measured were the gradients of experts (`_layers.changed_experts`) and of convolutions.
_OF_CALLS, _OF_ROWS, _OF_ENTRIES, _OF_PRODUCTS = 6e5, 10.0, 13.0, 1 / 38


def costs_less_dense(entries: int, products: int, row_entries: float, calls: int = 0) -> bool:
    """Return whether a dense change takes less time than one that is multiplied by rows, of three factors on a CPU.

    Parameters
    ----------
    entries : int
        Of all matrices.
    products : int
        Of numbers, in the product of rows by matrices.
    row_entries : float
        Of all rows and of their products.
    calls : int, default 0
        How many operations there are with rows; with one it takes little beside the rest.
    """
    return _OF_ENTRIES * entries + _OF_PRODUCTS * products < _OF_CALLS * calls + _OF_ROWS * row_entries


# ---- the change as a matrix, and its sum with a weight


def wide_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the dtype in which tensors are computed with: float32 at least, and no narrower than any of them."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def dense_change(shape: tuple[int, int], vectors: Sequence[Tensor], gain: float, dtype: torch.dtype) -> Tensor:
    """Return ``gain D C D ... D`` as a matrix of a shape and a dtype, or as a stack of such matrices.

    With more than three factors there are products of matrices. Those of 768 features take 17 ms, where Fourier
    transforms take 7 on one thread; three factors take 0.3.
    """
    if len(vectors) == 3 and not sees_operations():
        return _sum_of_three(None, (*vectors[0].shape[:-1], *shape), dtype, vectors, gain)
    return change_as_matrix(vectors, gain, dtype)


def weight_plus_change(weight: Tensor, vectors: Sequence[Tensor], gain: float) -> Tensor:
    """Return ``W + gain D C D ... D``, in the weight's dtype; computed in float32 at least, and rounded once."""
    dtype = wide_dtype(weight, *vectors)
    wide = weight.to(dtype)
    if len(vectors) == 3:
        return _sum_of_three(wide, weight.shape, dtype, vectors, gain).to(weight.dtype)
    return (wide + change_as_matrix(vectors, gain, dtype)).to(weight.dtype)


# ---- three factors, entry by entry


def _sum_of_three(
    weight: Tensor | None, shape: Sequence[int], dtype: torch.dtype, vectors: Sequence[Tensor], gain: float
) -> Tensor:
    """Return a weight plus ``gain D C D``, or the change alone, in pieces that are computed in a cache."""
    left, circulants, right = vectors
    left, circulants, right = left.to(dtype), circulants.to(dtype), right.to(dtype)
    *lead, rows, cols = shape
    *_, p, q, b = circulants.shape
    is_cropped = bool(lead) and rows < p * b
    if weight is not None and is_cropped:  # the weights have no rows in the places of those that are cropped
        return _sum_of_three(None, shape, dtype, vectors, gain).add_(weight)
    left = pad(gain * left, (0, p * b - rows)).view(-1, 1)
    right = _of_block_rows(right, circulants)
    weights = None if weight is None else weight.reshape(-1, cols)
    result = circulants.new_empty(prod(lead) * p * b, q * b)
    for here, blocks, pieces in _circulant_rows(circulants.view(-1, q, b)):
        change = torch.mul(pieces, right[blocks], out=result[here].view(pieces.shape)).view(-1, q * b)
        if weights is None:
            change.mul_(left[here])
        else:
            change = change[: max(0, len(weights) - here.start), :cols]
            torch.addcmul(weights[here], change, left[here][: len(change)], out=change)
    return result.view(*lead, p * b, q * b)[..., :rows, :cols]


def dense_gradients(gradient: Tensor, vectors: Sequence[Tensor], gain: float) -> list[Tensor]:
    """Return the gradients of the three vectors from that of the dense change, in its dtype.

    It goes over the entries in the pieces of the sum, whose adjoint it is.
    """
    left, circulants, right = (vector.to(gradient.dtype) for vector in vectors)
    *lead, rows, cols = gradient.shape
    *_, p, q, b = circulants.shape
    if (rows, cols) != (p * b, q * b):
        gradient = pad(gradient, (0, q * b - cols, 0, p * b - rows))
    gradient = gradient.reshape(-1, q * b)
    scaled_left = pad(gain * left, (0, p * b - rows)).view(-1, 1, b)
    right = _of_block_rows(right, circulants)
    # From the gradient, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
    lefts, rights, sums = (gradient.new_zeros(shape) for shape in (len(gradient), right.shape, (len(right), q, b)))
    rights = rights.view(-1, q * b)
    for here, blocks, pieces in _circulant_rows(circulants.view(-1, q, b)):
        s, h = pieces.shape[:2]
        part = gradient[here].view(s, h, q * b)
        product = part * pieces.reshape(s, h, q * b)
        top = here.start % b
        scales = scaled_left[blocks, :, top : top + h]
        lefts[here] = (product @ right[blocks].view(s, q * b, 1)).reshape(-1)
        rights[blocks] += (scales @ product).squeeze(1)
        # Entry (r, j) of a block belongs to the circulant's entry top + r - j. With each row written twice behind each
        # other, those of one entry of the circulant stand on one diagonal, without a wrap.
        scaled = (part.view(s, h, q, b) * right[blocks]).mul_(scales.view(s, h, 1, 1))
        twice = torch.cat((scaled, scaled), 3)
        diagonals = twice.as_strided((s, h, q, b), (h * q * 2 * b, q * 2 * b + 1, 2 * b, 1)).sum(1)
        sums[blocks] += diagonals.flip(2).roll(top + 1, 2)
    lefts = gain * lefts.view(*lead, p * b).narrow(-1, 0, rows)
    rights = rights.view(*lead, p, q * b).sum(-2).narrow(-1, 0, cols)
    found = (lefts, sums.view(circulants.shape), rights)
    return [each.to(vector.dtype) for each, vector in zip(found, vectors, strict=True)]


def _of_block_rows(right: Tensor, circulants: Tensor) -> Tensor:
    """Return right diagonals, with zeros behind them, for each block row of their grids: (P, 1, q, b)."""
    *lead, p, q, b = circulants.shape
    wide = pad(right, (0, q * b - right.shape[-1])).view(*lead, 1, q, b)
    return wide.expand(*lead, p, q, b).reshape(-1, 1, q, b)


def _circulant_rows(circulants: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Return rows of the matrix (p b, q b) of a grid of circulants (p, q, b), in order, as views (s, h, q, b).

    Each has all rows of s block rows, or h of one; these block rows are given too.
    """
    p, q, b = circulants.shape
    piece = _PIECE if circulants.device.type == "cpu" else _DEVICE_PIECE
    height, several = min(b, max(1, piece // (q * b))), max(1, piece // (q * b * b))
    period = (height + 1) * b
    first_rows = circulants.flip(2).roll(1, 2)
    for i in range(0, p, several):
        # Vectors behind each other: one that starts b - 1 later is shifted by one, as the next row of a circulant is.
        repeated = first_rows[i : i + several].repeat(1, 1, height + 1)
        for top in range(0, b, height):
            shape = (len(repeated), min(height, b - top), q, b)
            here = slice(i * b + top, i * b + top + shape[0] * shape[1])
            rows = repeated.as_strided(shape, (q * period, b - 1, period, 1), -top % b)
            yield here, slice(i, i + len(repeated)), rows


# ---- any number of factors, by plain operations that can be differentiated


def change_as_matrix(vectors: Sequence[Tensor], gain: float, dtype: torch.dtype) -> Tensor:
    """Return the change as a dense matrix, gathered from the circulants."""
    wide = [vector.to(dtype) for vector in vectors]
    matrix = None
    for left, circulants, right in zip(wide[-3::-2], wide[-2::-2], wide[-1::-2], strict=False):
        step = _block_circulant(circulants, left.shape[-1], right.shape[-1]) * right[..., None, :]
        matrix = step if matrix is None else step @ matrix
    return (gain * wide[0])[..., None] * matrix


def _block_circulant(circulants: Tensor, rows: int, cols: int) -> Tensor:
    """Return the matrix (..., rows, cols) of a grid of circulants (..., p, q, b), gathered from it."""
    *lead, p, q, side = circulants.shape
    lags = torch.arange(side, device=circulants.device)
    blocks = circulants[..., (lags[:, None] - lags) % side]  # (..., p, q, b, b)
    return blocks.transpose(-3, -2).reshape(*lead, p * side, q * side)[..., :rows, :cols]


def differentiable_gradients(outputs: Tensor, given: Sequence[Tensor], dy: Tensor) -> list[Tensor | None]:
    """Return the gradients of tensors, which can be differentiated again, from that of outputs; None for constants."""
    wanted = [each for each in given if each.requires_grad]
    if not wanted:
        return [None] * len(given)
    found = iter(torch.autograd.grad(outputs, wanted, dy.to(outputs.dtype), create_graph=True, allow_unused=True))
    return [next(found) if each.requires_grad else None for each in given]


# ---- sums that are differentiated


def summed(weight: Tensor, vectors: Sequence[Tensor], gain: float) -> Tensor:
    """Return ``W + gain D C D ... D``, in the weight's dtype; computed in float32 at least, and rounded once.

    Only the vectors are kept for the backward pass.
    """
    if sees_operations():
        dtype = wide_dtype(*vectors, weight)
        return (weight.to(dtype) + change_as_matrix(vectors, gain, dtype)).to(weight.dtype)
    return cast("Tensor", _Sum.apply(weight, gain, *vectors))


class _Sum(torch.autograd.Function):
    """``W + gain D C D ... D``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: float, *vectors: Tensor) -> Tensor:
        ctx.gain = gain
        ctx.dtype = wide_dtype(*vectors, weight)
        ctx.save_for_backward(*vectors)
        return weight_plus_change(weight, vectors, gain)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        vectors = ctx.saved_tensors
        of_weight = dy if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[2:]):
            return of_weight, None, *[None] * len(vectors)
        return of_weight, None, *gradients_of_change(dy.to(ctx.dtype), vectors, ctx.gain)


def gradients_of_change(gradient: Tensor, vectors: Sequence[Tensor], gain: float) -> Sequence[Tensor | None]:
    """Return the gradients of the vectors from that of the dense change, by which of the ways above can do it."""
    if torch.is_grad_enabled():  # somebody differentiates the gradients
        return differentiable_gradients(change_as_matrix(vectors, gain, gradient.dtype), vectors, gradient)
    if len(vectors) == 3:
        return dense_gradients(gradient, vectors, gain)
    with torch.enable_grad():
        leaves = [vector.detach().requires_grad_() for vector in vectors]
        change = change_as_matrix(leaves, gain, gradient.dtype)
    return torch.autograd.grad(change, leaves, gradient)
