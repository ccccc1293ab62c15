"""Arithmetic on entries that overflows or underflows only where its result does, and values that count as zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from structmat._arrays.dtypes import common_dtype, complex_partner, is_complex, is_complex_scalar
from structmat._arrays.libraries import can_raise_for_values, device_of, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace, Scalar

_LEAST_SQUARE, _LARGEST_SQUARE = 2.0**-900, 2.0**1000
"""Sums of squares in double precision in which what underflows is far below the rounding errors."""


def binary_exponents(moduli: Array, xp: Namespace) -> Array:
    """Return whole numbers e, as floats, such that ``2.0 ** e`` is the power of two close below each modulus.

    For zeros and NaN e is near zero. The exponents carry no gradient, and ``2.0 ** e`` is always a normal number, so
    that a division by it is exact.
    """
    if xp is numpy_namespace:  # exact, and in a fifth of the time
        exponents = np.frexp(cast("Any", moduli))[1] - 1
        return np.maximum(exponents, np.finfo(moduli.dtype).minexp).astype(moduli.dtype)
    limits = xp.finfo(moduli.dtype)
    low = math.frexp(float(limits.smallest_normal))[1] - 1
    high = math.frexp(float(limits.max))[1] - 1
    regular = xp.where(xp.isfinite(moduli) & (moduli > 0), moduli, xp.ones_like(moduli))
    return xp.clip(xp.floor(xp.log2(regular)), low, high)


def power_of_two_near(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1) -> Array:
    """Return the power of two near the largest modulus along `axis`, which keeps a length of one.

    A division by it is exact, and brings the entries to moderate size.
    """
    return 2.0 ** binary_exponents(xp.max(xp.abs(x), axis=axis, keepdims=True), xp)


def times_power_of_two(x: Array, exponents: Any, xp: Namespace) -> Array:
    """Return ``x * 2.0 ** exponents`` for whole numbers, also as floats, that may be beyond the exponents of numbers.

    NumPy does not warn of results that overflow or underflow.
    """
    if xp is numpy_namespace:  # rounded once, also where the result is subnormal
        return _times_power_of_two_in_numpy(cast("Any", x), np.asarray(exponents).astype(np.intc, copy=False))
    third = xp.trunc(exponents / 3)
    factor = 2.0**third
    return x * factor * factor * 2.0 ** (exponents - 2 * third)


def _times_power_of_two_in_numpy(x: Any, exponents: Any) -> Any:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if not np.iscomplexobj(x):
            return np.ldexp(x, exponents)
        scaled = np.empty(np.broadcast_shapes(x.shape, exponents.shape), x.dtype)
        scaled.real = np.ldexp(x.real, exponents)
        scaled.imag = np.ldexp(x.imag, exponents)
    return scaled


def divided(dividend: Array | float, divisor: Array | Scalar, xp: Namespace) -> Array:
    """Return the quotient; NaN stays NaN without a warning, which NumPy gives for complex numbers only."""
    if xp is not numpy_namespace and not can_raise_for_values(xp):
        return dividend / divisor
    with np.errstate(invalid="ignore"):
        return dividend / divisor


def quotient(x: Array, y: Scalar, xp: Namespace) -> Array:
    """Return ``x / y``, which overflows or underflows only where the result does.

    Libraries divide complex numbers by way of a reciprocal, which may overflow although the quotient does not. So both
    numbers are first divided by a power of two, which is exact, where `Rules.scales_quotients` says so.
    """
    if not (is_complex(x.dtype, xp) or is_complex_scalar(y, xp)) or not rules_of(xp).scales_quotients:
        return divided(x, y, xp)
    is_number = isinstance(y, (int, float, complex))
    dtype = complex_partner(x.dtype, xp) if is_number else common_dtype(xp, x, y)
    divisor: Any = xp.asarray(y, dtype=dtype, device=device_of(x)) if is_number else xp.astype(y, dtype)
    power_of_two = 2.0 ** binary_exponents(xp.abs(divisor), xp)
    return divided(xp.astype(x, dtype) / power_of_two, divisor / power_of_two, xp)


def euclidean_norm(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1, weights: Array | None = None) -> Array:
    """Return ``sqrt(sum(weights * abs(x) ** 2))`` along some axes, whatever the size of the entries.

    Parameters
    ----------
    x : array
        Real or complex numbers.
    xp : namespace
        Of the array.
    axis : int or tuple of int, default -1
        The axes that are summed over.
    weights : array, optional
        Real numbers that broadcast against `x`. Default: ones.

    Returns
    -------
    array
        Without these axes. The entries are divided by a power of two near the largest, which is exact. The gradient at
        zero is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import euclidean_norm
    >>> float(euclidean_norm(np.array([3e200, 4e200]), np))
    5e+200
    """
    if type(x) is np.ndarray and x.ndim == 1 and weights is None and x.dtype.char in "dD":
        square = np.vdot(x, x).real  # in a tenth of the time, where no square that counts leaves the range
        if _LEAST_SQUARE < square < _LARGEST_SQUARE:
            return np.sqrt(square)
    power_of_two = power_of_two_near(x, xp, axis=axis)
    if is_complex(x.dtype, xp):
        squares = (xp.real(x) / power_of_two) ** 2 + (xp.imag(x) / power_of_two) ** 2
    else:
        squares = (x / power_of_two) ** 2
    total = xp.sum(squares if weights is None else squares * weights, axis=axis)
    zero = total == 0.0
    root = xp.where(zero, xp.zeros_like(total), xp.sqrt(xp.where(zero, xp.ones_like(total), total)))
    return xp.reshape(power_of_two, total.shape) * root


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
    """Return the complex conjugates, of real numbers themselves.

    Parameters
    ----------
    x : array
        Real or complex numbers.
    xp : namespace
        Of the array.

    Returns
    -------
    array
        `x` itself where it is real.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import conjugate
    >>> conjugate(np.array([1 + 2j]), np), conjugate(np.ones(1), np)
    (array([1.-2.j]), array([1.]))
    """
    if type(x) is np.ndarray:  # without a further question, as this is asked in every step of an iteration
        return x.conj() if x.dtype.kind == "c" else x
    return xp.conj(x) if is_complex(x.dtype, xp) else x


def real_part(x: Array, xp: Namespace) -> Array:
    """Return the real parts; real numbers are returned as they are."""
    return xp.real(x) if is_complex(x.dtype, xp) else x


def negligible(values: Array, rtol: float, xp: Namespace) -> Array:
    """Tell which of `values` count as zero: those of a modulus up to `rtol` times the largest one of their row.

    NaN and infinities never count as zero, and are ignored where the largest modulus is looked for.
    """
    moduli = xp.abs(values)
    finite = xp.where(xp.isfinite(moduli), moduli, xp.zeros_like(moduli))
    return moduli <= rtol * xp.max(finite, axis=-1, keepdims=True)


def is_rounding_error(parts: Array, values: Array, xp: Namespace) -> Array:
    """Tell which imaginary parts are rounding errors beside the largest modulus of `values` along the last axis.

    NaN counts as one: what it makes of a result is left to others to report.
    """
    allowed = 64 * float(xp.finfo(values.dtype).eps) * xp.max(xp.abs(values), axis=-1, keepdims=True)
    return ~(xp.abs(parts) > allowed)


def require_nonzero(values: Array, rtol: float, owner: str, xp: Namespace) -> None:
    """Raise an error where some eigenvalues or singular values vanish and the library allows to look at them.

    Parameters
    ----------
    values : array, shape (..., n)
        The values that are divided by.
    rtol : float
        Up to so much of the largest of its row a value counts as zero, such as by the hook ``_rounding``.
    owner : str
        Class and method, which the error names.
    xp : namespace
        Of the array.

    Raises
    ------
    numpy.linalg.LinAlgError
        If one of the values counts as zero, of NumPy arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import namespace_of, require_nonzero
    >>> values = np.array([1.0, 0.0])
    >>> require_nonzero(values, 0.0, "Mine.inv", namespace_of("Mine", values))
    Traceback (most recent call last):
        ...
    numpy.linalg.LinAlgError: Mine.inv: the matrix is singular to working precision; use pinv() or lstsq()
    """
    if can_raise_for_values(xp) and bool(xp.any(negligible(values, rtol, xp))):
        raise np.linalg.LinAlgError(f"{owner}: the matrix is singular to working precision; use pinv() or lstsq()")


def are_normal(values: Array, xp: Namespace) -> bool:
    """Tell whether all values of NumPy and their reciprocals are normal numbers, which have every digit."""
    moduli = xp.abs(values)
    smallest = float(xp.finfo(values.dtype).smallest_normal)
    return bool(xp.all((moduli >= smallest) & (moduli <= 1 / smallest)))


def reciprocal_above(values: Array, rtol: float, xp: Namespace) -> Array:
    """Return the reciprocals of values, and zero for those that are negligible, as a pseudo-inverse has them.

    Parameters
    ----------
    values : array, shape (..., n)
        Eigenvalues or singular values.
    rtol : float
        Up to so much of the largest of its row a value is negligible.
    xp : namespace
        Of the array.

    Returns
    -------
    array, shape (..., n)
        The reciprocals.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import reciprocal_above
    >>> reciprocal_above(np.array([2.0, 1e-20]), 1e-15, np)
    array([0.5, 0. ])
    """
    zero = negligible(values, rtol, xp)
    return xp.where(zero, xp.zeros_like(values), divided(1, xp.where(zero, xp.ones_like(values), values), xp))


def damped_reciprocal(values: Array, damp: float, xp: Namespace) -> Array:
    """Return ``conj(v) / (|v|^2 + damp^2)`` for each value v, without overflow, for the hook ``_damped_pinv``.

    Parameters
    ----------
    values : array, shape (..., n)
        Eigenvalues or singular values.
    damp : float
        The damping.
    xp : namespace
        Of the array.

    Returns
    -------
    array, shape (..., n)
        Zero where value and damping are.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import damped_reciprocal
    >>> damped_reciprocal(np.array([1.0, 0.0]), 1.0, np)
    array([0.5, 0. ])
    """
    # Both are first divided by the larger of their moduli, so that their squares do not overflow.
    larger = xp.abs(rules_of(xp).constant(values))
    larger = xp.where(larger > damp, larger, xp.full_like(larger, damp))
    larger = xp.where(larger > 0.0, larger, xp.ones_like(larger))
    v = values / larger
    scaled_damp = damp / larger
    square = xp.real(v) ** 2 + xp.imag(v) ** 2 if is_complex(v.dtype, xp) else v * v
    denominator = scaled_damp * scaled_damp + square
    return conjugate(v, xp) / xp.where(denominator > 0.0, denominator, xp.ones_like(denominator)) / larger
