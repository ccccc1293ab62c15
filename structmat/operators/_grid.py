"""Points of a grid in row-major order: arrays on it as vectors, and the offsets between its points."""

from __future__ import annotations

from math import prod
from typing import Any

from structmat._arrays import as_floating, namespace_of
from structmat._arrays.checks import integer
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, Namespace

__all__ = ["differences", "offsets", "on_grid"]


def on_grid(values: ArrayLike, levels: int | None, owner: str, argument: str) -> tuple[Array, tuple[int, ...]]:
    """Return values on a grid, the last `levels` axes or all, as vectors (..., N), and the sizes of the grid."""
    array = as_floating(values, owner, argument)
    levels = array.ndim if levels is None else integer(levels, owner, "levels")
    if not 1 <= levels <= array.ndim:
        raise ArgumentValueError(owner, argument, f"must have {max(levels, 1)} axes at least, got {array.ndim}")
    cut = array.ndim - levels
    sizes = tuple(int(n) for n in array.shape[cut:])
    return namespace_of(owner, array).reshape(array, (*array.shape[:cut], prod(sizes))), sizes


def differences(sizes: tuple[int, ...], xp: Namespace, device: Any) -> Array:
    """Return the index of ``i - j``, modulo the sizes, for all points i and j of a grid, (N, N)."""
    index = xp.reshape(xp.arange(1, device=device), (1, 1))
    for n in sizes:
        k = xp.arange(n, device=device)
        index = _of_pairs(index, (k[:, None] - k[None, :]) % n, n, xp)
    return index


def offsets(row_sizes: tuple[int, ...], col_sizes: tuple[int, ...], xp: Namespace, device: Any) -> Array:
    """Return the index of ``i - j`` in the grid of offsets, from ``1 - n`` on, for points i and j of two grids."""
    index = xp.reshape(xp.arange(1, device=device), (1, 1))
    for m, n in zip(row_sizes, col_sizes, strict=True):
        i, j = xp.arange(m, device=device), xp.arange(n, device=device)
        index = _of_pairs(index, i[:, None] - j[None, :] + n - 1, m + n - 1, xp)
    return index


def _of_pairs(index: Array, level: Array, size: int, xp: Namespace) -> Array:
    """Return the index of pairs of points with one more level, in which there are `size` offsets."""
    both = index[:, None, :, None] * size + level[None, :, None, :]
    return xp.reshape(both, (both.shape[0] * both.shape[1], both.shape[2] * both.shape[3]))
