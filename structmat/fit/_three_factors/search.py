"""Three factors, Diagonal @ BlockCirculant @ Diagonal: steps in closed form from every start, the best kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from structmat.fit._control import rounding_error
from structmat.fit._three_factors.alternate import Run, alternations
from structmat.fit._three_factors.basic_starts import random_start
from structmat.fit._three_factors.spread import error_of_products
from structmat.fit._three_factors.start_list import CLOSED_FORMS, STARTS

if TYPE_CHECKING:
    from structmat.fit._control import Control
    from structmat.fit._three_factors.blocks import BlockGrid
    from structmat.fit._three_factors.vectors import Factors

__all__ = ["StartedRun", "best_from_all_starts"]

# Random starts pay off where many local minima lie close together, on small matrices without much structure: as many as
# this number of entries holds copies of the matrix, up to a limit.
_RANDOM_ENTRIES, _MOST_RANDOM = 1 << 20, 16

# Every start gets this many iterations. Then the best go on: those within this factor of the very best, up to this
# number.
_SCREENING_ITERATIONS, _CLOSE, _FINALISTS = 15, 1.02, 4


class StartedRun(NamedTuple):
    """A run and the name of its start."""

    start: str
    run: Run


def best_from_all_starts(
    grid: BlockGrid,
    rng: np.random.Generator,
    control: Control,
    *,
    n_random: int | None = None,
    known: Sequence[tuple[str, Factors]] = (),
) -> StartedRun:
    """Return the best run, also from `n_random` random starts and those that are known before."""

    def go_on(place: int, phase: str, most: int) -> None:
        start, begun = runs[place]
        for run in alternations(grid, begun, most, control.tol):
            runs[place] = StartedRun(start, run)
            if control.report(start, len(run.history) - 1, run.error, phase=phase, n_factors=3, most=most):
                break

    if n_random is None:
        n_random = min(_RANDOM_ENTRIES // grid.blocks.size, _MOST_RANDOM)
    others = (*STARTS, *[("random", random_start)] * n_random)
    exact = rounding_error(grid.dtype)
    runs = [StartedRun(name, Run.begin(grid, start(grid, rng))) for name, start in CLOSED_FORMS]
    runs += [StartedRun(name, Run.begin(grid, factors)) for name, factors in known]

    def of_products(started: StartedRun) -> float:
        return error_of_products(grid, started.run.factors, started.run.error)

    with control.interruptible():
        screening = min(_SCREENING_ITERATIONS, control.max_iter)
        for place in range(len(runs)):
            go_on(place, "screening", screening)
        for name, start in others:
            if control.stopped() or min(map(_error, runs)) <= exact:
                break
            runs.append(StartedRun(name, Run.begin(grid, start(grid, rng))))
            go_on(-1, "screening", screening)
        runs.sort(key=of_products)
        worst = _CLOSE * of_products(runs[0])
        del runs[sum(of_products(started) <= worst for started in runs[:_FINALISTS]) :]
        for place in range(len(runs)):
            go_on(place, "alternation", control.max_iter)
    return min(runs, key=of_products)


def _error(started: StartedRun) -> float:
    return started.run.error
