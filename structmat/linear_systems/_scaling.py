"""Systems of moderate size, so that no square of an entry overflows or vanishes in an iteration."""

from __future__ import annotations

import math
from typing import NamedTuple

from structmat._arrays.arithmetic import binary_exponents, euclidean_norm
from structmat._arrays.dtypes import precision_of
from structmat._arrays.libraries import device_of
from structmat._arrays.tracing import constant
from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator

_POWERS = 3
"""Steps of the power method for a norm."""


class System(NamedTuple):
    """A system ``A x = b`` of moderate size; the division is exact."""

    operator: LinearOperator
    b: Array
    size: Array
    """The power of two that the matrix was divided by, one for each member of a stack."""
    size_of_b: Array
    """Those of the right-hand sides, as a column."""

    @classmethod
    def of(cls, operator: LinearOperator, b: Array, xp: Namespace) -> System:
        """Return the system of an operator in the precision of computations; costs one product."""
        size = power_near_norm(operator, b, xp)
        size_of_b = _power_of_two(b, xp)[..., None]
        return cls(operator / size, b / size_of_b, size, size_of_b)

    def solution(self, x: Array) -> Array:
        """Return the solution of the system that was divided."""
        return x * (self.size_of_b / self.size[..., None])


def power_near_norm(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a power of two near the norm of each member of a stack, for vectors such as `like`."""
    v = probe(operator, like, xp)
    return _power_of_two(operator._matvec(v / size_of(v, xp), xp), xp)


def _power_of_two(v: Array, xp: Namespace) -> Array:
    """Return powers of two near the largest entries of vectors, one for zeros and what is no number.

    Their reciprocals are normal numbers too. They have no derivatives, as solutions are multiplied by them again.
    """
    limit = 1 - math.frexp(float(xp.finfo(v.dtype).smallest_normal))[1]
    exponents = binary_exponents(xp.max(xp.abs(constant(v, xp)), axis=-1), xp)
    return 2.0 ** xp.clip(exponents, -limit, limit)


def norm_of(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a lower bound of the largest singular value, near it, by some steps of the power method."""
    v = probe(operator, like, xp)
    for _ in range(_POWERS):
        v = operator._rmatvec(operator._matvec(v / size_of(v, xp), xp), xp)
    return euclidean_norm(operator._matvec(v / size_of(v, xp), xp), xp)


def probe(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a vector that a matrix can be multiplied by, with entries that have no order."""
    k = xp.astype(xp.arange(operator.shape[1], device=device_of(like)), precision_of(like.dtype, xp))
    return xp.astype(xp.cos(k * k) + 0.5, like.dtype)


def size_of(v: Array, xp: Namespace) -> Array:
    """Return norms as a column, one for zeros, by which vectors may be divided."""
    size = euclidean_norm(v, xp)[..., None]
    return xp.where(size > 0.0, size, xp.ones_like(size))
