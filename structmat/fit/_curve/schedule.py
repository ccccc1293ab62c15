"""The time of a curve: shared out among its fits, and estimated to its end."""

from __future__ import annotations

import math
import time

__all__ = ["Schedule"]

_COST_POWER = 1.3
"""Fits without a time limit take about this power of their number of factors."""


class Schedule:
    """The time that is left, and the share of it for each fit."""

    def __init__(self, numbers: list[int], limit: float) -> None:
        self.numbers, self.limit, self.start = numbers, limit, time.perf_counter()
        self.costs = [float(number) ** _COST_POWER for number in numbers]
        self.paid = self.spent = 0.0
        self.index_start = self.start

    def elapsed(self) -> float:
        """Return the seconds since the curve began."""
        return time.perf_counter() - self.start

    def over(self) -> bool:
        """Return whether no time is left."""
        return self.elapsed() >= self.limit

    def share(self, index: int) -> float | None:
        """Return the time limit of a fit: what is left goes to it and the later ones by cost."""
        self.index_start = time.perf_counter()
        if math.isinf(self.limit):
            return None
        left = max(self.limit - self.elapsed(), 0.0)
        return left * self.costs[index] / sum(self.costs[index:])

    def done(self, index: int, seconds: float) -> None:
        """Take note of the time that a fit took."""
        self.paid += self.costs[index]
        self.spent += seconds

    def remaining(self, index: int) -> float | None:
        """Return the estimated seconds to the end while a fit runs, None where nothing is known."""
        left = self.limit - self.elapsed()
        if self.paid == 0.0:
            return None if math.isinf(left) else left
        rate = self.spent / self.paid
        this = max(rate * self.costs[index] - (time.perf_counter() - self.index_start), 0.0)
        return max(min(this + rate * sum(self.costs[index + 1 :]), left), 0.0)
