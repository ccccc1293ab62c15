"""The search for a chain of any number of factors: starts, exploration, polish, growth from shorter chains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from structmat.fit._control import Control
from structmat.fit._many_factors.adam import anneal
from structmat.fit._many_factors.als import alternating_least_squares
from structmat.fit._many_factors.lbfgs import polish
from structmat.fit._many_factors.levenberg_marquardt import levenberg_marquardt
from structmat.fit._many_factors.matrix_starts import MATRIX_STARTS, Sought
from structmat.fit._many_factors.objective import First, Layout, Objective
from structmat.fit._many_factors.starts import extended, random_orthogonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Candidate", "Plan", "Search", "Solver"]

Solver: TypeAlias = Literal["adam", "lbfgs", "lm", "als"]

# Exploration: chains at once, steps, and by how much the side exceeds this the fewer of both.
_CHAINS, _STEPS, _FULL_SIDE = 4, 1500, 256
# The most of the iterations allowed that exploration takes.
_EXPLORING_SHARE = 0.75
# First steps of random chains, and of chains grown from a shorter one, with the noise that makes those differ.
_RATE, _GROWN_RATE, _GROWN_NOISE = 1.0, 0.1, 0.1
# A shorter chain with identities is a saddle; this much noise leaves it without losing what was found.
_SADDLE_NOISE = 1e-2
# As many explored chains are polished, if their errors are within this factor, and for as many iterations.
_FINALISTS, _RIVAL, _POLISH = 2, 1.003, 1000
# Up to this many parameters the second-order polish costs about as much as the first-order one.
_LM_PARAMETERS, _LM_ITERATIONS = 700, 40
# Solvers that take the matrix itself.
_BY_MATRIX = {"lm": levenberg_marquardt, "als": alternating_least_squares}
# A chain read off the matrix is the planted one with an error of no more than so many units in the last place.
_ROUNDINGS = 200.0
# Starts read off the matrix, and their polish, get this share of the time that is left.
_STARTS_SHARE = 0.4
# Shorter chains get this share of the time that is left.
_GROWTH_SHARE = 0.35
# An exploration at full length of this much work comes first in a fit of limited time; if it takes more than the second
# as a share of the time, growth is left out.
_EARLY_WORK, _QUICK = 0.5, 0.4


class Plan(NamedTuple):
    """What the user may choose of a search."""

    solver: Solver
    """Explore with Adam and polish, or go from every start to a minimum with one of the others."""
    restarts: int | None
    """Random chains; by size if None."""
    growth: bool
    """Whether to search for chains of fewer factors first, and to grow them."""


@dataclass(frozen=True)
class Candidate:
    """A chain and how it was found."""

    start: str
    layout: Layout
    parameters: NDArray[Any]
    error: float
    history: Sequence[float] = ()
    converged: bool = False

    @property
    def vectors(self) -> Any:
        """Diagonals and first columns: (F, n), or a list of them for a `BlockLayout`."""
        return self.layout.to_vectors(self.parameters)


@dataclass
class Search:
    """A search on one matrix of the norm of an isometry of its shape.

    Parameters
    ----------
    fine, coarse : Objective
        The problem in the precision of the answer and in that of the exploration.
    matrix : ndarray or None
        The matrix itself for solvers that take it, which know no weights; None with weights.
    closed_forms : sequence of (str, First, ndarray)
        Short chains that the answer must not be worse than: name, kind of the first factor, vectors.
    swept : bool
        Whether these hold the best chain of three factors found by sweeps, which then stands for all chains of three.
    seed : int
        Chains of F factors are searched for with random numbers of `seed` and F, whatever else is searched.
    plan : Plan
    """

    fine: Objective
    coarse: Objective
    matrix: NDArray[Any] | None
    closed_forms: Sequence[tuple[str, First, Any]]
    swept: bool
    seed: int
    control: Control
    plan: Plan
    found: dict[int, Candidate] = field(default_factory=dict)
    """Chains of fewer factors by their number, shared by the searches for them."""
    read_off: dict[Layout, list[Candidate]] = field(default_factory=dict)
    """Chains from starts that are read off the matrix by their layout, shared as well."""

    def run(self, layout: Layout, given: Sequence[Candidate] = ()) -> Candidate:
        """Return the best chain of a layout.

        It is never worse than a closed form, those `given`, of the same or shorter layouts, or, with growth, shorter
        ones found by this search.
        """
        if (
            self.control.deadline is None
            or layout.n > _FULL_SIDE
            or not (self.plan.growth and self.plan.solver == "adam")
        ):
            return self._run(layout, given)
        # Growth gets lower in the end, but one exploration of the whole chain gets further within the same time.
        begun = time.monotonic()
        early = replace(self, plan=self._plan(growth=False))._run(layout, given, once=True)
        quick = time.monotonic() - begun <= _QUICK * (self.control.deadline - begun)
        return replace(self, plan=self._plan(growth=quick))._run(layout, given, early)

    def _plan(self, *, growth: bool) -> Plan:
        return self.plan._replace(growth=growth)

    def _run(
        self, layout: Layout, given: Sequence[Candidate] = (), early: Candidate | None = None, *, once: bool = False
    ) -> Candidate:
        if layout not in self.read_off:
            self.read_off[layout] = self._read_off(layout)
        exact = [candidate for candidate in self.read_off[layout] if self._to_rounding(candidate)]
        if exact:
            return exact[0]
        shorter = [self._extend(candidate, layout) for candidate in given]
        for name, first, vectors in self.closed_forms:
            if len(vectors) + (first != layout.first) <= layout.n_factors:
                shorter.append(self._candidate(name, layout, extended(layout, vectors, first)))
        if self.plan.growth:
            grown = [replace(self._extend(previous, layout), start="growth") for previous in self._fewer(layout)]
            shorter = grown + shorter
        best = min(shorter if early is None else [early, *shorter], key=_error)
        # The search beyond does not begin from starts that are read off: it finds no less than it does without them.
        found = [best, *self.read_off[layout]]
        if not self._done(best) and (layout.n_factors > 1 or self.fine.weighted):
            found += self._search_beyond(layout, best, once=once)
        return min(found, key=_error)

    def _read_off(self, layout: Layout) -> list[Candidate]:
        """Return the chains of a layout, polished, that the starts read off the matrix; up to the first exact one."""
        part = replace(self, control=self.control.until(self.control.share(_STARTS_SHARE)))
        rng = np.random.default_rng([self.seed, layout.n_factors, 2])
        sought = Sought(self.fine.target, self.fine.inputs, layout)
        found: list[Candidate] = []
        with self.control.interruptible():
            for name, start in MATRIX_STARTS:
                for first, vectors in start(sought, rng, part.control):
                    begun = self._candidate(name, layout, extended(layout, vectors, first))
                    found.append(part._polish(replace(begun, history=(begun.error,))))
                    if self._to_rounding(found[-1]):
                        return found
        return found

    def _fewer(self, layout: Layout) -> Iterator[Candidate]:
        """Search for chains of fewer factors to grow, each number of them once.

        Odd numbers grow from odd ones alone, in half the time. Even ones grow from both, so as not to be worse.
        """
        odd = layout.n_factors % 2
        for length in range(layout.n_factors - 1 - odd, layout.n_factors - 3, -1):
            swept_before = self.swept and length == 3 and layout.first == "diagonal"
            if length < layout.least or swept_before or self.control.stopped():
                continue
            if length not in self.found:
                self.found[length] = self._within_share()._run(replace(layout, n_factors=length))
            yield self.found[length]

    def _within_share(self) -> Search:
        """Return this search with a part of its time."""
        return replace(self, control=self.control.until(self.control.share(_GROWTH_SHARE)))

    def _search_beyond(self, layout: Layout, best: Candidate, *, once: bool) -> list[Candidate]:
        rng = np.random.default_rng([self.seed, layout.n_factors, *[1] * once])
        found: list[Candidate] = []
        work = _EARLY_WORK if once else 1.0
        while True:
            begun = time.monotonic()
            starts = self._random_starts(layout, rng)
            if self.plan.solver == "adam":
                starts = self._explore(layout, starts, best, rng, work)
                starts.sort(key=_error)
                starts = [start for start in starts[:_FINALISTS] if start.error <= _RIVAL * starts[0].error]
            if not starts or min(map(_error, starts)) >= best.error:
                noise = _noise(rng, best.parameters)
                starts.append(replace(best, parameters=best.parameters + _SADDLE_NOISE * noise, history=(best.error,)))
            found += [self._polish(start) for start in starts]
            leader = min([best, *found], key=_error)
            if self.plan.solver == "adam" and leader.parameters.size <= _LM_PARAMETERS:
                found.append(self._by_matrix("lm", leader, _LM_ITERATIONS))
                leader = min(leader, found[-1], key=_error)
            best = leader
            if once or self.control.deadline is None or self.control.stopped() or self._done(best):
                return found
            if self.control.deadline - time.monotonic() < 0.2 * (time.monotonic() - begun):
                self.control.expire()  # too little time for another round
                return found
            work *= 2.0

    def _random_starts(self, layout: Layout, rng: np.random.Generator) -> list[Candidate]:
        count = self.plan.restarts
        if count is None:
            count = max(1, min(_CHAINS, _CHAINS * _FULL_SIDE // layout.n))
        chains = random_orthogonal(layout, count, rng, self.coarse.dtype)
        return [Candidate("random", layout, chain, np.inf) for chain in chains]

    def _explore(
        self,
        layout: Layout,
        starts: list[Candidate],
        best: Candidate,
        rng: np.random.Generator,
        work: float,
    ) -> list[Candidate]:
        """Return the starts, and one grown from the best so far, after large annealed steps."""
        grown = best.parameters + _GROWN_NOISE * _noise(rng, best.parameters)
        starts = [*starts, replace(best, parameters=grown)]
        chains = np.stack([start.parameters for start in starts]).astype(self.coarse.dtype)
        rates = np.array([_RATE] * (len(starts) - 1) + [_GROWN_RATE])
        planned = min(_STEPS, _STEPS * _FULL_SIDE // layout.n)
        steps = max(1, min(int(work * planned), int(_EXPLORING_SHARE * self.control.max_iter)))
        errors: list[NDArray[np.float64]] = []

        def report(step: int, now: NDArray[np.float64]) -> None:
            errors.append(now)
            self.control.report("random", step, float(now.min()))

        with self.control.interruptible(), np.errstate(over="ignore", invalid="ignore"):
            # A fifth of the time is left for the polish.
            anneal(self.coarse.of(layout), chains, rates, steps, deadline=self.control.share(0.8), report=report)
        histories = np.array(errors).reshape(len(errors), len(starts)).T
        return [
            replace(self._candidate(start.start, layout, chain.astype(self.fine.dtype)), history=history.tolist())
            for start, chain, history in zip(starts, chains, histories, strict=True)
        ]

    def _polish(self, start: Candidate) -> Candidate:
        if self.plan.solver in _BY_MATRIX:
            return self._by_matrix(self.plan.solver, start, self.control.max_iter)
        last, errors, converged = start.parameters.astype(self.fine.dtype), list(start.history), False
        room = min(_POLISH, _POLISH * _FULL_SIDE // start.layout.n, self.control.max_iter - len(errors))
        if self.control.stopped() or room < 1:
            return replace(self._candidate(start.start, start.layout, last), history=errors)

        def report(error: float, parameters: NDArray[Any]) -> None:
            nonlocal last
            last = parameters
            errors.append(error)
            self.control.report(start.start, len(errors), error)

        objective = self.fine.of(start.layout)
        with self.control.interruptible(), np.errstate(over="ignore", invalid="ignore"):
            converged = polish(
                objective, last, max_iter=room, tol=self.control.tol, deadline=self.control.deadline, report=report
            )
        return replace(self._candidate(start.start, start.layout, last), history=errors, converged=converged)

    def _by_matrix(self, solver: str, start: Candidate, max_iter: int) -> Candidate:
        before = len(start.history)
        max_iter = min(max_iter, self.control.max_iter - before)
        if self.matrix is None or self._done(start) or max_iter < 1:
            return start
        double = np.result_type(self.fine.dtype, np.float64)
        try:
            vectors, history, converged = _BY_MATRIX[solver](
                self.matrix.astype(double),
                list(start.vectors.astype(double)),
                start.layout.first,
                max_iter=max_iter,
                tol=self.control.tol,
                deadline=self.control.deadline,
                report=lambda k, error: self.control.report(start.start, before + k, error),
            )
        except KeyboardInterrupt:
            self.control.interrupt.set()
            return start
        parameters = start.layout.from_vectors(np.array(vectors))
        return replace(
            self._candidate(start.start, start.layout, parameters),
            history=[*start.history, *history[1:]],
            converged=converged,
        )

    def _candidate(self, name: str, layout: Layout, parameters: NDArray[Any]) -> Candidate:
        parameters = parameters.astype(self.fine.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            error = self.fine.of(layout).error(parameters)
        return Candidate(name, layout, parameters, error if np.isfinite(error) else np.inf)

    def _extend(self, candidate: Candidate, layout: Layout) -> Candidate:
        first = candidate.layout.first
        return self._candidate(candidate.start, layout, extended(layout, candidate.vectors, first))

    def _done(self, candidate: Candidate) -> bool:
        return self.control.stopped() or self._exact(candidate)

    def _exact(self, candidate: Candidate) -> bool:
        return candidate.error <= 4.0 * float(np.finfo(self.fine.dtype).eps)

    def _to_rounding(self, candidate: Candidate) -> bool:
        return candidate.error <= _ROUNDINGS * float(np.finfo(self.fine.dtype).eps)


def _error(candidate: Candidate) -> float:
    return candidate.error


def _noise(rng: np.random.Generator, like: NDArray[Any]) -> NDArray[Any]:
    real = like.view(like.real.dtype)
    return rng.standard_normal(real.shape).astype(real.dtype).view(like.dtype)
