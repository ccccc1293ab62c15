"""The error of the best approximation of a given rank, without all singular values where few are enough."""

from __future__ import annotations

from contextlib import suppress
from math import hypot
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import svdvals
from scipy.sparse.linalg import ArpackError, LinearOperator, svds

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["low_rank_error"]

# Up to this smaller side a full SVD costs less than iterations.
_DENSE_SVD_SIDE = 600
_ROWS = 256


def low_rank_error(matrix: NDArray[Any], rank: int) -> float:
    """Return the relative Frobenius error of the truncated SVD of that rank, at least 1.

    The squares of the entries must neither overflow nor underflow.
    """
    side = min(matrix.shape)
    if rank == side or not matrix.any():
        return 0.0
    if side > _DENSE_SVD_SIDE and rank < side // 8:
        # The residual depends on the error of the singular vectors in second order only.
        tolerance = float(np.finfo(matrix.dtype).eps) ** 0.75
        start = np.random.default_rng(0).standard_normal(side).astype(matrix.dtype)
        with suppress(ArpackError):  # no convergence: all singular values below always have an answer
            u, s, vh = svds(_uncopied(matrix), k=rank, tol=tolerance, v0=start)
            return _residual(matrix, u * s, vh)
    values = svdvals(matrix, check_finite=False)
    return float(np.linalg.norm(values[rank:]) / np.linalg.norm(values))


def _uncopied(matrix: NDArray[Any]) -> LinearOperator:
    """Return the matrix as an operator: of an array, SciPy from 1.18 on keeps the adjoint as well."""

    def product(x: NDArray[Any]) -> NDArray[Any]:
        return matrix @ x

    def adjoint(y: NDArray[Any]) -> NDArray[Any]:
        return (matrix.T @ y.conj()).conj()

    return LinearOperator(
        matrix.shape, matvec=product, rmatvec=adjoint, matmat=product, rmatmat=adjoint, dtype=matrix.dtype
    )


def _residual(matrix: NDArray[Any], left: NDArray[Any], right: NDArray[Any]) -> float:
    """Return the relative size of ``matrix - left @ right``, a few rows at a time to save memory."""
    sizes, wholes = [], []
    for i in range(0, len(matrix), _ROWS):
        rows = slice(i, i + _ROWS)
        sizes += np.linalg.norm(matrix[rows] - left[rows] @ right, axis=1).tolist()
        wholes += np.linalg.norm(matrix[rows], axis=1).tolist()
    return hypot(*sizes) / hypot(*wholes)
