"""Circulant and Toeplitz matrices of several levels, for points of grids."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

from structmat._arguments import as_floating, grid, integer, wrong_shape
from structmat._arrays.arithmetic import (
    euclidean_norm,
    real_part,
)
from structmat._arrays.libraries import device_of, namespace_of
from structmat._arrays.shapes import along_axes, padded
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.embedding import fast_length
from structmat._fourier.grids import (
    as_grid,
    from_grid,
    multilevel_fft,
    reversed_levels,
)
from structmat._fourier.multilevel import MultilevelConvolution
from structmat._nearest_circulants import mean_of_diagonals, wrapped_diagonals
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator, Planned
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._families.any_circulant import AnyCirculant
from structmat.operators._families.grid_spectrum import GridSpectrum
from structmat.operators._families.toeplitz import diagonal_lengths

_WITH_VECTORS = {"solve": "inv_matvec", "lstsq": "pinv().matvec", "matmat": "matvec"}
"""For methods that take columns, the method that does the same for vectors along the last axis."""


class OnGrids(Planned):
    """An operator whose rows and columns are points of grids."""

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
        owner = f"{type(self).__name__}.convolve"
        rows, cols = self._grids
        x, xp = self._read(x, owner, "x")
        cut = x.ndim - len(cols)
        if cut < 0 or tuple(x.shape[cut:]) != cols:
            sizes = ", ".join(map(str, cols))
            raise wrong_shape(owner, "x", f"(..., {sizes})", x)
        y = self.matvec(xp.reshape(x, (*x.shape[:cut], prod(cols))))
        return xp.reshape(y, (*y.shape[:-1], *rows))

    def _hint_for_shape(self, method: str, argument: str, shape: tuple[int, ...], length: int) -> str:
        if method == "matvec":
            return "; for arrays on the grid use convolve"
        if prod(shape) == length:
            method = "matvec" if method == "matmat" else method
            return f"; an array on the grid is one vector, as is the result: {method}({argument}.reshape({length}))"
        if any(prod(shape[cut:]) == length for cut in range(len(shape) - 1)):
            method = _WITH_VECTORS.get(method, method)
            text = f"{method}({argument}.reshape(-1, {length}))"
            return f"; arrays on the grid are vectors along the last axis, as are the results: {text}"
        return ""


def on_grid(values: ArrayLike, levels: int | None, owner: str, argument: str) -> tuple[Array, tuple[int, ...]]:
    """Return values on a grid as vectors ``(..., N)``, and the sizes of the grid.

    The grid has the last `levels` axes of the values, or all axes if `levels` is None.
    """
    array = as_floating(values, owner, argument)
    levels = array.ndim if levels is None else integer(levels, owner, "levels")
    if not 1 <= levels <= array.ndim:
        raise ArgumentValueError(owner, argument, f"must have {max(levels, 1)} axes at least, got {array.ndim}")
    cut = array.ndim - levels
    sizes = tuple(int(n) for n in array.shape[cut:])
    return namespace_of(owner, array).reshape(array, (*array.shape[:cut], prod(sizes))), sizes


@dataclass(frozen=True, eq=False, repr=False)
class MultilevelCirculant(OnGrids, AnyCirculant):
    """A circulant matrix of several levels: circular convolution along every axis of a grid.

    For two levels it is a block-circulant matrix with circulant blocks (BCCB), ``C[(i, k), (j, l)] = c[(i - j) % n_1,
    (k - l) % n_2]``, where pairs are indices of a grid in row-major order.

    Parameters
    ----------
    c : array, shape (..., n_1 * ... * n_d)
        The first column: the kernel on the grid in row-major order. Leading axes make a stack of matrices.
        `from_kernel` takes it as an array of several axes.
    sizes : tuple of int
        The sizes of the grid, ``(n_1, ..., n_d)``.

    Raises
    ------
    ValueError
        If a size is not positive, or the last axis of `c` is not as long as their product.
    TypeError
        If `c` does not hold numbers, or `sizes` are no integers.

    See Also
    --------
    Circulant : One level.
    BlockCirculant : A grid of circulants that differ from block to block.

    Notes
    -----
    With the d-dimensional discrete Fourier transform ``C x = ifftn(fftn(c) * fftn(x))``, O(N log N) for N points [1]_.
    The eigenvalues are ``fftn(c)``, so inverses and functions are exact up to rounding, and of the same kind.

    References
    ----------
    .. [1] Davis, P. J., *Circulant Matrices*, Wiley, 1979, section 5.8.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> kernel = np.zeros((4, 6))
    >>> kernel[0, 0], kernel[1, 0], kernel[0, 1] = 0.6, 0.2, 0.2
    >>> blur = sm.MultilevelCirculant.from_kernel(kernel)
    >>> image = np.eye(4, 6)
    >>> blurred = blur.convolve(image)
    >>> blurred[:2, :2].round(12)
    array([[0.6, 0.2],
           [0.2, 0.6]])
    >>> np.allclose(blur.inv().convolve(blurred), image)
    True
    """

    _core_axes = {"c": 1}

    c: Array
    """The first column, shape ``(..., n_1 * ... * n_d)``."""
    sizes: Any = None
    """The sizes of the grid."""

    def __post_init__(self) -> None:
        owner = "MultilevelCirculant"
        c = as_floating(self.c, owner, "c")
        if self.sizes is None:
            text = "must be given; for a kernel of several axes use MultilevelCirculant.from_kernel"
            raise ArgumentTypeError(owner, "sizes", text)
        sizes = grid(self.sizes, owner, "sizes")
        if c.ndim < 1 or c.shape[-1] != prod(sizes):
            hint = "; for a kernel of several axes use MultilevelCirculant.from_kernel"
            raise wrong_shape(owner, "c", f"(..., {prod(sizes)}) for sizes {sizes}", c, hint)
        object.__setattr__(self, "c", c)
        object.__setattr__(self, "sizes", sizes)

    @classmethod
    def from_kernel(cls, kernel: ArrayLike, levels: int | None = None) -> MultilevelCirculant:
        """Return the matrix of the circular convolution with a kernel on a grid.

        Parameters
        ----------
        kernel : array, shape (..., n_1, ..., n_d)
            The kernel, its centre at index 0 of every axis (`numpy.fft.ifftshift` puts it there).
        levels : int, optional
            The number d of axes of the grid; those before make a stack. By default all axes.

        Returns
        -------
        MultilevelCirculant
            Of ``n_1 * ... * n_d`` rows.

        Raises
        ------
        ValueError
            If `kernel` has fewer axes than `levels`, or none.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.MultilevelCirculant.from_kernel(np.ones((5, 3, 4)), levels=2)
        MultilevelCirculant(sizes=(3, 4), shape=(12, 12), dtype=float64, batch=(5,), device=cpu)
        """
        return cls(*on_grid(kernel, levels, "MultilevelCirculant.from_kernel", "kernel"))

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, N)``."""
        return (self.c.shape[-1], self.c.shape[-1])

    @property
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.sizes, self.sizes

    def _details(self) -> str:
        return f"sizes={self.sizes}, "

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.sizes

    def _as_circulant(self) -> MultilevelCirculant:
        return self

    def _eigvals(self, xp: Namespace) -> Array:
        # A full transform takes less time than a half one together with the missing half, or as long on large grids.
        return multilevel_fft(self.c, self.sizes, xp, real=False)

    def _from_eigenvalues(self, spectrum: GridSpectrum, xp: Namespace) -> MultilevelCirculant:
        return self._replaced(c=spectrum.first_column(xp))

    def _plan(self, xp: Namespace) -> MultilevelConvolution:
        return MultilevelConvolution.of(self.c, self.sizes, self.sizes, self.sizes, xp)

    def _transpose(self) -> MultilevelCirculant:
        return self._replaced(c=reversed_levels(self.c, self.sizes, self._own_namespace()))

    def _to_dense(self, like: Context) -> Array:
        return self._as_toeplitz(like.xp)._to_dense(like)

    def _as_toeplitz(self, xp: Namespace) -> MultilevelToeplitz:
        """Return the same matrix, given by the values at all offsets."""
        t = by_axes(self.c, self.sizes, lambda v, _: xp.concat([v[..., 1:], v], axis=-1), xp)
        return MultilevelToeplitz(t, self.sizes)


