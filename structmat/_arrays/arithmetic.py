"""Arithmetic on entries that overflows or underflows only where its result does, and values that vanish."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from structmat._arrays.dtypes import common_dtype, complex_partner, is_complex, is_complex_scalar
from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, library_of
from structmat._arrays.tracing import constant
from structmat._arrays.typing import Array, Namespace, Scalar


def binary_exponents(sizes: Array, xp: Namespace) -> Array:
    """Return whole numbers e, as floats, with ``2.0 ** e`` close below each size. It is near zero for zeros and NaN.

    They carry no gradient, and ``2.0 ** e`` is always a normal number, so that a division by it is exact.
    """
    limits = xp.finfo(sizes.dtype)
    low, high = math.frexp(float(limits.smallest_normal))[1] - 1, math.frexp(float(limits.max))[1] - 1
    if is_numpy(xp):  # exact, and in a fifth of the time
        return np.maximum(np.frexp(cast("Any", sizes))[1] - 1, low).astype(sizes.dtype)
    regular = xp.where(xp.isfinite(sizes) & (sizes > 0), sizes, xp.ones_like(sizes))
    return xp.clip(xp.floor(xp.log2(regular)), low, high)


def binary_unit(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1) -> Array:
    """Return the power of two near the largest entry along `axis`, which keeps a length of one: near one for zeros."""
    return 2.0 ** binary_exponents(xp.max(xp.abs(x), axis=axis, keepdims=True), xp)


def quotient(x: Array, y: Scalar, xp: Namespace) -> Array:
    """Return ``x / y``, which overflows or underflows only where the result does.

    Libraries divide complex numbers by way of a reciprocal: both are first divided by a power of two, which is exact.
    Not in JAX, which has no subnormal numbers, and where a weak type has to stay one.
    """
    if library_of(xp) == "jax" or not (is_complex(x.dtype, xp) or is_complex_scalar(y, xp)):
        return x / y
    is_number = isinstance(y, (int, float, complex))
    dtype = complex_partner(x.dtype, xp) if is_number else common_dtype(xp, x, y)
    divisor: Any = xp.asarray(y, dtype=dtype, device=device_of(x)) if is_number else xp.astype(y, dtype)
    unit = 2.0 ** binary_exponents(xp.abs(divisor), xp)
    return (xp.astype(x, dtype) / unit) / (divisor / unit)


def euclidean_norm(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1, weights: Array | None = None) -> Array:
    """Return ``sqrt(sum(weights * abs(x) ** 2))`` along `axis`, whatever the size of the entries.

    The entries are divided by a power of two near the largest, which is exact. The gradient at zero is zero.
    """
    size = binary_unit(x, xp, axis=axis)
    parts = (xp.real(x), xp.imag(x)) if is_complex(x.dtype, xp) else (x,)
    squares = sum(((part / size) ** 2 for part in parts[1:]), start=(parts[0] / size) ** 2)
    total = xp.sum(squares if weights is None else squares * weights, axis=axis)
    zero = total == 0.0
    root = xp.where(zero, xp.zeros_like(total), xp.sqrt(xp.where(zero, xp.ones_like(total), total)))
    return xp.reshape(size, total.shape) * root


@dataclass(frozen=True)
class Reciprocal:
    """The factor ``1 / divisor``, kept as its divisor: the number itself may overflow, or lose digits.

    Parameters
    ----------
    divisor : number or array
        What to divide by.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import Reciprocal, scale_array
    >>> scale_array(np.array([2e-310, 0.0]), Reciprocal(1e-310), 1, np)
    array([2., 0.])
    """

    divisor: Scalar
    """The number, or one for each member of a stack."""


def scale_array(array: Array, factor: Scalar | Reciprocal, core: int, xp: Namespace) -> Array:
    """Return `array` times a scalar, or times an array of scalars over the axes before its last `core` ones.

    Parameters
    ----------
    array : array, shape ``(..., *core)``
        What to multiply.
    factor : number, array or Reciprocal
        A Python number, or an array of scalars, one for each member of a stack. By what a `Reciprocal` holds the array
        is divided.
    core : int
        The number of axes of one member.
    xp : namespace
        That of `array`.

    Returns
    -------
    array
        The product, complex where the factor is.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import scale_array
    >>> scale_array(np.ones((2, 3)), np.array([1.0, 2.0]), 1, np)  # one factor for each vector of a stack of two
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    number = factor.divisor if isinstance(factor, Reciprocal) else factor
    if isinstance(number, complex):
        if not is_complex(array.dtype, xp):
            array = xp.astype(array, complex_partner(array.dtype, xp))
    elif not isinstance(number, (int, float)) and number.ndim:
        # an array without axes keeps none: in torch it counts for less than one of axes of length one
        number = xp.reshape(number, (*number.shape, *(1,) * core))
    return quotient(array, number, xp) if isinstance(factor, Reciprocal) else array * number


def conjugate(x: Array, xp: Namespace) -> Array:
    """Return the complex conjugates, of real numbers themselves."""
    return xp.conj(x) if is_complex(x.dtype, xp) else x


def real_part(x: Array, xp: Namespace) -> Array:
    """Return the real parts, of real numbers themselves."""
    return xp.real(x) if is_complex(x.dtype, xp) else x


def negligible(values: Array, relative: float, xp: Namespace) -> Array:
    """Tell which of `values` vanish: those up to `relative` times the largest finite modulus of their row.

    NaN and infinities never do, and do not count as the largest.
    """
    size = xp.abs(values)
    finite = xp.where(xp.isfinite(size), size, xp.zeros_like(size))
    return size <= relative * xp.max(finite, axis=-1, keepdims=True)


def require_nonzero(values: Array, relative: float, owner: str, xp: Namespace) -> None:
    """Raise `numpy.linalg.LinAlgError` where some of `values` vanish and the library allows to look at them."""
    if can_raise_for_values(xp) and bool(xp.any(negligible(values, relative, xp))):
        raise np.linalg.LinAlgError(f"{owner}: the matrix is singular to working precision; use pinv() or lstsq()")


def are_normal(values: Array, xp: Namespace) -> bool:
    """Tell whether all values of NumPy and their reciprocals are normal numbers, which have every digit."""
    size, least = xp.abs(values), float(xp.finfo(values.dtype).smallest_normal)
    return bool(xp.all((size >= least) & (size <= 1 / least)))


def reciprocal_above(values: Array, rtol: float, xp: Namespace) -> Array:
    """Return 1 / values, and zero where a value is negligible."""
    zero = negligible(values, rtol, xp)
    return xp.where(zero, xp.zeros_like(values), 1 / xp.where(zero, xp.ones_like(values), values))


def damped_reciprocal(values: Array, damp: float, xp: Namespace) -> Array:
    """Return ``conj(v) / (|v|^2 + damp^2)`` for each value, without overflow, and zero where that is nothing."""
    size = xp.abs(constant(values, xp))
    size = xp.where(size > damp, size, xp.full_like(size, damp))
    size = xp.where(size > 0.0, size, xp.ones_like(size))
    v, share = values / size, damp / size
    bottom = share * share + (xp.real(v) ** 2 + xp.imag(v) ** 2 if is_complex(v.dtype, xp) else v * v)
    return conjugate(v, xp) / xp.where(bottom > 0.0, bottom, xp.ones_like(bottom)) / size
