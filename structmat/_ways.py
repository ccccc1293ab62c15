"""The loop of all doors: of several ways to an answer the cheapest is taken, until the judge of the problem agrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

P_contra = TypeVar("P_contra", contravariant=True)


class Way(Protocol[P_contra]):
    """A way to an answer. Two ways that are equal do the same, and have the same hash."""

    @property
    def name(self) -> str:
        """What users are told that it is."""

    def cost(self, problem: P_contra) -> float | None:
        """Return what it takes; None where it is not offered, and 0 where nothing takes less.

        The unit is one for all ways of a problem, such as iterations that take as long. It is asked again before each
        step of the loop, as what was tried may change the answer.
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
        for place, way in enumerate(left):
            cost = way.cost(problem)
            if cost is not None and (least is None or cost < least):
                cheapest, least = place, cost
                if not cost:
                    break
        if cheapest is None:
            return
        problem.take(left.pop(cheapest), left)
