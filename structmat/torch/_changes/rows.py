"""The change of a layer and its gradients, without autograd: row by row, in chunks of rows that stay in cache.

A change is ``gain D C D ... D`` of stored vectors; a step is a circulant with the diagonal to its right. With ``G`` the
transform of the gradient g behind a circulant and ``U`` that of what it was applied to, g goes back through it as
``conj(S) G``, and its own gradient has the transform ``conj(U) G``, summed over the rows.

All rows may have one change; or the samples of a batch have different ones, of several that are stacked: see `Samples`.
The vectors of a change then have an axis of samples and one of rows before their own, and everything below broadcasts.

Rows of half precision are widened by the products that take them. Wide copies would stay in the cache until the
transforms are done: with them the outputs of 1,024 rows of 2,048 in bfloat16 take 1.1 times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from structmat.torch._changes.dense import weight_plus_change, wide_dtype

__all__ = [
    "Samples",
    "Working",
    "change_rows",
    "chunked_change",
    "chunked_gradients",
]

# On a CPU, measured on one and two threads. A chunk has so many elements at most, or it leaves the cache; more threads
# get as much each. Below, the cost of calls counts.
_CHUNK = 2**17
# Rows are transformed so many at once; what is left over, one by one.
_TOGETHER = 16
# Batches give as many chunks at least: temporaries stay smaller than what the layer takes and returns, and the system
# need not give and take their memory each time. Chunks of fewer elements than the second number are an exception: there
# the cost of calls counts. With 64 rows of 384 in float32 one chunk takes 0.4 ms for the gradients, four take 0.7.
_LEAST = 4
_SMALL = 2**15
# Where each row has vectors of its own, these fill the cache, and are read once: chunks of so many elements have the
# fewest calls. 64 rows of 384 take 334 microseconds at once, 702 in four chunks; of 4,096 2,007, and 2,535.
_ALONE = 2**18
# On other devices chunks only bound the memory of temporaries.
_DEVICE_CHUNK = 2**26


# ---- some rows


class Samples(NamedTuple):
    """Which of several stacked changes each sample of a batch has."""

    numbers: Tensor
    """(S,): the places in the stacks, one for each sample."""
    scales: Tensor
    """(S,): what the change of each sample is multiplied by, beside the gain that all have."""

    @property
    def lead(self) -> tuple[int, int]:
        """The first axes of rows: that of the samples, and that of the rows of each."""
        return self.numbers.shape[0], -1

    def gathered(self, stack: Tensor) -> Tensor:
        """Return the entries of a stack (K, ...) for each sample, with an axis for its rows: (S, 1, ...)."""
        return stack.index_select(0, self.numbers).unsqueeze(1)

    def spectra(self, circulants: Tensor) -> Tensor:
        """Return the transforms of the circulants (K, p, q, b) of each sample, (S, 1, p, q, h): the fewer come first.

        Exporters to ONNX cannot gather complex numbers.
        """
        if len(circulants) < len(self.numbers) and not torch.onnx.is_in_onnx_export():
            return self.gathered(torch.fft.rfft(circulants))
        return torch.fft.rfft(self.gathered(circulants))

    def gains(self, gain: float, dtype: torch.dtype) -> Tensor:
        """Return the gain of each sample, (S, 1, 1)."""
        return (gain * self.scales.to(dtype)).view(-1, 1, 1)


class Working(NamedTuple):
    """The vectors of a change as they are applied to rows; where samples have different ones, with two axes before."""

    diagonals: list[Tensor]
    """(m,) each, leftmost first, which is multiplied by the gain; or (S, 1, m)."""
    grids: list[Tensor]
    """Half spectra of the circulants between them: (h,) of a single block, else (p, q, h); or (S, 1, p, q, h)."""
    sides: list[int]
    """Sides of the circulants."""
    dtype: torch.dtype
    """That all is computed in: never below float32, which no transform on a CPU is."""
    chunk: int
    """How many rows, or samples, are computed at once."""

    @classmethod
    def of(
        cls, vectors: Sequence[Tensor], gain: float, x: Tensor, y: Tensor, samples: Samples | None = None
    ) -> Working:
        """Prepare vectors for rows on the last axis of inputs x and outputs y, or their gradient.

        With `samples` the vectors are stacks, and inputs have all rows of one sample after the other.
        """
        dtype = wide_dtype(x, y, *vectors)
        own = vectors if samples is None else [samples.gathered(stack) for stack in vectors[::2]]
        first = own[0].to(dtype)
        diagonals = [gain * first if samples is None else samples.gains(gain, dtype) * first]
        grids, sides, width = [], [], first.shape[-1]
        own_diagonals = own[2::2] if samples is None else own[1:]
        for circulants, diagonal in zip(vectors[1::2], own_diagonals, strict=True):
            p, q, side = circulants.shape[-3:]
            grid = torch.fft.rfft(circulants.to(dtype)) if samples is None else samples.spectra(circulants.to(dtype))
            single = p == q == 1 and diagonals[-1].shape == diagonal.shape == (side,)
            grids.append(grid.flatten() if single else grid)
            sides.append(side)
            diagonals.append(diagonal.to(dtype))
            width = max(width, p * side, q * side)
        count = x.numel() // x.shape[-1]
        if x.device.type != "cpu":
            rows = max(_TOGETHER, _DEVICE_CHUNK // width)
        else:
            most = _CHUNK * max(2, torch.get_num_threads()) // 2 // width
            rows = min(most, max(_SMALL // width, count // _LEAST))
            rows = max(1, rows // _TOGETHER) * _TOGETHER
        if samples is not None:
            of_samples = samples.numbers.shape[0]
            alone = of_samples == count and x.device.type == "cpu"
            rows = max(1, _ALONE // width if alone else rows * of_samples // count)
        return cls(diagonals, grids, sides, dtype, rows)

    def adjoints(self) -> list[Tensor]:
        """Return the half spectra of the adjoint circulants: (h,) or (q, p, h); or (S, 1, q, p, h)."""
        turned = (grid if grid.ndim == 1 else grid.transpose(-3, -2) for grid in self.grids)
        return [grid.conj().resolve_conj() for grid in turned]

    def chunks(self, adjoints: Sequence[Tensor], *tensors: Tensor) -> Iterable[tuple[Any, ...]]:
        """Return chunks of the rows, or samples, of several tensors.

        Each is a tuple: this with the vectors of the chunk, the adjoints of its circulants, its rows of each tensor.
        """
        if tensors[0].shape[0] <= self.chunk:  # for few rows calls that change nothing would count
            return ((self, adjoints, *tensors),)
        pieces = zip(*[each.split(self.chunk) for each in tensors], strict=True)
        if self.diagonals[0].ndim == 1:
            return ((self, adjoints, *piece) for piece in pieces)
        return ((*part, *piece) for part, piece in zip(self._parts(adjoints), pieces, strict=True))

    def _parts(self, adjoints: Sequence[Tensor]) -> Iterator[tuple[Working, Sequence[Tensor]]]:
        parts = [[each.split(self.chunk) for each in own] for own in (self.diagonals, self.grids, adjoints)]
        for i in range(len(parts[0][0])):
            diagonals, grids, own_adjoints = ([each[i] for each in part] for part in parts)
            yield self._replace(diagonals=diagonals, grids=grids), own_adjoints


class _Kept(NamedTuple):
    """What the gradients of one step are made of."""

    spectrum: Tensor
    """(..., R, h) or (..., R, q, h): the transform of the step's scaled input."""
    output: Tensor | None
    """(..., R, m): the circulant's product with it; None for the leftmost circulant, where it is not computed yet."""


