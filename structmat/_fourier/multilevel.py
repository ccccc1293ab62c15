"""Plans of the products with multilevel circulant matrices, and with corners of them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import is_numpy, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.grids import as_grid, from_grid, half_of_grid, last_axes, multilevel_fft, multilevel_ifft
from structmat._fourier.plans import Plan
from structmat._fourier.spectra import transforms_of

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL = 2**13
"""Up to this many points on the grid one transform of all axes is faster with NumPy than a call for each axis."""


@dataclass(frozen=True, eq=False, repr=False)
class MultilevelConvolution(Plan):
    """The product with a corner of a multilevel circulant matrix, by the spectrum of that."""

    _core_axes = {"spectrum": 1}

    spectrum: Array
    """The half spectrum (`is_real`) or full spectrum, with the axes of the grid in one."""
    lengths: tuple[int, ...]
    """The sizes of the grid of the circulant matrix."""
    is_real: bool
    row_sizes: tuple[int, ...]
    """The sizes of the corner of the grid that makes up a product."""
    col_sizes: tuple[int, ...]
    """The sizes of the corner of the grid that a vector fills."""

    @classmethod
    def of(cls, kernel: Array, lengths: tuple[int, ...], rows: Any, cols: Any, xp: Namespace) -> MultilevelConvolution:
        """Return the plan of a corner of the multilevel circulant matrix with first column `kernel`."""
        real = not is_complex(kernel.dtype, xp)
        return cls(multilevel_fft(kernel, lengths, xp, real=real), lengths, real, rows, cols)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the corner."""
        return (prod(self.row_sizes), prod(self.col_sizes))

    @property
    def width(self) -> int:
        return 2 * prod(self.lengths)

    @property
    def cost(self) -> float:
        return float(prod(self.lengths))

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        rules = rules_of(xp)
        if self.is_stack or not rules.engine:
            return lambda x: self._by_vectors(x, xp)
        if is_numpy(xp):
            is_small = self.row_sizes == self.col_sizes == self.lengths and prod(self.lengths) <= _SMALL
            on_grid = self._at_once(xp) if is_small else self._by_axes(xp)
        else:
            on_grid = self._by_axes(xp) if rules.is_eager_on_cpu(self.spectrum) else self._at_once(xp)
        rows = self.shape[0]
        return lambda x: on_grid(x).reshape(*x.shape[:-1], rows)

    def product(self, x: Array, xp: Namespace) -> Array:
        if self.is_stack or not is_numpy(xp):
            return self._by_vectors(x, xp)
        return self.step(xp, "", batched=False)(x)  # the step is the same for every dtype

    def _parts(self, xp: Namespace) -> tuple[Any, Any, Callable[[Any, Any], Any]]:
        """Return the module of transforms, the spectrum on its grid, and the entrywise product with that.

        The product overwrites its first operand where arrays have no gradients.
        """
        spectrum = as_grid(self.spectrum, half_of_grid(self.lengths) if self.is_real else self.lengths, xp)
        return transforms_of(xp), spectrum, operator.imul if is_numpy(xp) else operator.mul

    def _by_vectors(self, x: Array, xp: Namespace) -> Array:
        """Return the products of any vectors of any library."""
        lengths = self.lengths
        row_sizes = self.row_sizes
        X = multilevel_fft(x, self.col_sizes, xp, real=self.is_real, n=lengths)
        y = multilevel_ifft(X * self.spectrum, lengths, xp, real=self.is_real)
        return y if row_sizes == lengths else from_grid(as_grid(y, lengths, xp)[_corner(row_sizes)], row_sizes, xp)

    def _at_once(self, xp: Namespace) -> Callable[[Any], Any]:
        """Return the product by one transform of all axes."""
        fft, spectrum, times = self._parts(xp)
        forward, backward = (fft.rfftn, fft.irfftn) if self.is_real else (fft.fftn, fft.ifftn)
        lengths = self.lengths
        axes = last_axes(self.lengths)
        corner = _corner(self.row_sizes)

        def product(x: Any) -> Any:
            X = forward(x.reshape(*x.shape[:-1], *self.col_sizes), s=lengths, axes=axes)
            return backward(times(X, spectrum), s=lengths, axes=axes)[corner]

        return product

    def _by_axes(self, xp: Namespace) -> Callable[[Any], Any]:
        """Return the product by a transform of each axis, one after the other.

        Rows that hold zeros only, and rows outside the corner of the result, are not transformed.
        """
        fft, spectrum, times = self._parts(xp)
        options = {"overwrite_x": True} if is_numpy(xp) else {}
        first, last = (fft.rfft, fft.irfft) if self.is_real else (fft.fft, fft.ifft)
        lengths = self.lengths
        levels = len(self.lengths)
        corners = [(..., slice(m), *(slice(None),) * (levels - 1 - axis)) for axis, m in enumerate(self.row_sizes)]

        def product(x: Any) -> Any:
            y = first(x.reshape(*x.shape[:-1], *self.col_sizes), lengths[-1])
            for axis in range(levels - 2, -1, -1):
                y = fft.fft(y, lengths[axis], axis - levels, **options)
            y = times(y, spectrum)
            for axis in range(levels - 1):
                y = fft.ifft(y, lengths[axis], axis - levels, **options)[corners[axis]]
            return last(y, lengths[-1])[corners[-1]]

        return product


def _corner(sizes: tuple[int, ...]) -> Any:
    """Return the index of the leading corner of grids."""
    return (..., *(slice(n) for n in sizes))
