"""Multilevel Toeplitz matrices: stationary covariances and blurs on grids, with zeros beyond their borders."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from structmat._arrays import (
    along_axes,
    as_floating,
    device_of,
    euclidean_norm,
    is_complex,
    moved,
    namespace_of,
)
from structmat._arrays.checks import grid
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._engine import MultilevelConvolution, Settings, multilevel_corner
from structmat.operators._base import Context, LinearOperator
from structmat.operators._constant_diagonals import antidiagonal_means, diagonal_lengths
from structmat.operators._grid import OnGrids, offsets, on_grid

__all__ = ["MultilevelToeplitz", "by_axes"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MultilevelToeplitz(OnGrids):
    """A Toeplitz matrix of several levels: its entries depend on the offset between two points of a grid.

    For two levels it is a block Toeplitz matrix with Toeplitz blocks (BTTB), ``T[(i, k), (j, l)] = t(i - j, k - l)``,
    where pairs are indices of a grid in row-major order.

    Parameters
    ----------
    t : array, shape (..., (m_1 + n_1 - 1) * ... * (m_d + n_d - 1))
        The value at every offset, from ``1 - n`` to ``m - 1`` along each axis of the grid, in row-major order. Leading
        axes make a stack of matrices. `from_offsets` and `from_covariance` take arrays of several axes.
    row_sizes : tuple of int
        The grid of the rows, ``(m_1, ..., m_d)``.
    col_sizes : tuple of int, optional
        The grid of the columns, ``(n_1, ..., n_d)``. By default that of the rows.

    Raises
    ------
    ValueError
        If a size is not positive, the two grids have different numbers of axes, or the last axis of `t` has another
        length.
    TypeError
        If `t` does not hold numbers, or sizes are no integers.

    See Also
    --------
    Toeplitz : Of one level, with direct solutions.
    MultilevelCirculant : On a grid whose opposite borders meet; with linear algebra in closed form.
    structmat.solve : Solutions by iteration, with the nearest of those for preconditioner.
    structmat.sampling.sample_stationary : Samples of a process with such a covariance matrix.

    Notes
    -----
    The matrix is a corner of a multilevel circulant matrix of at least ``m + n - 1`` points a level: a product is two
    d-dimensional transforms, O(N log N) for the N points of that grid [1]_. With NumPy they go axis by axis and leave
    out rows of zeros and rows that are cut off. The inverse is not multilevel Toeplitz, and unlike that of one level
    it has no formula of a few vectors.

    References
    ----------
    .. [1] Chan, R. H., Jin, X.-Q., *An Introduction to Iterative Toeplitz Solvers*, SIAM, 2007, chapter 5.

    Examples
    --------
    A covariance on a grid of 4 x 6 points, by its values at the offsets 0, 1, ... along each axis:

    >>> import numpy as np
    >>> import structmat as sm
    >>> s, t = np.ogrid[:4, :6]
    >>> T = sm.MultilevelToeplitz.from_covariance(np.exp(-np.hypot(s, t)))
    >>> T
    MultilevelToeplitz(row_sizes=(4, 6), shape=(24, 24), dtype=float64, device=cpu)
    >>> points = np.indices((4, 6)).reshape(2, -1)
    >>> distances = np.linalg.norm(points[:, :, None] - points[:, None, :], axis=0)
    >>> bool(np.allclose(T.to_dense(), np.exp(-distances)))
    True

    Convolution of an image with a kernel, all of it: the grid of the rows is larger than that of the columns.

    >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> t = np.pad(kernel, [(2, 2), (1, 1)])  # zeros at the offsets that the kernel does not reach
    >>> blur = sm.MultilevelToeplitz(t.ravel(), row_sizes=(4, 3), col_sizes=(3, 2))
    >>> image = np.zeros((3, 2))
    >>> image[1, 1] = 1.0
    >>> blur.convolve(image).round(12) + 0.0
    array([[0., 0., 0.],
           [0., 1., 2.],
           [0., 3., 4.],
           [0., 0., 0.]])
    """

    _core_axes = {"t": 1}

    t: Array
    """The value at every offset, shape ``(..., (m_1 + n_1 - 1) * ... * (m_d + n_d - 1))``."""
    row_sizes: tuple[int, ...] = ()
    """The grid of the rows."""
    col_sizes: Any = None
    """The grid of the columns."""

    def __post_init__(self) -> None:
        owner = "MultilevelToeplitz"
        t = as_floating(self.t, owner, "t")
        if self.row_sizes == ():
            text = "must be given; for an array of several axes use MultilevelToeplitz.from_offsets, or from_covariance"
            raise ArgumentTypeError(owner, "row_sizes", text)
        rows, cols = _grids(self.row_sizes, self.col_sizes, owner)
        count = prod(_offset_sizes(rows, cols))
        if t.ndim < 1 or t.shape[-1] != count:
            text = f"must have shape (..., {count}) for grids {rows} and {cols}, got {tuple(t.shape)}"
            text += "; for an array of several axes use MultilevelToeplitz.from_offsets"
            raise ArgumentValueError(owner, "t", text)
        for name, value in (("t", t), ("row_sizes", rows), ("col_sizes", cols)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_offsets(cls, t: ArrayLike, levels: int | None = None) -> MultilevelToeplitz:
        """Return the square matrix with given values at all offsets of a grid.

        Parameters
        ----------
        t : array, shape (..., 2 n_1 - 1, ..., 2 n_d - 1)
            The values, offset 0 in the middle of every axis.
        levels : int, optional
            The number d of axes of the grid; those before make a stack. By default all axes.

        Returns
        -------
        MultilevelToeplitz
            Of ``n_1 * ... * n_d`` rows.

        Raises
        ------
        ValueError
            If an axis of the grid has an even length, or `t` has fewer axes than `levels`, or none.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.MultilevelToeplitz.from_offsets(np.array([1.0, 2.0, 3.0])).to_dense()
        array([[2., 1.],
               [3., 2.]])
        """
        owner = "MultilevelToeplitz.from_offsets"
        flat, sizes = on_grid(t, levels, owner, "t")
        if any(n % 2 == 0 for n in sizes):
            raise ArgumentValueError(owner, "t", f"must have odd lengths 2 n - 1 along its axes, got {sizes}")
        return cls(flat, tuple((n + 1) // 2 for n in sizes))

    @classmethod
    def from_covariance(cls, values: ArrayLike, levels: int | None = None) -> MultilevelToeplitz:
        """Return the symmetric matrix of a function that is even along every axis, such as a covariance.

        Parameters
        ----------
        values : array, shape (..., n_1, ..., n_d)
            The value for two points by the distance between them along every axis, 0, 1, 2, ... steps of the grid.
        levels : int, optional
            The number d of axes of the grid; those before make a stack. By default all axes.

        Returns
        -------
        MultilevelToeplitz
            Of ``n_1 * ... * n_d`` rows.

        Raises
        ------
        ValueError
            If `values` has fewer axes than `levels`, or none, or an empty one.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.MultilevelToeplitz.from_covariance(np.array([[4.0, 1.0], [2.0, 0.5]])).to_dense()
        array([[4. , 1. , 2. , 0.5],
               [1. , 4. , 0.5, 2. ],
               [2. , 0.5, 4. , 1. ],
               [0.5, 2. , 1. , 4. ]])
        """
        flat, sizes = on_grid(values, levels, "MultilevelToeplitz.from_covariance", "values")
        sizes = grid(sizes, "MultilevelToeplitz.from_covariance", "values")
        xp = namespace_of("MultilevelToeplitz.from_covariance", flat)

        def mirrored(line: Array, _: int) -> Array:
            return xp.concat([xp.flip(line[..., 1:], axis=-1), line], axis=-1)

        return cls(by_axes(flat, sizes, mirrored, xp), sizes)

    @classmethod
    def nearest(
        cls, A: ArrayLike, row_sizes: tuple[int, ...], col_sizes: tuple[int, ...] | None = None
    ) -> MultilevelToeplitz:
        """Return the multilevel Toeplitz matrix nearest to a matrix in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., M, N)
            The matrix.
        row_sizes : tuple of int
            The grid of the rows, whose sizes multiply to M.
        col_sizes : tuple of int, optional
            The grid of the columns, whose sizes multiply to N. By default that of the rows.

        Returns
        -------
        MultilevelToeplitz
            Each of whose values is the mean of the entries of `A` with that offset.

        Raises
        ------
        ValueError
            If the sides of `A` do not fit the grids.

        Notes
        -----
        O(M N).

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.MultilevelToeplitz(np.arange(15.0), (2, 3))
        >>> bool(np.allclose(sm.MultilevelToeplitz.nearest(T.to_dense(), (2, 3)).t, T.t))
        True
        """
        owner = "MultilevelToeplitz.nearest"
        A = as_floating(A, owner, "A")
        rows, cols = _grids(row_sizes, col_sizes, owner)
        shape = (prod(rows), prod(cols))
        if A.ndim < 2 or tuple(A.shape[-2:]) != shape:
            expected = f"must have shape (..., {shape[0]}, {shape[1]}) for grids {rows} and {cols}"
            raise ArgumentValueError(owner, "A", f"{expected}, got {tuple(A.shape)}")
        xp, levels = namespace_of(owner, A), len(rows)
        V = xp.reshape(A, (*A.shape[:-2], *rows, *cols))
        for level in range(levels):  # the axes after the batch: i_k, ..., i_d, j_k, ..., j_d, offsets of those before
            V = moved(moved(V, level - 2 * levels, -1, xp), -levels - 1, -1, xp)
            V = antidiagonal_means(xp.flip(V, axis=-1), xp)
        return cls(xp.reshape(V, (*A.shape[:-2], prod(_offset_sizes(rows, cols)))), rows, cols)

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, N)``, the numbers of points of the two grids."""
        return (prod(self.row_sizes), prod(self.col_sizes))

    @property
    def dtype(self) -> DType:
        """The dtype of `t`."""
        return self.t.dtype

    @property
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.row_sizes, self.col_sizes

    def _details(self) -> str:
        other = "" if self.row_sizes == self.col_sizes else f"col_sizes={self.col_sizes}, "
        return f"row_sizes={self.row_sizes}, {other}"

    def _plan(self, settings: Settings, xp: Namespace) -> MultilevelConvolution:
        return multilevel_corner(self.t, self.row_sizes, self.col_sizes, xp)

    def _transpose(self) -> MultilevelToeplitz:
        t = self._own_namespace().flip(self.t, axis=-1)
        return MultilevelToeplitz(t, self.col_sizes, self.row_sizes)

    def _conj(self) -> MultilevelToeplitz:
        xp = self._own_namespace()
        return self._with(xp.conj(self.t)) if is_complex(self.dtype, xp) else self

    def _with(self, t: Array) -> MultilevelToeplitz:
        return MultilevelToeplitz(t, self.row_sizes, self.col_sizes)

    def _to_dense(self, like: Context) -> Array:
        xp, (rows, cols) = like.xp, self.shape
        index = xp.reshape(offsets(self.row_sizes, self.col_sizes, xp, like.device), (rows * cols,))
        return xp.reshape(xp.take(self.t, index, axis=-1), (*self.batch_shape, rows, cols))

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        k = xp.arange(min(self.shape), device=self.device)
        index, row_stride, col_stride = xp.zeros_like(k), *self.shape
        for m, n in zip(self.row_sizes, self.col_sizes, strict=True):
            row_stride, col_stride = row_stride // m, col_stride // n
            index = index * (m + n - 1) + (k // row_stride) % m - (k // col_stride) % n + n - 1
        return xp.take(self.t, index, axis=-1)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self._with(xp.abs(self.t))

    def _frobenius(self, xp: Namespace) -> Array:
        real = xp.real(self.t) if is_complex(self.dtype, xp) else self.t
        weights = xp.ones(1, dtype=real.dtype, device=device_of(real))
        for m, n in zip(self.row_sizes, self.col_sizes, strict=True):
            weights = xp.reshape(weights[:, None] * diagonal_lengths(m, n, real, xp)[None, :], (-1,))
        return euclidean_norm(self.t, xp, weights=weights)


def _grids(rows: Any, cols: Any, owner: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the checked grids of rows and columns."""
    rows = grid(rows, owner, "row_sizes")
    cols = rows if cols is None else grid(cols, owner, "col_sizes")
    if len(rows) != len(cols):
        raise ArgumentValueError(owner, "col_sizes", f"must have as many sizes as row_sizes, {rows}, got {cols}")
    return rows, cols


def _offset_sizes(rows: tuple[int, ...], cols: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(m + n - 1 for m, n in zip(rows, cols, strict=True))


def by_axes(flat: Array, sizes: tuple[int, ...], function: Any, xp: Namespace) -> Array:
    """Return vectors on a grid after a function along each of its axes."""
    values = along_axes(xp.reshape(flat, (*flat.shape[:-1], *sizes)), len(sizes), function, xp)
    return xp.reshape(values, (*flat.shape[:-1], -1))
