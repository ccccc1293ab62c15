"""The change of a layer, row by row: what it adds to the outputs, and its gradients. Pure functions without a chunk.

A change is ``alpha D C D ... D``; a step is a circulant with the diagonal to its right. With ``G`` the transform of the
gradient g behind a circulant and ``U`` that of what it was applied to, g goes back through it as ``conj(S) G``, and its
own gradient has the transform ``conj(U) G``, summed over the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "Kept",
    "Working",
    "change_rows",
    "change_rows_by_matrices",
    "finished",
    "gradient_rows",
    "precision",
    "summed_product",
    "transposed",
]


def precision(*tensors: Tensor) -> torch.dtype:
    """Return the dtype that a change is computed in: never below float32, which no transform on a CPU is."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.promote_types(dtype, torch.float32)


class Working(NamedTuple):
    """The factors of a change as they are applied to rows."""

    diagonals: list[Tensor]
    """(m,) each, leftmost first, which is multiplied by alpha."""
    grids: list[Tensor]
    """Half spectra of the circulants between them: (h,) of a single block, else (p, q, h)."""
    sides: list[int]
    """Sides of the circulants."""

    @classmethod
    def of(cls, factors: Sequence[Tensor], alpha: float, dtype: torch.dtype) -> Working:
        first, *rest = (f.to(dtype) for f in factors[::2])
        diagonals = [first if alpha == 1 else alpha * first, *rest]
        grids, sides = [], []
        for k, circulants in enumerate(factors[1::2]):
            side = circulants.shape[2]
            grid = torch.fft.rfft(circulants.to(dtype))
            single = grid.shape[:2] == (1, 1) and diagonals[k].shape == diagonals[k + 1].shape == (side,)
            grids.append(grid.flatten() if single else grid)
            sides.append(side)
        return cls(diagonals, grids, sides)

    def adjoints(self) -> list[Tensor]:
        """Return the half spectra of the adjoint circulants: (h,) or (q, p, h)."""
        turned = (grid if grid.ndim == 1 else grid.transpose(0, 1) for grid in self.grids)
        return [grid.conj().resolve_conj() for grid in turned]


class Kept(NamedTuple):
    """What the gradients of one step are made of."""

    spectrum: Tensor
    """(R, h) or (R, q, h): the transform of the step's scaled input."""
    output: Tensor
    """(R, m): the circulant's product with it."""


