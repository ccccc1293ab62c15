"""Plans of operators that are made of operators: sums and products of the plans of their parts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from structmat._arrays.libraries import is_numpy
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.plans import Plan
from structmat.operators._diagonal import Entrywise
from structmat.operators._linear_operator import LinearOperator


@dataclass(frozen=True, eq=False, repr=False)
class CombinedPlan(Plan):
    """The sum of plans, or their product from left to right.

    Parameters
    ----------
    parts : tuple of Plan
        The plans.
    is_sum : bool
        Whether they are added, not multiplied.
    """

    _core_axes = {"parts": None}

    parts: tuple[Plan, ...]
    is_sum: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first part and columns of the last."""
        return (self.parts[0].shape[0], self.parts[-1].shape[1])

    @property
    def is_stack(self) -> bool:
        return any(part.is_stack for part in self.parts)

    @property
    def is_real(self) -> bool | None:
        """Whether all parts take real vectors, or all of them complex ones; None where some do and others do not."""
        kinds = {part.is_real for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def width(self) -> int:
        return max(part.width for part in self.parts)

    @property
    def cost(self) -> float:
        return sum(part.cost for part in self.parts)

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        if self.is_real is None or self.is_stack:
            return lambda x: self.product(x, xp)
        steps = [part.step(xp, dtype, batched=batched) for part in self.parts]
        if len(steps) == 1:
            return steps[0]
        if self.is_sum:
            return _sum_of_steps(steps, in_place=is_numpy(xp))
        return _chain_of_steps(steps, [is_numpy(xp) and isinstance(part, Entrywise) for part in self.parts])

    def product(self, x: Array, xp: Namespace) -> Array:
        if self.is_sum:
            first, *rest = self.parts
            return sum((part.apply(x, xp) for part in rest), start=first.apply(x, xp))
        for part in reversed(self.parts):
            x = part.apply(x, xp)
        return x

    def apply(self, x: Array, xp: Namespace) -> Array:
        return self.product(x, xp) if self.is_real is None else super().apply(x, xp)


def _sum_of_steps(steps: list[Callable[[Any], Any]], *, in_place: bool) -> Callable[[Any], Any]:
    """Return the sum of steps; `in_place`, that overwrites arrays, which must not have gradients."""
    first, *rest = steps
    plus: Any = operator.iadd if in_place else operator.add

    def total(x: Any) -> Any:
        y = first(x)
        for product in rest:
            y = plus(y, product(x))
        return y

    return total


def _chain_of_steps(steps: list[Callable[..., Any]], overwrites: list[bool]) -> Callable[[Any], Any]:
    """Return the product of two or more steps, from left to right.

    `overwrites` says which steps are entrywise multiples of NumPy arrays, which may overwrite what others returned.
    """
    begin = steps[-1]
    after = [(step, over) for step, over in zip(steps[-2::-1], overwrites[-2::-1], strict=True)]

    def chained(x: Any) -> Any:
        y = begin(x)
        for product, over in after:
            y = product(y, y) if over else product(y)
        return y

    return chained


@dataclass(frozen=True, eq=False, repr=False)
class ByHooks(Plan):
    """The plan of an operator that has no plan of its own: its products are those of its hook ``_matvec``.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    """

    _core_axes = {"operator": None}

    operator: Any

    @property
    def shape(self) -> tuple[int, int]:
        """That of the operator."""
        return self.operator.shape

    @property
    def is_real(self) -> None:
        """None, since it takes real and complex vectors."""

    @property
    def is_stack(self) -> bool:
        return bool(self.operator.batch_shape)

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        return lambda x: self.apply(x, xp)

    def apply(self, x: Array, xp: Namespace) -> Array:
        return self.operator._matvec(x, xp)


def plan_of_parts(parts: Sequence[LinearOperator], xp: Namespace, *, is_sum: bool = False) -> CombinedPlan | None:
    """Return the plan of a sum or a product of operators, for the hook ``_plan``.

    Parameters
    ----------
    parts : sequence of LinearOperator
        The operators.
    xp : namespace
        Of their arrays.
    is_sum : bool, default False
        Whether they are added, not multiplied.

    Returns
    -------
    CombinedPlan or None
        None where no part has a plan. A combination with a prepared operator thus has a plan itself, whatever the other
        parts are.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from structmat.extend import plan_of_parts
    >>> plan = plan_of_parts([sm.Circulant(np.array([1.0, 2.0])), sm.Identity(2)], np, is_sum=True)
    >>> plan.apply(np.array([1.0, 0.0]), np)
    array([2., 2.])
    """
    plans = [part._plan(xp) for part in parts]
    if all(plan is None for plan in plans):
        return None
    return CombinedPlan(tuple(plan or ByHooks(part) for plan, part in zip(plans, parts, strict=True)), is_sum)
