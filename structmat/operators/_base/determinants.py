"""Determinants, as products of many numbers that over- or underflow only where the result does."""

from __future__ import annotations

import math

from structmat._arrays.arithmetic import binary_exponents, divided
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace


def sign_and_log(factors: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the signs and the logarithms of the moduli of products along the last axis.

    Parameters
    ----------
    factors : array, shape (..., k)
        Real or complex numbers, such as those of the hook ``_determinant_factors``.
    xp : namespace
        Of the array.

    Returns
    -------
    sign : array, shape (...)
        Zero where a factor is zero, as of `numpy.linalg.slogdet`.
    logabsdet : array, shape (...)
        There it is minus infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import sign_and_log
    >>> sign, log = sign_and_log(np.array([1e-300, -1e-300]), np)
    >>> float(sign), float(log.round(3))
    (-1.0, -1381.551)
    """
    moduli = xp.abs(factors)
    if is_complex(factors.dtype, xp):
        power_of_two = 2.0 ** binary_exponents(moduli, xp)  # a division by a subnormal number would overflow
        divisor = xp.where(moduli == 0.0, xp.ones_like(moduli), moduli / power_of_two)
        signs = divided(factors / power_of_two, divisor, xp)
    else:
        one = xp.ones_like(moduli)  # `xp.sign` cannot be mapped in torch, and is zero for NaN there
        signs = xp.where(xp.isnan(factors), factors, xp.where(factors > 0.0, one, xp.where(factors < 0.0, -one, 0.0)))
    return xp.prod(signs, axis=-1), xp.sum(_logs(moduli, -float("inf"), xp), axis=-1)


def product(factors: Array, xp: Namespace) -> Array:
    """Return products along the last axis that over- or underflow only where the result does.

    It is the plain product, with every digit and all derivatives, where no product of some of the factors can leave the
    range of normal numbers. Elsewhere it is computed by logarithms.
    """
    logs = _logs(xp.abs(factors), 0.0, xp)
    limits = xp.finfo(factors.dtype)
    growth, decay = (xp.sum(xp.clip(signed, min=0.0), axis=-1) for signed in (logs, -logs))
    safe = (growth < math.log(float(limits.max))) & (decay < -math.log(float(limits.smallest_normal)))
    plain = xp.prod(xp.where(safe[..., None], factors, xp.ones_like(factors)), axis=-1)
    sign, log = sign_and_log(factors, xp)
    return xp.where(safe, plain, sign * xp.astype(xp.exp(log), sign.dtype))


def error_of_eigenvalues(values: Array, xp: Namespace, *, by_transforms: bool = False) -> Array:
    """Return how far off the logarithm of the modulus of a product of computed eigenvalues may be.

    The errors of the eigenvalues are those of rounding the largest one, or by transforms their root mean square, times
    the root of the number of steps of a fast transform.

    Parameters
    ----------
    values : array, shape (..., k)
        The eigenvalues.
    xp : namespace
        Of the array.
    by_transforms : bool, default False
        Whether fast transforms of the parameters have made them.

    Returns
    -------
    array, shape (...)
        What the hook ``_slogdet_and_error`` returns last, without derivatives.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import error_of_eigenvalues
    >>> error = error_of_eigenvalues(np.array([1.0, 1e-10]), np)
    >>> bool(1e-6 < error < 1e-5)
    True
    """
    moduli = xp.abs(rules_of(xp).constant(values))
    moduli = xp.where(moduli > 0.0, moduli, xp.ones_like(moduli))  # where the logarithm is minus infinity anyway
    largest = xp.max(moduli, axis=-1, keepdims=True)
    relative = moduli / largest
    size = xp.ones_like(largest[..., 0])
    if by_transforms:
        steps = 1 + math.log2(values.shape[-1])
        size = xp.sqrt(steps * xp.mean(relative**2, axis=-1))
    return float(xp.finfo(moduli.dtype).eps) * size * xp.sqrt(xp.sum(1 / relative**2, axis=-1))


def _logs(moduli: Array, of_zero: float, xp: Namespace) -> Array:
    """Return logarithms, and `of_zero` for zeros, without a warning and with a finite derivative there."""
    zero = ~((moduli > 0.0) | xp.isnan(moduli))
    return xp.where(zero, xp.full_like(moduli, of_zero), xp.log(xp.where(zero, xp.ones_like(moduli), moduli)))
