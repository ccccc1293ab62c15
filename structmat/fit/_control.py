"""What ends a fit early and who hears of its progress, shared by all of its runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event

from structmat.fit._result import FitProgress

__all__ = ["Control"]


@dataclass
class Control:
    """Limits of a fit and its callback."""

    max_iter: int
    """The most iterations from one starting point."""
    tol: float
    """A run has converged when an iteration lowers the error by no more than this times itself."""
    deadline: float | None = None
    """Value of ``time.monotonic()`` after which no iteration begins."""
    callback: Callable[[FitProgress], object] | None = None
    interrupt: Event = field(default_factory=Event)
    """Set when the user has interrupted the fit."""

    def until(self, deadline: float | None) -> Control:
        """Return this control with another deadline."""
        return replace(self, deadline=deadline)

    def share(self, part: float) -> float | None:
        """Return the deadline of a step that may take this part of the time left."""
        now = time.monotonic()
        return None if self.deadline is None else now + part * (self.deadline - now)

    def expire(self) -> None:
        """End the fit now, for want of time."""
        self.deadline = time.monotonic()

    def reason(self) -> str | None:
        """Return why to return the best so far, None if not to."""
        if self.interrupt.is_set():
            return "interrupted"
        return "time limit" if self.deadline is not None and time.monotonic() >= self.deadline else None

    def stopped(self) -> bool:
        """Return whether to return the best so far."""
        return self.reason() is not None

    def report(self, start: str, iteration: int, error: float) -> bool:
        """Tell the callback; return whether to stop."""
        if self.callback is not None:
            self.callback(FitProgress(start, iteration, self.max_iter, error))
        return self.stopped()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Take an interrupt inside the block as the wish for the best so far."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupt.set()
