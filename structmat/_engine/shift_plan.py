"""Products by a shift and an addition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arrays.typing import Array, Namespace
from structmat._engine.plan import ChunkedPlan, Step

__all__ = ["ShiftAndAdd"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ShiftAndAdd(ChunkedPlan):
    """The product of a circulant matrix of two diagonals: ``entries[0] * x`` and ``entries[1] * x`` shifted by one."""

    _core_axes = {"entries": 1}

    entries: Any
    n: int
    upper: bool
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
        (main, off), upper = self.entries, self.upper

        def step(x: Any, out: Any) -> Any:
            y = np.multiply(x, main, out=out)
            shifted = x * off
            if upper:
                y[..., :-1] += shifted[..., 1:]
                y[..., -1:] += shifted[..., :1]
            else:
                y[..., 1:] += shifted[..., :-1]
                y[..., :1] += shifted[..., -1:]
            return y

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        shifted = xp.roll(x, -1 if self.upper else 1, axis=-1)
        product: Array = self.entries[..., :1] * x + self.entries[..., 1:] * shifted
        return product

    def transpose(self) -> ShiftAndAdd:
        """Return the plan of the transpose."""
        return ShiftAndAdd(self.entries, self.n, not self.upper, self.is_real)

    def conj(self) -> ShiftAndAdd:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        return ShiftAndAdd(self._own_namespace().conj(self.entries), self.n, self.upper, self.is_real)
