"""The ways to solutions by the dense matrix: elimination, and singular vectors for least squares."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, NamedTuple

from structmat._arrays.arithmetic import power_of_two_near
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.linear_algebra import adjoint, matmul
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._krylov_method import quiet
from structmat.linear_systems._problem import Candidate, LinearSystem
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


@dataclass(frozen=True)
class ByElimination:
    """The way to solutions of square systems by elimination of the dense matrix."""

    has_derivatives: ClassVar[bool] = False
    name: ClassVar[str] = "elimination"

    def cost(self, system: LinearSystem) -> float | None:
        """Return how many iterations are made before; None where the matrix is too large, or there are solutions."""
        return None if system.is_solved else system.iterations_before_elimination

    def run(self, system: LinearSystem) -> Candidate:
        """Return solutions; NaN and infinities in a preconditioner that was given are an error."""
        xp = system.xp
        with quiet(xp):
            dense = _DenseSystem.of(system.operator, system.b, xp)
            measure = ByResidual.of(dense.b, system.options.rtol, xp)
            x = eliminated(dense.matrix, dense.b, xp)
            return Candidate(_judged(dense, system.preconditioner, x, measure, system.best, xp))


@dataclass(frozen=True)
class BySingularVectors:
    """The way to least-squares solutions of least norm by singular vectors of the dense matrix."""

    has_derivatives: ClassVar[bool] = False
    name: ClassVar[str] = "singular vectors"

    def cost(self, system: LinearSystem) -> float | None:
        """Return how many iterations are made before; None where the matrix is too large."""
        return system.iterations_before_elimination

    def run(self, system: LinearSystem) -> Candidate:
        """Return solutions."""
        xp = system.xp
        with quiet(xp):
            dense = _DenseSystem.of(system.operator, system.b, xp)
            matrix = Dense(dense.matrix)
            measure = ByGradient(matrix, dense.b, operator_norm(matrix, dense.b, xp), system.options.rtol, xp)
            x = of_least_norm(dense.matrix, dense.b, xp)
            return Candidate(_judged(dense, None, x, measure, system.best, xp))


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
