"""Ways to an answer, and the loop of all doors: the cheapest way is taken until the judge of the problem agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator

Fact = TypeVar("Fact")
P_contra = TypeVar("P_contra", contravariant=True)


class Attempt(NamedTuple):
    """A way to an answer that was tried, and what came of it; `SolveResult` and `SlogdetEstimate` list them.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Toeplitz(0.5 ** np.arange(100)) + sm.Diagonal(np.linspace(1.0, 2.0, 100))
    >>> [attempt.way for attempt in sm.solve(A, np.ones(100)).ways]
    ['closed form', 'elimination']
    """

    way: str
    """Its name, such as "elimination" or "GMRES"."""
    error: Array | None
    """The relative residuals of its solutions, or how far off its logarithms may be; None where it found none."""
    said: str = ""
    """Why it has no answer where it has none, or how it was found."""

    def __str__(self) -> str:
        reached = "" if self.error is None else f"error {float(self.error.max()):.2g}"
        return f"{self.way}: {', '.join(filter(None, (self.said, reached)))}"


class Facts:
    """A matrix, and what is found out of it: each thing once, when it is first asked for."""

    def __init__(self, operator: LinearOperator, xp: Namespace) -> None:
        self.operator = operator
        """The matrix, in the precision of computations."""
        self.xp = xp
        self._facts: dict[Callable[..., Any], Any] = {}

    def once(self, function: Callable[[LinearOperator, Namespace], Fact]) -> Fact:
        """Return what a function finds out of the matrix, which it is asked for once."""
        if function not in self._facts:
            self._facts[function] = rules_of(self.xp).untraced(function)(self.operator, self.xp)
        found: Fact = self._facts[function]
        return found


class Way(Protocol[P_contra]):
    """A way to an answer. Two ways that are equal do the same, and have the same hash."""

    @property
    def name(self) -> str:
        """What users are told that it is."""

    def cost(self, problem: P_contra) -> float | None:
        """Return what it takes, in iterations that take as long; None where it is not offered, 0 where nothing is less.

        It is asked again before each step of the loop, as what was tried may change the answer.
        """

    def run(self, problem: P_contra) -> Any:
        """Return a candidate for the judge of the problem."""


class Problem(Protocol):
    """What is to be answered, and its judge."""

    @property
    def is_settled(self) -> bool:
        """Whether there is an answer that is good enough, or none by any way."""

    def take(self, way: Any, others: list[Any]) -> None:
        """Run a way and judge its candidate; what it has taken of the other ways beside itself is removed from them."""


def settle(problem: Problem, ways: Iterable[Any]) -> None:
    """Take the way that costs least until the problem is settled, or no further one is offered; ties by their order."""
    left = list(ways)
    while left and not problem.is_settled:
        cheapest, least = None, None
        for way in left:
            cost = way.cost(problem)
            if cost is not None and (least is None or cost < least):
                cheapest, least = way, cost
                if not cost:
                    break
        if cheapest is None:
            return
        left.remove(cheapest)
        problem.take(cheapest, left)
