"""Starting points: the best rank-one, block-circulant and (cyclic) diagonal approximations, and random phases.

The first three are Diagonal @ BlockCirculant @ Diagonal products in closed form, so a fit that starts from each of them
and never rises is never worse than any of them. A starting point is a function of the signature `Start`, as is shift
synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from structmat.fit._leading_triplets import leading_triplets, second_order_tolerance
from structmat.fit._three_factors.blocks import conjugate_column_sums, conjugate_row_sums
from structmat.fit._three_factors.steps import circulant_step
from structmat.fit._three_factors.vectors import Factors

if TYPE_CHECKING:
    import scipy.sparse.linalg
    from numpy.typing import NDArray

    from structmat.fit._three_factors.blocks import BlockGrid

__all__ = ["Start", "circulant_start", "diagonal_start", "random_start", "rank_one_start"]

Start: TypeAlias = "Callable[[BlockGrid, np.random.Generator], Factors]"

# Up to this smaller side a full SVD costs less than iterations.
_DENSE_SVD_SIDE = 64


def circulant_start(grid: BlockGrid, _rng: np.random.Generator) -> Factors:
    """The nearest block-circulant matrix: the mean of every cyclic diagonal of every block, inside the matrix."""
    c = circulant_step(grid, grid.rows_present, grid.cols_present)
    return Factors(grid.rows_present, c, grid.cols_present)


def diagonal_start(grid: BlockGrid, _rng: np.random.Generator) -> Factors:
    """The strongest cyclic diagonal of every block column, or of every block row if that explains more.

    Every block column that meets the main diagonal of the rectangle has its part of it among its choices.
    """
    energy = np.zeros((grid.p, grid.q, grid.m))
    for ps, rows in grid.chunks():
        energy[ps] += grid.diagonal_energy(ps, rows).sum(axis=1, dtype=np.float64)
    a, b = grid.rows_present.copy(), grid.cols_present.copy()
    c = np.zeros(energy.shape, dtype=grid.double)
    i = np.arange(grid.m)
    by_column, by_row = energy.swapaxes(0, 1).reshape(grid.q, -1), energy.reshape(grid.p, -1)
    if by_column.max(axis=1).sum() >= by_row.max(axis=1).sum():
        for q, (p, k) in enumerate(np.transpose(np.divmod(by_column.argmax(axis=1), grid.m))):
            c[p, q, k] = 1.0
            b[q, i - k] = grid.diagonals[p, :, q, k]
    else:
        for p, (q, k) in enumerate(np.transpose(np.divmod(by_row.argmax(axis=1), grid.m))):
            c[p, q, k] = 1.0
            a[p] = grid.diagonals[p, :, q, k]
    return Factors(a, c, b)


def rank_one_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """The truncated SVD of rank one: ``u v^H = diag(u) circ(1) diag(conj(v))``."""
    u, v = _leading_singular_pair(grid, rng)
    c = np.ones((grid.p, grid.q, grid.m), dtype=grid.double)
    return Factors(u.reshape(grid.p, grid.m).astype(grid.double), c, v.reshape(grid.q, grid.m).astype(grid.double))


def random_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Diagonals of random phases (signs, for real data) and the best `c` for them."""
    a, b = (_random_phases(present, rng) for present in (grid.rows_present, grid.cols_present))
    return Factors(a, circulant_step(grid, a, b), b)


def _random_phases(present: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    turn = rng.random(present.shape)
    phases = np.exp(2j * np.pi * turn) if np.iscomplexobj(present) else np.where(turn < 0.5, -1.0, 1.0)
    kept: NDArray[Any] = phases * present
    return kept


def _leading_singular_pair(grid: BlockGrid, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """`u` and `v` with ``u[:, None] * v`` the nearest matrix of rank one."""
    rows, cols = shape = (grid.p * grid.m, grid.q * grid.m)
    if min(shape) > _DENSE_SVD_SIDE:
        # The error of a singular value is of second order in the tolerance.
        v0 = rng.standard_normal(min(shape)).astype(grid.dtype)
        triplets = leading_triplets(_as_operator(grid), 1, v0, second_order_tolerance(grid.dtype))
        if triplets is not None:
            u, s, vh = triplets
            return u[:, 0], s[0] * vh[0]
    u, s, vh = np.linalg.svd(grid.weighted.reshape(rows, cols), full_matrices=False)
    return u[:, 0], s[0] * vh[0]


def _as_operator(grid: BlockGrid) -> scipy.sparse.linalg.LinearOperator[Any]:
    """The padded matrix as products with vectors."""
    from scipy.sparse.linalg import LinearOperator  # noqa: PLC0415

    def product(x: NDArray[Any]) -> NDArray[Any]:
        conjugate = x.reshape(grid.q, grid.m).conj()
        out = np.empty((grid.p, grid.m), dtype=grid.dtype)
        for chunk in grid.chunks():
            out[chunk] = conjugate_row_sums(grid.weighted[chunk], conjugate)
        return out.reshape(-1)

    def adjoint_product(y: NDArray[Any]) -> NDArray[Any]:
        weights = y.reshape(grid.p, grid.m)
        out = np.zeros((grid.q, grid.m), dtype=grid.double)
        for chunk in grid.chunks():
            out += conjugate_column_sums(grid.weighted[chunk], weights[chunk]).sum(axis=0)
        return out.conj().astype(grid.dtype).reshape(-1)

    shape = (grid.p * grid.m, grid.q * grid.m)
    return LinearOperator(shape, matvec=product, rmatvec=adjoint_product, dtype=grid.dtype)
