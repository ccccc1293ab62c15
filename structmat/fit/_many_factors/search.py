"""The search for a product of any number of factors: starts, exploration, polish, growth from fewer factors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._control import Control
from structmat.fit._many_factors.adam import anneal
from structmat.fit._many_factors.descent import descend
from structmat.fit._many_factors.lbfgs import polish
from structmat.fit._many_factors.parameters import extended, from_vectors, mean_side, to_vectors
from structmat.fit._many_factors.random_starts import random_orthogonal
from structmat.fit._many_factors.solver_list import MATRIX_SOLVERS
from structmat.fit._many_factors.start_list import MATRIX_STARTS, Sought

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.objective import Objective
    from structmat.fit._start_product import KnownProduct
    from structmat.operators import CDDLayout, FactorKind

__all__ = ["Candidate", "Search", "SearchOptions"]

# Exploration: chains at once, steps, and by how much the side exceeds this the fewer of both.
_CHAINS, _STEPS, _FULL_SIDE = 4, 1500, 256
# The most of the iterations allowed that exploration takes.
_EXPLORING_SHARE = 0.75
# First steps of random chains, and of chains grown from a shorter one, with the noise that makes those differ.
_RATE, _GROWN_RATE, _GROWN_NOISE = 1.0, 0.1, 0.1
# A shorter chain with identities is a saddle; this much noise leaves it without losing what was found.
_SADDLE_NOISE = 1e-2
# As many explored chains are polished, if their errors are within this factor, and for as many iterations.
_FINALISTS, _CLOSE, _POLISH = 2, 1.003, 1000
# A polish returns to the last iterate with accurate products, which are looked for once in so many iterations.
_CHECKED = 50
# Up to this many parameters the second-order polish costs about as much as the first-order one.
_LM_PARAMETERS, _LM_ITERATIONS = 700, 40
# A chain read off the matrix is the planted one with an error of no more than so many units in the last place.
_ROUNDINGS = 200.0
# Starts read off the matrix, and their polish, get this share of the time that is left. Shorter ones are grown by two
# factors at a time, each with a share of its own, so that more factors are not worse for want of time.
_STARTS_SHARE, _LONGER_SHARE = 0.4, 0.15
# Shorter chains get this share of the time that is left.
_GROWTH_SHARE = 0.35
# An exploration at full length of this much work comes first in a fit of limited time; if it takes more than the second
# as a share of the time, growth is left out.
_EARLY_WORK, _QUICK = 0.5, 0.4


class SearchOptions(NamedTuple):
    """What the user may choose of a search."""

    solver: str
    """Explore with "adam" and polish, or go from every start to a minimum by "lbfgs" or one of `MATRIX_SOLVERS`."""
    restarts: int | None
    """Random chains; by size if None."""
    growth: bool
    """Whether to search for chains of fewer factors first, and to grow them."""


@dataclass(frozen=True)
class Candidate:
    """A chain and how it was found."""

    start: str
    layout: CDDLayout
    parameters: NDArray[Any]
    error: float
    history: Sequence[float] = ()
    converged: bool = False

    @property
    def vectors(self) -> list[NDArray[Any]]:
        """The vectors of the product."""
        return to_vectors(self.layout, self.parameters)


@dataclass
class Search:
    """A search on one matrix of the norm of an isometry of its shape.

    Parameters
    ----------
    fine, coarse : Objective
        The problem in the precision of the answer and in that of the exploration.
    matrix : ndarray or None
        The matrix itself for solvers that take it, which know no weights; None with weights.
    closed_forms : sequence of KnownProduct
        Short products that the answer must not be worse than.
    has_best_of_three : bool
        Whether these hold the best of three factors by alternating least squares, which stands for all of three then.
    seed : int
        Chains of F factors are searched for with random numbers of `seed` and F, whatever else is searched.
    control : Control
    options : SearchOptions
    """

    fine: Objective
    coarse: Objective
    matrix: NDArray[Any] | None
    closed_forms: Sequence[KnownProduct]
    has_best_of_three: bool
    seed: int
    control: Control
    options: SearchOptions
    found: dict[int, Candidate] = field(default_factory=dict)
    """Chains of fewer factors by their number, shared by the searches for them."""
    read_off: dict[CDDLayout, list[Candidate]] = field(default_factory=dict)
    """Chains from starts that are read off the matrix by their layout, shared as well."""
    lengthened: dict[tuple[str, CDDLayout], Candidate] = field(default_factory=dict)
    """Chains that were grown from such a start of fewer factors, by its name and the layout, shared as well."""

    def run(self, layout: CDDLayout, known: Sequence[Candidate] = ()) -> Candidate:
        """Return the best chain of a layout.

        It is never worse than a closed form, those `known`, of the same or shorter layouts, or, with growth, shorter
        ones found by this search.
        """
        if (
            self.control.deadline is None
            or mean_side(layout) > _FULL_SIDE
            or not (self.options.growth and self.options.solver == "adam")
        ):
            return self._run(layout, known)
        # Growth gets lower in the end, but one exploration of the whole chain gets further within the same time.
        begun = time.monotonic()
        early = replace(self, options=self.options._replace(growth=False))._run(layout, known, once=True)
        quick = time.monotonic() - begun <= _QUICK * (self.control.deadline - begun)
        return replace(self, options=self.options._replace(growth=quick))._run(layout, known, early)

    def _run(
        self, layout: CDDLayout, known: Sequence[Candidate] = (), early: Candidate | None = None, *, once: bool = False
    ) -> Candidate:
        if layout not in self.read_off:
            self.read_off[layout] = self._read_off(layout)
        exact = [candidate for candidate in self.read_off[layout] if self._to_rounding(candidate)]
        if exact:
            return exact[0]
        shorter = [self._extend(candidate, layout) for candidate in known]
        for name, first, vectors in self.closed_forms:
            if len(vectors) + (first != layout.first) <= layout.n_factors:
                shorter.append(self._candidate(name, layout, extended(layout, vectors, first)))
        if self.options.growth:
            grown = [replace(self._extend(previous, layout), start="growth") for previous in self._fewer(layout)]
            shorter = grown + shorter
        best = min(shorter if early is None else [early, *shorter], key=_error)
        # The search beyond does not begin from starts that are read off: it finds no less than it does without them.
        found = [best, *self.read_off[layout]]
        if not self._done(best) and (layout.n_factors > 1 or self.fine.weighted):
            found += self._search_beyond(layout, best, once=once)
        return min(found, key=_error)

    def _read_off(self, layout: CDDLayout) -> list[Candidate]:
        """Return the chains of a layout, polished, that the starts read off the matrix; up to the first exact one."""
        control = self.control.until(self.control.share(_STARTS_SHARE))
        rng = np.random.default_rng([self.seed, layout.n_factors, 2])
        sought = Sought(self.fine.target, self.fine.inputs, layout)
        found: list[Candidate] = []
        with self.control.interruptible():
            for name, start in MATRIX_STARTS:
                for first, vectors in start(sought, rng, control):
                    found.append(self._lengthened(name, layout, first, vectors, control.deadline))
                    if self._to_rounding(found[-1]):
                        return found
        return found

    def _lengthened(
        self, name: str, layout: CDDLayout, first: FactorKind, vectors: Sequence[NDArray[Any]], deadline: float | None
    ) -> Candidate:
        """Return a chain that is polished, given two more factors, polished again, until it has all of them."""
        length = len(vectors) + (first != layout.first)
        length += (layout.n_factors - length) % 2
        own = replace(layout, n_factors=length)
        if (name, own) not in self.lengthened:
            begun = self._candidate(name, own, extended(own, vectors, first))
            part = replace(self, control=self.control.until(deadline))
            self.lengthened[name, own] = part._polish(replace(begun, history=(begun.error,)))
        while own != layout:
            shorter, own = own, replace(own, n_factors=own.n_factors + 2)
            if (name, own) not in self.lengthened:
                # Only the entries of the new circulant off its diagonal have a gradient, which is enough to leave from.
                begun = self._extend(self.lengthened[name, shorter], own)
                part = replace(self, control=self.control.until(self.control.share(_LONGER_SHARE)))
                self.lengthened[name, own] = part._polish(replace(begun, history=(begun.error,)))
        return self.lengthened[name, layout]

    def _fewer(self, layout: CDDLayout) -> Iterator[Candidate]:
        """Search for chains of fewer factors to grow, each number of them once.

        Odd numbers grow from odd ones alone, in half the time. Even ones grow from both, so as not to be worse.
        """
        odd = layout.n_factors % 2
        for length in range(layout.n_factors - 1 - odd, layout.n_factors - 3, -1):
            found_before = self.has_best_of_three and length == 3 and layout.first == "diagonal"
            if length < layout.fewest_factors or found_before or self.control.stopped():
                continue
            if length not in self.found:
                self.found[length] = self._within_share()._run(replace(layout, n_factors=length))
            yield self.found[length]

    def _within_share(self) -> Search:
        """Return this search with a part of its time."""
        return replace(self, control=self.control.until(self.control.share(_GROWTH_SHARE)))

    def _search_beyond(self, layout: CDDLayout, best: Candidate, *, once: bool) -> list[Candidate]:
        rng = np.random.default_rng([self.seed, layout.n_factors, *[1] * once])
        found: list[Candidate] = []
        work = _EARLY_WORK if once else 1.0
        while True:
            begun = time.monotonic()
            starts = self._random_starts(layout, rng)
            if self.options.solver == "adam":
                starts = self._explore(layout, starts, best, rng, work)
                starts.sort(key=_error)
                starts = [start for start in starts[:_FINALISTS] if start.error <= _CLOSE * starts[0].error]
            if not starts or min(map(_error, starts)) >= best.error:
                noise = _noise(rng, best.parameters)
                starts.append(replace(best, parameters=best.parameters + _SADDLE_NOISE * noise, history=(best.error,)))
            found += [self._polish(start) for start in starts]
            leader = min([best, *found], key=_error)
            if self.options.solver == "adam" and leader.parameters.size <= _LM_PARAMETERS:
                found.append(self._by_matrix("lm", leader, _LM_ITERATIONS))
                leader = min(leader, found[-1], key=_error)
            best = leader
            if once or self.control.deadline is None or self.control.stopped() or self._done(best):
                return found
            if self.control.deadline - time.monotonic() < 0.2 * (time.monotonic() - begun):
                self.control.expire()  # too little time for another round
                return found
            work *= 2.0

    def _random_starts(self, layout: CDDLayout, rng: np.random.Generator) -> list[Candidate]:
        count = self.options.restarts
        if count is None:
            count = max(1, min(_CHAINS, _CHAINS * _FULL_SIDE // mean_side(layout)))
        chains = random_orthogonal(layout, count, rng, self.coarse.dtype)
        return [Candidate("random", layout, chain, np.inf) for chain in chains]

    def _explore(
        self,
        layout: CDDLayout,
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
        planned = min(_STEPS, _STEPS * _FULL_SIDE // mean_side(layout))
        steps = max(1, min(int(work * planned), int(_EXPLORING_SHARE * self.control.max_iter)))
        errors: list[NDArray[np.float64]] = []

        def report(step: int, now: NDArray[np.float64]) -> None:
            errors.append(now)
            self.control.report(
                "random", step, float(now.min()), phase="exploration", n_factors=layout.n_factors, most=steps
            )
            self.control.leave_if_interrupted()

        with self.control.interruptible(), np.errstate(over="ignore", invalid="ignore"):
            # A fifth of the time is left for the polish.
            anneal(self.coarse.of(layout), chains, rates, steps, deadline=self.control.share(0.8), report=report)
        histories = np.array(errors).reshape(len(errors), len(starts)).T
        return [
            replace(self._candidate(start.start, layout, chain.astype(self.fine.dtype)), history=history.tolist())
            for start, chain, history in zip(starts, chains, histories, strict=True)
        ]

    def _polish(self, start: Candidate) -> Candidate:
        if self.options.solver in MATRIX_SOLVERS:
            return self._by_matrix(self.options.solver, start, self.control.max_iter)
        last, errors, converged = start.parameters.astype(self.fine.dtype), list(start.history), False
        room = min(_POLISH, _POLISH * _FULL_SIDE // mean_side(start.layout), self.control.max_iter - len(errors))
        if self.control.stopped() or room < 1:
            return replace(self._candidate(start.start, start.layout, last), history=errors)

        objective = self.fine.of(start.layout)
        kept = last
        most = len(errors) + room
        allowed = objective.allowed_spread(last)

        def report(error: float, parameters: NDArray[Any]) -> None:
            nonlocal last, kept
            last = parameters
            errors.append(error)
            if len(errors) % _CHECKED == 0 and objective.spread(last) <= allowed:
                kept = last
            self._report_polish(start, len(errors), most, error)
            self.control.leave_if_interrupted()

        with self.control.interruptible(), np.errstate(over="ignore", invalid="ignore"):
            converged = polish(
                objective, last, max_iter=room, tol=self.control.tol, deadline=self.control.deadline, report=report
            )
        if objective.spread(last) > allowed:
            last = kept
        return replace(self._candidate(start.start, start.layout, last), history=errors, converged=converged)

    def _by_matrix(self, solver: str, start: Candidate, max_iter: int) -> Candidate:
        before = len(start.history)
        max_iter = min(max_iter, self.control.max_iter - before)
        if self.matrix is None or self._done(start) or max_iter < 1:
            return start
        double = np.result_type(self.fine.dtype, np.float64)

        def report(iteration: int, error: float) -> None:
            self._report_polish(start, before + iteration, before + max_iter, error)
            self.control.leave_if_interrupted()

        try:
            vectors, history, converged = descend(
                MATRIX_SOLVERS[solver],
                self.matrix.astype(double),
                [vector.astype(double).reshape(-1) for vector in start.vectors],
                start.layout.first,
                max_iter=max_iter,
                tol=self.control.tol,
                deadline=self.control.deadline,
                report=report,
            )
        except KeyboardInterrupt:
            self.control.interrupt.set()
            return start
        shaped = [vector.reshape(shape) for vector, shape in zip(vectors, start.layout.vector_shapes, strict=True)]
        parameters = from_vectors(start.layout, shaped)
        objective = self.fine.of(start.layout)
        if objective.spread(parameters) > objective.allowed_spread(start.parameters):
            return start
        return replace(
            self._candidate(start.start, start.layout, parameters),
            history=[*start.history, *history[1:]],
            converged=converged,
        )

    def _report_polish(self, start: Candidate, iteration: int, most: int, error: float) -> None:
        n_factors = start.layout.n_factors
        self.control.report(start.start, iteration, error, phase="polish", n_factors=n_factors, most=most)

    def _candidate(self, name: str, layout: CDDLayout, parameters: NDArray[Any]) -> Candidate:
        parameters = parameters.astype(self.fine.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            error = self.fine.of(layout).error(parameters)
        return Candidate(name, layout, parameters, error if np.isfinite(error) else np.inf)

    def _extend(self, candidate: Candidate, layout: CDDLayout) -> Candidate:
        first = candidate.layout.first
        return self._candidate(candidate.start, layout, extended(layout, candidate.vectors, first))

    def _done(self, candidate: Candidate) -> bool:
        return self.control.stopped() or candidate.error <= 4.0 * float(np.finfo(self.fine.dtype).eps)

    def _to_rounding(self, candidate: Candidate) -> bool:
        return candidate.error <= _ROUNDINGS * float(np.finfo(self.fine.dtype).eps)


def _error(candidate: Candidate) -> float:
    return candidate.error


def _noise(rng: np.random.Generator, like: NDArray[Any]) -> NDArray[Any]:
    real = like.view(like.real.dtype)
    return rng.standard_normal(real.shape).astype(real.dtype).view(like.dtype)
