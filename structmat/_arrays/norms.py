"""Norms and powers of two whose squares neither overflow nor underflow."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from structmat._arrays.dtypes import common_dtype, complex_partner, is_complex, is_complex_scalar
from structmat._arrays.namespaces import device_of, is_numpy, library_of
from structmat._arrays.typing import Array, Namespace, Scalar

__all__ = ["binary_exponents", "binary_unit", "euclidean_norm", "quotient"]


def binary_exponents(sizes: Array, xp: Namespace) -> Array:
    """Return whole numbers e, as floats, with ``2.0 ** e`` close below each size. It is near zero for zeros and NaN.

    They carry no gradient, and ``2.0 ** e`` is always a normal number, so that a division by it is exact.
    """
    limits = xp.finfo(sizes.dtype)
    low, high = (math.frexp(float(limit))[1] - 1 for limit in (limits.smallest_normal, limits.max))
    if is_numpy(xp):  # exact, and in a fifth of the time
        exponents: Array = np.maximum(np.frexp(cast("Any", sizes))[1] - 1, low).astype(sizes.dtype)
        return exponents
    regular = xp.where(xp.isfinite(sizes) & (sizes > 0), sizes, xp.ones_like(sizes))
    return xp.clip(xp.floor(xp.log2(regular)), low, high)


def binary_unit(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1) -> Array:
    """Return the power of two near the largest entry along `axis`, which keeps a length of one: near one for zeros."""
    unit: Array = 2.0 ** binary_exponents(xp.max(xp.abs(x), axis=axis, keepdims=True), xp)
    return unit


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
    ratio: Array = (xp.astype(x, dtype) / unit) / (divisor / unit)
    return ratio


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
