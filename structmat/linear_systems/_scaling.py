"""Systems scaled by powers of two, so that squares of entries neither overflow nor underflow in an iteration."""

from __future__ import annotations

import math
from typing import NamedTuple

from structmat._arrays.arithmetic import binary_exponents, euclidean_norm
from structmat._arrays.dtypes import precision_of
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems import _thresholds
from structmat.operators import LinearOperator


class System(NamedTuple):
    """A system ``A x = b`` after matrix and right-hand sides were divided by powers of two, which is exact."""

    operator: LinearOperator
    b: Array
    matrix_divisor: Array
    """The power of two that the matrix was divided by, one for each member of a stack."""
    rhs_divisor: Array
    """The powers of two that the right-hand sides were divided by, as a column."""

    @classmethod
    def of(cls, operator: LinearOperator, b: Array, xp: Namespace) -> System:
        """Return the scaled system of an operator in the precision of computations; it takes one product."""
        matrix_divisor = power_near_norm(operator, b, xp)
        rhs_divisor = _power_of_two(b, xp)[..., None]
        return cls(operator / matrix_divisor, b / rhs_divisor, matrix_divisor, rhs_divisor)

    def solution(self, x: Array) -> Array:
        """Return the solution of the system before it was scaled, from that of the scaled one."""
        return x * (self.rhs_divisor / self.matrix_divisor[..., None])


def power_near_norm(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a power of two near the norm of each member of a stack, for vectors such as `like`."""
    v = probe(operator, like, xp) / math.sqrt(operator.shape[1])  # of a norm near one
    return _power_of_two(operator._matvec(v, xp), xp)


def _power_of_two(v: Array, xp: Namespace) -> Array:
    """Return powers of two near the largest moduli in vectors, and near one for zeros and NaN.

    Their reciprocals are normal numbers too. They have no derivatives, since solutions are multiplied by them again.
    """
    limit = 1 - math.frexp(float(xp.finfo(v.dtype).smallest_normal))[1]
    exponents = binary_exponents(xp.max(xp.abs(rules_of(xp).constant(v)), axis=-1), xp)
    return 2.0 ** xp.clip(exponents, -limit, limit)


def operator_norm(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a lower bound of the largest singular value, near it, by some steps of the power method."""
    v = probe(operator, like, xp)
    for _ in range(_thresholds.NORM_STEPS):
        v = _of_moderate_size(operator._matvec(v, xp), xp)
        v = _of_moderate_size(operator._rmatvec(v, xp), xp)
    return euclidean_norm(operator._matvec(v, xp), xp) / norm_or_one(v, xp)[..., 0]


def _of_moderate_size(v: Array, xp: Namespace) -> Array:
    """Return vectors divided by their largest moduli, so that products neither overflow nor underflow."""
    largest = xp.max(xp.abs(v), axis=-1, keepdims=True)
    return v / xp.where(largest > 0.0, largest, xp.ones_like(largest))


def probe(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a vector that a matrix can be multiplied by, without any pattern in its entries."""
    k = xp.astype(xp.arange(operator.shape[1], device=device_of(like)), precision_of(like.dtype, xp))
    return xp.astype(xp.cos(k * k) + 0.5, like.dtype)


def norm_or_one(v: Array, xp: Namespace) -> Array:
    """Return the norms of vectors as a column, and one for zero vectors, so that vectors may be divided by them."""
    norm = euclidean_norm(v, xp)[..., None]
    return xp.where(norm > 0.0, norm, xp.ones_like(norm))
