"""Systems divided by powers of two, so that no square of their vectors overflows or underflows.

Solvers square what they iterate on, and some stop by numbers that are not relative to the size of the matrix.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from structmat._arrays import binary_exponents
from structmat._arrays.derivatives import constant
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._measures import probe, size_of
from structmat.operators import LinearOperator

__all__ = ["ScaledSystem"]


class ScaledSystem(NamedTuple):
    """A system ``A x = b`` of moderate size; the division is exact."""

    operator: LinearOperator
    b: Array
    size: Array
    """The power of two that the matrix was divided by, one for each member of a stack."""
    of_b: Array
    """Those of the right-hand sides, as a column."""

    @classmethod
    def of(cls, operator: LinearOperator, b: Array, xp: Namespace) -> ScaledSystem:
        """Return the scaled system of an operator in the precision of computations; costs one product."""
        size = _size(operator, b, xp)
        of_b = _power_of_two(b, xp)[..., None]
        return cls(operator / size, b / of_b, size, of_b)

    def scaled(self, M: LinearOperator, xp: Namespace) -> LinearOperator:
        """Return a preconditioner of moderate size, as solvers do not ask for its scale; costs one product."""
        scaled: LinearOperator = M / _size(M, self.b, xp)
        return scaled

    def solution(self, x: Array) -> Array:
        """Return the solution of the system itself."""
        return x * (self.of_b / self.size[..., None])


def _size(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a power of two near the norm of each member of a stack."""
    v = probe(operator, like, xp)
    return _power_of_two(operator._matvec(v / size_of(v, xp), xp), xp)


def _power_of_two(v: Array, xp: Namespace) -> Array:
    """Return powers of two near the largest entries of vectors, one for zeros and what is no number.

    Their reciprocals are normal numbers too. They have no derivatives, as solutions are multiplied by them again.
    """
    limit = 1 - math.frexp(float(xp.finfo(v.dtype).smallest_normal))[1]
    exponents = binary_exponents(xp.max(xp.abs(constant(v, xp)), axis=-1), xp)
    return 2.0 ** xp.clip(exponents, -limit, limit)
