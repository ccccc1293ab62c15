"""Inverses and determinants of square Toeplitz matrices, from first column and first row.

- `inverse_vectors`: the inverse of a matrix of any library, as two vectors
- `gradients`: its derivatives
- `numpy_vectors`: the choice between the algorithms, and one step of refinement, with NumPy
- `elimination`: solutions with small matrices, without the inverse
- `levinson`, `schur`, `iteration`: the algorithms: two direct recursions, and preconditioned GMRES
"""

from __future__ import annotations

from structmat._toeplitz_solver.elimination import eliminated
from structmat._toeplitz_solver.gradients import tangents
from structmat._toeplitz_solver.inverse_vectors import (
    inverse_vectors,
    set_rule,
    vectors_on_host,
)
from structmat._toeplitz_solver.numpy_vectors import DENSE, inverse_bound

__all__ = [
    "DENSE",
    "eliminated",
    "inverse_bound",
    "inverse_vectors",
    "set_rule",
    "tangents",
    "vectors_on_host",
]
