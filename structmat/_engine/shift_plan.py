"""Products by shifts and additions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arrays.typing import Array, Namespace
from structmat._engine.plan import ChunkedPlan, Step

__all__ = ["ShiftAndAdd"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ShiftAndAdd(ChunkedPlan):
    """The product of a circulant matrix of few diagonals: the sum of ``entries[k] * x`` shifted by ``start + k``."""

    _core_axes = {"entries": 1}

    entries: Any
    n: int
    start: int
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.entries.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return self.n

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: none is made."""
        return 1.0

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        n, shifts = self.n, [(self.start + k) % self.n for k in range(len(self.entries))]
        first = shifts.index(0) if 0 in shifts else 0
        main = self.entries[first]
        others = [
            (entry, shift) for k, (entry, shift) in enumerate(zip(self.entries, shifts, strict=True)) if k != first
        ]

        def step(x: Any, out: Any) -> Any:
            y = np.multiply(x, main, out=out)
            if shifts[first]:
                y[...] = np.roll(y, shifts[first], axis=-1)
            for entry, shift in others:
                shifted = x * entry
                y[..., shift:] += shifted[..., : n - shift]
                if shift:
                    y[..., :shift] += shifted[..., n - shift :]
            return y

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        product: Array = self.entries[..., :1] * xp.roll(x, self.start, axis=-1)
        for k in range(1, self.entries.shape[-1]):
            product = product + self.entries[..., k : k + 1] * xp.roll(x, self.start + k, axis=-1)
        return product

    def transpose(self) -> ShiftAndAdd:
        """Return the plan of the transpose."""
        entries = self._own_namespace().flip(self.entries, axis=-1)
        return ShiftAndAdd(entries, self.n, 1 - self.start - self.entries.shape[-1], self.is_real)

    def conj(self) -> ShiftAndAdd:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        return ShiftAndAdd(self._own_namespace().conj(self.entries), self.n, self.start, self.is_real)
