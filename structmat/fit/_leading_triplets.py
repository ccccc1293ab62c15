"""The leading singular triplets of a matrix, by iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse.linalg
    from numpy.typing import NDArray

__all__ = ["leading_triplets", "second_order_tolerance"]


def leading_triplets(
    matrix: NDArray[Any] | scipy.sparse.linalg.LinearOperator[Any], k: int, v0: NDArray[Any], tol: float = 0.0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    """Return the `k` largest singular triplets in any order, by Lanczos iterations from `v0`.

    None where these do not converge: a full decomposition always has an answer.
    """
    from scipy.sparse import linalg  # noqa: PLC0415  # slow to import, so not before it is needed

    try:
        u, s, vh = linalg.svds(matrix, k=k, tol=tol, v0=v0)
    except linalg.ArpackError:
        return None
    return u, s, vh


def second_order_tolerance(dtype: np.dtype[Any]) -> float:
    """Return a tolerance for vectors whose errors count in second order only."""
    return float(np.finfo(dtype).eps) ** 0.75
