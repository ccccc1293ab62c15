"""Alternating least squares: from a starting point to a (local) minimum of the residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from structmat.fit._three_factors.spread import largest_spread2
from structmat.fit._three_factors.steps import iteration, residual_norm2

if TYPE_CHECKING:
    from structmat.fit._three_factors.blocks import BlockGrid
    from structmat.fit._three_factors.vectors import Factors

__all__ = ["Run", "alternate", "alternations", "relative_error"]

# The step along the last change, in units of it: first value, growth after a success, cut after a failure, ceiling.
_MOMENTUM, _GROWTH, _CUT, _CEILING = 0.5, 1.2, 0.5, 8.0


class Run(NamedTuple):
    """A starting point and what a solver has made of it so far."""

    factors: Factors
    history: list[float]
    """Relative error of the starting point and after every iteration; never rises."""
    converged: bool

    @classmethod
    def begin(cls, grid: BlockGrid, start: Factors) -> Run:
        """Return the run of no iterations."""
        error = relative_error(grid, residual_norm2(grid, start))
        return cls(start.scaled(0), [error], converged=error <= _rounding(grid))

    @property
    def error(self) -> float:
        """The relative error reached."""
        return self.history[-1]


def alternate(grid: BlockGrid, run: Run, max_iter: int, tol: float) -> Run:
    """Return the run after all of its iterations."""
    *_, last = (run, *alternations(grid, run, max_iter, tol))
    return last


def alternations(grid: BlockGrid, run: Run, max_iter: int, tol: float) -> Iterator[Run]:
    """Alternating least squares with momentum: yield the run after every iteration, until it has converged.

    Every iteration starts a step beyond the last iterate, along the last change. If the error then rises, the iteration
    is dropped, and the next one starts from the last iterate itself, which cannot raise it.
    """
    current, history, converged = run.factors, list(run.history), run.converged
    previous: Factors | None = None
    momentum = _MOMENTUM
    limit = largest_spread2(grid, current)
    while not converged and len(history) <= max_iter:
        c, b = current.c, current.b
        if previous is not None:
            c, b = c + momentum * (c - previous.c), b + momentum * (b - previous.b)
        candidate, residual = iteration(grid, c, b, limit)
        error = relative_error(grid, residual)
        if error <= history[-1]:
            momentum = min(momentum * _GROWTH, _CEILING) if previous is not None else momentum
            converged = history[-1] - error <= tol * error or error <= _rounding(grid)
            current, previous = candidate, current
        else:
            # Without momentum only rounding can raise the error.
            converged = previous is None
            momentum, previous, error = momentum * _CUT, None, history[-1]
        history.append(error)
        yield Run(current, history, converged)


def relative_error(grid: BlockGrid, residual: float) -> float:
    """Relative Frobenius error of a squared residual norm; zero for a zero matrix, which every start fits exactly."""
    return float(np.sqrt(max(residual, 0.0) / grid.norm2)) if grid.norm2 else 0.0


def _rounding(grid: BlockGrid) -> float:
    return float(np.finfo(grid.dtype).eps)
