"""What the closed forms of all operators share: functions of eigenvalues, determinants, cut-offs, on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from structmat._arrays import binary_exponents, is_complex, precision_of
from structmat._arrays.typing import Array, DType, Namespace

__all__ = [
    "ALTERNATIVES",
    "NormOrder",
    "SpectralFunction",
    "integer_power",
    "product",
    "ratio",
    "sign_and_log",
    "spectral_rounding",
]

NormOrder: TypeAlias = Literal["fro", "nuc", 1, 2] | float
"""A matrix norm: Frobenius, nuclear, largest column sum, largest singular value; infinity is the largest row sum."""

_TRANSFORM = 4.0
"""The cut-off over ``eps * log2(2 n)``; see `spectral_rounding`."""

_BEYOND = 10**20
"""With an exponent of this size every power but those of plus and minus one is zero or infinite."""

_ITERATIVE = "scipy.sparse.linalg.{} on structmat.scipy.as_linear_operator(op), or {}(op.to_dense())"
ALTERNATIVES = {
    "inv": "structmat.solve(op, b) for products with it, or numpy.linalg.inv(op.to_dense())",
    "solve": "structmat.solve(op, b), which iterates, or numpy.linalg.solve(op.to_dense(), b)",
    "inv_matvec": "structmat.solve(op, B), which iterates, for columns",
    "pinv_matvec": "structmat.lstsq(op, B), which iterates, for columns",
    "pinv": "structmat.lstsq(op, b) for products with it, or numpy.linalg.pinv(op.to_dense())",
    "lstsq": "structmat.lstsq(op, b), which iterates, or numpy.linalg.lstsq(op.to_dense(), b)",
    "eigvals": _ITERATIVE.format("eigs", "numpy.linalg.eigvals"),
    "eig": _ITERATIVE.format("eigs", "numpy.linalg.eig"),
    "svdvals": _ITERATIVE.format("svds", "numpy.linalg.svdvals"),
    "det": "numpy.linalg.det(op.to_dense())",
    "slogdet": "numpy.linalg.slogdet(op.to_dense())",
    "trace": "numpy.trace(op.to_dense())",
    "diagonal": "numpy.diagonal(op.to_dense())",
    "rank": "numpy.linalg.matrix_rank(op.to_dense())",
    "cond": "numpy.linalg.cond(op.to_dense())",
    "norm": "numpy.linalg.norm(op.to_dense())",
    "sqrtm": "scipy.linalg.sqrtm(op.to_dense())",
    "expm": "scipy.linalg.expm(op.to_dense())",
    "logm": "scipy.linalg.logm(op.to_dense())",
    "fractional_matrix_power": "scipy.linalg.fractional_matrix_power(op.to_dense(), p)",
}
"""What to call instead of a method that has no closed form."""


class SpectralFunction(NamedTuple):
    """A scalar function to be applied to eigenvalues.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import SpectralFunction
    >>> cosine = SpectralFunction("cosm", np.cos)
    >>> cosine.evaluate(np.zeros(2)), cosine.needs_nonzero
    (array([1., 1.]), False)
    """

    name: str
    """The public method that asks for it."""
    evaluate: Callable[[Array], Array]
    """The function, on an array of eigenvalues."""
    needs_nonnegative: bool = False
    """Whether a real eigenvalue must not be negative for the value to be real."""
    needs_nonzero: bool = False
    """Whether the function has a pole or a logarithmic singularity at zero."""


def integer_power(values: Array, exponent: int, xp: Namespace) -> Array:
    """Return powers of numbers for an exponent of any size, which as a float would lose its last digit, or be infinite.

    Complex numbers are squared again and again, so that roots of unity that are held without rounding stay so.
    """
    if not is_complex(values.dtype, xp):
        if abs(exponent) * float(xp.finfo(values.dtype).eps) <= 1.0:
            return values**exponent
        sizes = xp.abs(values) ** float(max(-_BEYOND, min(exponent, _BEYOND)))
        return xp.where(values < 0.0, -sizes, sizes) if exponent % 2 else sizes
    square = values if exponent > 0 else 1 / values if exponent else xp.ones_like(values)
    result, left = square, max(abs(exponent) - 1, 0)
    while left:
        if left % 2:
            result = result * square
        left //= 2
        if left:
            square = square * square
    return result


def sign_and_log(factors: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return sign and logarithm of the absolute value of products along the last axis."""
    size = xp.abs(factors)
    if is_complex(factors.dtype, xp):
        unit = 2.0 ** binary_exponents(size, xp)  # a division by a subnormal number would overflow
        signs = (factors / unit) / xp.where(size == 0.0, xp.ones_like(size), size / unit)
    else:
        one = xp.ones_like(size)  # `xp.sign` cannot be mapped in torch, and is zero for NaN there
        signs = xp.where(xp.isnan(factors), factors, xp.where(factors > 0.0, one, xp.where(factors < 0.0, -one, 0.0)))
    return xp.prod(signs, axis=-1), xp.sum(_logs(size, -float("inf"), xp), axis=-1)


def product(factors: Array, xp: Namespace) -> Array:
    """Return products along the last axis that over- or underflow only where the result does.

    Where no product of some of the factors can leave the range of normal numbers that is the plain product, with every
    digit and all derivatives; elsewhere it goes through logarithms.
    """
    logs = _logs(xp.abs(factors), 0.0, xp)
    limits = xp.finfo(factors.dtype)
    growth, decay = (xp.sum(xp.clip(signed, 0.0), axis=-1) for signed in (logs, -logs))
    safe = (growth < math.log(float(limits.max))) & (decay < -math.log(float(limits.smallest_normal)))
    plain = xp.prod(xp.where(safe[..., None], factors, xp.ones_like(factors)), axis=-1)
    sign, log = sign_and_log(factors, xp)
    return xp.where(safe, plain, sign * xp.astype(xp.exp(log), sign.dtype))


def _logs(size: Array, of_zero: float, xp: Namespace) -> Array:
    """Logarithms, without a warning for zeros and with a finite derivative there."""
    zero = ~((size > 0.0) | xp.isnan(size))
    return xp.where(zero, xp.full_like(size, of_zero), xp.log(xp.where(zero, xp.ones_like(size), size)))


def ratio(values: Array, xp: Namespace) -> Array:
    """Return the largest of sorted singular values over the smallest, infinity where that is zero."""
    largest, smallest = values[..., 0], values[..., -1]
    singular = (smallest == 0.0) & ~xp.isnan(largest)
    safe = xp.where(singular, xp.ones_like(smallest), smallest)
    return xp.where(singular, xp.full_like(smallest, float("inf")), largest / safe)


def spectral_rounding(dtype: DType, xp: Namespace, *, length: int = 1, order: int = 0) -> float:
    """Return the size, relative to the largest, up to which a computed singular value or eigenvalue may be rounding.

    Parameters
    ----------
    dtype : dtype or None
        Of the operator; None for one that fits any counts as double precision.
    xp : namespace
    length : int
        Of the transform that the values come from. Its errors are about evenly spread over them, at most half of
        ``eps * log2(2 * length)`` times the largest, as measured for NumPy, torch and JAX up to a million, primes
        included. Eight times as much leaves room for what rounded the entries before.
    order : int
        The larger side of the matrices whose singular values were computed, if any: it counts ``eps`` times, as in
        `numpy.linalg.matrix_rank`.
    """
    eps = float(xp.finfo(xp.float64 if dtype is None else precision_of(dtype, xp)).eps)
    return eps * (_TRANSFORM * math.log2(2 * length) + order)
