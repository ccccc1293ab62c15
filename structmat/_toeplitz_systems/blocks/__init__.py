"""Block Toeplitz systems: their solutions, the inverse and the determinant of their matrices, and Cholesky factors.

All but `schur` is computed with NumPy in double precision, as for Toeplitz systems. From the bottom up:

- `inverse`: the inverse as a product of two block Toeplitz matrices, and the sums along its block diagonals;
- `recursion`: Whittle's recursion, for what determines the inverse and for the determinant;
- `chan_preconditioner`: conjugate gradients and GMRES with T. Chan's block circulant as preconditioner;
- `system`: `BlockToeplitzSystem`, which chooses between these for one matrix, and accepts as is done for entries;
- `stacks`: the same for stacks of matrices of any library, and what their derivatives take;
- `schur`: Cholesky factors by Schur's algorithm, in any library.
"""

from structmat._toeplitz_systems.blocks.schur import block_cholesky
from structmat._toeplitz_systems.blocks.stacks import (
    BlockTraceOfInverse,
    block_log_determinants,
    block_solutions,
    blocks_of_inverse,
)
from structmat._toeplitz_systems.blocks.system import BlockToeplitzSystem

__all__ = [
    "BlockToeplitzSystem",
    "BlockTraceOfInverse",
    "block_cholesky",
    "block_log_determinants",
    "block_solutions",
    "blocks_of_inverse",
]
