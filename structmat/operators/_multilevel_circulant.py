"""Multilevel circulant matrices: circular convolutions of images, volumes and functions on any grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from structmat._arrays import (
    are_normal,
    as_floating,
    binary_unit,
    device_of,
    euclidean_norm,
    is_complex,
    namespace_of,
    negligible,
    reciprocal_above,
    require_nonzero,
)
from structmat._arrays.checks import grid
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._engine import (
    MultilevelConvolution,
    Settings,
    multilevel_convolution,
    multilevel_fft,
    multilevel_ifft,
    reversed_levels,
)
from structmat.operators._base import Context, LinearOperator, SpectralFunction
from structmat.operators._grid import OnGrids, differences, on_grid
from structmat.operators._identity import Fourier

__all__ = ["MultilevelCirculant"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MultilevelCirculant(OnGrids):
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
    sizes: tuple[int, ...] = ()
    """The sizes of the grid."""

    def __post_init__(self) -> None:
        owner = "MultilevelCirculant"
        c = as_floating(self.c, owner, "c")
        if self.sizes == ():
            text = "must be given; for a kernel of several axes use MultilevelCirculant.from_kernel"
            raise ArgumentTypeError(owner, "sizes", text)
        sizes = grid(self.sizes, owner, "sizes")
        if c.ndim < 1 or c.shape[-1] != prod(sizes):
            text = f"must have shape (..., {prod(sizes)}) for sizes {sizes}, got {tuple(c.shape)}"
            text += "; for a kernel of several axes use MultilevelCirculant.from_kernel"
            raise ArgumentValueError(owner, "c", text)
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

    @classmethod
    def nearest(cls, A: ArrayLike, sizes: tuple[int, ...]) -> MultilevelCirculant:
        """Return the multilevel circulant matrix nearest to a square matrix in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., N, N)
            The matrix.
        sizes : tuple of int
            The sizes of the grid, whose product is N.

        Returns
        -------
        MultilevelCirculant
            Each entry is the mean of the entries of `A` in the same places: T. Chan's optimal preconditioner of several
            levels [1]_.

        Raises
        ------
        ValueError
            If `A` is not square, or `sizes` do not fit.

        Notes
        -----
        O(N**2).

        References
        ----------
        .. [1] Chan, T. F., Olkin, J. A., Circulant preconditioners for Toeplitz-block matrices, Numerical Algorithms 6,
           1994.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.MultilevelCirculant(np.arange(6.0), (2, 3))
        >>> np.allclose(sm.MultilevelCirculant.nearest(C.to_dense(), (2, 3)).c, C.c)
        True
        """
        owner = "MultilevelCirculant.nearest"
        A = as_floating(A, owner, "A")
        sizes = grid(sizes, owner, "sizes")
        count = prod(sizes)
        if A.ndim < 2 or A.shape[-2:] != (count, count):
            raise ArgumentValueError(
                owner, "A", f"must have shape (..., {count}, {count}) for sizes {sizes}, got {tuple(A.shape)}"
            )
        xp = namespace_of(owner, A)
        return cls(xp.mean(_by_differences(A, sizes, xp), axis=-1), sizes)

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, N)``."""
        return (self.c.shape[-1], self.c.shape[-1])

    @property
    def dtype(self) -> DType:
        """The dtype of `c`."""
        return self.c.dtype

    @property
    def _grids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.sizes, self.sizes

    def _details(self) -> str:
        return f"sizes={self.sizes}, "

    def _is_real(self) -> bool:
        return not is_complex(self.c.dtype, self._own_namespace())

    def _with(self, c: Array) -> MultilevelCirculant:
        return MultilevelCirculant(c, self.sizes)

    def _with_spectrum(self, values: Array, xp: Namespace, *, real: bool) -> MultilevelCirculant:
        """The matrix of given eigenvalues, in the order of `_eigvals`."""
        c = multilevel_ifft(values, self.sizes, xp, real=False)
        return self._with(xp.real(c) if real else c)

    def _plan(self, settings: Settings, xp: Namespace) -> MultilevelConvolution:
        return multilevel_convolution(self.c, self.sizes, xp)

    def _transpose(self) -> MultilevelCirculant:
        return self._with(reversed_levels(self.c, self.sizes, self._own_namespace()))

    def _conj(self) -> MultilevelCirculant:
        return self if self._is_real() else self._with(self._own_namespace().conj(self.c))

    def _to_dense(self, like: Context) -> Array:
        xp, count = like.xp, self.shape[0]
        index = differences(self.sizes, xp, like.device)
        return xp.reshape(xp.take(self.c, xp.reshape(index, (count * count,)), axis=-1), (*self.c.shape, count))

    def _eigvals(self, xp: Namespace) -> Array:
        return multilevel_fft(self.c, self.sizes, xp, real=False)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        return self._eigvals(xp), Fourier(self.sizes, inverse=True)

    def _nonzero_eigvals(self, method: str, xp: Namespace) -> Array:
        values = self._eigvals(xp)
        require_nonzero(values, self._rounding(xp), f"MultilevelCirculant.{method}", xp)
        return values

    def _inv(self, xp: Namespace) -> MultilevelCirculant:
        return self._with_spectrum(1 / self._nonzero_eigvals("inv", xp), xp, real=self._is_real())

    def _plan_to_invert(self, settings: Settings, xp: Namespace) -> MultilevelConvolution:
        plan = self._plan(settings, xp)
        require_nonzero(plan.spectrum, self._rounding(xp), "MultilevelCirculant.solve", xp)
        return plan

    def _solver(self, settings: Settings, xp: Namespace) -> MultilevelConvolution | None:
        plan = self._plan_to_invert(settings, xp)
        return replace(plan, spectrum=1 / plan.spectrum) if are_normal(plan.spectrum, xp) else None

    def _solve(self, b: Array, xp: Namespace) -> Array:
        unit = binary_unit(self.c, xp)  # as sums may overflow, and reciprocals
        plan = self._with(self.c / unit)._plan_to_invert(Settings(), xp)
        return replace(plan, spectrum=1 / plan.spectrum).apply(b / unit, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> MultilevelCirculant:
        return self._with_spectrum(reciprocal_above(self._eigvals(xp), rtol, xp), xp, real=self._is_real())

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.abs(self._eigvals(xp))

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        values = self._eigvals(xp)
        if not self._is_real():
            return values
        _, alone = self._pairs(xp)
        return xp.where(alone, xp.real(values), xp.abs(values))  # both of a conjugate pair: squares would underflow

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return xp.broadcast_to(self.c[..., :1], self.c.shape)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self._with(xp.abs(self.c))

    def _frobenius(self, xp: Namespace) -> Array:
        return math.sqrt(self.shape[0]) * euclidean_norm(self.c, xp)

    def _row_sums(self, xp: Namespace) -> Array:
        return xp.broadcast_to(xp.sum(self.c, axis=-1, keepdims=True), self.c.shape)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        values = self._nonzero_eigvals(function.name, xp) if function.needs_nonzero else self._eigvals(xp)
        if not self._is_real():
            return self._with_spectrum(function.evaluate(values), xp, real=False)
        first, alone = self._pairs(xp)
        real = True
        if function.needs_nonnegative:
            negative = alone & (xp.real(values) < 0.0)
            small = negligible(values, self._rounding(xp), xp)
            real = not bool(xp.any(negative & ~small))
            values = xp.where(alone, xp.astype(xp.real(values), values.dtype), values)
            values = xp.where(negative & small, xp.zeros_like(values), values)
        results = function.evaluate(values)
        # On a branch cut the two of a pair may end on different sides.
        results = xp.where(xp.logical_or(first, alone), results, xp.conj(reversed_levels(results, self.sizes, xp)))
        return self._with_spectrum(results, xp, real=real)

    def _pairs(self, xp: Namespace) -> tuple[Array, Array]:
        """Which eigenvalues of a real matrix come first in a conjugate pair, and which have no partner."""
        at = xp.arange(self.shape[0], device=self.device)
        partner = reversed_levels(at, self.sizes, xp)
        return at < partner, at == partner


def _by_differences(A: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return V with ``V[..., k, i] = A[..., i, i - k]`` for points of the grid."""
    count = A.shape[-1]
    i = xp.arange(count, device=device_of(A))
    cols = xp.matrix_transpose(differences(sizes, xp, device_of(A)))  # of i - k for every k and i
    index = xp.reshape(i[None, :] * count + cols, (count * count,))
    return xp.reshape(xp.take(xp.reshape(A, (*A.shape[:-2], count * count)), index, axis=-1), A.shape)


def _same_grid(left: Any, right: Any) -> bool:
    return bool(left.sizes == right.sizes)
