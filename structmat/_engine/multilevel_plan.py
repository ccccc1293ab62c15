"""Circular convolutions along several axes of one vector."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from structmat._arrays import complex_partner, device_of, is_complex, precision_of
from structmat._arrays.typing import Array, Namespace
from structmat._engine.plan import ChunkedPlan, Step
from structmat._engine.transforms import transforms_of

__all__ = ["MultilevelConvolution", "multilevel_fft", "multilevel_ifft", "reversed_levels"]


def _axes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(-len(sizes), 0))


def _grid(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    return xp.reshape(x, (*x.shape[:-1], *sizes))


def _flat(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    return xp.reshape(x, (*x.shape[: x.ndim - len(sizes)], prod(x.shape[x.ndim - len(sizes) :])))


def _half(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return (*sizes[:-1], sizes[-1] // 2 + 1)


def multilevel_fft(x: Array, sizes: tuple[int, ...], xp: Namespace, *, real: bool) -> Array:
    """Return the transform of vectors (..., N) over the axes of their grids, the half along the last one if `real`."""
    if not is_complex(x.dtype, xp) and (not real or 0 in x.shape):
        x = xp.astype(x, complex_partner(x.dtype, xp))
    if 0 in x.shape:  # torch fails on an empty batch
        return x[..., : prod(_half(sizes))] if real else x
    transform = transforms_of(xp).rfftn if real else transforms_of(xp).fftn
    return _flat(transform(_grid(x, sizes, xp), axes=_axes(sizes)), sizes, xp)


def multilevel_ifft(s: Array, sizes: tuple[int, ...], xp: Namespace, *, real: bool) -> Array:
    """Return the vectors (..., N) with a given transform, half or full."""
    if 0 in s.shape:
        shape = (*s.shape[:-1], prod(sizes))
        return xp.zeros(shape, dtype=precision_of(s.dtype, xp) if real else s.dtype, device=device_of(s))
    if real:
        grid = transforms_of(xp).irfftn(_grid(s, _half(sizes), xp), s=sizes, axes=_axes(sizes))
    else:
        grid = transforms_of(xp).ifftn(_grid(s, sizes, xp), axes=_axes(sizes))
    return _flat(grid, sizes, xp)


def reversed_levels(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return y with ``y[k] = x[-k]``, indices modulo the size along every axis of the grid."""
    axes = _axes(sizes)
    return _flat(xp.roll(xp.flip(_grid(x, sizes, xp), axis=axes), (1,) * len(axes), axis=axes), sizes, xp)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MultilevelConvolution(ChunkedPlan):
    """The product of a multilevel circulant matrix, by its spectrum: the half one if it is real."""

    _core_axes = {"spectrum": 1}

    spectrum: Array
    sizes: tuple[int, ...]
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, N)``."""
        return (prod(self.sizes), prod(self.sizes))

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.spectrum.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return 2 * prod(self.sizes)

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return float(prod(self.sizes))

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""

        def step(x: Any, out: Any) -> Any:
            y = self.whole(x, np)
            if out is None:
                return y
            out[...] = y
            return out

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        transformed = multilevel_fft(x, self.sizes, xp, real=self.is_real)
        return multilevel_ifft(transformed * self.spectrum, self.sizes, xp, real=self.is_real)

    def transpose(self) -> MultilevelConvolution:
        """Return the plan of the transpose."""
        xp = self._own_namespace()
        return self._with(xp.conj(self.spectrum) if self.is_real else reversed_levels(self.spectrum, self.sizes, xp))

    def conj(self) -> MultilevelConvolution:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        xp = self._own_namespace()
        return self._with(reversed_levels(xp.conj(self.spectrum), self.sizes, xp))

    def adjoint(self) -> MultilevelConvolution:
        """Return the plan of the conjugate transpose."""
        return self._with(self._own_namespace().conj(self.spectrum))

    def _with(self, spectrum: Array) -> MultilevelConvolution:
        return MultilevelConvolution(spectrum, self.sizes, self.is_real)
