"""What ends a fit early, and who hears of its progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from structmat.fit._result import FitProgress

__all__ = ["Control", "Stopped"]


class Stopped(Exception):  # noqa: N818  # no error: the best so far is returned
    """The time limit, the callback or the user ends a fit."""


@dataclass
class Control:
    """Limits of a fit and its callback."""

    max_iter: int
    """Largest number of iterations from one starting point."""
    tol: float
    """A run has converged when an iteration lowers the error by no more than this times itself."""
    endless: bool = False
    """Whether a search goes on until it is stopped, and not for a fixed amount of work."""
    deadline: float | None = None
    """Value of ``time.monotonic()`` after which no iteration begins."""
    callback: Callable[[FitProgress], object] | None = None
    best: float = math.inf
    """The least error reported."""
    reason: str = "completed"
    """Why the fit ended."""

    def check(self) -> None:
        """Raise `Stopped` if the time is over, or the fit was ended in another part of it."""
        if self.reason != "completed":
            raise Stopped
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.stop("time limit")

    def stop(self, reason: str) -> None:
        """Raise `Stopped`."""
        self.reason = reason
        raise Stopped

    def report(self, start: str, iteration: int, error: float, *, phase: str, n_factors: int, most: int) -> None:
        """Tell the callback, and raise `Stopped` if that or the time ends the fit; it hears nothing after its end."""
        if self.reason != "completed":
            raise Stopped
        self.best = min(self.best, error)
        if self.callback is not None:
            left = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)
            try:
                self.callback(FitProgress(start, iteration, most, error, phase, n_factors, self.best, left))
            except StopIteration:
                self.stop("callback")
        self.check()
