"""Convolutions of several channels by Fourier transforms, as convolutional networks define them: pure functions.

Inputs are cut into tiles, longer than the kernel, that overlap by the kernel's length less one along each axis. The
circular convolution of a tile has as many right outputs as the tile has new inputs (overlap-save). All tiles of a batch
are transformed at once. For each frequency one small matrix, whose rows are output channels and whose columns are input
channels, is multiplied by another one, whose columns are tiles. Kernels are transformed a few output channels at a
time, so that their spectra stay in the cache of the processor and never take much memory.

A dilated convolution is one without dilation of each of the interleaved sequences ``x[p::dilation]``: to the transforms
these are further tiles. Strides are left to the caller, who drops outputs.

Shapes: inputs (batch, columns, *sizes), kernels (rows, columns per group, *kernel sizes), outputs (batch, rows,
*sizes), as in `torch.nn.functional.conv1d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Sizes", "correlation", "kernel_correlation", "tiles_along"]

Sizes: TypeAlias = tuple[int, ...]
"""One whole number for each axis."""

_CHUNK = 2**19
"""About how many entries the spectra of kernels have that are held at once."""


def tiles_along(n_outputs: int, dilation: int, step: int) -> int:
    """Return the number of tiles along one axis, interleaved sequences included; each has `step` outputs."""
    return dilation * -(-n_outputs // (dilation * step))


def correlation(
    x: Tensor, weight: Tensor, before: Sizes, n_outputs: Sizes, dilation: Sizes, groups: int, tile: Sizes
) -> Tensor:
    """Return ``y[j] = sum_k weight[k] x[j - before + k dilation]`` for j from 0 to `n_outputs`, summed over columns.

    Entries outside of `x` are zeros. `tile` has the lengths of the transforms, at least those of the kernel.
    """
    step = _steps(tile, weight.shape[2:])
    kernels = weight.conj().unflatten(0, (groups, -1))
    _, n_rows, n_columns, *_ = kernels.shape
    pieces = []
    several_groups, several_rows = _chunks(groups, n_rows, n_columns * _n_frequencies(weight, tile))
    for some in several_groups:
        inputs = _spectra(_tiles(_of_groups(x, groups, some), before, n_outputs, dilation, tile, step), tile)
        inputs = inputs.unflatten(0, (len(some), n_columns))
        if n_columns > 1:
            inputs = _by_frequency(inputs)
        # The spectra of the inputs are computed once for all rows of these groups.
        for rows in several_rows:
            weights = _spectra(kernels[some.start : some.stop, rows.start : rows.stop].flatten(0, 1), tile)
            weights = weights.unflatten(0, (len(some), -1)).conj()
            outputs = weights * inputs if n_columns == 1 else _by_row(_by_frequency(weights) @ inputs, len(some))
            values = _values(outputs.flatten(0, 1), tile, step, weight)
            pieces.append(_joined(values, len(x), n_outputs, dilation, step))
        del inputs, weights, outputs  # before those of the next groups are computed
    return torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0].contiguous()


def kernel_correlation(
    x: Tensor, y: Tensor, before: Sizes, sizes: Sizes, dilation: Sizes, groups: int, tile: Sizes
) -> Tensor:
    """Return ``weight[k] = sum_j y[j] x[j - before + k dilation]`` for kernels of some `sizes`, summed over the batch.

    It is the gradient of `weight` where `y` is that of the outputs of `correlation`.
    """
    step = _steps(tile, sizes)
    n_outputs = tuple(y.shape[2:])
    nowhere = (0,) * len(tile)
    n_rows, n_columns = y.shape[1] // groups, x.shape[1] // groups
    n_tiles = len(x) * prod(map(tiles_along, n_outputs, dilation, step))
    pieces = []
    several_groups, several_rows = _chunks(groups, n_rows, max(n_columns, n_tiles) * _n_frequencies(x, tile))
    is_depthwise = n_rows == n_columns == 1
    for some in several_groups:
        inputs = _spectra(_tiles(_of_groups(x, groups, some), before, n_outputs, dilation, tile, step), tile)
        inputs = inputs.unflatten(0, (len(some), n_columns))
        if not is_depthwise:
            inputs = _by_frequency(inputs).mT
        gradients = _of_groups(y, groups, some).unflatten(1, (len(some), -1))
        # The spectra of the inputs are computed once for all rows of these groups.
        for rows in several_rows:
            some_gradients = gradients[:, :, rows.start : rows.stop].flatten(1, 2)
            # Tiles of gradients are as long as the outputs of a tile, with zeros behind them.
            outputs = _spectra(_tiles(some_gradients.conj(), nowhere, n_outputs, dilation, step, step), tile)
            outputs = outputs.unflatten(0, (len(some), -1)).conj()
            if is_depthwise:
                kernels = (outputs * inputs).sum(2, keepdim=True)
            else:
                kernels = _by_row(_by_frequency(outputs) @ inputs, len(some))
            pieces.append(_values(kernels.flatten(0, 1), tile, sizes, x))
        del inputs, outputs, kernels  # before those of the next groups are computed
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0].contiguous()


def _steps(tile: Sizes, sizes: Sequence[int]) -> Sizes:
    """Return the number of right outputs of a tile along each axis."""
    return tuple(length - size + 1 for length, size in zip(tile, sizes, strict=True))


def _n_frequencies(x: Tensor, tile: Sizes) -> int:
    return prod(tile) if x.is_complex() else prod(tile[:-1]) * (tile[-1] // 2 + 1)


def _chunks(groups: int, n_rows: int, entries: int) -> tuple[list[range], list[range]]:
    """Return which groups, and which rows of each, are treated at once: several whole groups, or some rows of one.

    `entries` is the number of entries of the spectra of one row.
    """
    at_once = max(1, _CHUNK // entries)
    some, rows = max(1, at_once // n_rows), min(n_rows, at_once)
    several_groups = [range(group, min(groups, group + some)) for group in range(0, groups, some)]
    return several_groups, [range(row, min(n_rows, row + rows)) for row in range(0, n_rows, rows)]


def _of_groups(x: Tensor, groups: int, some: range) -> Tensor:
    """Return the channels of some of the groups."""
    width = x.shape[1] // groups
    return x[:, some.start * width : some.stop * width]


def _tiles(x: Tensor, before: Sizes, n_outputs: Sizes, dilation: Sizes, tile: Sizes, step: Sizes) -> Tensor:
    """Return the tiles of inputs, as (channels, batch and tiles, *tile)."""
    n = len(tile)
    places = [tiles_along(*each) // each[1] for each in zip(n_outputs, dilation, step, strict=True)]
    lengths = [(count - 1) * s + length for count, s, length in zip(places, step, tile, strict=True)]
    edges = [
        (left, length * d - left - size)
        for left, length, d, size in zip(before, lengths, dilation, x.shape[2:], strict=True)
    ]
    x = pad(x, [*chain.from_iterable(reversed(edges))])
    for axis in range(n):  # each is replaced by two, the place of a tile and its sequence; its entries come last
        at = 2 + 2 * axis
        x = x.unflatten(at, (lengths[axis], dilation[axis])).unfold(at, tile[axis], step[axis])
    return x.transpose(0, 1).reshape(x.shape[1], -1, *tile)


def _joined(y: Tensor, batch: int, n_outputs: Sizes, dilation: Sizes, step: Sizes) -> Tensor:
    """Return outputs (batch, channels, *n_outputs) from those of tiles, (channels, batch and tiles, *step)."""
    n = len(step)
    places = [(tiles_along(*each) // each[1], each[1]) for each in zip(n_outputs, dilation, step, strict=True)]
    y = y.reshape(len(y), batch, *chain.from_iterable(places), *step)
    order = chain.from_iterable((2 + 2 * axis, 2 + 2 * n + axis, 3 + 2 * axis) for axis in range(n))
    whole = [count * length * d for (count, d), length in zip(places, step, strict=True)]
    y = y.permute(1, 0, *order).reshape(batch, len(y), *whole)
    for axis, size in enumerate(n_outputs):
        y = y.narrow(2 + axis, 0, size)
    return y


def _spectra(x: Tensor, tile: Sizes) -> Tensor:
    """Return the spectra of (rows, columns, *lengths), all frequencies on one axis: (rows, columns, frequencies)."""
    axes = tuple(range(-len(tile), 0))
    return (torch.fft.fftn if x.is_complex() else torch.fft.rfftn)(x, tile, axes).flatten(2)


def _values(spectra: Tensor, tile: Sizes, sizes: Sizes, like: Tensor) -> Tensor:
    """Return the first values, as many as `sizes` says along each axis, of what has some spectra.

    They are real or complex as `like` is.
    """
    last = tile[-1] if like.is_complex() else tile[-1] // 2 + 1
    x = spectra.unflatten(2, (*tile[:-1], last))
    # One axis after the other: the later ones have less to transform, up to half of the time with two axes.
    for axis, (length, size) in enumerate(zip(tile[:-1], sizes[:-1], strict=True), 2):
        x = torch.fft.ifft(x, length, axis).narrow(axis, 0, size)
    x = (torch.fft.ifft if like.is_complex() else torch.fft.irfft)(x, tile[-1])
    return x[..., : sizes[-1]]


# Copies of transposed matrices are much faster than those of permuted tensors.


def _by_frequency(spectra: Tensor) -> Tensor:
    """Return matrices, (frequencies and groups, rows, columns), of spectra (groups, rows, columns, frequencies)."""
    rows, columns = spectra.shape[1:3]
    return spectra.flatten(0, 2).t().contiguous().view(-1, rows, columns)


def _by_row(matrices: Tensor, groups: int) -> Tensor:
    """Return spectra (groups, rows, columns, frequencies) of matrices, (frequencies and groups, rows, columns)."""
    rows, columns = matrices.shape[1:]
    return matrices.view(-1, groups * rows * columns).t().contiguous().view(groups, rows, columns, -1)
