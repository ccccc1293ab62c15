"""Solutions, inverses and determinants of square Toeplitz matrices, from first column and first row.

- `solutions`: for arrays of any library
- `gradients`: the derivatives
- `system`: the choice between the algorithms for one matrix, with NumPy, and what its results are accepted by
- `recursions`: two direct algorithms in O(n^2) time
"""

from __future__ import annotations

from structmat._toeplitz_solver.gradients import tangents
from structmat._toeplitz_solver.solutions import (
    InverseVectors,
    Rules,
    inverse_vectors,
    products,
    set_rules,
    solutions,
    solutions_on_host,
    transposed,
    vectors_on_host,
)
from structmat._toeplitz_solver.system import DENSE, ToeplitzSystem

__all__ = [
    "DENSE",
    "InverseVectors",
    "Rules",
    "ToeplitzSystem",
    "inverse_vectors",
    "products",
    "set_rules",
    "solutions",
    "solutions_on_host",
    "tangents",
    "transposed",
    "vectors_on_host",
]
