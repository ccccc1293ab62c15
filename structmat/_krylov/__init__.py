"""Krylov methods, which need nothing of a matrix but its products, for arrays of any library.

- `vectors`: inner products and norms of batches of vectors;
- `conjugate_gradients`: for Hermitian positive definite matrices;
- `gmres`: generalised minimal residuals, for other square matrices;
- `lsmr`: least squares, for matrices of any shape and rank.

Matrices and preconditioners are functions that multiply vectors along the last axis. `structmat.linear_systems` calls
the methods for operators, and `structmat._toeplitz_systems` for Toeplitz matrices of entries and of blocks.
"""

from structmat._krylov.conjugate_gradients import conjugate_gradients
from structmat._krylov.gmres import GivenUp, Patience, gmres, gmres_cycle
from structmat._krylov.lsmr import lsmr
from structmat._krylov.vectors import Count, Product, inner, plain_norm, smallest_normal

__all__ = [
    "Count",
    "GivenUp",
    "Patience",
    "Product",
    "conjugate_gradients",
    "gmres",
    "gmres_cycle",
    "inner",
    "lsmr",
    "plain_norm",
    "smallest_normal",
]