def _circulate(rows: Tensor, grid: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Multiply rows (R, n) by a grid of circulants; return their transform, and the products (R, size)."""
    if grid.ndim == 1:
        spectrum = torch.fft.rfft(rows)
        return spectrum, torch.fft.irfft(spectrum * grid, n=side)
    count = rows.shape[0]
    missing = grid.shape[1] * side - rows.shape[1]
    blocks = (pad(rows, (0, missing)) if missing else rows).reshape(count, grid.shape[1], side)
    spectrum = torch.fft.rfft(blocks)
    products = torch.fft.irfft(_contract(spectrum, grid), n=side).reshape(count, grid.shape[0] * side)
    return spectrum, products if products.shape[1] == size else products[:, :size]


def _contract(spectrum: Tensor, grid: Tensor) -> Tensor:
    """Multiply, for each frequency, the rows' q values by the p x q matrix of the grid: (R, q, h) to (R, p, h)."""
    p, q, _ = grid.shape
    if q == 1:
        return spectrum * grid.squeeze(1)  # no index: exporters to ONNX have none for complex tensors
    if p > 1:
        return (spectrum.permute(2, 0, 1) @ grid.permute(2, 1, 0)).permute(1, 2, 0)
    return (spectrum * grid.squeeze(0)).sum(1, keepdim=True)


def change_rows(x: Tensor, working: Working) -> tuple[Tensor, Tensor, list[Kept]]:
    """Return what the change adds to the outputs of rows `x` (R, n), as two factors, and what gradients need.

    The change is the elementwise product of the two: callers fuse it with an addition.
    """
    kept: list[Kept] = []
    h = x
    for k in range(len(working.grids) - 1, -1, -1):
        size = working.diagonals[k].shape[0]
        spectrum, h = _circulate(h * working.diagonals[k + 1], working.grids[k], working.sides[k], size)
        kept.append(Kept(spectrum, h))
    kept.reverse()
    return h, working.diagonals[0], kept


def change_rows_by_matrices(x: Tensor, factors: Sequence[Tensor], alpha: float, dtype: torch.dtype) -> Tensor:
    """Return what the change adds to the outputs of rows `x` (R, n), by dense circulants instead of transforms."""
    wide = [factor.to(dtype) for factor in factors]
    h = x.to(dtype)
    for left, circulants, right in zip(wide[-3::-2], wide[-2::-2], wide[-1::-2], strict=False):
        p, q, side = circulants.shape
        lags = torch.arange(side, device=x.device)
        blocks = circulants[:, :, (lags[:, None] - lags) % side]  # (p, q, b, b)
        matrix = blocks.transpose(1, 2).reshape(p * side, q * side)[: left.shape[0], : right.shape[0]]
        h = (h * right) @ matrix.T
    return alpha * (h * wide[0])


def gradient_rows(
    dy: Tensor, working: Working, adjoints: Sequence[Tensor], kept: list[Kept], *, overwrite: bool = False
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the gradient of rows x as two factors, and those of all factors but the last, summed over the rows.

    `dy` (R, m) is the gradient of the change, which may be overwritten. The last factor's is that of `summed_product`
    of x and the first of the two. `kept` is emptied on the way: what is no longer needed makes room in the cache.
    Gradients of circulants are conjugate transforms, that of the first diagonal lacks alpha: see `finished`.
    """
    sums = []
    g = dy
    for k, (adjoint, side) in enumerate(zip(adjoints, working.sides, strict=True)):
        spectrum, output = kept.pop(0)
        scaled = g * working.diagonals[k]
        sums.append(summed_product(g, output, overwrite=overwrite))
        del output
        transformed, g = _circulate(scaled, adjoint, side, working.diagonals[k + 1].shape[0])
        overwrite = not torch.is_grad_enabled()
        sums.append(_correlated(transformed, spectrum))
        del scaled, transformed, spectrum
    return g, working.diagonals[-1], sums


def summed_product(g: Tensor, rows: Tensor, *, overwrite: bool) -> Tensor:
    """Sum ``g * rows`` over the rows; `g` may be overwritten."""
    return (g.mul_(rows) if overwrite else g * rows).sum(0)


def _correlated(transformed: Tensor, spectrum: Tensor) -> Tensor:
    """Sum ``conj(transformed) * spectrum`` over the rows: (h,), or (p, q, h) of (R, p, h) and (R, q, h).

    `transformed` is overwritten, unless gradients flow through it.
    """
    conjugate = transformed.conj_physical() if torch.is_grad_enabled() else transformed.conj_physical_()
    if spectrum.ndim == 2:
        return (conjugate * spectrum if torch.is_grad_enabled() else conjugate.mul_(spectrum)).sum(0)
    if 1 in {spectrum.shape[1], transformed.shape[1]}:
        return (conjugate[:, :, None] * spectrum[:, None]).sum(0)
    return (conjugate.permute(2, 1, 0) @ spectrum.permute(2, 0, 1)).permute(1, 2, 0)


def transposed(factors: Sequence[Tensor]) -> list[Tensor]:
    """Return the factors of the transposed change: in reverse order, circulants as those of reversed columns."""
    return [f if f.ndim == 1 else f.transpose(0, 1).flip(-1).roll(1, -1) for f in reversed(factors)]


def finished(sums: Sequence[Tensor], factors: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """Return the gradients of the factors, in their shapes and dtypes, from the sums over all rows."""
    gradients = [
        torch.fft.irfft(total.conj_physical(), n=factor.shape[2]).reshape(factor.shape) if factor.ndim == 3 else total
        for total, factor in zip(sums, factors, strict=True)
    ]
    gradients[0] = alpha * gradients[0]
    return [gradient.to(factor.dtype) for gradient, factor in zip(gradients, factors, strict=True)]
