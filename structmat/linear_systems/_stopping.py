"""When a solution is good enough: tests of residuals, computed from the solution itself."""

from __future__ import annotations

from collections.abc import Callable

from structmat._arrays.arithmetic import euclidean_norm
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._scaling import norm_or_one, operator_norm
from structmat.operators import LinearOperator

_ROUNDING_OF_RESIDUAL = 16.0
"""The residual that counts as a rounding error, in units of eps times the norm of A times that of x."""

Measure = Callable[[Array, Array], "tuple[Array, Array]"]
"""A function of solution and residual that returns, for each right-hand side, a measure of the error, least for the
best solution, and whether the solution is good enough."""


def relative_residual(residual: Array, b: Array, xp: Namespace) -> Array:
    """Return ``norm(residual) / norm(b)``, and zero where both are zero."""
    return euclidean_norm(residual, xp) / norm_or_one(b, xp)[..., 0]


def by_residual(b: Array, rtol: float, xp: Namespace) -> Measure:
    """Return the test that the residual is small beside the right-hand side."""
    norm_of_b = norm_or_one(b, xp)[..., 0]

    def measure(x: Array, residual: Array) -> tuple[Array, Array]:  # noqa: ARG001
        relative = euclidean_norm(residual, xp) / norm_of_b
        return relative, relative <= rtol

    return measure


def by_gradient(operator: LinearOperator, b: Array, norm: Array, rtol: float, xp: Namespace) -> Measure:
    """Return the test of Paige and Saunders: the residual is small, or orthogonal to the range up to the tolerance."""

    def measure(x: Array, residual: Array) -> tuple[Array, Array]:
        residual_norm = euclidean_norm(residual, xp)
        norm_of_b = euclidean_norm(b, xp)
        gradient = euclidean_norm(operator._rmatvec(residual, xp), xp)
        eps = float(xp.finfo(residual_norm.dtype).eps)
        rounding = _ROUNDING_OF_RESIDUAL * eps * (norm_of_b + norm * euclidean_norm(x, xp))
        small = residual_norm <= rtol * norm_of_b
        return gradient, small | (gradient <= norm * (rtol * residual_norm + rounding))

    return measure


def is_as_small_as_rounding(A: LinearOperator, x: Array, residual: Array, b: Array, xp: Namespace) -> Array:
    """Tell which solutions have a normwise backward error at the level of rounding, as those of LAPACK have.

    Such a solution is that of a matrix that differs from A by rounding errors; where A is ill-conditioned, no solution
    in this precision need leave less. One that leaves as much of `b` as zeros do is none: beside a vector that is long
    enough any residual is small.
    """
    eps = float(xp.finfo(residual.dtype).eps)
    rounding = _ROUNDING_OF_RESIDUAL * eps * operator_norm(A, b, xp) * euclidean_norm(x, xp)
    residual_norm = euclidean_norm(residual, xp)
    return (residual_norm <= rounding) & (residual_norm < euclidean_norm(b, xp))
