"""Which matrices are written out, and after how many iterations."""

from __future__ import annotations

from math import prod

from structmat._toeplitz_systems import thresholds
from structmat.operators import LinearOperator

MOST_WRITTEN_OUT = 2000
"""The most rows or columns of a matrix that is written out.

Elimination takes 0.14 s for 2,000 unknowns on one core, where 1,000 products with a Toeplitz matrix take 0.07 s, and
singular vectors 0.6 s for 2,000 x 1,000. A log-determinant by Cholesky's factor takes 0.09 s for 1,600 unknowns and
0.15 s for 2,000, and an estimate, which is off by several units of its last digits, 0.02 to 0.1 s.
"""

_FIRST = 512
"""The most unknowns of a system that is eliminated before any iteration.

For 384 unknowns of NumPy the dense matrix takes 1.8 ms, for 512 it takes 4.1; ten iterations, after which the easiest
systems are solved, take 2 ms by conjugate gradients and 3 by GMRES. In torch it is 2.2, 5.8, 8 and 10 ms. With 64
right-hand sides it is the faster one up to 1,000 unknowns. Systems that take more iterations took 16 to 24 ms.
"""

_FIRST_LEAST_SQUARES = 128
"""The most rows and columns of a least-squares problem that is solved by singular vectors before any iteration.

For 128 x 128 they take 2.2 ms and for 256 x 256 13; LSMR takes 4 and 5 for the easiest problems.
"""

_NUMBERS = 1 << 26
"""The most entries of all matrices of a stack that are written out together: 512 MiB in double precision."""

_LAST_RESORT = thresholds.LAST_RESORT**2
"""The most entries of all matrices that are written out where nothing else serves."""

_ROWS_OF_ONE_ITERATION = 5000
"""Elimination of n rows takes as long as n^2 over this many iterations: 200 for 1,000 rows, 1,800 for 3,000."""


def is_written_out(operator: LinearOperator) -> bool:
    """Tell whether a matrix may be written out, or all of a stack together."""
    rows, cols = operator.shape
    return max(rows, cols) <= MOST_WRITTEN_OUT and prod(operator.batch_shape) * rows * cols <= _NUMBERS


def fits_in_memory(operator: LinearOperator) -> bool:
    """Tell whether a matrix, or all of a stack together, may be written out beside several others as large."""
    rows, cols = operator.shape
    return prod(operator.batch_shape) * rows * cols <= _NUMBERS


def fits_as_last_resort(operator: LinearOperator) -> bool:
    """Tell whether a matrix, or all of a stack together, may be written out beside one copy, however long it takes."""
    rows, cols = operator.shape
    return prod(operator.batch_shape) * rows * cols <= _LAST_RESORT


def iterations_before_elimination(
    operator: LinearOperator, *, least_squares: bool = False, asked: bool = False
) -> int | None:
    """Return how many iterations are made before a matrix is written out; None where it is not.

    There are none where the dense matrix is faster than iteration can be, unless iteration is `asked` for. Up to the
    limit of memory a square matrix is the last resort after iterations that take as long.
    """
    shape = operator.shape
    if not is_written_out(operator):
        if least_squares or not fits_as_last_resort(operator):
            return None
        return shape[0] * shape[0] // _ROWS_OF_ONE_ITERATION
    if not asked and max(shape) <= (_FIRST_LEAST_SQUARES if least_squares else _FIRST):
        return 0
    return max(100, min(shape) // 2)
