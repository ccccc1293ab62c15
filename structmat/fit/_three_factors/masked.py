"""Three factors with a weight for every entry of the matrix: the closed-form steps, with weighted sums.

With weights the denominators are no convolutions any more, so they are summed as the numerators are. An iteration still
costs O(rows * cols), about three times one without weights.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._three_factors.blocks import BlockGrid, absolute_square, by_diagonals, cyclic_windows, ratio
from structmat.fit._three_factors.spread import bounded_ratio, spread_weights
from structmat.fit._three_factors.vectors import Factors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MaskedGrid", "masked_circulant_step", "masked_iteration", "masked_residual_norm2"]


class MaskedGrid(BlockGrid):
    """A matrix with a weight for every entry, which multiplies the square of its residual.

    Parameters
    ----------
    matrix : (rows, cols) ndarray
        As for `BlockGrid`, zero where the weight is.
    mask : (rows, cols) ndarray
        Finite real weights, not negative and not all zero.
    block_size : int
        Side `m` of the blocks.
    """

    def __init__(self, matrix: NDArray[Any], mask: NDArray[Any], block_size: int) -> None:
        super().__init__(matrix, block_size)
        rows, cols = matrix.shape
        padded = np.zeros((self.p * self.m, self.q * self.m), dtype=self.blocks.real.dtype)
        padded[:rows, :cols] = mask / mask.max()
        self.mask: NDArray[Any] = padded.reshape(self.blocks.shape)
        """The weights, the largest one, laid out as the blocks; zero on padding."""
        self.weighted = self.mask * self.blocks
        self.norm2 = sum(
            float(np.sum(absolute_square(self.blocks[chunk]) * self.mask[chunk], dtype=np.float64))
            for chunk in self.chunks()
        )
        self.mean_norm2 = self.norm2 * rows * cols / float(np.sum(self.mask, dtype=np.float64))

    @cached_property
    def mask_diagonals(self) -> NDArray[Any]:
        """The weights, laid out as `diagonals`."""
        return by_diagonals(self.mask)

    @cached_property
    def weighted_diagonals(self) -> NDArray[Any]:
        """`weighted`, laid out as `diagonals`."""
        return by_diagonals(self.weighted)

    def diagonal_energy(self, ps: slice, rows: slice) -> NDArray[Any]:
        """Weighted squared moduli of a chunk of `diagonals`."""
        return absolute_square(self.diagonals[ps, rows]) * self.mask_diagonals[ps, rows]


def masked_iteration(
    grid: MaskedGrid, c: NDArray[Any], b: NDArray[Any], limit: float = np.inf
) -> tuple[Factors, float]:
    """Find `a`, then `c`, then `b`, each the best for the two others; return them and their weighted residual.

    Their squared spread is kept to `limit`.
    """
    above = np.zeros((grid.p, grid.m), dtype=grid.double)
    below = np.zeros((grid.p, grid.m))
    windows = cyclic_windows(b)
    for ps, rows in grid.chunks():
        product = c[ps, None] * windows[rows]
        above[ps, rows] = np.sum(grid.weighted_diagonals[ps, rows] * product.conj(), axis=(2, 3))
        below[ps, rows] = np.sum(grid.mask_diagonals[ps, rows] * absolute_square(product), axis=(2, 3))
    a = bounded_ratio(grid.dtype, above, below, spread_weights("pq,q->p", c, b), limit)
    c = bounded_ratio(grid.dtype, *_circulant_sums(grid, a, b), spread_weights("p,q->pq", a, b), limit)
    above = np.zeros((grid.q, grid.m), dtype=grid.double)
    below = np.zeros((grid.q, grid.m))
    windows = cyclic_windows(c)
    for ps, rows in grid.chunks():
        product = a[ps, rows, None, None] * windows[ps, rows]
        above += np.einsum("piqj,piqj->qj", grid.weighted[ps, rows], product.conj())
        below += np.einsum("piqj,piqj->qj", grid.mask[ps, rows], absolute_square(product))
    b = bounded_ratio(grid.dtype, above, below, spread_weights("p,pq->q", a, c), limit)
    factors = Factors(a, c, b)
    residual = grid.norm2 - 2.0 * float(np.vdot(above, b).real) + float(np.vdot(below, absolute_square(b)))
    if residual < float(np.finfo(grid.dtype).eps) ** 0.2 * grid.norm2:
        residual = masked_residual_norm2(grid, factors)
    return factors, residual


def masked_circulant_step(grid: MaskedGrid, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the best `c` for given diagonals: for ones the weighted mean of every cyclic diagonal."""
    return ratio(grid.dtype, *_circulant_sums(grid, a, b))


def _circulant_sums(grid: MaskedGrid, a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return numerators and denominators of the best `c`."""
    above = np.zeros((grid.p, grid.q, grid.m), dtype=grid.double)
    below = np.zeros((grid.p, grid.q, grid.m))
    windows = cyclic_windows(b)
    a2, b2 = absolute_square(a), cyclic_windows(absolute_square(b))
    for ps, rows in grid.chunks():
        above[ps] += np.einsum(
            "piqk,pi,iqk->pqk", grid.weighted_diagonals[ps, rows], a[ps, rows].conj(), windows[rows].conj()
        )
        below[ps] += np.einsum("piqk,pi,iqk->pqk", grid.mask_diagonals[ps, rows], a2[ps, rows], b2[rows])
    return above, below


def masked_residual_norm2(grid: MaskedGrid, factors: Factors) -> float:
    """Return the weighted squared norm of the blocks minus the product, entry by entry in double precision."""
    windows = cyclic_windows(factors.c)
    total = 0.0
    for ps, rows in grid.chunks():
        part = factors.a[ps, rows, None, None] * windows[ps, rows] * factors.b
        total += float(np.sum(absolute_square(grid.blocks[ps, rows] - part) * grid.mask[ps, rows]))
    return total
