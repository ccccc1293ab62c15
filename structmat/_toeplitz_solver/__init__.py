"""Inverses and determinants of square Toeplitz matrices, from first column and first row.

`levinson` and `schur` are the direct recursions and `iteration` the preconditioned one, all with NumPy;
`numpy_vectors` chooses and refines, `inverse_vectors` does so for arrays of any library, with `gradients`.
"""

from __future__ import annotations

from structmat._toeplitz_solver.gradients import tangents
from structmat._toeplitz_solver.inverse_vectors import (
    InverseVectors,
    inverse_vectors,
    set_rule,
    vectors_on_host,
)

__all__ = ["InverseVectors", "inverse_vectors", "set_rule", "tangents", "vectors_on_host"]
