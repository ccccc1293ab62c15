"""Convolutions and transforms along several axes of a grid."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from array_api_compat import numpy as numpy_namespace

from structmat._array_tools import (
    Array,
    Namespace,
    along_axes,
    complex_partner,
    device_of,
    is_complex,
    is_eager_on_cpu,
    is_numpy,
    padded,
    precision_of,
)
from structmat._fourier import fast_length, transforms_of
from structmat._plans import ChunkedPlan, Step

__all__ = [
    "MultilevelConvolution",
    "multilevel_convolution",
    "multilevel_corner",
    "multilevel_fft",
    "multilevel_ifft",
    "reversed_levels",
]


def _axes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(-len(sizes), 0))


def _grid(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    return xp.reshape(x, (*x.shape[:-1], *sizes))


def _flat(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    return xp.reshape(x, (*x.shape[: x.ndim - len(sizes)], prod(x.shape[x.ndim - len(sizes) :])))


def _half(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return (*sizes[:-1], sizes[-1] // 2 + 1)


def multilevel_fft(
    x: Array,
    sizes: tuple[int, ...],
    xp: Namespace,
    *,
    real: bool,
    lengths: tuple[int, ...] | None = None,
    norm: str = "backward",
) -> Array:
    """Return the transform of vectors (..., N) over the axes of their grids, the half along the last one if `real`.

    Zeros are added up to `lengths`.
    """
    lengths = sizes if lengths is None else lengths
    if not is_complex(x.dtype, xp) and (not real or 0 in x.shape):
        x = xp.astype(x, complex_partner(x.dtype, xp))
    if 0 in x.shape:  # torch fails on an empty batch
        shape = (*x.shape[:-1], prod(_half(lengths) if real else lengths))
        return xp.zeros(shape, dtype=x.dtype, device=device_of(x))
    transform = transforms_of(xp).rfftn if real else transforms_of(xp).fftn
    return _flat(transform(_grid(x, sizes, xp), s=lengths, axes=_axes(sizes), norm=norm), sizes, xp)


def multilevel_ifft(
    s: Array,
    lengths: tuple[int, ...],
    xp: Namespace,
    *,
    real: bool,
    sizes: tuple[int, ...] | None = None,
    norm: str = "backward",
) -> Array:
    """Return the vectors (..., N) with a given transform, half or full, or of their grids the corner of given sizes."""
    sizes = lengths if sizes is None else sizes
    if not is_complex(s.dtype, xp):
        s = xp.astype(s, complex_partner(s.dtype, xp))
    if 0 in s.shape:
        shape = (*s.shape[:-1], prod(sizes))
        return xp.zeros(shape, dtype=precision_of(s.dtype, xp) if real else s.dtype, device=device_of(s))
    if real:
        grid = transforms_of(xp).irfftn(_grid(s, _half(lengths), xp), s=lengths, axes=_axes(lengths), norm=norm)
    else:
        grid = transforms_of(xp).ifftn(_grid(s, lengths, xp), axes=_axes(lengths), norm=norm)
    if sizes != lengths:
        grid = grid[(..., *(slice(n) for n in sizes))]
    return _flat(grid, sizes, xp)


def reversed_levels(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return y with ``y[k] = x[-k]``, indices modulo the size along every axis of the grid."""
    axes = _axes(sizes)
    return _flat(xp.roll(xp.flip(_grid(x, sizes, xp), axis=axes), (1,) * len(axes), axis=axes), sizes, xp)


