"""The search for three factors: steps in closed form from every start, a few from each, then on from the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._alternation import Run, alternations, spread2, with_best_circulant
from structmat.fit._block_grid import BlockGrid, Factors
from structmat.fit._closed_forms import CLOSED_FORMS
from structmat.fit._control import StoppableSearch
from structmat.fit._matrices import rounding_error
from structmat.fit._problem import Found
from structmat.fit._synchronisation import shift_synchronisation_start

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._problem import Problem

__all__ = ["ThreeFactorSearch"]

_RANDOM_ENTRIES = 1 << 20
"""There are as many random starts as copies of the matrix fill this number of entries. They pay off on small matrices
without much structure, where many local minima lie close together."""

_MOST_RANDOM = 16
"""There are never more random starts than this."""

_SCREENING_ITERATIONS = 15
"""Every start gets this many iterations, and then the best one goes on. The next three would win 0.08 % of the error at
most, in up to two and a half times the time."""


class ThreeFactorSearch(StoppableSearch):
    """Steps in closed form from every start: a few from each, then on from the best.

    Parameters
    ----------
    problem : Problem
        Of three factors, without inputs.
    control : Control
    rng : numpy.random.Generator
    known : sequence of Found
        Products of three factors to start from besides.
    max_iter : int
        The most iterations from one starting point.

    Attributes
    ----------
    runs : list of Run
        What became of the starts, also when a search was stopped.
    """

    def __init__(
        self,
        problem: Problem,
        control: Control,
        rng: np.random.Generator,
        known: Sequence[Found] = (),
        max_iter: int | None = None,
    ) -> None:
        super().__init__(control)
        self.grid = BlockGrid(problem.matrix, problem.layout.block_size, problem.entry_weights, problem.dtype)
        self.rng, self.known, self.max_iter = rng, known, max_iter or control.max_iter
        self.runs: list[Run] = []

    def run(self) -> None:
        """Search to the end."""
        grid, rng, screening = self.grid, self.rng, min(_SCREENING_ITERATIONS, self.max_iter)
        n_random = self.control.restarts
        if n_random is None:
            n_random = min(_RANDOM_ENTRIES // grid.blocks.size, _MOST_RANDOM)
        self.runs += [Run.begin(grid, start(grid, rng), name) for name, start in CLOSED_FORMS.items()]
        self.runs += [Run.begin(grid, grid.factors(known.vectors), known.start) for known in self.known]
        for place in range(len(self.runs)):
            self._go_on(place, "screening", screening)
        for name, start in (*STARTS.items(), *[("random", _random_start)] * n_random):
            self.control.check()
            if min(run.error for run in self.runs) <= rounding_error(grid.dtype):
                break
            self.runs.append(Run.begin(grid, start(grid, rng), name))
            self._go_on(-1, "screening", screening)
        self.runs = [self._best_run()]
        self._go_on(0, "alternation", self.max_iter)

    @property
    def best(self) -> Found:
        """The product of the best run."""
        run = self._best_run()
        return Found(run.start, self.grid.vectors(run.factors), run.history, run.converged)

    @property
    def has_product(self) -> bool:
        """Whether the closed forms are there."""
        return bool(self.runs)

    def _best_run(self) -> Run:
        return min(self.runs, key=self._error_of_products)

    def _go_on(self, place: int, phase: str, most: int) -> None:
        begun = self.runs[place]
        for run in alternations(self.grid, begun, most, self.control.tol):
            self.runs[place] = run
            self.control.report(run.start, len(run.history) - 1, run.error, phase=phase, n_factors=3, most=most)

    def _error_of_products(self, run: Run) -> float:
        """Return the error that products will have: that of the factors, and what rounding is expected to add."""
        rounding = float(np.finfo(self.grid.products).eps) ** 2 * spread2(run.factors)
        return float(np.sqrt(run.error**2 + rounding / self.grid.norm2)) if self.grid.norm2 else run.error


def _random_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Return diagonals of random phases, or of random signs for a real matrix, and the best `c` for them."""

    def phases(present: NDArray[Any]) -> NDArray[Any]:
        turn = rng.random(present.shape)
        drawn = np.exp(2j * np.pi * turn) if np.iscomplexobj(present) else np.where(turn < 0.5, -1.0, 1.0)
        kept: NDArray[Any] = drawn * present
        return kept

    return with_best_circulant(grid, phases(grid.rows_present), phases(grid.cols_present))


STARTS: dict[str, Callable[[BlockGrid, np.random.Generator], Factors]] = {
    "shift-synchronisation": shift_synchronisation_start
}
"""These come next, as long as the best one is not exact.

On changes of weights synchronisation gains no more than 0.4 % in 40 % of the time. It stays for planted products:
without it 2 of 4 real ones of 64 rows come back and 2 of 4 of 256 rows, with it all; under noise as strong as the
signal 3 and 2 of 4, with it all."""
