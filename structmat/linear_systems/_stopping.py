"""When a solution is good enough: tests of residuals, computed from the solution itself."""

from __future__ import annotations

import math
from collections.abc import Callable

from structmat._arrays.arithmetic import euclidean_norm
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._scaling import norm_of, size_of
from structmat.operators import LinearOperator

_ROUNDING = 16.0
"""Residuals of this many units in the last place of what they are a difference of are rounding."""

Measure = Callable[[Array, Array], "tuple[Array, Array]"]
"""From solution and residual to how good it is and whether that is enough, for each right-hand side."""


def relative_residual(residual: Array, b: Array, xp: Namespace) -> Array:
    """Return ``norm(residual) / norm(b)``, zero for zeros."""
    return euclidean_norm(residual, xp) / size_of(b, xp)[..., 0]


def by_residual(b: Array, rtol: float, xp: Namespace) -> Measure:
    """Return the test that the residual is small beside the right-hand side."""

    def measure(x: Array, residual: Array) -> tuple[Array, Array]:  # noqa: ARG001
        relative = relative_residual(residual, b, xp)
        return relative, relative <= rtol

    return measure


def by_gradient(operator: LinearOperator, b: Array, norm: Array, rtol: float, xp: Namespace) -> Measure:
    """Return the test of Paige and Saunders: the residual is small, or orthogonal to the range up to the tolerance."""

    def measure(x: Array, residual: Array) -> tuple[Array, Array]:
        left, whole = euclidean_norm(residual, xp), euclidean_norm(b, xp)
        gradient = euclidean_norm(operator._rmatvec(residual, xp), xp)
        rounding = _ROUNDING * float(xp.finfo(left.dtype).eps) * (whole + norm * euclidean_norm(x, xp))
        small = left <= rtol * whole
        return gradient, small | (gradient <= norm * (rtol * left + rounding))

    return measure


def is_as_small_as_rounding(A: LinearOperator, x: Array, residual: Array, b: Array, xp: Namespace) -> Array:
    """Tell which residuals no solution in this precision has much smaller, though they are small beside `b` as well."""
    eps = float(xp.finfo(residual.dtype).eps)
    rounding = _ROUNDING * eps * norm_of(A, b, xp) * euclidean_norm(x, xp)
    left, allowed = euclidean_norm(residual, xp), math.sqrt(eps) * euclidean_norm(b, xp)
    return (left <= rounding) & (left <= allowed)
