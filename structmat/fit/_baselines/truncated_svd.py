"""Truncated SVD: the best case of LoRA, for many ranks at once, or for one without all singular values."""

from __future__ import annotations

from math import hypot
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat.fit._baselines.member import Member, tails
from structmat.fit._leading_triplets import leading_triplets, second_order_tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse.linalg
    from numpy.typing import NDArray

__all__ = ["error_of_rank", "truncated_svd"]

# Up to this smaller side a full SVD costs less than iterations.
_DENSE_SVD_SIDE = 600
_ROWS = 256


def truncated_svd(matrix: NDArray[Any], budgets: Sequence[int], inputs: NDArray[Any] | None = None) -> list[Member]:
    """Rank ``r = floor(budget / (rows + cols))``, stored as two thin matrices: the best case of LoRA.

    With `inputs` ``M`` the error is ``norm((matrix - P) @ M)``. The best `P` of rank r then is the truncated SVD of
    ``matrix @ M``, times the pseudo-inverse of ``M``.
    """
    rows, cols = matrix.shape
    values = np.linalg.svd(matrix if inputs is None else matrix @ inputs, compute_uv=False)
    # The inputs may be fewer than the columns.
    errors = tails(np.append(values, np.zeros(min(rows, cols) - len(values))))
    ranks = [min(budget // (rows + cols), rows, cols) for budget in budgets]
    return [Member(rank * (rows + cols), float(errors[rank])) for rank in ranks]


def error_of_rank(matrix: NDArray[Any], rank: int) -> float:
    """Return the relative Frobenius error of the truncated SVD of that rank.

    The squares of the entries must neither overflow nor underflow.
    """
    side = min(matrix.shape)
    if rank >= side or not matrix.any():
        return 0.0
    if rank == 0:
        return 1.0
    if side > _DENSE_SVD_SIDE and rank < side // 8:
        # The residual depends on the error of the singular vectors in second order only.
        start = np.random.default_rng(0).standard_normal(side).astype(matrix.dtype)
        triplets = leading_triplets(_uncopied(matrix), rank, start, second_order_tolerance(matrix.dtype))
        if triplets is not None:
            u, s, vh = triplets
            return _residual(matrix, u * s, vh)
    values = scipy.linalg.svdvals(matrix, check_finite=False)
    return float(np.linalg.norm(values[rank:]) / np.linalg.norm(values))


def _uncopied(matrix: NDArray[Any]) -> scipy.sparse.linalg.LinearOperator[Any]:
    """Return the matrix as an operator: of an array, SciPy from 1.18 on keeps the adjoint as well."""
    from scipy.sparse.linalg import LinearOperator  # noqa: PLC0415

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
