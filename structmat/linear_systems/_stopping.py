"""When a solution is good enough: tests of residuals, computed from the solution itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from structmat._arrays.arithmetic import euclidean_norm
from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems import _thresholds
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._scaling import norm_or_one, operator_norm
from structmat.operators import LinearOperator


class Measure(Protocol):
    """How large an error is, and when it is small enough."""

    is_relative: ClassVar[bool]
    """Whether the measure is the relative residual."""

    def __call__(self, x: Array, residual: Array) -> tuple[Array, Array]:
        """Return, for solutions and residuals, a measure that is least for the best one, and whether it is enough."""


def relative_residual(residual: Array, b: Array, xp: Namespace) -> Array:
    """Return ``norm(residual) / norm(b)``, and zero where both are zero."""
    return euclidean_norm(residual, xp) / norm_or_one(b, xp)[..., 0]


@dataclass(frozen=True)
class ByResidual:
    """The test that the residual is small beside the right-hand side."""

    norm_of_b: Array
    rtol: float
    xp: Namespace

    is_relative: ClassVar[bool] = True

    @classmethod
    def of(cls, b: Array, rtol: float, xp: Namespace) -> ByResidual:
        """Return the test for right-hand sides along the last axis."""
        return cls(euclidean_norm(b, xp), rtol, xp)

    def __call__(self, x: Array, residual: Array) -> tuple[Array, Array]:
        """Return the relative residuals, and which are at most `rtol`."""
        xp, norm = self.xp, self.norm_of_b
        relative = euclidean_norm(residual, xp) / xp.where(norm > 0.0, norm, xp.ones_like(norm))
        return relative, relative <= self.rtol


@dataclass(frozen=True)
class ByGradient:
    """The test of Paige and Saunders: the residual is small, or orthogonal to the range up to the tolerance."""

    operator: LinearOperator
    b: Array
    norm: Array
    """The norm of the operator."""
    rtol: float
    xp: Namespace

    is_relative: ClassVar[bool] = False

    def __call__(self, x: Array, residual: Array) -> tuple[Array, Array]:
        """Return the norms of the products of the adjoint with residuals, and which are small enough."""
        xp, rtol = self.xp, self.rtol
        residual_norm = euclidean_norm(residual, xp)
        norm_of_b = euclidean_norm(self.b, xp)
        gradient = euclidean_norm(self.operator._rmatvec(residual, xp), xp)
        eps = float(xp.finfo(residual_norm.dtype).eps)
        rounding = _thresholds.ROUNDING * eps * (norm_of_b + self.norm * euclidean_norm(x, xp))
        small = residual_norm <= rtol * norm_of_b
        return gradient, small | (gradient <= self.norm * (rtol * residual_norm + rounding))


def is_as_small_as_rounding(A: LinearOperator, x: Array, residual: Array, b: Array, xp: Namespace) -> Array:
    """Tell which solutions have a normwise backward error at the level of rounding, as those of LAPACK have.

    Such a solution is that of a matrix that differs from A by rounding errors; where A is ill-conditioned, no solution
    in this precision need leave less. One that leaves as much of `b` as zeros do is none: beside a vector that is long
    enough any residual is small.
    """
    eps = float(xp.finfo(residual.dtype).eps)
    rounding = _thresholds.ROUNDING * eps * operator_norm(A, b, xp) * euclidean_norm(x, xp)
    residual_norm = euclidean_norm(residual, xp)
    return (residual_norm <= rounding) & (residual_norm < euclidean_norm(b, xp))


def judged(A: LinearOperator, x: Array, residual: Array, b: Array, rtol: float, xp: Namespace) -> Solutions:
    """Return solutions of a direct way: good enough are those that leave `rtol`, or nothing but rounding errors."""
    relative = relative_residual(residual, b, xp)
    done = relative <= rtol
    if rules_of(xp).is_traced(done) or not bool(xp.all(done)):
        done = done | is_as_small_as_rounding(A, x, residual, b, xp)
    return Solutions(x, relative, done, 0)
