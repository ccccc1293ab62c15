"""What ends a search early: limits, the callback, the user; what it reports on the way; and what every search is."""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from structmat._files import counted

if TYPE_CHECKING:
    from structmat.fit._problem import Found

__all__ = ["Control", "FitProgress", "StoppableSearch", "Stopped"]


class FitProgress(NamedTuple):
    """State of a fit after one iteration, as handed to the `callback` of `fit_cdd`; as a string one line for people.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> seen = []
    >>> _ = sm.fit_cdd(np.arange(9.0).reshape(3, 3), rng=0, restarts=1, callback=seen.append)
    >>> seen[0].start, seen[0].phase, seen[0].iteration
    ('circulant', 'screening', 1)
    """

    start: str
    """Name of the starting point of this run."""
    iteration: int
    """Iterations made from this starting point, the first is 1."""
    max_iter: int
    """The most iterations that there will be from it at the end of this phase."""
    error: float
    """Relative Frobenius error reached from it."""
    phase: str
    """What goes on: ``"screening"`` gives every start a few steps in closed form, ``"alternation"`` goes on with the
    best, ``"exploration"`` takes large steps from several starts at once, ``"polish"`` small ones to a minimum, and
    ``"second order"`` those of Levenberg and Marquardt."""
    n_factors: int
    """Factors of the product that is fitted now, or masks: fewer where their fit is a start of the search for more."""
    best: float
    """Least error of all reports so far; a fit with weights counts anew after its start, the fit without."""
    remaining: float | None
    """Seconds left of the time limit, of the processor's time that it counts; None without one."""

    def __str__(self) -> str:
        where = f"{counted(self.n_factors, 'factor')}, {self.phase} from {self.start}, iteration {self.iteration}"
        return f"best error {self.best:.6f}, {where}"


class Stopped(Exception):  # noqa: N818  # It is no error: the best product so far is returned.
    """The time limit, the callback or the user ends a fit."""


@dataclass
class Control:
    """What a fit is allowed, whom it reports to, and how it has ended."""

    max_iter: int
    """Largest number of iterations from one starting point."""
    tol: float
    """A run has converged when an iteration lowers the error by no more than this times itself."""
    restarts: int | None = None
    """The number of random starting points; by size if None."""
    returns_best: bool = False
    """Whether an interrupt by the user ends the fit as a limit does, with the best so far."""
    endless: bool = False
    """Whether a search goes on until it is stopped, and not for a fixed amount of work."""
    deadline: float | None = None
    """Value of ``time.process_time()`` after which no iteration begins.

    It does not go on while other processes have the processor, so that a fit makes the same steps on a busy machine.
    """
    callback: Callable[[FitProgress], object] | None = None
    """What is told the state after every iteration."""
    best: float = math.inf
    """The least error that was reported."""
    status: str = "completed"
    """Why the fit ended: ``"completed"`` unless something has ended it early."""

    def check(self) -> None:
        """Raise `Stopped` if the time is over, or if the fit was ended before, in another part of it."""
        if self.status != "completed":
            raise Stopped
        if self.deadline is not None and time.process_time() >= self.deadline:
            self.stop("time limit")

    def stop(self, status: str) -> None:
        """End the fit with this status, by raising `Stopped`."""
        self.status = status
        raise Stopped

    def report(self, start: str, iteration: int, error: float, *, phase: str, n_factors: int, most: int) -> None:
        """Tell the callback the state of the fit, and raise `Stopped` if the callback or the time ends it.

        After the end of a fit the callback hears nothing more.
        """
        if self.status != "completed":
            raise Stopped
        self.best = min(self.best, error)
        if self.callback is not None:
            left = None if self.deadline is None else max(self.deadline - time.process_time(), 0.0)
            try:
                self.callback(FitProgress(start, iteration, most, error, phase, n_factors, self.best, left))
            except StopIteration:
                self.stop("callback")
        self.check()


class StoppableSearch(ABC):
    """A search for the best product of a problem, which has an answer wherever it is stopped."""

    def __init__(self, control: Control) -> None:
        self.control = control

    @abstractmethod
    def run(self) -> None:
        """Search to the end; raises `Stopped` where the control says so."""

    @property
    @abstractmethod
    def best(self) -> Found:
        """The best product so far."""

    @property
    def has_product(self) -> bool:
        """Whether there is a product yet. Searches have one before they look at the limits for the first time."""
        return True

    def result(self) -> Found:
        """Search until the end, or until something stops it, and return the best product."""
        try:
            with contextlib.suppress(Stopped):
                self.run()
        except KeyboardInterrupt:
            if not (self.control.returns_best and self.has_product):
                raise
            self.control.status = "interrupted"
        return self.best
