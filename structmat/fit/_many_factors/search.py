"""The search for a product of any number of factors: starts, exploration, polish, growth from fewer factors.

A search is a sequence of stages. What a stage does depends on the matrix, the layout, the seed and the stages before
it, never on the time: a limit only says where the sequence ends, and the best of all that was found is returned. So a
longer limit goes on where a shorter one ended, and is never worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._many_factors.parameters import extended, mean_side
from structmat.fit._many_factors.random_starts import random_orthogonal
from structmat.fit._many_factors.runs import Candidate, Runs
from structmat.fit._many_factors.solver_list import MATRIX_SOLVERS
from structmat.fit._many_factors.start_list import CLOSED_STARTS, MATRIX_STARTS, MatrixStart, Sought

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._start_product import KnownProduct
    from structmat.operators import CDDLayout

__all__ = ["Search", "SearchOptions"]

# Without a limit of time: chains, steps, iterations of a polish; by how much the side exceeds this, the fewer of all.
_CHAINS, _STEPS, _POLISH, _FULL_SIDE = 4, 1500, 1000, 256
# With one, steps and iterations of the first exploration. Each later one makes twice as much: twice the steps or, as
# long as there are fewer, twice the chains in turn. Longer runs gain more than more runs.
_FIRST_STEPS, _FIRST_POLISH = 300, 50
# So many come before shorter chains are grown, and on small matrices before starts are read off.
_ALONE = 2
# Up to this side transforms of several chains together cost less than one after the other.
_TOGETHER_SIDE = 96
# The most of the iterations allowed that exploration takes.
_EXPLORING_SHARE = 0.75
# First steps of random chains, over the root of the number of factors, since what steps do to the product adds up so,
# and less by the root of two for real and imaginary parts; of chains grown from a shorter one, and the noise that makes
# those differ.
_RATE, _GROWN_RATE, _GROWN_NOISE = 2.0, 0.1, 0.1
# A shorter chain with identities is a saddle; this much noise leaves it without losing what was found.
_SADDLE_NOISE = 1e-2
# As many explored chains are polished, if their errors are within this factor.
_FINALISTS, _CLOSE = 2, 1.003
# Up to this many parameters the second-order polish costs about as much as the first-order one.
_LM_PARAMETERS, _LM_ITERATIONS = 700, 40


class SearchOptions(NamedTuple):
    """What the user may choose of a search."""

    solver: str
    """Explore with "adam" and polish, or go from every start to a minimum by "lbfgs" or one of `MATRIX_SOLVERS`."""
    restarts: int | None
    """Random chains; by size if None."""
    growth: bool
    """Whether to search for chains of fewer factors as well, and to grow them."""


class _Stage(NamedTuple):
    """A part of the search."""

    explore: Callable[[Candidate], Iterable[Candidate]]
    """From the best chain so far to those found."""
    grows: bool = False
    """Whether chains of fewer factors come first: as far as this stage, or the one before if time is limited, so that
    all of them together take no more than the chain itself."""
    reads: bool = False
    """Whether what is found is read off the matrix."""
    polish: int = 0
    """Iterations of the best chain that was read off before."""


class _Sequence(NamedTuple):
    """A search for fewer factors as far as it has gone."""

    rest: Iterator[Candidate]
    found: list[Candidate]


@dataclass
class Search:
    """A search on one matrix of the norm of an isometry of its shape.

    Parameters
    ----------
    runs : Runs
        The problem, and the solvers on it.
    closed_forms : sequence of KnownProduct
        Short products that the answer must not be worse than.
    of_three : callable
        Returns more of them, which take time: the best of three factors by alternating least squares.
    has_best_of_three : bool
        Whether these stand for all of three factors.
    seed : int
        Chains of F factors are searched for with random numbers of `seed` and F, whatever else is searched.
    options : SearchOptions
    """

    runs: Runs
    closed_forms: Sequence[KnownProduct]
    of_three: Callable[[], Sequence[KnownProduct]]
    has_best_of_three: bool
    seed: int
    options: SearchOptions
    fewer: dict[int, _Sequence] = field(default_factory=dict)
    """Searches for fewer factors by their number, shared by those for more."""
    lengthened: dict[tuple[str, CDDLayout], Candidate] = field(default_factory=dict)
    """Chains that were grown from a start of fewer factors that is read off the matrix, by its name and the layout."""

    @property
    def _limited(self) -> bool:
        return self.runs.control.deadline is not None

    def rounds(
        self, layout: CDDLayout, known: Iterable[Candidate] = (), beside: Iterable[Candidate] = ()
    ) -> Iterator[Candidate]:
        """Yield the best chain of a layout after every stage, without end if time is limited.

        It is never worse than a closed form, those `known`, of the same or shorter layouts, the chains `beside`,
        which are a stage ahead, or, with growth, shorter ones found by this search.
        """
        beside = iter(beside)
        best = min(
            [self.runs.extend(candidate, layout) for candidate in (*known, *islice(beside, 1))]
            + self._products(layout, self.closed_forms),
            key=_error,
        )
        # The search beyond does not begin from starts that are read off: it finds no less than it does without them.
        read = [self.runs.extend(begun, layout) for start in CLOSED_STARTS for begun in self._begun(layout, start)]
        for number, stage in enumerate(self._stages(layout), 1):
            yield min([best, *read], key=_error)
            if self.runs.done(min([best, *read], key=_error)):
                return
            others = [self.runs.extend(candidate, layout) for candidate in islice(beside, 1)]
            if stage.grows and self.options.growth:
                others += [
                    replace(self.runs.extend(candidate, layout), start="growth")
                    for candidate in self._fewer(layout, number - self._limited)
                ]
            best = min([best, *others], key=_error)
            if stage.reads:
                read = [self.runs.planted(found) for found in sorted([*read, *stage.explore(best)], key=_error)[:1]]
                if any(found.exact for found in read):
                    break
            elif not self.runs.done(best):
                best = min([best, *stage.explore(best)], key=_error)
                if stage.polish and read and read[0].error <= _CLOSE * best.error:
                    read = [min(read[0], self._polish(read[0], stage.polish), key=_error)]
        yield min([best, *read], key=_error)

    def _stages(self, layout: CDDLayout) -> Iterator[_Stage]:
        """Yield the stages of a layout in their order."""
        if layout.n_factors == 1 and not self.runs.fine.weighted:
            return
        read_off = [_Stage(lambda _best: self._products(layout, self.of_three()))]
        read_off += [_Stage(partial(self._read_off, layout, start), reads=True) for start in MATRIX_STARTS]
        if not self._limited:
            yield from read_off
            yield _Stage(partial(self._search_beyond, layout, None), grows=True)
            return
        # The first explorations of a small matrix take less time than starts that are read off.
        small = mean_side(layout) <= _FULL_SIDE
        *quick, last = read_off
        if not small:
            yield from quick
        for number in count():
            polish = self._most_polish(layout, number) if number else 0
            yield _Stage(partial(self._search_beyond, layout, number), grows=number >= _ALONE, polish=polish)
            if number == _ALONE - 1 and small:
                yield from quick
            if number == _ALONE:
                yield last

    def _products(self, layout: CDDLayout, products: Iterable[KnownProduct]) -> list[Candidate]:
        """Return those that are no longer than a layout as chains of it."""
        return [
            self.runs.candidate(name, layout, extended(layout, vectors, first))
            for name, first, vectors in products
            if len(vectors) + (first != layout.first) <= layout.n_factors
        ]

    def _fewer(self, layout: CDDLayout, number: int) -> Iterator[Candidate]:
        """Search for chains of fewer factors to grow, each number of them as far as stage `number`.

        Odd numbers grow from odd ones alone, in half the time. Even ones grow from both, so as not to be worse.
        """
        odd = layout.n_factors % 2
        for length in range(layout.n_factors - 1 - odd, layout.n_factors - 3, -1):
            found_before = self.has_best_of_three and length == 3 and layout.first == "diagonal"
            if length < layout.fewest_factors or found_before:
                continue
            if length not in self.fewer:
                self.fewer[length] = _Sequence(self.rounds(replace(layout, n_factors=length)), [])
            rest, found = self.fewer[length]
            while len(found) <= number:
                found += [*islice(rest, 1)] or found[-1:]
            yield found[number]

    def _read_off(self, layout: CDDLayout, named: tuple[str, MatrixStart], _best: Candidate) -> Iterator[Candidate]:
        """Yield chains that a start reads off the matrix, polished."""
        for begun in self._begun(layout, named):
            yield self._lengthened(begun, layout)

    def _begun(self, layout: CDDLayout, named: tuple[str, MatrixStart]) -> Iterator[Candidate]:
        """Yield chains that a start reads off the matrix, with as many factors as it has and those of a layout."""
        (name, start), fine = named, self.runs.fine
        rng = np.random.default_rng([self.seed, layout.n_factors, 2, *name.encode()])
        for first, vectors in start(Sought(fine.target, fine.inputs, layout), rng, self.runs.control):
            length = len(vectors) + (first != layout.first)
            own = replace(layout, n_factors=length + (layout.n_factors - length) % 2)
            yield self.runs.candidate(name, own, extended(own, vectors, first))

    def _lengthened(self, begun: Candidate, layout: CDDLayout) -> Candidate:
        """Return a chain that is polished, given two more factors, polished again, until it has all of them."""
        name, own = begun.start, begun.layout
        most = self._most_polish(layout, 1)
        if (name, own) not in self.lengthened:
            self.lengthened[name, own] = self._polish(replace(begun, history=(begun.error,)), most)
        while own != layout:
            shorter, own = own, replace(own, n_factors=own.n_factors + 2)
            if (name, own) not in self.lengthened:
                # Only the entries of the new circulant off its diagonal have a gradient, which is enough to leave from.
                begun = self.runs.extend(self.lengthened[name, shorter], own)
                self.lengthened[name, own] = self._polish(replace(begun, history=(begun.error,)), most)
        return self.lengthened[name, layout]

    def _search_beyond(self, layout: CDDLayout, number: int | None, best: Candidate) -> Iterator[Candidate]:
        """Yield what is found by exploration, the first, second, ... one of limited time or the one without a limit."""
        rng = np.random.default_rng([self.seed, layout.n_factors, *([] if number is None else [1, number])])
        found = self._random_starts(layout, rng, number)
        if self.options.solver == "adam":
            found = self._explored(layout, found, best, rng, number)
            yield from found
            found = sorted(found, key=_error)[: _FINALISTS if number is None else 1]
            found = [start for start in found if start.error <= _CLOSE * found[0].error]
        if not found or min(map(_error, found)) >= best.error:
            noise = _noise(rng, best.parameters)
            found.append(replace(best, parameters=best.parameters + _SADDLE_NOISE * noise, history=(best.error,)))
        for start in found:
            polished = self._polish(start, self._most_polish(layout, number))
            best = min(best, polished, key=_error)
            yield polished
        if self.options.solver == "adam" and number not in range(_ALONE) and best.parameters.size <= _LM_PARAMETERS:
            yield self.runs.by_matrix("lm", best, _LM_ITERATIONS)

    def _explored(
        self, layout: CDDLayout, starts: list[Candidate], best: Candidate, rng: np.random.Generator, number: int | None
    ) -> list[Candidate]:
        """Return the starts, and but for the first times one grown from the best so far, after large annealed steps."""
        rates = [_RATE / np.sqrt(layout.n_factors * (1 + np.iscomplexobj(best.parameters)))] * len(starts)
        if number not in range(_ALONE):
            grown = best.parameters + _GROWN_NOISE * _noise(rng, best.parameters)
            starts, rates = [*starts, replace(best, parameters=grown)], [*rates, _GROWN_RATE]
        steps = _scaled(_STEPS, layout) if number is None else _FIRST_STEPS << self._doublings(layout, number)[1]
        steps = max(1, min(steps, int(_EXPLORING_SHARE * self.runs.control.max_iter)))
        together = max(1, len(starts)) if mean_side(layout) <= _TOGETHER_SIDE else 1
        found: list[Candidate] = []
        for k in range(0, len(starts), together):
            if not self.runs.control.stopped():
                found += self.runs.explore(starts[k : k + together], rates[k : k + together], steps)
        return found

    def _doublings(self, layout: CDDLayout, number: int) -> tuple[int, int]:
        """How often an exploration has twice the chains and twice the steps of the first one."""
        of_chains = min(number // 2, max(_scaled(_CHAINS, layout), 1).bit_length() - 1)
        return of_chains, number - of_chains

    def _random_starts(self, layout: CDDLayout, rng: np.random.Generator, number: int | None) -> list[Candidate]:
        chains = self.options.restarts
        if chains is None:
            most = max(1, _scaled(_CHAINS, layout))
            chains = most if number is None else 1 << self._doublings(layout, number)[0]
        return [
            Candidate("random", layout, chain, np.inf)
            for chain in random_orthogonal(layout, chains, rng, self.runs.coarse.dtype)
        ]

    def _polish(self, start: Candidate, most: int) -> Candidate:
        if self.options.solver in MATRIX_SOLVERS:
            return self.runs.by_matrix(self.options.solver, start, self.runs.control.max_iter)
        return self.runs.polish(start, most)

    def _most_polish(self, layout: CDDLayout, number: int | None) -> int:
        """Iterations of a polish."""
        most = _scaled(_POLISH, layout)
        return most if number is None or not self._limited else min(_FIRST_POLISH << number, most)


def _scaled(work: int, layout: CDDLayout) -> int:
    """Return so much work, less on a large matrix."""
    return min(work, work * _FULL_SIDE // mean_side(layout))


def _error(candidate: Candidate) -> float:
    return candidate.error


def _noise(rng: np.random.Generator, like: NDArray[Any]) -> NDArray[Any]:
    real = like.view(like.real.dtype)
    return rng.standard_normal(real.shape).astype(real.dtype).view(like.dtype)