# Up to this many points on the grid, NumPy's transforms of one axis take less time than the calls.
_SMALL = 2**13


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MultilevelConvolution(ChunkedPlan):
    """The product of a corner of a multilevel circulant matrix, by its spectrum: the half one if it is real."""

    _core_axes = {"spectrum": 1}

    spectrum: Array
    lengths: tuple[int, ...]
    """The sizes of the grid of the circulant matrix."""
    is_real: bool
    row_sizes: tuple[int, ...]
    """The corner of the grid that is kept of a product."""
    col_sizes: tuple[int, ...]
    """The corner of the grid on which a vector is given."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the corner."""
        return (prod(self.row_sizes), prod(self.col_sizes))

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.spectrum.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return 2 * prod(self.lengths)

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return float(prod(self.lengths))

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks, in place: of all but few points axis by axis."""
        whole = self.row_sizes == self.col_sizes == self.lengths
        product = self._at_once(numpy_namespace) if whole and prod(self.lengths) <= _SMALL else self._by_axes()

        def step(x: Any, out: Any) -> Any:
            y = product(x)
            if out is None:
                return y.reshape(*x.shape[:-1], self.shape[0])
            np.copyto(out.reshape(y.shape), y)  # a view: rows of `out` are contiguous
            return out

        return step

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is, with its look-ups done, on a CPU the first axis apart."""
        product = self._first_apart(xp) if is_eager_on_cpu(self.spectrum, xp) else self._at_once(xp)
        return lambda x: product(x).reshape(*x.shape[:-1], self.shape[0])

    def _parts(self, xp: Namespace) -> tuple[Any, Any, Callable[[Any, Any], Any]]:
        """Return transforms, the spectrum on its grid, and the product with it: where it has no gradient in place."""
        spectrum = _grid(self.spectrum, _half(self.lengths) if self.is_real else self.lengths, xp)
        return transforms_of(xp), spectrum, operator.imul if is_numpy(xp) else operator.mul

    def _at_once(self, xp: Namespace) -> Callable[[Any], Any]:
        """Return the product by d-dimensional transforms."""
        fft, spectrum, times = self._parts(xp)
        forward, backward = (fft.rfftn, fft.irfftn) if self.is_real else (fft.fftn, fft.ifftn)
        lengths, axes, kept = self.lengths, _axes(self.lengths), (..., *(slice(n) for n in self.row_sizes))

        def product(x: Any) -> Any:
            X = forward(x.reshape(*x.shape[:-1], *self.col_sizes), s=lengths, axes=axes)
            return backward(times(X, spectrum), s=lengths, axes=axes)[kept]

        return product

    def _first_apart(self, xp: Namespace) -> Callable[[Any], Any]:
        """Return the product by transforms of the first axis alone, without what is zero or cut off along it."""
        if len(self.lengths) == 1:
            return self._at_once(xp)
        fft, spectrum, times = self._parts(xp)
        forward, backward = (fft.rfftn, fft.irfftn) if self.is_real else (fft.fftn, fft.ifftn)
        (long, *rest), axes = self.lengths, _axes(self.lengths)
        first, kept = axes[0], (..., *(slice(n) for n in self.row_sizes[1:]))
        cut = (..., slice(self.row_sizes[0]), *(slice(None),) * len(rest))

        def product(x: Any) -> Any:
            X = fft.fft(forward(x.reshape(*x.shape[:-1], *self.col_sizes), s=rest, axes=axes[1:]), long, first)
            return backward(fft.ifft(times(X, spectrum), long, first)[cut], s=rest, axes=axes[1:])[kept]

        return product

    def _by_axes(self) -> Callable[[Any], Any]:
        """Return NumPy's product by one axis after the other, without rows of zeros or rows that are cut off."""
        fft, spectrum, times = self._parts(numpy_namespace)
        first, last = (fft.rfft, fft.irfft) if self.is_real else (fft.fft, fft.ifft)
        lengths, levels = self.lengths, len(self.lengths)
        cuts = [(..., slice(m), *(slice(None),) * (levels - 1 - axis)) for axis, m in enumerate(self.row_sizes)]

        def product(x: Any) -> Any:
            y = first(x.reshape(*x.shape[:-1], *self.col_sizes), lengths[-1])
            for axis in range(levels - 2, -1, -1):
                y = fft.fft(y, lengths[axis], axis - levels, overwrite_x=True)
            y = times(y, spectrum)
            for axis in range(levels - 1):
                y = fft.ifft(y, lengths[axis], axis - levels, overwrite_x=True)[cuts[axis]]
            return last(y, lengths[-1])[cuts[-1]]

        return product

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        transformed = multilevel_fft(x, self.col_sizes, xp, real=self.is_real, lengths=self.lengths)
        return multilevel_ifft(transformed * self.spectrum, self.lengths, xp, real=self.is_real, sizes=self.row_sizes)

    def transpose(self) -> MultilevelConvolution:
        """Return the plan of the transpose."""
        xp = self._own_namespace()
        s = xp.conj(self.spectrum) if self.is_real else reversed_levels(self.spectrum, self.lengths, xp)
        return self._with(s, transposed=True)

    def conj(self) -> MultilevelConvolution:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        xp = self._own_namespace()
        return self._with(reversed_levels(xp.conj(self.spectrum), self.lengths, xp))

    def adjoint(self) -> MultilevelConvolution:
        """Return the plan of the conjugate transpose."""
        return self._with(self._own_namespace().conj(self.spectrum), transposed=True)

    def _with(self, spectrum: Array, *, transposed: bool = False) -> MultilevelConvolution:
        rows, cols = self.row_sizes, self.col_sizes
        rows, cols = (cols, rows) if transposed else (rows, cols)
        return MultilevelConvolution(spectrum, self.lengths, self.is_real, rows, cols)


def multilevel_convolution(kernel: Array, sizes: tuple[int, ...], xp: Namespace) -> MultilevelConvolution:
    """Return the plan of the multilevel circulant matrix with first column `kernel`."""
    real = not is_complex(kernel.dtype, xp)
    return MultilevelConvolution(multilevel_fft(kernel, sizes, xp, real=real), sizes, real, sizes, sizes)


def multilevel_corner(
    t: Array, row_sizes: tuple[int, ...], col_sizes: tuple[int, ...], xp: Namespace
) -> MultilevelConvolution:
    """Return the plan of the multilevel Toeplitz matrix with values `t` at the offsets from ``1 - n`` to ``m - 1``.

    It is a corner of a circulant matrix of lengths that transform fast.
    """
    lengths = tuple(fast_length(m + n - 1) for m, n in zip(row_sizes, col_sizes, strict=True))
    real = not is_complex(t.dtype, xp)

    def embedded(line: Array, level: int) -> Array:
        cut = col_sizes[level] - 1
        return xp.concat([padded(line[..., cut:], lengths[level] - cut, xp), line[..., :cut]], axis=-1)

    offsets = tuple(m + n - 1 for m, n in zip(row_sizes, col_sizes, strict=True))
    kernel = _flat(along_axes(_grid(t, offsets, xp), len(offsets), embedded, xp), offsets, xp)
    return MultilevelConvolution(multilevel_fft(kernel, lengths, xp, real=real), lengths, real, row_sizes, col_sizes)
