"""Whether a matrix is Hermitian and positive definite, as far as its products tell."""

from __future__ import annotations

import math

import numpy as np

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError
from structmat.linear_systems._scaling import probe
from structmat.operators import LinearOperator

ROUNDING = 64.0
"""Values of this many units in the last place of the number of unknowns are rounding."""


def adjoint(dense: Array, xp: Namespace) -> Array:
    return xp.matrix_transpose(conjugate(dense, xp))


def require_hermitian(found: Array) -> None:
    if not bool(found):
        raise ArgumentValueError("slogdet", "A", "must be Hermitian where it has no closed form")


def require_positive(values: Array, xp: Namespace) -> None:
    if bool(xp.any(xp.isnan(values))):
        raise np.linalg.LinAlgError("slogdet: the matrix is not positive definite, or holds NaN or infinity")


def is_nearly_hermitian(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Tell whether ``v^H A u`` is the conjugate of ``u^H A v`` for two vectors, up to rounding."""
    uneven = probe(op, z, xp)  # without it signs would hide much
    both = xp.stack((z[0, ...] * uneven, z[1, ...]))
    products = op._matvec(both, xp)
    one = xp.sum(both[1, ...] * products[0, ...], axis=-1)
    other = conjugate(xp.sum(both[0, ...] * products[1, ...], axis=-1), xp)  # both vectors are real
    size = xp.sum(xp.abs(products), axis=(0, -1))
    rounding = ROUNDING * float(xp.finfo(z.dtype).eps) * math.log2(2 * op.shape[0])
    return xp.all(~(xp.abs(one - other) > rounding * size))  # NaN is found later
