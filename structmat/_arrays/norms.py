"""Norms and powers of two whose squares neither overflow nor underflow."""

from __future__ import annotations

import math

from structmat._arrays.dtypes import is_complex
from structmat._arrays.typing import Array, Namespace

__all__ = ["binary_exponents", "euclidean_norm"]


def binary_exponents(sizes: Array, xp: Namespace) -> Array:
    """Return whole numbers e, as floats, with ``2.0 ** e`` close below each size; zero for zeros and what is no number.

    They carry no gradient, and ``2.0 ** e`` is always a normal number, so that a division by it is exact.
    """
    limits = xp.finfo(sizes.dtype)
    low, high = (math.frexp(float(limit))[1] - 1 for limit in (limits.smallest_normal, limits.max))
    regular = xp.isfinite(sizes) & (sizes > 0)
    return xp.clip(xp.floor(xp.log2(xp.where(regular, sizes, xp.ones_like(sizes)))), low, high)


def euclidean_norm(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1, weights: Array | None = None) -> Array:
    """Return ``sqrt(sum(weights * abs(x) ** 2))`` along `axis`, whatever the size of the entries.

    The entries are divided by a power of two near the largest, which is exact. The gradient at zero is zero.
    """
    size = 2.0 ** binary_exponents(xp.max(xp.abs(x), axis=axis, keepdims=True), xp)
    parts = (xp.real(x), xp.imag(x)) if is_complex(x.dtype, xp) else (x,)
    squares = sum(((part / size) ** 2 for part in parts[1:]), start=(parts[0] / size) ** 2)
    total = xp.sum(squares if weights is None else squares * weights, axis=axis)
    zero = total == 0.0
    root = xp.where(zero, xp.zeros_like(total), xp.sqrt(xp.where(zero, xp.ones_like(total), total)))
    return xp.reshape(size, total.shape) * root