def _transformed(rows: Tensor, grid: Tensor, side: int) -> Tensor:
    """Return the transform of rows (..., n) in blocks: (..., h), or (..., q, h) for a grid of several circulants."""
    if grid.ndim == 1:
        return torch.fft.rfft(rows)
    missing = grid.shape[-2] * side - rows.shape[-1]
    blocks = (pad(rows, (0, missing)) if missing else rows).reshape(*rows.shape[:-1], grid.shape[-2], side)
    return torch.fft.rfft(blocks)


def _product(spectrum: Tensor, grid: Tensor, side: int, size: int, *, overwrite: bool) -> Tensor:
    """Return the product (..., size) of a grid of circulants with rows, of which the transform is given.

    The transform may be overwritten if the caller says so: its memory is in the cache, that of a new tensor is not.
    """
    if grid.ndim == 1:
        return torch.fft.irfft(spectrum.mul_(grid) if overwrite else spectrum * grid, n=side)
    blocks = torch.fft.irfft(_contract(spectrum, grid, overwrite=overwrite), n=side)
    products = blocks.reshape(*spectrum.shape[:-2], grid.shape[-3] * side)
    return products if products.shape[-1] == size else products[..., :size]


def _contract(spectrum: Tensor, grid: Tensor, *, overwrite: bool) -> Tensor:
    """Multiply, for each frequency, the rows' q values by the p x q matrix of the grid: (..., R, q, h) to p instead."""
    p, q = grid.shape[-3:-1]
    if q == 1:
        column = grid.squeeze(-2)  # no index: exporters to ONNX have none for complex tensors
        return spectrum.mul_(column) if overwrite and p == 1 else spectrum * column
    if p > 1:
        matrices = grid if grid.ndim == 3 else grid.squeeze(1)  # all rows of a sample have one
        return (spectrum.movedim(-1, -3) @ matrices.movedim(-1, -3).mT).movedim(-3, -1)
    row = grid.squeeze(-3)
    return (spectrum.mul_(row) if overwrite else spectrum * row).sum(-2, keepdim=True)


