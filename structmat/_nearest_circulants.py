"""Circulants near other matrices, by their first columns: of Toeplitz matrices, and of products of circulants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import mul
from typing import TypeAlias

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of
from structmat._arrays.shapes import along_axes, concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.grids import as_grid, from_grid, multilevel_fft, multilevel_ifft

Wrap: TypeAlias = Callable[[Array, Array, Namespace], Array]
"""From the diagonals of a Toeplitz matrix on and below the main one, and those above it at the places to which a
circulant wraps them, to the cyclic diagonals of a circulant."""


def wrapped_diagonals(offsets: Array, sizes: tuple[int, ...], wrap: Wrap, xp: Namespace) -> Array:
    """Return the first columns of circulants whose diagonals `wrap` makes of those of square Toeplitz matrices.

    `offsets` holds the values at all offsets of the grid, ``2 n - 1`` along each of its axes, in vectors; one axis is
    wrapped after the other.
    """

    def wrapped(line: Array, _: int) -> Array:
        n = (line.shape[-1] + 1) // 2
        lower = line[..., n - 1 :]
        return wrap(lower, concat_last([lower[..., :1], line[..., : n - 1]], xp), xp)

    grid = as_grid(offsets, tuple(2 * n - 1 for n in sizes), xp)
    return from_grid(along_axes(grid, len(sizes), wrapped, xp), sizes, xp)


def mean_of_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the means of the cyclic diagonals of the Toeplitz matrix: those of the nearest circulant, T. Chan's."""
    n = lower.shape[-1]
    k = xp.astype(xp.arange(n, device=device_of(lower)), lower.dtype)
    part = 2 ** (n - 1).bit_length()  # a sum of so many parts is in range, as a power of two without rounding
    return ((n - k) * (lower / part) + k * (wrapped / part)) / (n / part)


def product_of_circulants(columns: Sequence[Array], sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return the first columns of products of circulants on a grid, given by their first columns."""
    real = not any(is_complex(column.dtype, xp) for column in columns)
    spectra = [multilevel_fft(column, sizes, xp, real=real) for column in columns]
    return multilevel_ifft(reduce(mul, spectra), sizes, xp, real=real)
