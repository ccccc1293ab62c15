"""Convolutions with any kernel of arrays on grids that go on beyond their edges: Toeplitz plus Hankel matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from structmat._arguments import as_floating, grid, wrong_shape
from structmat._arrays.libraries import device_of, is_numpy, namespace_of
from structmat._arrays.shapes import along_axes, padded
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._fourier.embedding import fast_length
from structmat._fourier.grids import as_grid, from_grid
from structmat._fourier.multilevel import MultilevelConvolution
from structmat._fourier.plans import Plan
from structmat._fourier.windows import MOST_TERMS, WindowSums
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near
from structmat.operators._families.multilevel import OnGrids, by_axes
from structmat.operators._families.spectral_multiplier import Boundary, SpectralMultiplier, checked_kernel


@dataclass(frozen=True, eq=False, repr=False)
class GridConvolution(OnGrids):
    """The convolution with any kernel, of arrays on a grid that go on beyond their edges.

    Along an axis that is reflected it is the sum of a Toeplitz matrix, which has the kernel, and of Hankel matrices in
    two corners, which have what is reflected.

    Parameters
    ----------
    kernel : array, shape (..., m_1 * ... * m_d)
        The kernel in row-major order, its centre in the middle of every axis. Leading axes make a stack of matrices.
        `from_kernel` takes it as an array of several axes.
    kernel_sizes : tuple of int
        The sizes of the kernel, ``(m_1, ..., m_d)``, odd and at most ``2 n - 1``.
    sizes : tuple of int
        The sizes of the grid, ``(n_1, ..., n_d)``.
    boundary : {"reflect", "zero", "odd", "wrap"} or a tuple of them, default "reflect"
        How arrays go on beyond the edges, along all axes or by axis: see the notes of `SpectralMultiplier`.
    transposed : bool, default False
        Whether it is the transpose of that matrix, which is no convolution.

    Raises
    ------
    ValueError
        If a size of the kernel is even or too long, or its length does not fit, or `boundary` is none of these.
    TypeError
        If `kernel` does not hold numbers, or sizes are no integers.

    See Also
    --------
    SpectralMultiplier.from_kernel : Of symmetric kernels, with inverses and functions in closed form.
    MultilevelToeplitz : With zeros beyond the edges.

    Notes
    -----
    A product copies what lies beyond the edges, and takes transforms of the grid and of as many points beside it as
    the kernel reaches. With NumPy arrays, where the points of the grid times those of the kernel are few, it is the sum
    of their products instead.

    The matrix has no inverse in closed form unless the kernel is symmetric; `structmat.solve`
    takes for preconditioner the nearest matrix that the transforms of the boundaries make diagonal, which is that of
    the symmetric part of the kernel [1]_.

    References
    ----------
    .. [1] Ng, M. K., Chan, R. H., Tang, W.-C., A fast algorithm for deblurring models with Neumann boundary conditions,
       SIAM J. Sci. Comput. 21, 1999.

    Examples
    --------
    Blur by a motion, which is not symmetric, of a scene that is reflected at the edges of the image:

    >>> import numpy as np
    >>> import scipy.ndimage
    >>> import structmat as sm
    >>> kernel = np.array([[0.0, 0.0, 0.0], [0.0, 0.7, 0.2], [0.0, 0.0, 0.1]])
    >>> blur = sm.GridConvolution.from_kernel(kernel, (5, 6))
    >>> image = np.random.default_rng(0).random((5, 6))
    >>> blurred = blur.convolve(image)
    >>> bool(np.allclose(blurred, scipy.ndimage.convolve(image, kernel, mode="reflect")))
    True
    >>> found = sm.solve(blur, blurred.ravel()).x.reshape(5, 6)
    >>> bool(np.allclose(found, image))
    True
    """

    _core_axes = {"kernel": 1}

    kernel: Array
    """The kernel, shape ``(..., m_1 * ... * m_d)``."""
    kernel_sizes: Any
    """The sizes of the kernel."""
    sizes: Any
    """The sizes of the grid."""
    boundary: Any = "reflect"
    """How arrays go on beyond the edges, for each axis."""
    transposed: bool = False
    """Whether it is the transpose."""

    def __post_init__(self) -> None:
        owner = "GridConvolution"
        kernel = as_floating(self.kernel, owner, "kernel")
        own = grid(self.kernel_sizes, owner, "kernel_sizes")
        if kernel.ndim < 1 or kernel.shape[-1] != prod(own):
            hint = "; for a kernel of several axes use GridConvolution.from_kernel"
            raise wrong_shape(owner, "kernel", f"(..., {prod(own)}) for kernel_sizes {own}", kernel, hint)
        sizes, names = checked_kernel(own, self.sizes, self.boundary, owner)
        values = {"kernel": kernel, "kernel_sizes": own, "sizes": sizes, "boundary": names}
        for name, value in {**values, "transposed": bool(self.transposed)}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_kernel(
        cls, kernel: ArrayLike, sizes: tuple[int, ...], boundary: Boundary | Sequence[Boundary] = "reflect"
    ) -> GridConvolution:
        """Return the matrix of the convolution with a kernel of several axes.

        Parameters
        ----------
        kernel : array, shape (..., m_1, ..., m_d)
            The kernel, its centre in the middle of every axis; leading axes make a stack.
        sizes : tuple of int
            The sizes of the grid, ``(n_1, ..., n_d)``.
        boundary : {"reflect", "zero", "odd", "wrap"} or a sequence of them, default "reflect"
            How arrays go on beyond the edges, along all axes or by axis.

        Returns
        -------
        GridConvolution
            Of ``n_1 * ... * n_d`` rows.

        Raises
        ------
        ValueError
            If `kernel` has an even length or is too long, or `boundary` is none of these.
        TypeError
            If `kernel` does not hold numbers, or `sizes` are no integers.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.GridConvolution.from_kernel(np.array([1.0, 4.0, 2.0]), (4,)).to_dense().round(12) + 0.0
        array([[6., 1., 0., 0.],
               [2., 4., 1., 0.],
               [0., 2., 4., 1.],
               [0., 0., 2., 5.]])
        """
        owner = "GridConvolution.from_kernel"
        values = as_floating(kernel, owner, "kernel")
        sizes = grid(sizes, owner, "sizes")
        own = tuple(values.shape[-len(sizes) :])
        checked_kernel(own, sizes, boundary, owner)
        flat = from_grid(values, sizes, namespace_of(owner, values))
        return cls(flat, own, sizes, boundary)

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, N)``."""
        side = prod(self.sizes)
        return (side, side)

    @property
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.sizes, self.sizes

    def _details(self) -> str:
        transposed = "transposed, " if self.transposed else ""
        return f"kernel_sizes={self.kernel_sizes}, sizes={self.sizes}, boundary={self.boundary}, {transposed}"

    def _plan(self, xp: Namespace) -> Plan:
        if is_numpy(xp) and prod(self.sizes) * prod(self.kernel_sizes) <= MOST_TERMS:
            return WindowSums(self.kernel, self.kernel_sizes, self.sizes, self.boundary, self.transposed)
        return self._plan_by_transforms(xp)

    def _plan_by_transforms(self, xp: Namespace) -> ExtendedConvolution:
        extended = tuple(n + m - 1 for n, m in zip(self.sizes, self.kernel_sizes, strict=True))
        lengths = tuple(map(fast_length, extended))

        def embedded(kernel: Array, axis: int) -> Array:
            length = lengths[axis]
            if self.transposed:
                return padded(xp.flip(kernel, axis=-1), length, xp)
            last = kernel.shape[-1] - 1
            return xp.concat([padded(kernel[..., last:], length - last, xp), kernel[..., :last]], axis=-1)

        column = by_axes(self.kernel, self.kernel_sizes, embedded, xp)
        rows, cols = (extended, self.sizes) if self.transposed else (self.sizes, extended)
        inner = MultilevelConvolution.of(column, lengths, rows, cols, xp)
        return ExtendedConvolution(inner, self.sizes, extended, self.boundary, self.transposed)

    def _transpose(self) -> GridConvolution:
        return self._replaced(transposed=not self.transposed)

    def _diagonal(self, xp: Namespace) -> Array:
        def of_axis(kernel: Array, axis: int) -> Array:
            n, name = self.sizes[axis], self.boundary[axis]
            reach = kernel.shape[-1] // 2
            wide = padded(xp.flip(padded(xp.flip(kernel, axis=-1), 2 * n + reach + 1, xp), axis=-1), 4 * n + 1, xp)
            i = xp.arange(n, device=device_of(kernel))  # the entry of the offset zero is at 2 n
            own = xp.take(wide, 2 * n + 0 * i, axis=-1)
            if name == "wrap":
                return own
            shift = 2 if name == "zero" else 1
            left = xp.take(wide, 2 * n + 2 * i + shift, axis=-1)
            right = xp.take(wide, 2 * i + 2 - shift, axis=-1)
            return own + left + right if name == "reflect" else own - left - right

        return by_axes(self.kernel, self.kernel_sizes, of_axis, xp)

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(self, eigenvectors=lambda: self._symmetric_part(xp)._orthonormal_eig(xp))

    def _symmetric_part(self, xp: Namespace) -> LinearOperator:
        """Return the convolution with the symmetric part of the kernel."""
        kernel = as_grid(self.kernel, self.kernel_sizes, xp)
        for axis, name in enumerate(self.boundary):
            if name != "wrap":
                kernel = (kernel + xp.flip(kernel, axis=axis - len(self.sizes))) / 2
        near = SpectralMultiplier.from_kernel(kernel, self.sizes, self.boundary)
        return near._transpose() if self.transposed else near


