"""Elimination of the dense matrix, the fastest way to few solutions with a small matrix that is well conditioned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `linalg` is imported on first use

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["eliminated"]


def eliminated(dense: NDArray[Any], b: NDArray[Any]) -> NDArray[Any] | None:
    """Return the solutions for vectors on the last axis, or None where the matrix is ill-conditioned or singular.

    They are found in double precision; what counts as ill-conditioned is told by the dtype of the matrix.
    """
    matrix = dense.astype(np.result_type(dense.dtype, np.float64), copy=False)
    rows = b.reshape(-1, b.shape[-1]).astype(np.result_type(b.dtype, matrix.dtype), copy=False)
    functions: Any = scipy.linalg.get_lapack_funcs(("getrf", "gecon", "getrs"), (matrix, rows))
    factorise, condition, substitute = functions
    factors, pivots, info = factorise(matrix)
    if info:
        return None
    reciprocal, _ = condition(factors, np.max(np.sum(np.abs(matrix), axis=0)))
    if not reciprocal > np.finfo(dense.dtype).eps:  # nor where it is NaN
        return None
    x, _ = substitute(factors, pivots, rows.T)
    solutions: NDArray[Any] = x.T.reshape(b.shape).astype(np.result_type(dense.dtype, b.dtype), copy=False)
    return solutions
