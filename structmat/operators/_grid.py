"""Points of a grid in row-major order: arrays on it as vectors, products with them, offsets between its points."""

from __future__ import annotations

from abc import abstractmethod
from math import prod
from typing import Any

from structmat._arrays import as_floating, namespace_of
from structmat._arrays.checks import integer
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat.operators._base import Planned

__all__ = ["OnGrids", "differences", "offsets", "on_grid"]


class OnGrids(Planned):
    """An operator whose rows and columns are points of grids."""

    __slots__ = ()

    @property
    @abstractmethod
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sizes of the grid of the rows and of that of the columns."""

    def convolve(self, x: ArrayLike, /) -> Array:
        """Return the product with an array on the grid, as an array on the grid: `matvec` without reshaping.

        Parameters
        ----------
        x : array, shape (..., n_1, ..., n_d)
            An image or a volume on the grid of the columns, or any batch of them.

        Returns
        -------
        array, shape (..., m_1, ..., m_d)
            On the grid of the rows, of the common dtype of operator and `x`. For a `MultilevelCirculant` the circular
            convolution with its kernel, for a `MultilevelToeplitz` the convolution with its values at the offsets,
            with zeros beyond the borders.

        Raises
        ------
        ValueError
            If the last axes of `x` are not the grid, or the batch axes do not broadcast.
        TypeError
            If `x` belongs to another array library than the operator.

        Notes
        -----
        A prepared operator convolves as the one it was made from: for many products reshape, and use its `matvec`.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> shift = sm.MultilevelCirculant.from_kernel(np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
        >>> shift.convolve(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).round(12)
        array([[3., 4.],
               [5., 6.],
               [1., 2.]])
        """
        owner, (rows, cols) = f"{type(self).__name__}.convolve", self._grids
        x, xp = self._read(x, owner, "x")
        cut = x.ndim - len(cols)
        if cut < 0 or tuple(x.shape[cut:]) != cols:
            sizes = ", ".join(map(str, cols))
            raise ArgumentValueError(owner, "x", f"must have shape (..., {sizes}), got {tuple(x.shape)}")
        y = self.matvec(xp.reshape(x, (*x.shape[:cut], prod(cols))))
        return xp.reshape(y, (*y.shape[:-1], *rows))


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