def change_rows(x: Tensor, working: Working, *, overwrite: bool = False) -> tuple[Tensor, Tensor]:
    """Return what the change adds to the outputs of rows `x` (..., R, n), as two factors; `x` is not changed.

    The change is the elementwise product of the two: callers fuse it with an addition. Where nobody differentiates
    these operations, or maps over them, temporary tensors may be overwritten.
    """
    h = x
    for k in range(len(working.grids) - 1, -1, -1):
        grid, side, size = working.grids[k], working.sides[k], working.diagonals[k].shape[-1]
        h = _product(_transformed(h * working.diagonals[k + 1], grid, side), grid, side, size, overwrite=overwrite)
    return h, working.diagonals[0]


def _kept_for_gradients(x: Tensor, working: Working) -> list[_Kept]:
    """Return what the gradients of each step are made of, leftmost first, for rows `x` (..., R, n)."""
    kept: list[_Kept] = []
    h = x
    for k in range(len(working.grids) - 1, -1, -1):
        grid, side, size = working.grids[k], working.sides[k], working.diagonals[k].shape[-1]
        spectrum = _transformed(h * working.diagonals[k + 1], grid, side)
        output = None
        if k:
            output = h = _product(spectrum, grid, side, size, overwrite=False)
        kept.append(_Kept(spectrum, output))
    kept.reverse()
    return kept


