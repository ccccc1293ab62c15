"""Dense matrices in place of iteration: up to which size a matrix is written out, and what is computed of it then."""

from __future__ import annotations

from math import prod

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.linear_algebra import matmul
from structmat._arrays.typing import Array, Namespace
from structmat.operators import Context, Dense, LinearOperator

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


def is_written_out(operator: LinearOperator) -> bool:
    """Tell whether a matrix may be written out, or all of a stack together."""
    return max(operator.shape) <= MOST_WRITTEN_OUT and fits_in_memory(operator)


def fits_in_memory(operator: LinearOperator) -> bool:
    """Tell whether a matrix, or all of a stack together, may be written out as a last resort, however long it takes."""
    rows, cols = operator.shape
    return prod(operator.batch_shape) * rows * cols <= _NUMBERS


def iterations_before_elimination(
    operator: LinearOperator, *, least_squares: bool = False, asked: bool = False
) -> int | None:
    """Return how many iterations are made before a matrix is written out; None where it is not.

    There are none where the dense matrix is faster than iteration can be, unless iteration is `asked` for.
    """
    if not is_written_out(operator):
        return None
    shape = operator.shape
    if not asked and max(shape) <= (_FIRST_LEAST_SQUARES if least_squares else _FIRST):
        return 0
    return max(100, min(shape) // 2)


def written_out(operator: LinearOperator, like: Array, xp: Namespace) -> Dense:
    """Return a matrix by its entries, in the dtype and on the device of vectors such as `like`."""
    if isinstance(operator, Dense) and operator.dtype == like.dtype:
        return operator
    return Dense(xp.astype(operator._to_dense(Context(xp, like.dtype, device_of(like))), like.dtype))


def eliminated(A: Dense, b: Array, xp: Namespace) -> Array:
    """Return the solutions by elimination; they are not finite where a matrix is singular.

    `b` has all batch axes of A. All right-hand sides of a matrix are solved by one elimination.
    """
    matrix = A.matrix
    n = b.shape[-1]
    if matrix.ndim == 2:
        lead = (1,)
        count = prod(b.shape[:-1])
    elif matrix.shape[-3] == 1:  # one matrix for all vectors along the last axis before theirs
        matrix = matrix[..., 0, :, :]
        lead = tuple(b.shape[:-2])
        count = b.shape[-2]
    else:
        lead = tuple(b.shape[:-1])
        count = 1
    matrices = xp.reshape(xp.broadcast_to(matrix, (*lead, n, n)), (prod(lead), n, n))
    right = xp.matrix_transpose(xp.reshape(b, (prod(lead), count, n)))
    return xp.reshape(xp.matrix_transpose(rules_of(xp).elimination(matrices).solve(right)), b.shape)


def of_least_norm(A: Dense, b: Array, xp: Namespace) -> Array:
    """Return the least-squares solutions of least norm by singular vectors; NaN where a matrix holds NaN or infinity.

    Singular values at the level of rounding count as zeros, with the bound of `numpy.linalg.lstsq`.
    """
    finite = xp.all(xp.isfinite(A.matrix), axis=(-2, -1))  # libraries raise errors for other matrices
    matrix = xp.where(finite[..., None, None], A.matrix, xp.zeros_like(A.matrix))
    U, values, Vh = xp.linalg.svd(matrix, full_matrices=False)
    least = max(A.shape) * float(xp.finfo(values.dtype).eps) * xp.max(values, axis=-1, keepdims=True)
    is_nonzero = values > least
    parts = _adjoint_products(U, b, xp) / xp.where(is_nonzero, values, xp.ones_like(values))
    parts = xp.where(is_nonzero, parts, xp.zeros_like(parts))
    x = _adjoint_products(Vh, parts, xp)
    return xp.where(finite[..., None], x, xp.full_like(x, float("nan")))


def _adjoint_products(A: Array, x: Array, xp: Namespace) -> Array:
    """Return the products of the adjoints of matrices with vectors."""
    return matmul(conjugate(xp.matrix_transpose(A), xp), x[..., None], xp)[..., 0]
