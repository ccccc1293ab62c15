"""Whether a matrix is Hermitian and positive definite, as far as its products tell."""

from __future__ import annotations

import math

import numpy as np

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.linear_algebra import ROUNDING_OF_ADJOINT
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError
from structmat.linear_systems._scaling import probe
from structmat.operators import LinearOperator


def require_hermitian(is_hermitian: Array) -> None:
    """Raise an error if a matrix is not Hermitian, as a boolean says."""
    if not bool(is_hermitian):
        others = "has a closed form, or is a narrow band on the CPU in NumPy or torch without derivatives"
        text = f"must be Hermitian unless it {others}; use numpy.linalg.slogdet(A.to_dense()) of small matrices"
        raise ArgumentValueError("slogdet", "A", text)


def require_positive(values: Array, xp: Namespace) -> None:
    """Raise an error if a logarithm is NaN, as it is for a matrix that is not positive definite."""
    if bool(xp.any(xp.isnan(values))):
        text = "slogdet: the matrix is not positive definite, or holds NaN or infinity"
        raise np.linalg.LinAlgError(f"{text}; use numpy.linalg.slogdet(A.to_dense()) of small indefinite matrices")


def is_nearly_hermitian(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Tell whether ``v^H A u`` is the conjugate of ``u^H A v`` for two vectors, up to rounding."""
    uneven = probe(op, z, xp)  # without it z holds signs only, for which many differences cancel
    both = xp.stack((z[0, ...] * uneven, z[1, ...]))
    products = op._matvec(both, xp)
    one = xp.sum(both[1, ...] * products[0, ...], axis=-1)
    other = conjugate(xp.sum(both[0, ...] * products[1, ...], axis=-1), xp)  # both vectors are real
    sum_of_moduli = xp.sum(xp.abs(products), axis=(0, -1))
    rounding = ROUNDING_OF_ADJOINT * float(xp.finfo(z.dtype).eps) * math.log2(2 * op.shape[0])
    return xp.all(~(xp.abs(one - other) > rounding * sum_of_moduli))  # NaN counts as Hermitian, and is reported later
