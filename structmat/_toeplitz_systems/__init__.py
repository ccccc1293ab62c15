"""Toeplitz systems: their solutions, the inverse and the determinant of their matrices, and Cholesky factors.

All but `superfast`, `schur`, `small` and part of `triangular` is computed with NumPy in double precision, whatever
library the arrays belong to. From the bottom up:

- `thresholds`: every number that decides which way is taken, of `superfast` and `blocks` too, with what set it;
- `scaling`: which numbers are scaled by powers of two;
- `inverse`: products with the inverse, which two vectors determine, and the sums along its diagonals;
- `elimination`: triangular factors of a dense matrix or a band by LAPACK;
- `levinson`: Levinson's recursion, for the determinant, and the compiled one of SciPy for a solution;
- `recursion_by_blocks`: Levinson's recursion by blocks of rows, for the two vectors of the inverse;
- `strang_preconditioner`: GMRES with Strang's circulant as preconditioner;
- `refinement`: rows that ways solve one after the other, and the loops that refine and correct what these have found;
- `triangular`: triangular matrices as power series, by Newton's iteration, in any library;
- `accuracy_warnings`: the warnings that a result may be inaccurate;
- `acceptance`: which solutions are accepted by their residuals, with entries or blocks;
- `system`: `ToeplitzSystem`, which chooses between these for one matrix;
- `small`: stacks of small matrices, which NumPy, torch or JAX eliminates all at once, on their device;
- `numpy_stacks`: the solutions of those of NumPy, by fewer calls;
- `stacks`: who of these computes what, for arrays of any library, and what their derivatives take;
- `superfast`: direct factors of positive definite ones plus a diagonal, with any rows missing, in any library;
- `schur`: reflection coefficients and Cholesky factors by Schur's algorithm, in any library.

The package `blocks` has the same for matrices of p x p blocks.
"""

from structmat._toeplitz_systems.blocks import (
    BlockToeplitzSystem,
    BlockTraceOfInverse,
    block_cholesky,
    block_log_determinants,
    block_solutions,
    blocks_of_inverse,
)
from structmat._toeplitz_systems.elimination import toeplitz_view
from structmat._toeplitz_systems.inverse import Bezoutian, bezoutian
from structmat._toeplitz_systems.schur import reflection_coefficients, toeplitz_cholesky
from structmat._toeplitz_systems.stacks import TraceOfInverse, inverse_vectors, log_determinants, solutions
from structmat._toeplitz_systems.strang_preconditioner import central_diagonals
from structmat._toeplitz_systems.superfast import (
    FactorOnHost,
    LogDeterminantOnHost,
    NoisyToeplitz,
    RankError,
    SeriesFactor,
    SuperfastFactor,
    series_variances,
)
from structmat._toeplitz_systems.system import ToeplitzSystem
from structmat._toeplitz_systems.triangular import accepted_power, as_lower, triangle

__all__ = [
    "Bezoutian",
    "BlockToeplitzSystem",
    "BlockTraceOfInverse",
    "FactorOnHost",
    "LogDeterminantOnHost",
    "NoisyToeplitz",
    "RankError",
    "SeriesFactor",
    "SuperfastFactor",
    "ToeplitzSystem",
    "TraceOfInverse",
    "accepted_power",
    "as_lower",
    "bezoutian",
    "block_cholesky",
    "block_log_determinants",
    "block_solutions",
    "blocks_of_inverse",
    "central_diagonals",
    "inverse_vectors",
    "log_determinants",
    "reflection_coefficients",
    "series_variances",
    "solutions",
    "toeplitz_cholesky",
    "toeplitz_view",
    "triangle",
]
