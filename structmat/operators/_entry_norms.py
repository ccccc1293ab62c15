"""Norms of diagonally scaled grids of circulants, by their entries: accurate whatever the range of the factors."""

from __future__ import annotations

import math
from typing import NamedTuple

from structmat._arrays import (
    binary_exponents,
    device_of,
    euclidean_norm,
    is_eager_on_cpu,
    is_numpy,
    library_of,
    padded,
    reversed_cyclically,
)
from structmat._arrays.typing import Array, Namespace
from structmat._engine import from_spectrum, spectrum
from structmat.operators._base import NormOrder

__all__ = ["ScaledGrid"]

# Up to this side all entries are made: exact, and hardly slower than transforms.
_DIRECT_SIDE = 128
# How many times larger than those of an isometry the rounding errors of transforms may be in a norm.
_GROWTH = 16.0
# Entries that are in memory together.
_CHUNK = 2**20


class ScaledGrid(NamedTuple):
    """The moduli of the entries of ``diag(left) @ C @ diag(right)``, with a cropped grid `C` of circulants."""

    left: Array
    """Shape ``(..., rows)``."""
    c: Array
    """First columns, shape ``(..., p, q, b)``."""
    right: Array
    """Shape ``(..., cols)``."""

    @classmethod
    def of(cls, left: Array | None, c: Array, right: Array | None, shape: tuple[int, int], xp: Namespace) -> ScaledGrid:
        """Return the moduli of the given entries; a diagonal that is None is the identity."""
        moduli = xp.abs(c)

        def side(diagonal: Array | None, size: int) -> Array:
            return xp.ones(size, dtype=moduli.dtype, device=device_of(c)) if diagonal is None else xp.abs(diagonal)

        return cls(side(left, shape[0]), moduli, side(right, shape[1]))

    def norm(self, ord: NormOrder, xp: Namespace) -> Array:
        """Return the Frobenius, 1- or infinity norm.

        Transforms of moduli, O(n log n), leave errors of the size of the largest products of entries in all sums. Where
        values may be looked at, and show that the norm has lost no more than a digit to them, that is the norm.
        Elsewhere every entry is made, in chunks: O(rows * cols), with errors relative to the result.
        """
        grid = self._transposed(xp) if ord == 1 else self
        large = max(grid.left.shape[-1], grid.right.shape[-1]) > _DIRECT_SIDE
        if large and (is_numpy(xp) or (library_of(xp) == "torch" and is_eager_on_cpu(grid.c, xp))):
            norm, growth = grid._by_transforms(xp, squared=ord == "fro")
            if bool(xp.all(growth <= _GROWTH)):
                return norm
        return grid._by_entries(xp, squared=ord == "fro")

    def _transposed(self, xp: Namespace) -> ScaledGrid:
        axes = (*range(self.c.ndim - 3), *(self.c.ndim - k for k in (2, 3, 1)))
        return ScaledGrid(self.right, reversed_cyclically(xp.permute_dims(self.c, axes), xp), self.left)

    def _by_transforms(self, xp: Namespace, *, squared: bool) -> tuple[Array, Array]:
        """Return the norm, and how many times larger than usual the errors of transforms in it may be."""
        parts, exponents = [], []
        for values, axes in zip(self, (1, 3, 1), strict=True):
            top = binary_exponents(xp.max(values, axis=tuple(range(-axes, 0)), keepdims=True), xp)
            parts.append((values / 2.0**top) ** (2 if squared else 1))
            exponents.append(xp.reshape(top, tuple(top.shape[:-axes])))
        left, c, right = parts
        q, b = c.shape[-2:]
        blocks = padded(right, q * b, xp)
        V = spectrum(xp.reshape(blocks, (*blocks.shape[:-1], 1, q, b)), xp, real=True)
        sums = from_spectrum(xp.sum(spectrum(c, xp, real=True) * V, axis=-2), b, xp, real=True)
        sums = xp.reshape(sums, (*sums.shape[:-2], sums.shape[-2] * b))[..., : left.shape[-1]]
        reduce = xp.sum if squared else xp.max
        total = reduce(left * sums, axis=-1)
        row = xp.sqrt(xp.max(xp.sum(c**2, axis=(-2, -1)), axis=-1))
        errors = reduce(left, axis=-1) * row * xp.sqrt(xp.sum(right**2, axis=-1))
        positive = total > 0
        safe = xp.where(positive, total, xp.ones_like(total))
        growth = xp.where(positive, errors / safe, xp.full_like(safe, float("inf")))
        return _scaled(xp.sqrt(safe) if squared else safe, exponents[0] + exponents[1] + exponents[2], xp), growth

    def _by_entries(self, xp: Namespace, *, squared: bool) -> Array:
        """Return the norm from all entries, each a number near one and an exponent, so that none leaves the range."""
        left, c, right = (_split(values, xp) for values in self)
        p, q, b = self.c.shape[-3:]
        rows, cols = self.left.shape[-1], self.right.shape[-1]
        flat = [xp.reshape(values, (*values.shape[:-3], p * q * b)) for values in c]
        j = xp.arange(cols, device=device_of(self.c))
        step = max(1, _CHUNK // cols)
        sums, exponents = [], []
        for start in range(0, rows, step):
            lines = slice(start, min(start + step, rows))
            i = xp.arange(lines.start, lines.stop, device=device_of(self.c))[:, None]
            index = xp.reshape(((i // b) * q + j // b) * b + (i - j) % b, (-1,))
            entries, sizes = (
                xp.reshape(xp.take(values, index, axis=-1), (*values.shape[:-1], i.shape[0], cols)) for values in flat
            )
            entries = left[0][..., lines, None] * entries * right[0][..., None, :]
            sizes = left[1][..., lines, None] + sizes + right[1][..., None, :]
            top = xp.max(sizes, axis=-1, keepdims=True)
            entries = entries * 2.0 ** (sizes - top)
            sums.append(euclidean_norm(entries, xp) if squared else xp.sum(entries, axis=-1))
            exponents.append(top[..., 0])
        sizes, values = xp.concat(exponents, axis=-1), xp.concat(sums, axis=-1)
        top = xp.max(sizes, axis=-1, keepdims=True)
        values = values * 2.0 ** (sizes - top)
        return _scaled(euclidean_norm(values, xp) if squared else xp.max(values, axis=-1), top[..., 0], xp)


def _split(values: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return each value as a number in [1, 2) and the exponent of two; that of zeros is below all sums of three."""
    exponents = binary_exponents(values, xp)
    lowest = 8.0 * math.log2(float(xp.finfo(values.dtype).smallest_normal))
    return values / 2.0**exponents, xp.where(values <= 0.0, xp.full_like(exponents, lowest), exponents)


def _scaled(values: Array, exponents: Array, xp: Namespace) -> Array:
    """Return ``values * 2 ** exponents`` in two steps, since the power alone may leave the range."""
    half = xp.floor(exponents / 2)
    return values * 2.0**half * 2.0 ** (exponents - half)
