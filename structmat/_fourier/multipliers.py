"""Transforms of grids by a kind for each axis, Fourier, cosine or sine, and products that are diagonal in them.

The transforms of real vectors that have a Fourier transform along some axis are half held, as in
`structmat._fourier.grids`: along the last of these axes the first ``n // 2 + 1`` frequencies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from structmat._arrays.libraries import rules_of
from structmat._arrays.shapes import move_axis
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.grids import as_grid, from_grid
from structmat._fourier.plans import Plan
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._fourier.trigonometric import INVERSES, trigonometric_transform

FOURIER = "dft"
"""The kind of axes along which the transform is Fourier's; the other kinds are those of `INVERSES`."""

KINDS = (FOURIER, *INVERSES)


def fourier_axes(kinds: tuple[str, ...]) -> list[int]:
    """Return the axes whose transform is Fourier's, as negative numbers, the last one first."""
    return [axis for axis in range(-1, -len(kinds) - 1, -1) if kinds[axis] == FOURIER]


def held_sizes(sizes: tuple[int, ...], kinds: tuple[str, ...], *, real: bool) -> tuple[int, ...]:
    """Return the sizes of the grid of the values that are held of transforms, of real vectors or of others."""
    axes = fourier_axes(kinds)
    if not (real and axes):
        return sizes
    return tuple(n // 2 + 1 if axis == axes[0] + len(sizes) else n for axis, n in enumerate(sizes))


def along(x: Array, axis: int, function: Callable[[Array], Array], xp: Namespace) -> Array:
    """Return the result of a function of vectors along the last axis for those along another axis."""
    if axis == -1:
        return function(x)
    return move_axis(function(move_axis(x, axis, -1, xp)), -1, axis, xp)


def transformed(x: Array, sizes: tuple[int, ...], kinds: tuple[str, ...], xp: Namespace, *, real: bool) -> Array:
    """Return the transforms of vectors (..., N) on grids; those by Fourier are not normalised."""
    y = as_grid(x, sizes, xp)
    for axis, kind in enumerate(kinds):
        if kind != FOURIER:
            y = trigonometric_transform(y, kind, xp, axis=axis - len(kinds))
    for axis in fourier_axes(kinds):
        y = along(y, axis, lambda v: spectrum(v, xp, real=real), xp)  # noqa: B023  # it is called at once
        real = False
    return from_grid(y, sizes, xp)


def transformed_back(X: Array, sizes: tuple[int, ...], kinds: tuple[str, ...], xp: Namespace, *, real: bool) -> Array:
    """Return the vectors (..., N) on grids that have these transforms."""
    y = as_grid(X, held_sizes(sizes, kinds, real=real), xp)
    axes = fourier_axes(kinds)
    for axis in reversed(axes):
        half = real and axis == axes[0]
        y = along(y, axis, lambda s: from_spectrum(s, sizes[axis], xp, real=half), xp)  # noqa: B023
    for axis, kind in enumerate(kinds):
        if kind != FOURIER:
            y = trigonometric_transform(y, INVERSES[kind], xp, axis=axis - len(kinds))
    return from_grid(y, sizes, xp)


@dataclass(frozen=True, eq=False, repr=False)
class Multiplication(Plan):
    """The product with a matrix that transforms of the axes of a grid make diagonal."""

    _core_axes = {"values": 1}

    values: Array
    """The eigenvalues that are held, in vectors."""
    sizes: tuple[int, ...]
    kinds: tuple[str, ...]
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """As many rows and columns as the grid has points."""
        side = prod(self.sizes)
        return (side, side)

    @property
    def width(self) -> int:
        return 2 * prod(self.sizes)

    @property
    def cost(self) -> float:
        return float(prod(self.sizes))

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        return lambda x: self.product(x, xp)

    def product(self, x: Array, xp: Namespace) -> Array:
        product = _Product(self.sizes, self.kinds, self.is_real, xp)
        return rules_of(xp).compiled(product)(x, self.values)


@dataclass(frozen=True)
class _Product:
    """The product by the eigenvalues, as a function that is compiled as a whole where the library does that."""

    sizes: tuple[int, ...]
    kinds: tuple[str, ...]
    real: bool
    xp: Namespace

    def __call__(self, x: Array, values: Array) -> Array:
        X = transformed(x, self.sizes, self.kinds, self.xp, real=self.real)
        return transformed_back(X * values, self.sizes, self.kinds, self.xp, real=self.real)
