"""Convolutions along several axes of one vector, circular ones and those with zeros beyond the ends."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import scipy  # its `fft` is imported on first use

from structmat._arrays import along_axes, complex_partner, device_of, is_complex, padded, precision_of
from structmat._arrays.typing import Array, Namespace
from structmat._engine.lengths import fast_length
from structmat._engine.plan import ChunkedPlan, Step
from structmat._engine.transforms import transforms_of

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
        """Return what computes NumPy's chunks, axis by axis: no transform of rows that are zero or cut off."""
        lengths, levels = self.lengths, len(self.lengths)
        forward, backward = (scipy.fft.rfft, scipy.fft.irfft) if self.is_real else (scipy.fft.fft, scipy.fft.ifft)
        spectrum: Any = _grid(self.spectrum, _half(lengths) if self.is_real else lengths, np)

        def step(x: Any, out: Any) -> Any:
            lead = x.shape[:-1]
            y = forward(x.reshape(*lead, *self.col_sizes), lengths[-1])
            for axis in range(levels - 2, -1, -1):
                y = scipy.fft.fft(y, lengths[axis], axis - levels, overwrite_x=True)
            y *= spectrum
            for axis in range(levels - 1):
                y = scipy.fft.ifft(y, None, axis - levels, overwrite_x=True)
                if self.row_sizes[axis] != lengths[axis]:
                    y = y[(..., slice(self.row_sizes[axis]), *(slice(None),) * (levels - 1 - axis))]
            y = backward(y, lengths[-1])[..., : self.row_sizes[-1]]
            if out is None:
                return y.reshape(*lead, self.shape[0])
            np.copyto(out.reshape(y.shape), y)  # a view: rows of `out` are contiguous
            return out

        return step

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
