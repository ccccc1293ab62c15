"""Derivatives of what determines an inverse and a determinant, by the implicit rule: all by the inverse itself."""

from __future__ import annotations

from structmat._arrays import concat_last, device_of, is_complex, reversed_cyclically
from structmat._arrays.typing import Array, Namespace
from structmat._engine import (
    Bezoutian,
    Settings,
    bezoutian,
    convolution,
    fast_length,
    from_spectrum,
    kernel_of_diagonals,
    spectrum,
)

__all__ = ["cotangents", "outer_gradients", "tangents"]


def tangents(x: Array, y: Array, dc: Array, dr: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return the changes of x, y and the logarithm of the determinant where first column and first row change.

    ``dx = -T^-1 dT x``, ``dy = T^-1 (d(0, t[1 - n], ..., t[-1]) - dT y)`` and ``d log det T = tr(T^-1 dT)``.
    """
    n, inverse = x.shape[-1], _inverse(x, y, xp)
    change = convolution(kernel_of_diagonals(dc, dr[..., 1:], xp), (n, n), Settings(), xp)
    moved = concat_last([xp.zeros_like(dr[..., :1]), xp.flip(dr[..., 1:], axis=-1)], xp)
    column, row = _diagonal_sums(x, y, xp)
    return (
        -inverse.apply(change.apply(x, xp), xp),
        inverse.apply(moved - change.apply(y, xp), xp),
        xp.sum(column * dc + row * dr, axis=-1),
    )


def cotangents(x: Array, y: Array, dx: Array, dy: Array, dlog: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the gradient for first column and first row from those for x, y and the logarithm of the determinant.

    The adjoint of `tangents`, so that the gradient of a real function f by z is ``df = Re(sum(conj(grad) dz))``.
    """
    adjoint = _inverse(x, y, xp).adjoint()
    wx, wy = adjoint.apply(dx, xp), adjoint.apply(dy, xp)
    (column, row), (column_y, row_y) = (outer_gradients(w, v, xp) for w, v in ((wx, x), (wy, y)))
    column, row = column + column_y, row + row_y + reversed_cyclically(wy, xp)
    by_column, by_row = (_conj(sums, xp) * dlog[..., None] for sums in _diagonal_sums(x, y, xp))
    return column + by_column, _without_first(row + by_row, xp)


def outer_gradients(w: Array, x: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the gradient for first column and first row from that for a solution, times the inverse of the adjoint."""
    below, above = _lags(w, _conj(x, xp), xp)
    return -below, -_without_first(above, xp)


def _inverse(x: Array, y: Array, xp: Namespace) -> Bezoutian:
    return bezoutian(x, y, Settings(), xp, flips=(False, False))


def _diagonal_sums(x: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of T^-1 along its diagonals, from the main one upward and downward.

    Row and column sums of L(x) U(p): the sum along diagonal s is that of ``(n - max(m, m - s)) x[m] p[m - s]``.
    """
    n = x.shape[-1]
    weights = xp.astype(n - xp.arange(n, device=device_of(x)), x.dtype)
    one, zero = xp.ones_like(x[..., :1]), xp.zeros_like(x[..., :1])
    upward = downward = xp.zeros_like(x)
    for v, first, tail in ((x, one, -y), (y, zero, x)):
        p = concat_last([first, xp.flip(tail[..., 1:], axis=-1)], xp)
        upward = upward + _lags(v, weights * p, xp)[1]
        downward = downward + _lags(weights * v, p, xp)[0]
    return upward, _without_first(downward, xp)


def _lags(u: Array, v: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of ``u[i] v[j]`` over ``i - j = s`` and over ``j - i = s``, for s = 0, ..., n - 1."""
    n, real = u.shape[-1], not is_complex(u.dtype, xp)
    length = fast_length(2 * n - 1)
    gap = xp.zeros(length - n, dtype=v.dtype, device=device_of(v))
    backwards = concat_last([v[..., :1], gap, xp.flip(v[..., 1:], axis=-1)], xp)
    U, V = (spectrum(a, xp, real=real, n=length) for a in (u, backwards))
    sums = from_spectrum(U * V, length, xp, real=real)
    return sums[..., :n], reversed_cyclically(sums, xp)[..., :n]


def _without_first(v: Array, xp: Namespace) -> Array:
    """Return the vector with zero in place of the first entry."""
    return concat_last([xp.zeros_like(v[..., :1]), v[..., 1:]], xp)


def _conj(v: Array, xp: Namespace) -> Array:
    return xp.conj(v) if is_complex(v.dtype, xp) else v
