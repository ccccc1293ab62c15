"""Systems divided by powers of two, so that no square of their vectors overflows or underflows.

Solvers square what they iterate on, and some stop by numbers that are not relative to the size of the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from structmat._arrays import binary_exponents, euclidean_norm
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._measures import probe, size_of
from structmat.operators import LinearOperator

__all__ = ["ScaledSystem"]


class ScaledSystem(NamedTuple):
    """A system ``A x = b`` whose matrix and right-hand sides have norms of about one; the division is exact."""

    operator: LinearOperator
    b: Array
    size: Array
    """The power of two that the matrix was divided by, one for each member of a stack."""
    of_b: Array
    """Those of the right-hand sides, as a column."""

    @classmethod
    def of(
        cls, operator: LinearOperator, b: Array, xp: Namespace, constant: Callable[[Any], Any] = lambda value: value
    ) -> ScaledSystem:
        """Return the scaled system of an operator in the precision of computations; costs one product.

        `constant` is for JAX to stop gradients by the powers of two, which the solution is multiplied by again.
        """
        A, c = constant(operator), constant(b)
        v = probe(A, c, xp)
        size = _power_of_two(euclidean_norm(A._matvec(v / size_of(v, xp), xp), xp), xp)
        of_b = _power_of_two(euclidean_norm(c, xp), xp)[..., None]
        return cls(operator * (1 / size), b / of_b, size, of_b)

    def inverse(self, M: LinearOperator) -> LinearOperator:
        """Return what is near the inverse of the scaled matrix for what is near that of the matrix itself."""
        scaled: LinearOperator = M * self.size
        return scaled

    def solution(self, x: Array) -> Array:
        """Return the solution of the system itself."""
        return x * (self.of_b / self.size[..., None])


def _power_of_two(size: Array, xp: Namespace) -> Array:
    """Return powers of two near sizes, one for zeros and what is no number; their reciprocals are normal too."""
    limit = 1 - math.frexp(float(xp.finfo(size.dtype).smallest_normal))[1]
    return 2.0 ** xp.clip(binary_exponents(size, xp), -limit, limit)
