"""Three factors, Diagonal @ BlockCirculant @ Diagonal: closed-form sweeps from every starting point, the best kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from structmat.fit._three_factors.alternate import Run, alternate
from structmat.fit._three_factors.shift_synchronisation import shift_synchronisation_start
from structmat.fit._three_factors.starts import Start, circulant_start, diagonal_start, random_start, rank_one_start

if TYPE_CHECKING:
    from structmat.fit._control import Control
    from structmat.fit._three_factors.blocks import BlockGrid
    from structmat.fit._three_factors.vectors import Factors

__all__ = ["CLOSED_FORMS", "Swept", "sweep_from_all_starts"]

# All of these run on every matrix: they are what the fit must never be worse than.
CLOSED_FORMS: tuple[tuple[str, Start], ...] = (
    ("circulant", circulant_start),
    ("diagonal", diagonal_start),
    ("rank-one", rank_one_start),
)

# Random starts pay off where many local minima lie close together, on small matrices without much structure: as many as
# this number of entries holds copies of the matrix, up to a limit.
_RANDOM_ENTRIES, _MOST_RANDOM = 1 << 20, 16

# Every start gets this many sweeps. Then the best go on: those within this factor of the very best, up to this number.
_SCREENING_SWEEPS, _RIVAL, _FINALISTS = 15, 1.02, 4


class Swept(NamedTuple):
    """A run of sweeps and the name of its start."""

    start: str
    run: Run


def sweep_from_all_starts(
    grid: BlockGrid,
    rng: np.random.Generator,
    control: Control,
    *,
    n_random: int | None = None,
    given: Sequence[tuple[str, Factors]] = (),
) -> Swept:
    """Return the best run, also from `n_random` random starts and those that are given."""

    def go_on(swept: Swept, sweeps: int) -> Swept:
        run = swept.run
        with control.interruptible():
            run = alternate(grid, run, sweeps, control.tol, lambda k, error: control.report(swept.start, k, error))
        return swept._replace(run=run)

    if n_random is None:
        n_random = min(_RANDOM_ENTRIES // grid.blocks.size, _MOST_RANDOM)
    others = (("shift-synchronisation", shift_synchronisation_start), *[("random", random_start)] * n_random)
    exact = 4.0 * float(np.finfo(grid.dtype).eps)
    runs = [Swept(name, Run.begin(grid, start(grid, rng))) for name, start in CLOSED_FORMS]
    runs += [Swept(name, Run.begin(grid, factors)) for name, factors in given]
    runs = [go_on(swept, _screening(control)) for swept in runs]
    for name, start in others:
        if control.stopped() or min(map(_error, runs)) <= exact:
            break
        runs.append(go_on(Swept(name, Run.begin(grid, start(grid, rng))), _screening(control)))
    runs.sort(key=_error)
    finalists = [swept for swept in runs[:_FINALISTS] if _error(swept) <= _RIVAL * _error(runs[0])]
    return min((go_on(finalist, control.max_iter) for finalist in finalists), key=_error)


def _screening(control: Control) -> int:
    return min(_SCREENING_SWEEPS, control.max_iter)


def _error(swept: Swept) -> float:
    return swept.run.error
