"""Elimination of dense matrices: up to which size a matrix is written out, and how its systems are solved then."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from structmat._arrays.arithmetic import power_of_two_near
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.linear_algebra import adjoint, matmul
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import thresholds
from structmat.linear_systems._krylov_method import quiet
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._scaling import norm_or_one, operator_norm
from structmat.linear_systems._stopping import (
    ByGradient,
    ByResidual,
    Measure,
    is_as_small_as_rounding,
    relative_residual,
)
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


class _DenseSystem(NamedTuple):
    """A system ``A x = b`` with a dense matrix, both divided by powers of two near their largest entries."""

    matrix: Array
    b: Array
    matrix_divisor: Array
    """One for each matrix of a stack, with two more axes of length one."""
    rhs_divisor: Array
    """One for each right-hand side, as a column."""

    @classmethod
    def of(cls, operator: LinearOperator, b: Array, xp: Namespace) -> _DenseSystem:
        """Return the system of an operator that is written out, in the dtype of `b`."""
        matrix = operator._to_dense(Context(xp, b.dtype, device_of(b)))
        if matrix.dtype != b.dtype:
            matrix = xp.astype(matrix, b.dtype)
        of_matrix = power_of_two_near(matrix, xp, axis=(-2, -1))
        of_b = power_of_two_near(b, xp)
        return cls(matrix / of_matrix, b / of_b, of_matrix, of_b)

    def solution(self, x: Array) -> Array:
        """Return the solution of the system before it was scaled, from that of the scaled one."""
        return x * (self.rhs_divisor / self.matrix_divisor[..., 0])

    def scaled(self, x: Array) -> Array:
        """Return the solution of the scaled system, from that of the one before."""
        return x * (self.matrix_divisor[..., 0] / self.rhs_divisor)


class ByElimination(NamedTuple):
    """The way to solutions of square systems by elimination of the dense matrix."""

    rtol: float

    def __call__(
        self, A: LinearOperator, M: LinearOperator | None, b: Array, before: Solutions | None, xp: Namespace
    ) -> Solutions:
        """Return solutions as every `Way` does; NaN and infinities in a preconditioner that was given are an error."""
        with quiet(xp):
            system = _DenseSystem.of(A, b, xp)
            measure = ByResidual.of(system.b, self.rtol, xp)
            return _judged(system, M, eliminated(system.matrix, system.b, xp), measure, before, xp)


class BySingularVectors(NamedTuple):
    """The way to least-squares solutions of least norm by singular vectors of the dense matrix."""

    rtol: float

    def __call__(
        self, A: LinearOperator, M: LinearOperator | None, b: Array, before: Solutions | None, xp: Namespace
    ) -> Solutions:
        """Return solutions as every `Way` does."""
        with quiet(xp):
            system = _DenseSystem.of(A, b, xp)
            dense = Dense(system.matrix)
            measure = ByGradient(dense, system.b, operator_norm(dense, system.b, xp), self.rtol, xp)
            return _judged(system, M, of_least_norm(system.matrix, system.b, xp), measure, before, xp)


def _judged(
    system: _DenseSystem, M: LinearOperator | None, x: Array, measure: Measure, before: Solutions | None, xp: Namespace
) -> Solutions:
    """Return solutions of a scaled system, or those `before` where these are no worse, and which are good enough."""
    b, iterations = system.b, 0 if before is None else before.iterations
    residual = b - _products(system.matrix, x, xp)
    error, enough = measure(x, residual)
    may_be_found = None if M is None else xp.all(xp.isfinite(M._matvec(b, xp)), axis=-1)
    found = xp.all(enough if may_be_found is None else enough & may_be_found)

    def as_found() -> tuple[Array, Array, Array]:
        relative = error if measure.is_relative else relative_residual(residual, b, xp)
        return system.solution(x), relative, enough

    def with_those_before() -> tuple[Array, Array, Array]:
        dense = Dense(system.matrix)
        old = xp.zeros_like(x) if before is None else system.scaled(before.x)
        left = b if before is None else b - dense._matvec(old, xp)
        old_error, done = measure(old, left)
        unit = b / norm_or_one(b, xp)
        product = dense._matvec(unit, xp) if b.shape == x.shape else dense._rmatvec(unit, xp)
        finite = xp.all(xp.isfinite(product), axis=-1)
        better = (error < old_error) & finite & ~done  # false where it is NaN
        if may_be_found is not None:
            better = better & may_be_found
        new = xp.where(better[..., None], x, old)
        new_residual = xp.where(better[..., None], residual, left)
        done = done | (enough & better) | is_as_small_as_rounding(dense, new, new_residual, b, xp)
        relative = relative_residual(new_residual, b, xp)
        relative = xp.where(finite, relative, xp.full_like(relative, float("nan")))
        return system.solution(new), relative, done & finite

    x, relative, done = rules_of(xp).branch(found, as_found, with_those_before)
    return Solutions(x, relative, done, iterations)


def eliminated(matrix: Array, b: Array, xp: Namespace) -> Array:
    """Return the solutions by elimination; they are not finite where a matrix is singular.

    `b` has all batch axes of the matrices. All right-hand sides of a matrix are solved by one elimination.
    """
    n = b.shape[-1]
    if matrix.ndim == 2:
        right = xp.matrix_transpose(xp.reshape(b, (1, prod(b.shape[:-1]), n)))
        return xp.reshape(xp.matrix_transpose(rules_of(xp).elimination(matrix[None, ...]).solve(right)), b.shape)
    if matrix.shape[-3] == 1:  # one matrix for all vectors along the last axis before theirs
        matrix = matrix[..., 0, :, :]
        lead = tuple(b.shape[:-2])
        count = b.shape[-2]
    else:
        lead = tuple(b.shape[:-1])
        count = 1
    matrices = xp.reshape(xp.broadcast_to(matrix, (*lead, n, n)), (prod(lead), n, n))
    right = xp.matrix_transpose(xp.reshape(b, (prod(lead), count, n)))
    return xp.reshape(xp.matrix_transpose(rules_of(xp).elimination(matrices).solve(right)), b.shape)


def of_least_norm(matrix: Array, b: Array, xp: Namespace) -> Array:
    """Return the least-squares solutions of least norm by singular vectors; NaN where a matrix holds NaN or infinity.

    Singular values at the level of rounding count as zeros, with the bound of `numpy.linalg.lstsq`.
    """
    finite = xp.all(xp.isfinite(matrix), axis=(-2, -1))  # libraries raise errors for other matrices
    matrix = xp.where(finite[..., None, None], matrix, xp.zeros_like(matrix))
    U, values, Vh = xp.linalg.svd(matrix, full_matrices=False)
    least = max(matrix.shape[-2:]) * float(xp.finfo(values.dtype).eps) * xp.max(values, axis=-1, keepdims=True)
    is_nonzero = values > least
    parts = _products(adjoint(U, xp), b, xp) / xp.where(is_nonzero, values, xp.ones_like(values))
    parts = xp.where(is_nonzero, parts, xp.zeros_like(parts))
    x = _products(adjoint(Vh, xp), parts, xp)
    return xp.where(finite[..., None], x, xp.full_like(x, float("nan")))


def _products(A: Array, x: Array, xp: Namespace) -> Array:
    """Return the products of matrices with vectors along the last axis."""
    if A.ndim > 2 and A.shape[-3] == 1 and x.ndim > 1:
        A = A[..., 0, :, :]
    elif A.ndim > 2:
        return matmul(A, x[..., None], xp)[..., 0]
    return matmul(x, xp.matrix_transpose(A), xp)
