"""The nearest block-circulant and the nearest diagonal matrix, without a second dense matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._baselines.member import Member, relative_norm
from structmat.fit._three_factors.alternate import relative_error
from structmat.fit._three_factors.basic_starts import circulant_start
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.steps import residual_norm2

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["nearest_circulant", "nearest_diagonal"]


def nearest_circulant(matrix: NDArray[Any], block_size: int) -> Member:
    """The block-circulant matrix with the mean of every cyclic diagonal of every block."""
    grid = BlockGrid(matrix, block_size)
    error = relative_error(grid, residual_norm2(grid, circulant_start(grid, np.random.default_rng(0))))
    return Member(grid.p * grid.q * block_size, error)


def nearest_diagonal(matrix: NDArray[Any]) -> Member:
    """The main diagonal."""
    side = min(matrix.shape)
    rest = matrix.copy()
    np.fill_diagonal(rest[:side, :side], 0)
    return Member(side, relative_norm(rest, matrix))
