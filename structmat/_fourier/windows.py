"""Products with convolutions on small grids by sums over windows, without transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from structmat._arrays.dtypes import is_complex
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Namespace
from structmat._fourier.plans import Plan

MOST_TERMS = 2**14
"""Up to this many terms, points of the grid times those of the kernel, products are sums over windows, in NumPy.

Kernels of 3 x 3 on grids of 3 x 3, 16 x 16 and 32 x 32 points take 6, 8 and 12 to 19 microseconds for one product, and
by transforms 66, 68 and 82; prepared, at 32 x 32, 12 and 39. Sixteen products at once take 0.7, 2 and 11 microseconds
each, and 5, 7 and 13 by transforms. Kernels of 9 x 9 on 12 x 12 points take 12 (70), in batches 10 (7): near the limit
batches are as fast by either way. Finding the terms, once for a grid, takes 0.04 to 0.6 milliseconds.
"""


@dataclass(frozen=True, eq=False)
class Windows:
    """Which points and which entries of the kernel the terms of each row have: arrays of a row for each point."""

    points: Any
    """The point of the grid of each term."""
    entries: Any
    """The entry of the kernel of each term; None where it is that of the column, from the last one to the first."""
    signs: Any
    """The sign of each term, zero where there is none; None where all are one."""


@lru_cache(16)  # at most 256 KiB each
def windows_of(
    sizes: tuple[int, ...], kernel_sizes: tuple[int, ...], boundary: tuple[str, ...], *, transposed: bool
) -> Windows:
    """Return the terms of the convolution of arrays that go on beyond the edges, or of its transpose."""
    side, count = prod(sizes), prod(kernel_sizes)
    points = np.zeros((1, 1), np.int64)
    signs = np.ones((1, 1), np.int8)
    for n, m, name in zip(sizes, kernel_sizes, boundary, strict=True):
        of_axis, signs_of_axis = _along_axis(n, m, name)
        shape = (len(points) * n, points.shape[1] * m)
        points = (points[:, None, :, None] * n + of_axis[:, None, :]).reshape(shape)
        signs = (signs[:, None, :, None] * signs_of_axis[:, None, :]).reshape(shape)
    if not transposed:
        return Windows(points, None, None if (signs == 1).all() else signs)
    # No point has more terms in the transpose, since which points share a term is symmetric at every edge.
    rows, columns = np.nonzero(signs)
    order = np.argsort(points[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    own = points[rows, columns]
    places = np.arange(len(own)) - np.searchsorted(own, own)
    sources, entries = np.zeros((2, side, count), np.int64)
    factors = np.zeros((side, count), np.int8)
    sources[own, places] = rows
    entries[own, places] = count - 1 - columns
    factors[own, places] = signs[rows, columns]
    return Windows(sources, entries, None if (factors == 1).all() else factors)


def _along_axis(n: int, m: int, name: str) -> tuple[Any, Any]:
    """Return the points and signs of the windows of one axis, from the first point of a window to the last."""
    place = np.arange(n)[:, None] + np.arange(m) - m // 2
    before, after = place < 0, place >= n
    if name == "wrap":
        return place % n, np.ones(place.shape, np.int8)
    if name == "zero":  # a zero beside each edge, behind it the mirror image with the other sign
        mirrored = np.where(before, -2 - place, np.where(after, 2 * n - place, place))
        is_zero = (place == -1) | (place == n)
        return np.where(is_zero, 0, mirrored), np.where(is_zero, 0, np.where(before | after, -1, 1)).astype(np.int8)
    mirrored = np.where(before, -1 - place, np.where(after, 2 * n - 1 - place, place))
    return mirrored, np.where((before | after) & (name == "odd"), -1, 1).astype(np.int8)


@dataclass(frozen=True, eq=False, repr=False)
class WindowSums(Plan):
    """The convolution of NumPy arrays on a small grid that go on beyond the edges, or its transpose."""

    _core_axes = {"kernel": 1}

    kernel: Any
    kernel_sizes: tuple[int, ...]
    sizes: tuple[int, ...]
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
        return not is_complex(self.kernel.dtype, numpy_namespace)

    @property
    def width(self) -> int:
        return prod(self.sizes) * prod(self.kernel_sizes)

    @property
    def cost(self) -> float:
        return float(prod(self.sizes))

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        windows = windows_of(self.sizes, self.kernel_sizes, self.boundary, transposed=self.transposed)
        points, signs = windows.points, windows.signs
        if windows.entries is not None:
            entries = self.kernel[..., windows.entries]
            if signs is not None:
                entries *= signs
            return lambda x: np.einsum("...k,...k->...", np.take(x, points, axis=-1), entries)
        kernel = self.kernel[..., ::-1].copy()  # a view of it would be multiplied without BLAS

        def product(x: Any) -> Any:
            terms = np.take(x, points, axis=-1)
            if signs is not None:
                terms *= signs
            if kernel.ndim > 1:
                return (terms @ kernel[..., None])[..., 0]
            return (terms.reshape(-1, len(kernel)) @ kernel).reshape(x.shape)

        return product
