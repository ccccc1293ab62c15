"""Products of three factors in closed form: the nearest block circulant, diagonal and matrix of rank one.

All three are products Diagonal @ BlockCirculant @ Diagonal, and a fit is never worse than any of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from structmat.fit._alternation import with_best_circulant
from structmat.fit._block_grid import BlockGrid, Factors
from structmat.fit._matrices import absolute_square, by_cyclic_diagonals, truncated_svd

__all__ = ["CLOSED_FORMS", "circulant_start"]


def circulant_start(grid: BlockGrid, _rng: np.random.Generator) -> Factors:
    """Return the nearest block-circulant matrix: the mean of every cyclic diagonal of every block, inside the matrix.

    The sums are in double precision, so that a circulant matrix gives itself exactly.
    """
    return with_best_circulant(grid, grid.rows_present, grid.cols_present)


def _diagonal_start(grid: BlockGrid, _rng: np.random.Generator) -> Factors:
    """Return the strongest cyclic diagonal of every block column, or of every block row if these explain more.

    Every block column that meets the main diagonal of the matrix has its part of that among its choices. So this is
    never worse than the nearest diagonal matrix.
    """
    diagonals = grid.weighted_diagonals if grid.weights is None else by_cyclic_diagonals(grid.blocks)
    energy = np.zeros((grid.p, grid.q, grid.m))
    for chunk in grid.chunks():
        squares = absolute_square(diagonals[chunk])
        weights = grid.weight_diagonals
        energy[chunk[0]] += (squares if weights is None else squares * weights[chunk]).sum(axis=1, dtype=np.float64)
    a, b = grid.rows_present.copy(), grid.cols_present.copy()
    c = np.zeros(energy.shape, dtype=grid.double)
    i = np.arange(grid.m)
    by_column, by_row = energy.swapaxes(0, 1).reshape(grid.q, -1), energy.reshape(grid.p, -1)
    if by_column.max(axis=1).sum() >= by_row.max(axis=1).sum():
        for q, (p, k) in enumerate(np.transpose(np.divmod(by_column.argmax(axis=1), grid.m))):
            c[p, q, k] = 1.0
            b[q, i - k] = diagonals[p, :, q, k]
    else:
        for p, (q, k) in enumerate(np.transpose(np.divmod(by_row.argmax(axis=1), grid.m))):
            c[p, q, k] = 1.0
            a[p] = diagonals[p, :, q, k]
    return Factors(a, c, b)


def _rank_one_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Return the truncated SVD of rank one, ``u v^H = diag(u) circ(1) diag(conj(v))``."""
    u, v = truncated_svd(grid.weighted.reshape(grid.p * grid.m, grid.q * grid.m), 1, rng)
    c = np.ones((grid.p, grid.q, grid.m), dtype=grid.double)
    return Factors(u.reshape(grid.p, grid.m).astype(grid.double), c, v.reshape(grid.q, grid.m).astype(grid.double))


CLOSED_FORMS: dict[str, Callable[[BlockGrid, np.random.Generator], Factors]] = {
    "circulant": circulant_start,
    "diagonal": _diagonal_start,
    "rank-one": _rank_one_start,
}
"""All of these run on every matrix, and the fit must never be worse than any of them."""
