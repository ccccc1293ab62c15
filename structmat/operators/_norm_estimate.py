"""Estimates of matrix norms from few products, by steps that look at no values and so can be traced."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from structmat._arrays import device_of, euclidean_norm, is_complex
from structmat._arrays.typing import Array, Namespace
from structmat._engine import Plan
from structmat.operators._base import NormOrder

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["norm_estimate"]

_ROUNDS = 4
"""Of Hager's method: more than three are seldom of use."""
_POWERS = 30


def norm_estimate(plan: Plan, ord: NormOrder, like: Array, xp: Namespace) -> Array:
    """Return a lower bound of a norm that is seldom much below it.

    Parameters
    ----------
    plan : Plan
        The products of a square matrix, or of a stack.
    ord : {1, 2, inf}
        The norm: by Hager's method with Higham's additional vector [1]_, or by the power method.
    like : array, shape (..., n)
        A vector with all batch axes, of the dtype of the matrix.
    xp : namespace
        The library.

    Returns
    -------
    array, shape of the batch
        Real.

    References
    ----------
    .. [1] Higham, N. J., FORTRAN codes for estimating the one-norm of a real or complex matrix, ACM Trans. Math.
       Softw. 14, 1988.
    """
    forward, adjoint = (partial(p.apply, xp=xp) for p in (plan, plan.adjoint()))
    if ord == 2:
        return _largest_singular_value(forward, adjoint, like, xp)
    return _one_norm(adjoint, forward, like, xp) if ord == math.inf else _one_norm(forward, adjoint, like, xp)


def _one_norm(
    forward: Callable[[Array], Array], adjoint: Callable[[Array], Array], like: Array, xp: Namespace
) -> Array:
    n = like.shape[-1]
    ones = xp.ones_like(like)
    k = xp.arange(n, device=device_of(like))
    alternating = xp.astype(1 - 2 * (k % 2), like.dtype) * (1 + xp.astype(k, like.dtype) / max(n - 1, 1))
    bound = 2 / (3 * n) * _size(forward(alternating * ones), xp)
    skew = _without_symmetries(like, xp)
    # From equal entries the steps stay symmetric where the matrix is, and miss what is skew in it.
    for start in (ones / n, skew / xp.astype(_size(skew, xp), like.dtype)[..., None]):
        v = start
        for _ in range(_ROUNDS):
            w = forward(v)
            bound = xp.maximum(bound, _size(w, xp))
            size = xp.abs(w)
            signs = xp.where(size > 0, w / xp.where(size > 0, xp.astype(size, w.dtype), ones), ones)
            best = xp.argmax(xp.abs(adjoint(signs)), axis=-1)
            v = xp.astype(k == best[..., None], like.dtype)
        bound = xp.maximum(bound, _size(forward(v), xp))
    return bound


def _without_symmetries(like: Array, xp: Namespace) -> Array:
    """Return fractional parts of multiples of the golden ratio, of both signs."""
    real = xp.real(like) if is_complex(like.dtype, xp) else like
    multiples = xp.astype(xp.arange(like.shape[-1], device=device_of(like)) + 1, real.dtype) * 0.6180339887498949
    return xp.astype(multiples - xp.floor(multiples) - 0.3, like.dtype) * xp.ones_like(like)


def _size(w: Array, xp: Namespace) -> Array:
    return xp.sum(xp.abs(w), axis=-1)


def _largest_singular_value(
    forward: Callable[[Array], Array], adjoint: Callable[[Array], Array], like: Array, xp: Namespace
) -> Array:
    v = _without_symmetries(like, xp)
    for _ in range(_POWERS):
        v = forward(_normalised(v, euclidean_norm(v, xp), xp))
        size = euclidean_norm(v, xp)
        v = adjoint(_normalised(v, size, xp))  # of the product with both, the square of the norm may overflow
    return size


def _normalised(v: Array, norm: Array, xp: Namespace) -> Array:
    norm = xp.where(norm > 0, norm, xp.ones_like(norm))
    return v / xp.astype(norm, v.dtype)[..., None]
