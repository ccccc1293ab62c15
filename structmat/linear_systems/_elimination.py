"""Elimination of the dense matrix, for systems of up to 2,000 unknowns that iteration does not solve soon."""

from __future__ import annotations

import numpy as np

from structmat._arrays.arithmetic import euclidean_norm
from structmat._arrays.linear_algebra import dense_solutions
from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator

MOST_ELIMINATED = 2000
"""The most unknowns of a system that is eliminated where half as many iterations do not solve it.

Elimination takes 0.2 s for 2,000 unknowns on one core, where 1,000 products with a Toeplitz matrix take 0.07 s.
"""


def iterations_before_elimination(n: int) -> int:
    """Return how many iterations are made before a system of n unknowns is eliminated."""
    return max(100, n // 2)


def eliminated(A: LinearOperator, x: Array, b: Array, xp: Namespace) -> Array:
    """Return the solutions by the dense matrix where their residuals are smaller than those of `x`."""
    try:
        if A.batch_shape:
            new_x = dense_solutions(A.to_dense(), b[..., None], xp)[..., 0]
        else:  # all right-hand sides by one elimination
            columns = xp.matrix_transpose(xp.reshape(b, (-1, b.shape[-1])))
            new_x = xp.reshape(xp.matrix_transpose(dense_solutions(A.to_dense(), columns, xp)), x.shape)
    except np.linalg.LinAlgError:  # a singular matrix
        return x
    new_norm = euclidean_norm(b - A._matvec(new_x, xp), xp)
    norm = euclidean_norm(b - A._matvec(x, xp), xp)
    return xp.where((new_norm < norm)[..., None], new_x, x)  # false where the new one is NaN
