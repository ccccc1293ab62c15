"""The change of a layer, row by row: what it adds to the outputs, and its gradients. Pure functions without a chunk.

A change is ``alpha D C D ... D``: `factors` holds diagonals ``(m,)`` and grids of circulants ``(p, q, b)`` in the order
of the product. A step is a circulant with the diagonal to its right. The gradients use ``ihfft`` and ``hfft``: for real
``g``, ``hfft(S * ihfft(g))`` is the product of the circulant's transpose with g, and no conjugate is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Kept", "change_rows", "circulant_gradient", "gradient_rows", "precision", "spectra"]

Factors: TypeAlias = Sequence[Tensor]


class Kept(NamedTuple):
    """What the gradient of one step is made of."""

    spectrum: Tensor
    """(R, q, h): the transform of the step's scaled input."""
    output: Tensor
    """(R, m): the circulant's product with it."""


def precision(*tensors: Tensor) -> torch.dtype:
    """Return the dtype that a change is computed in: never below float32, which no transform on a CPU is."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.promote_types(dtype, torch.float32)


def spectra(factors: Factors) -> list[Tensor]:
    """Return the half spectra of the circulants, leftmost first, (p, q, h) each."""
    return [torch.fft.rfft(c) for c in factors[1::2]]


def _blocks(rows: Tensor, count: int, side: int) -> Tensor:
    """Cut rows (R, m) into blocks (R, count, side), filled up with zeros."""
    missing = count * side - rows.shape[-1]
    padded = pad(rows, (0, missing)) if missing else rows
    return padded.reshape(rows.shape[0], count, side)  # `len` would fix the number of rows in an export


def _joined(blocks: Tensor, size: int) -> Tensor:
    """Join blocks (R, count, side) to rows, cropped to `size`."""
    rows = blocks.reshape(blocks.shape[0], -1)
    return rows if rows.shape[-1] == size else rows[:, :size]


def _contract(spectrum: Tensor, grid: Tensor) -> Tensor:
    """Multiply, for each frequency, the rows' q values by the p x q matrix of the grid: (R, q, h) to (R, p, h)."""
    p, q, _ = grid.shape
    if q == 1:
        return spectrum * grid[:, 0]
    if p == 1:
        return (spectrum * grid[0]).sum(1, keepdim=True)
    return (spectrum.permute(2, 0, 1) @ grid.permute(2, 1, 0)).permute(1, 2, 0)


def _correlate(spectrum: Tensor, other: Tensor) -> Tensor:
    """Sum the products of (R, q, h) and (R, p, h) over the rows: (p, q, h)."""
    if spectrum.shape[1] == 1 or other.shape[1] == 1:
        return (other[:, :, None] * spectrum[:, None]).sum(0)
    return (other.permute(2, 1, 0) @ spectrum.permute(2, 0, 1)).permute(1, 2, 0)


def change_rows(x: Tensor, factors: Factors, grids: Factors, alpha: float) -> tuple[Tensor, Tensor, list[Kept]]:
    """Return what the change adds to the outputs of rows `x` (R, n), as two factors, and what gradients need.

    The change is the elementwise product of the two: callers fuse it with an addition.
    """
    kept: list[Kept] = []
    h = x
    for k in range(len(factors) - 1, 0, -2):
        c, grid = factors[k - 1], grids[k // 2 - 1]
        spectrum = torch.fft.rfft(_blocks(h * factors[k], c.shape[1], c.shape[2]))
        out = torch.fft.irfft(_contract(spectrum, grid), n=c.shape[2])
        h = _joined(out, len(factors[k - 2]))
        kept.append(Kept(spectrum, h))
    return h, alpha * factors[0], kept[::-1]


def gradient_rows(
    x: Tensor, dy: Tensor, factors: Factors, grids: Factors, alpha: float, kept: Sequence[Kept]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the gradient of rows `x` as two factors, and those of the `factors`; of circulants, their transforms.

    `dy` (R, m) is the gradient of the change. `circulant_gradient` turns a transform, summed over all rows, into the
    gradient of the circulant.
    """
    gradients: list[Tensor] = [alpha * (dy * kept[0].output).sum(0)]
    g, scale = dy, alpha * factors[0]
    for k in range(2, len(factors), 2):
        c, grid, step = factors[k - 1], grids[k // 2 - 1], kept[k // 2 - 1]
        transformed = torch.fft.ihfft(_blocks(g * scale, c.shape[0], c.shape[2]))
        gradients.append(_correlate(step.spectrum, transformed))
        back = torch.fft.hfft(_contract(transformed, grid.transpose(0, 1)), n=c.shape[2])
        g, scale = _joined(back, len(factors[k])), factors[k]
        before = x if k == len(factors) - 1 else kept[k // 2].output
        gradients.append((before * g).sum(0))
    return g, scale, gradients


def circulant_gradient(transform: Tensor, side: int) -> Tensor:
    """Return the gradient of a grid of circulants from the sum of its transforms."""
    return torch.fft.hfft(transform, n=side)