@dataclass(frozen=True, eq=False, repr=False)
class ExtendedConvolution(Plan):
    """The convolution of extended arrays, of which the grid is kept; or the transpose, which folds the rest back."""

    _core_axes = {"inner": None}

    inner: MultilevelConvolution
    sizes: tuple[int, ...]
    extended: tuple[int, ...]
    boundary: tuple[str, ...]
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """As many rows and columns as the grid has points."""
        side = prod(self.sizes)
        return (side, side)

    @property
    def is_real(self) -> bool:
        """Whether it takes real vectors, or complex ones."""
        return self.inner.is_real

    @property
    def is_stack(self) -> bool:
        return self.inner.is_stack

    @property
    def width(self) -> int:
        return self.inner.width

    @property
    def cost(self) -> float:
        return self.inner.cost

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        convolution = self.inner.step(xp, dtype, batched=batched)
        return lambda x: self._by(convolution, x, xp)

    def product(self, x: Array, xp: Namespace) -> Array:
        return self._by(lambda y: self.inner.apply(y, xp), x, xp)

    def _by(self, convolution: Any, x: Array, xp: Namespace) -> Array:
        change = _folded if self.transposed else _extended

        def changed(y: Array, sizes: tuple[int, ...]) -> Array:
            def along(line: Array, axis: int) -> Array:
                reach = (self.extended[axis] - self.sizes[axis]) // 2
                return change(line, reach, self.boundary[axis], xp) if reach else line

            return from_grid(along_axes(as_grid(y, sizes, xp), len(sizes), along, xp), sizes, xp)

        if self.transposed:
            return changed(convolution(x), self.extended)
        return convolution(changed(x, self.sizes))


