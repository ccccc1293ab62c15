"""Inner products and norms of batches of vectors, as all Krylov methods take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from structmat._arrays.dtypes import is_complex
from structmat._arrays.typing import Array, DType, Namespace

Count: TypeAlias = Any
"""An integer; in a trace of JAX an array without axes that holds it."""

Product: TypeAlias = Callable[[Array], Array]
"""A function that multiplies vectors along the last axis by a matrix."""


def inner_of(dtype: DType, xp: Namespace) -> Callable[[Array, Array], Array]:
    """Return the function that returns the real part of inner products of vectors of a dtype.

    They have no other part for a Hermitian matrix.
    """
    if not is_complex(dtype, xp):
        return xp.vecdot
    return lambda u, v: xp.real(xp.vecdot(u, v))


def inner(u: Array, v: Array, xp: Namespace) -> Array:
    """Return the real part of inner products."""
    return inner_of(u.dtype, xp)(u, v)


def plain_norm(v: Array, xp: Namespace) -> Array:
    """Return the norms of vectors whose squares neither overflow nor underflow."""
    return xp.sqrt(inner(v, v, xp))


def smallest_normal(dtype: DType, xp: Namespace) -> float:
    """Return the smallest normal number: added to a norm it changes nothing unless that is zero, and avoids 0 / 0."""
    return float(xp.finfo(dtype).smallest_normal)
