"""Products of diagonals and convolutions in one pass over each chunk of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arrays.typing import Array, Namespace
from structmat.operators._convolution import Plan, Step
from structmat.operators._diagonal import Diagonal

__all__ = ["ChainPlan"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ChainPlan(Plan):
    """A product of diagonals and plans, left to right, all of them real or all complex."""

    _core_axes = {"factors": None}

    factors: tuple[Any, ...]
    real: bool
    stack: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first factor and columns of the last."""
        return (self.factors[0].shape[0], self.factors[-1].shape[1])

    @property
    def is_real(self) -> bool:
        """Whether it takes real vectors."""
        return self.real

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return self.stack

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return int(max(f.width if isinstance(f, Plan) else f.shape[0] for f in self.factors))

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return float(sum(f.cost if isinstance(f, Plan) else 1 for f in self.factors))

    def _step(self, dtype: str, *, many: bool, once: bool = False) -> Step:
        steps: list[Any] = [
            f.d if isinstance(f, Diagonal) else f._step(dtype, many=many, once=once) for f in reversed(self.factors)
        ]
        end = len(steps) - 1

        def step(x: Any, out: Any) -> Any:
            y = x
            for i, factor in enumerate(steps):
                target = out if i == end else None
                if callable(factor):
                    y = factor(y, target)
                else:  # in place where y is scratch of our own
                    y = np.multiply(y, factor, out=y if target is None and y is not x else target)
            return y

        return step

    def _whole(self, x: Array, xp: Namespace) -> Array:
        for factor in reversed(self.factors):
            x = factor._matvec(x, xp)
        return x

    def _call(self, xp: Namespace, *, many: bool) -> Callable[[Any], Any]:
        steps: list[Any] = [f.d if isinstance(f, Diagonal) else f._call(xp, many=many) for f in reversed(self.factors)]

        def call(x: Any) -> Any:
            for factor in steps:
                x = factor(x) if callable(factor) else factor * x
            return x

        return call

    def _transpose(self) -> ChainPlan:
        return ChainPlan(tuple(f._transpose() for f in reversed(self.factors)), self.real, self.stack)

    def _conj(self) -> ChainPlan:
        return self if self.real else ChainPlan(tuple(f._conj() for f in self.factors), self.real, self.stack)