@dataclass(frozen=True, eq=False, repr=False)
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
    row_sizes: Any = None
    """The grid of the rows."""
    col_sizes: Any = None
    """The grid of the columns."""

    def __post_init__(self) -> None:
        owner = "MultilevelToeplitz"
        t = as_floating(self.t, owner, "t")
        if self.row_sizes is None:
            text = "must be given; for an array of several axes use MultilevelToeplitz.from_offsets, or from_covariance"
            raise ArgumentTypeError(owner, "row_sizes", text)
        rows, cols = _grids(self.row_sizes, self.col_sizes, owner)
        count = prod(_offset_sizes(rows, cols))
        if t.ndim < 1 or t.shape[-1] != count:
            hint = "; for an array of several axes use MultilevelToeplitz.from_offsets"
            raise wrong_shape(owner, "t", f"(..., {count}) for grids {rows} and {cols}", t, hint)
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

        def mirrored(x: Array, _: int) -> Array:
            return xp.concat([xp.flip(x[..., 1:], axis=-1), x], axis=-1)

        return cls(by_axes(flat, sizes, mirrored, xp), sizes)

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, N)``, the numbers of points of the two grids."""
        return (prod(self.row_sizes), prod(self.col_sizes))

    @property
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.row_sizes, self.col_sizes

    def _details(self) -> str:
        other = "" if self.row_sizes == self.col_sizes else f"col_sizes={self.col_sizes}, "
        return f"row_sizes={self.row_sizes}, {other}"

    def _plan(self, xp: Namespace) -> MultilevelConvolution:
        """Return the plan of a corner of a multilevel circulant matrix whose sizes are fast to transform."""
        rows, cols = self.row_sizes, self.col_sizes
        lengths = tuple(map(fast_length, _offset_sizes(rows, cols)))

        def embedded(x: Array, level: int) -> Array:
            cut = cols[level] - 1
            return xp.concat([padded(x[..., cut:], lengths[level] - cut, xp), x[..., :cut]], axis=-1)

        kernel = by_axes(self.t, _offset_sizes(rows, cols), embedded, xp)
        return MultilevelConvolution.of(kernel, lengths, rows, cols, xp)

    def _transpose(self) -> MultilevelToeplitz:
        t = self._own_namespace().flip(self.t, axis=-1)
        return self._replaced(t=t, row_sizes=self.col_sizes, col_sizes=self.row_sizes)

    def _to_dense(self, like: Context) -> Array:
        xp = like.xp
        rows, cols = self.shape
        # For each pair of points the index of its offset in the grid of offsets, extended by one level after the other.
        index = xp.reshape(xp.arange(1, device=like.device), (1, 1))
        for m, n in zip(self.row_sizes, self.col_sizes, strict=True):
            i = xp.arange(m, device=like.device)
            j = xp.arange(n, device=like.device)
            index_in_level = i[:, None] - j[None, :] + n - 1
            extended = index[:, None, :, None] * (m + n - 1) + index_in_level[None, :, None, :]
            index = xp.reshape(extended, (extended.shape[0] * m, extended.shape[2] * n))
        entries = xp.take(self.t, xp.reshape(index, (rows * cols,)), axis=-1)
        return xp.reshape(entries, (*self.batch_shape, rows, cols))

    def _diagonal(self, xp: Namespace) -> Array:
        k = xp.arange(min(self.shape), device=self.device)
        index = xp.zeros_like(k)
        row_stride, col_stride = self.shape
        for m, n in zip(self.row_sizes, self.col_sizes, strict=True):
            row_stride //= m
            col_stride //= n
            index = index * (m + n - 1) + (k // row_stride) % m - (k // col_stride) % n + n - 1
        return xp.take(self.t, index, axis=-1)

    def _near(self, like: Array, xp: Namespace) -> Near:
        def circulant() -> NearCirculant | None:
            sizes = self.row_sizes
            if sizes != self.col_sizes:
                return None
            return NearCirculant(wrapped_diagonals(self.t, sizes, mean_of_diagonals, xp), sizes)

        return Near(self, circulant=circulant)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self._replaced(t=xp.abs(self.t))

    def _frobenius(self, xp: Namespace) -> Array:
        real = real_part(self.t, xp)
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
    """Return the sizes of the grid of offsets between the points of two grids."""
    return tuple(m + n - 1 for m, n in zip(rows, cols, strict=True))


def by_axes(flat: Array, sizes: tuple[int, ...], function: Any, xp: Namespace) -> Array:
    """Apply ``function(x, k)`` along each axis of the grids of vectors ``(..., N)``, and return vectors again."""
    return from_grid(along_axes(as_grid(flat, sizes, xp), len(sizes), function, xp), sizes, xp)
