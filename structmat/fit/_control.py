"""What ends a fit early and who hears of its progress, shared by all of its runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from structmat.fit._result import FitProgress

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["Control", "rounding_error", "seconds_left"]

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
class _Interrupt:
    """Whether there was one."""

    came: bool = False


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
    returns_best: bool = False
    """Whether `KeyboardInterrupt` ends the search as a time limit does; else it propagates."""
    end: float | None = None
    """The deadline of the whole fit."""
    least: _Least = field(default_factory=_Least)
    interrupt: _Interrupt = field(default_factory=_Interrupt)
    """Shared by the controls of all parts of the search."""

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
        if self.interrupt.came:
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

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """End the search where the block is interrupted, if the best so far is to be returned.

        The block leaves the best so far behind whenever it is interrupted.
        """
        try:
            yield
        except KeyboardInterrupt:
            if not self.returns_best:
                raise
            self.interrupt.came = True


def seconds_left(deadline: float | None) -> float | None:
    """Return the time to a value of ``time.monotonic()``, or None without a limit: None or infinity."""
    return None if deadline is None or deadline == math.inf else max(deadline - time.monotonic(), 0.0)
