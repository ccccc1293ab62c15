"""What ends a fit early and who hears of its progress, shared by all of its runs."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._result import FitProgress

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["Control", "listening", "rounding_error", "seconds_left"]

_OF_A_START = 100
"""Iterations of a fit that another one starts from, at most, where time is limited."""


def rounding_error(dtype: DTypeLike) -> float:
    """Return the relative error up to which a product is the matrix to rounding: nothing is left to search for."""
    return 4.0 * float(np.finfo(dtype).eps)


@dataclass
class _Least:
    """The least error reported."""

    error: float = math.inf


@dataclass
class Control:
    """Limits of a fit and its callback."""

    max_iter: int
    """Largest number of iterations from one starting point."""
    tol: float
    """A run has converged when an iteration lowers the error by no more than this times itself."""
    deadline: float | None = None
    """Value of ``time.monotonic()`` after which no iteration begins."""
    callback: Callable[[FitProgress], object] | None = None
    interrupt: Event = field(default_factory=Event)
    """Set when the user has interrupted the fit."""
    end: float | None = None
    """The deadline of the whole fit."""
    least: _Least = field(default_factory=_Least)

    def __post_init__(self) -> None:
        if self.end is None:
            self.end = self.deadline

    def until(self, deadline: float | None, *, apart: bool = False) -> Control:
        """Return this control with another deadline; `apart` for fits with errors of another kind."""
        return replace(self, deadline=deadline, least=_Least() if apart else self.least)

    def for_start(self, *, apart: bool = False) -> Control:
        """Return the control of a fit of three factors that another fit starts from; `apart` as for `until`.

        Where time is limited it takes few iterations: a share of the time would make what follows depend on the clock.
        """
        part = self.until(self.deadline, apart=apart)
        return part if part.deadline is None else replace(part, max_iter=min(part.max_iter, _OF_A_START))

    def reason(self) -> str | None:
        """Return why to return the best so far, None if not to."""
        if self.interrupt.is_set():
            return "interrupted"
        return "time limit" if self.deadline is not None and time.monotonic() >= self.deadline else None

    def stopped(self) -> bool:
        """Return whether to return the best so far."""
        return self.reason() is not None

    def report(self, start: str, iteration: int, error: float, *, phase: str, n_factors: int, most: int) -> bool:
        """Tell the callback; return whether to stop."""
        if self.callback is not None:
            self.least.error = min(self.least.error, error)
            left = seconds_left(self.end)
            self.callback(FitProgress(start, iteration, most, error, phase, n_factors, self.least.error, left))
        return self.stopped()

    def leave_if_interrupted(self) -> None:
        """Raise `KeyboardInterrupt` after one, for loops that know no other end; inside of `interruptible`."""
        if self.interrupt.is_set():
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Take an interrupt inside the block as the wish for the best so far."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupt.set()


def seconds_left(deadline: float | None) -> float | None:
    """Return the time to a value of ``time.monotonic()``, or None without a limit: None or infinity."""
    return None if deadline is None or deadline == math.inf else max(deadline - time.monotonic(), 0.0)


class _Listener:
    """A handler of Ctrl-C that sets an event, and one further out too; the second time it raises."""

    def __init__(self, event: Event, before: Any) -> None:
        self._event, self._before = event, before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._event.is_set() or isinstance(self._before, _Listener):
            self._before(number, frame)
        self._event.set()


@contextmanager
def listening(event: Event) -> Iterator[None]:
    """Take the first Ctrl-C inside the block as the wish for the best so far, wherever it comes.

    A fit cannot be left where a start is built, since what was found before would be lost: the event tells it to end at
    the next place where it may. A second Ctrl-C raises `KeyboardInterrupt`. Only the main thread hears signals, and a
    program that has its own way with them keeps it.
    """
    before = signal.getsignal(signal.SIGINT)
    heard = before is signal.default_int_handler or isinstance(before, _Listener)
    if current_thread() is not main_thread() or not heard:
        yield
        return
    signal.signal(signal.SIGINT, _Listener(event, before))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
