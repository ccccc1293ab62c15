"""Products of scalings and convolutions in one pass over each chunk of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from structmat._arrays.typing import Array, Namespace
from structmat._engine.plan import ChunkedPlan, Step

__all__ = ["Composition", "Scaling"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Scaling(ChunkedPlan):
    """The product of a diagonal matrix."""

    _core_axes = {"d": 1}

    d: Any
    """The diagonal."""
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.d.shape[-1], self.d.shape[-1])

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.d.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return int(self.d.shape[-1])

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: almost nothing."""
        return 1.0

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        return lambda x, out: np.multiply(x, self.d, out=out)

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        product: Array = self.d * x
        return product

    def transpose(self) -> Scaling:
        """Return itself."""
        return self

    def conj(self) -> Scaling:
        """Return the plan of the complex conjugate."""
        return self if self.is_real else Scaling(self._own_namespace().conj(self.d), self.is_real)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Composition(ChunkedPlan):
    """A product of plans, left to right, all of them real or all complex."""

    _core_axes = {"parts": None}

    parts: tuple[ChunkedPlan, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first part and columns of the last."""
        return (self.parts[0].shape[0], self.parts[-1].shape[1])

    @property
    def is_real(self) -> bool:
        """Whether it takes real vectors."""
        return self.parts[0].is_real

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return any(part.is_stack for part in self.parts)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return max(part.width for part in self.parts)

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return sum(part.cost for part in self.parts)

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks: scalings work in place where that is scratch of our own."""
        steps: list[Any] = [
            part.d if isinstance(part, Scaling) else part.step(dtype, batched=batched, once=once)
            for part in reversed(self.parts)
        ]
        end = len(steps) - 1

        def step(x: Any, out: Any) -> Any:
            y = x
            for i, part in enumerate(steps):
                target = out if i == end else None
                if callable(part):
                    y = part(y, target)
                else:
                    y = np.multiply(y, part, out=y if target is None and y is not x else target)
            return y

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        return reduce(lambda y, part: part.whole(y, xp), reversed(self.parts), x)

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is, with its look-ups done."""
        calls = [part.call(xp, batched=batched) for part in reversed(self.parts)]

        def call(x: Any) -> Any:
            for part in calls:
                x = part(x)
            return x

        return call

    def transpose(self) -> Composition:
        """Return the plan of the transpose."""
        return Composition(tuple(part.transpose() for part in reversed(self.parts)))

    def conj(self) -> Composition:
        """Return the plan of the complex conjugate."""
        return self if self.is_real else Composition(tuple(part.conj() for part in self.parts))
