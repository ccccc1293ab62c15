"""Which matrices are written out, and after how many iterations."""

from __future__ import annotations

from math import prod

from structmat._toeplitz_systems import thresholds
from structmat.linear_systems import _thresholds
from structmat.operators import LinearOperator


def is_written_out(operator: LinearOperator) -> bool:
    """Tell whether a matrix may be written out, or all of a stack together."""
    rows, cols = operator.shape
    if max(rows, cols) > _thresholds.WRITTEN_OUT:
        return False
    return prod(operator.batch_shape) * rows * cols <= _thresholds.WRITTEN_OUT_NUMBERS


def fits_in_memory(operator: LinearOperator) -> bool:
    """Tell whether a matrix, or all of a stack together, may be written out beside several others as large."""
    rows, cols = operator.shape
    return prod(operator.batch_shape) * rows * cols <= _thresholds.WRITTEN_OUT_NUMBERS


def fits_as_last_resort(operator: LinearOperator) -> bool:
    """Tell whether a matrix, or all of a stack together, may be written out beside one copy, however long it takes."""
    rows, cols = operator.shape
    return prod(operator.batch_shape) * rows * cols <= thresholds.LAST_RESORT**2


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
        return shape[0] * shape[0] // _thresholds.ROWS_OF_ONE_ITERATION
    first = _thresholds.SINGULAR_VECTORS_FIRST if least_squares else _thresholds.ELIMINATED_FIRST
    if not asked and max(shape) <= first:
        return 0
    return max(_thresholds.LEAST_ITERATIONS, min(shape) // 2)