def _extended(x: Array, reach: int, boundary: str, xp: Namespace) -> Array:
    """Return vectors with what lies beyond both ends, up to `reach` entries."""
    n = x.shape[-1]
    if boundary == "wrap":
        return xp.concat([x[..., n - reach :], x, x[..., :reach]], axis=-1)
    if boundary == "zero":
        zero = xp.zeros_like(x[..., :1])
        left, right = xp.flip(x[..., : reach - 1], axis=-1), xp.flip(x[..., n - reach + 1 :], axis=-1)
        return xp.concat([-left, zero, x, zero, -right], axis=-1)
    left, right = xp.flip(x[..., :reach], axis=-1), xp.flip(x[..., n - reach :], axis=-1)
    return xp.concat([left, x, right] if boundary == "reflect" else [-left, x, -right], axis=-1)


def _folded(y: Array, reach: int, boundary: str, xp: Namespace) -> Array:
    """Return the transpose of `_extended`: what lies beyond the ends is added where it came from."""
    n = y.shape[-1] - 2 * reach
    left, own, right = y[..., :reach], y[..., reach : reach + n], y[..., reach + n :]
    if boundary == "wrap":
        return own + _at_end(left, n, xp) + padded(right, n, xp)
    if boundary == "zero":
        left, right = left[..., : reach - 1], right[..., 1:]
    beside = padded(xp.flip(left, axis=-1), n, xp) + _at_end(xp.flip(right, axis=-1), n, xp)
    return own + beside if boundary == "reflect" else own - beside


def _at_end(x: Array, length: int, xp: Namespace) -> Array:
    """Return x with zeros before it along the last axis."""
    return xp.flip(padded(xp.flip(x, axis=-1), length, xp), axis=-1)