def _gradient_rows(
    dy: Tensor, working: Working, adjoints: Sequence[Tensor], kept: list[_Kept]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the gradient of rows x as two factors, and those of all vectors but the last, summed over the rows.

    `dy` (..., R, m) is the gradient of the change; it is not changed. That of the last vector sums products of x and
    the first of the two. `kept` is emptied on the way: what is no longer needed makes room in the cache, and
    new tensors take its place. Gradients of circulants are conjugate transforms, that of the first diagonal lacks the
    gain: see `_finished`.
    """
    sums = []
    g = dy
    for k, (adjoint, side) in enumerate(zip(adjoints, working.sides, strict=True)):
        spectrum, output = kept.pop(0)
        transformed = _transformed(g * working.diagonals[k], adjoint, side)
        of_circulants = _correlated(spectrum, transformed)
        if output is None:
            output = _product(spectrum, working.grids[k], side, g.shape[-1], overwrite=True)
        del spectrum
        sums += [(g.mul_(output) if k else g * output).sum(-2), of_circulants]
        del output
        g = _product(transformed, adjoint, side, working.diagonals[k + 1].shape[-1], overwrite=True)
        del transformed
    return g, working.diagonals[-1], sums


def _correlated(spectrum: Tensor, transformed: Tensor) -> Tensor:
    """Sum products of the first with conjugates of the second over the rows: (h,); or (..., p, q, h) of blocks.

    The second alone may have a batch axis, as `dy` may: the product takes the place of its conjugate.
    """
    conjugate = transformed.conj_physical()
    if spectrum.ndim == 2:
        return conjugate.mul_(spectrum).sum(0)
    if spectrum.shape[-2] == 1:
        return conjugate.mul_(spectrum).sum(-3).unsqueeze(-2)
    if transformed.shape[-2] == 1:
        return (conjugate * spectrum).sum(-3).unsqueeze(-3)
    return (conjugate.movedim(-1, -3).mT @ spectrum.movedim(-1, -3)).movedim(-3, -1)


def _finished(sums: Sequence[Tensor], vectors: Sequence[Tensor], gain: float, samples: Samples | None) -> list[Tensor]:
    """Return the gradients of the vectors, in their shapes and dtypes, from the sums over all rows, or of samples."""
    gradients = []
    for k, (total, vector) in enumerate(zip(sums, vectors, strict=True)):
        own = torch.fft.irfft(total.conj_physical(), n=vector.shape[-1]) if k % 2 else total
        if samples is None:
            own = own.reshape(vector.shape)
            own = own if k else gain * own
        else:
            own = own if k else samples.gains(gain, own.dtype).squeeze(1) * own
            own = own.new_zeros(vector.shape).index_add_(0, samples.numbers, own)
        gradients.append(own.to(vector.dtype))
    return gradients


# ---- all rows


def chunked_change(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    vectors: Sequence[Tensor],
    gain: float,
    samples: Samples | None = None,
) -> Tensor:
    """Return ``y + gain D C D x``; or, if `y` is None, ``W x + bias + gain D C D x``. None of them is changed."""
    lead = (-1,) if samples is None else samples.lead
    rows = x.reshape(*lead, x.shape[-1])
    if y is None:
        weight = cast("Tensor", weight)
        alike = samples is None and rows.shape[0] >= min(weight.shape)
        merges = _merges(rows, weight, vectors) if alike else False
        out = linear(rows, weight_plus_change(weight, vectors, gain) if merges else weight, bias)
        # No view, which nobody could change in place after a custom function.
        result = torch.ops.aten._unsafe_view(out, (*x.shape[:-1], weight.shape[0]))
        if merges:
            return result
        base = out = result.view(out.shape)
    else:
        result = torch.empty_like(y, memory_format=torch.contiguous_format)
        base = y.reshape(*lead, y.shape[-1])
        out = result.view(base.shape)
    working = Working.of(vectors, gain, x, base, samples)
    for part, _, xs, bases, outs in working.chunks((), rows, base, out):
        h, scale = change_rows(xs, part, overwrite=True)
        torch.addcmul(bases, h, scale, out=outs)  # rounded once, after the addition, where outputs have fewer digits
    return result


def chunked_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    vectors: Sequence[Tensor],
    gain: float,
    samples: Samples | None = None,
    *,
    needs_x: bool = True,
) -> list[Tensor | None]:
    """Return the gradient of `x`, that of the weight's product included, and those of the vectors."""
    lead = (-1,) if samples is None else samples.lead
    x_rows, dy_rows = x.reshape(*lead, x.shape[-1]), dy.reshape(*lead, dy.shape[-1])
    working = Working.of(vectors, gain, x, dy, samples)
    result = None
    if needs_x:
        # From dy, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
        result = dy.new_zeros(x.shape, dtype=x.dtype) if weight is None else (dy @ weight).contiguous()
    dx_rows = x_rows if result is None else result.view(x_rows.shape)  # the former only to have as many chunks
    totals: list[Tensor] = []
    of_samples: list[list[Tensor]] = []
    for part, adjoints, xs, dys, dxs in working.chunks(working.adjoints(), x_rows, dy_rows, dx_rows):
        kept = _kept_for_gradients(xs, part)
        g, scale, sums = _gradient_rows(dys, part, adjoints, kept)
        if result is not None:
            dxs.addcmul_(g, scale)  # rounded once
        sums.append(g.mul_(xs).sum(-2))
        if samples is not None:
            of_samples.append(sums)
        else:
            totals = [total.add_(one) for total, one in zip(totals, sums, strict=True)] if totals else sums
        del g  # room in the cache for the next chunk
    if samples is not None:
        totals = [torch.cat(each) for each in zip(*of_samples, strict=True)]
    return [result, *_finished(totals, vectors, gain, samples)]


def _merges(rows: Tensor, weight: Tensor, vectors: Sequence[Tensor]) -> bool:
    """Whether outputs come from the weight plus the change, which loses no digits, for at least as many rows as a side.

    Products by matrices cost the same with a change in the weight as without; the matrix has no more entries than the
    larger of the inputs and the outputs. On a CPU, for three factors.
    """
    if rows.device.type != "cpu" or len(vectors) != 3 or rows.dtype != weight.dtype:
        return False
    return weight.dtype == wide_dtype(weight, *vectors)
