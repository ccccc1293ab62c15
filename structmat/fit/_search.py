"""The search for a product of any number of factors: closed forms, starts read off the matrix, exploration, polish.

Where many local minima lie within one per cent of each other, large annealed steps decide how good the one is that a
descent ends in: chains of such steps start from random orthogonal products, and L-BFGS polishes the best of them.

Where the products have as many numbers as the matrix, or more, some of them may be the matrix itself. Then steps of
second order on all factors at once come first, from random products, and take the place of L-BFGS.

A search is a sequence of rounds. What a round does depends on the matrix, the layout, the seed and the rounds before
it, never on the time: a limit only says where the sequence ends. So a longer limit goes on where a shorter one ended,
and is never worse.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._annealing import annealing
from structmat.fit._block_grid import BlockGrid
from structmat.fit._closed_forms import CLOSED_FORMS
from structmat.fit._control import StoppableSearch
from structmat.fit._lbfgs import lbfgs
from structmat.fit._low_rank_start import low_rank_start
from structmat.fit._matrices import truncated_svd
from structmat.fit._objective import Objective
from structmat.fit._peeling_start import peeling_start
from structmat.fit._problem import Found
from structmat.fit._product_derivatives import second_order_steps
from structmat.fit._three_factor_search import ThreeFactorSearch
from structmat.operators import Circulant

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from structmat.fit._control import Control
    from structmat.fit._problem import Problem

__all__ = ["GAINS_LITTLE", "OF_A_START", "ROUNDINGS_AT_FIRST", "Candidate", "Search"]

OF_A_START = 100
"""Where time is limited, a fit that only gives a start to another one makes no more iterations than this. A share of
the time in place of a number would make all that follows depend on the clock."""

_DOUBLE_SIDE = 512
"""A matrix of single precision with more entries than a square of this side is searched in single precision, which
takes half of the time; smaller ones are searched in double precision, for the digits."""

_CHAINS = 1024
"""Without a limit of time a matrix of side n is explored by this number over n random chains: small matrices have many
local minima, and their chains are cheap."""

_MOST_CHAINS = 16
"""There are never more chains than this."""

_STEPS = 1500
"""The steps of a chain without a limit of time."""

_POLISH = 1000
"""The most iterations of a polish."""

_CLOSE = 0.05
"""An explored product may win by its polish if it is within this share of the best that was read off, which has had a
short polish already: of rank three and noise, seven factors, n = 64, 0.1664 became 0.1549 beside 0.1605."""

_GAIN = 1e-3
"""Without a limit of time a polish ends where `_GAIN_OF` iterations have lowered the error by less than this share of
it. Nine factors of a real weight change of 384 rows: 0.5661 after 200 iterations of 8 ms, 0.5651 after 666."""

_GAIN_OF = 100
"""The iterations whose gain is looked at: single ones may gain little on the way."""

GAINS_LITTLE = "ended where iterations gained little; a time limit lets the search go on"
"""What is said of a fit that ended there."""

_FULL_SIDE = 256
"""Up to this side a search makes all of its steps. Larger matrices get fewer in proportion to their side, since every
step costs more."""

_FIRST_STEPS = 300
"""The steps of the first round under a limit of time. Each later round makes twice as much: twice the steps or, as long
as there are fewer than without a limit, twice the chains in turn. Longer runs gain more than more runs."""

_FIRST_POLISH = 50
"""The iterations of the first polish under a limit of time, and of a product that is read off the matrix."""

_TOGETHER_SIDE = 96
"""Up to this side the transforms of several chains together cost less than one after the other."""

_EXPLORING_SHARE = 0.75
"""Exploration takes up to this share of the iterations that are allowed. The others are left to the polish."""

_HALF = 0.5
"""If a matrix is nearly of low rank, chains that run one after the other are compared after this share of their steps,
and only the best goes on. It is the best in the end, too, or nearly: of 12 chains for a real weight change (n = 384,
nine factors) those that end at 0.581 to 0.582 are the worst then, and the others end at 0.565 to 0.570; of rank three
and noise (n = 128, seven factors) the best of eight end at 0.137 on average, and those chosen at 0.140. Of Gaussian
matrices by 21 factors and more (n = 100) chains after half of their steps say nothing yet of their ends."""

_RECENT = 20
"""What is compared is the least error of so many steps, for it goes up and down."""

_HOPELESS = 0.9
"""There are no more chains after one that explains less than this share of what the best known product does. Chains
differ by less: for real weight changes of nine factors they explain 0.95 to 0.98 of it after half of their steps, and
of five factors, where the truncated SVD is a closed form that they do not come near to, 0.87 to 0.89."""

_LOW_RANK = 6.0
"""A matrix counts as nearly of low rank if what was read off it, near its truncated SVD, explains so many times the
share of its square norm that its parameters are of the entries. Of Gaussian matrices fits explain up to three times
that share, of real weight changes products that were read off explain 15 to 27 times as much (nine factors)."""

_NEARLY_ALL = 0.9
"""If what was read off explains more than this, the matrix is treated as any other: of rank four and noise (n = 384,
nine factors, 15 seconds, three seeds) chains of the rate below end at 0.128 to 0.131, and of rate one at 0.112 to
0.116."""

_LOW_RATE = 0.5
"""The rate of chains for a matrix that is nearly of low rank. For a real weight change (n = 384, nine factors, 1,000
steps) nine of twelve chains end at 0.565 to 0.570 and three at 0.581, and with a rate of one they end at 0.570 to
0.582; of rank three and noise (n = 128, seven factors) the best of eight end at 0.137 and 0.150 on average. Products of
Gaussian matrices come out better with a rate of one: 0.789 beside 0.801 (n = 64, nine factors)."""

_SADDLE_NOISE = 1e-2
"""The size of the noise that is added to a shorter product with identities. That is a saddle of the error, which this
much noise leaves without losing what was found."""

_WINDOW = 5
"""The iterations of a polish over which its progress is measured: single ones may gain little on the way."""

_CHECKED = 50
"""A polish returns to its last iterate with accurate products. Whether products are accurate is looked up once in so
many iterations, since that takes products."""

ROUNDINGS_AT_FIRST = 20.0
"""A product that is known beforehand counts as exact up to so many units in the last place: the three factors of the
discrete Fourier transform, which alternation finds, end at nine."""

_ROUNDINGS = 200.0
"""A polished product counts as exact if its error is no more than so many units in the last place of the answer. Nine
to 17 factors of Gaussian matrices of 8 to 14 rows end at 8 to 80 units: products of several factors round more than
closed forms, of which fewer units are asked for, and there is nothing to search for below."""


_NESTED_SIDE = 96
"""Up to this side a search begins with one for fewer factors, unless it knows a product of more than three. Orthogonal
matrices with structure are a matter of luck: chains for the Hadamard matrix of 64 rows end at 0.59 with five factors
and at 0.84 with seven and nine. Changes of trained weights are larger."""

_NESTED_ITERATIONS = 400
"""Where time is limited, the search for fewer factors makes no more iterations than this from a start."""

_NESTED_STEP = 9
"""Up to so many factors that search is for the next odd number below, beyond for half as many: all searches together
then take about twice the time."""

_SECOND_ORDER_MOST = 2400
"""Steps of second order are made for up to so many parameters: a few matrices of this side take 400 MB, and a step one
to two seconds."""

_SECOND_ORDER_STARTS = 10
"""The most random products that steps of second order start from. Complex normal matrices of 8, 16 and 24 rows are
reached with n + 1, n + 2 and n + 4 factors from the first or second one, in 23 of 23 draws."""

_SECOND_ORDER_WORK = 4_600_000
"""There are no more of these than this number over the square of the number of parameters, and one at least: 10 for
24 rows and 28 factors, four for 32 rows and 33 factors, where a run takes half a minute."""

_SECOND_ORDER_POLISH = 300
"""The most steps of second order from a random product. Of the runs that end in an exact product nine in ten need fewer
than 250."""

_STALLED = 1e-2
"""Steps of second order end where `_STALLED_FOR` of them have lowered the error by less than this share of it."""

_STALLED_FOR = 30
"""The steps whose gain is looked at. Runs that succeed gain more, also where they go along a curved valley."""


_REFINED_MOST = 300
"""The most steps of second order after a polish where no product is the matrix.

L-BFGS is slow in the curved valleys of nearly low rank: of 96 x 64 entries of rank three and five per cent of noise,
seven factors, 0.1305 became 0.0775, and of a part of a real weight change (64 rows, five and nine factors) 0.5266
became 0.5185 and 0.3821 became 0.3774.
"""

_REFINED_NUMBERS = 1000
"""Only products of up to so many parameters are refined: a step for 864 of them takes 0.05 seconds, and for 1,920, five
factors of 384 rows, a second, where the whole fit takes ten."""

_REFINED = 5e-3
"""They end where `_REFINED_FOR` of them have lowered the error by less than this share of it: of Gaussian matrices
L-BFGS has left next to nothing."""

_REFINED_FOR = 15
"""The steps whose gain is looked at."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A product inside of a search, by its parameters, and how it was found."""

    start: str
    """The name of the starting point."""
    parameters: NDArray[Any]
    """Its parameters, as the objective has them."""
    error: float
    """Its relative error in the precision of the answer."""
    history: Sequence[float] = ()
    """Relative errors at the starting point and after every iteration; none of a product that is only looked at."""
    converged: bool = False
    """Whether the last iterations lowered the error by no more than the tolerance, or the product is exact."""
    exact: bool = False
    """Whether it is the matrix up to rounding."""
    slow: bool = False
    """Whether a descent to it has ended where its steps gained little."""


@dataclass(frozen=True, eq=False)
class _Annealing:
    """Chains that run together."""

    parameters: NDArray[Any]
    """Their parameters, which the steps overwrite."""
    steps: Iterator[NDArray[np.float64]]
    """The steps that are left; each yields the errors before it."""
    errors: list[NDArray[np.float64]] = field(default_factory=list)
    """The errors before each of the steps that were made."""

    def least(self) -> float:
        """Return the least error of the last steps."""
        return _least(self.errors[-_RECENT:])


class Search(StoppableSearch):
    """A search for a product of any number of factors.

    Parameters
    ----------
    problem : Problem
        Without weights of entries, and with a target that is not zero.
    control : Control
    rng : numpy.random.Generator
    known : sequence of Found
        Products of no more factors to start from besides.
    """

    def __init__(
        self, problem: Problem, control: Control, rng: np.random.Generator, known: Sequence[Found] = ()
    ) -> None:
        super().__init__(control)
        self._rng_at_first = copy.deepcopy(rng)
        matrix, inputs = problem.matrix, problem.inputs
        double = np.result_type(matrix.dtype, np.float64)
        dtype = matrix.dtype if matrix.size > _DOUBLE_SIDE**2 else double
        # Parameters of size one make products of the norm of an isometry. So the matrix is given this norm.
        scale = float(np.linalg.norm(matrix.astype(double))) / np.sqrt(min(matrix.shape))
        self.problem = replace(
            problem,
            matrix=(matrix / matrix.real.dtype.type(scale)).astype(dtype),
            inputs=None if inputs is None else inputs.astype(dtype),
        )
        self.layout, self.dtype, self.rng, self.known = problem.layout, problem.dtype, rng, known
        self._log2_scale = np.log2(scale)
        self.objective = Objective(self.layout, self.problem.target, self.problem.inputs)
        self._side = max(1, math.isqrt(math.prod(self.layout.shape)))
        self._seed = int(rng.integers(1 << 62))
        self._saddles: list[Candidate] = []
        """The best shorter products: in closed form, where nothing that was read off is better, and by a search."""
        self._best = self._candidate("zero", np.zeros(self.layout.n_parameters, dtype))
        self._coarse = self.objective.astype(np.dtype(np.complex64 if dtype.kind == "c" else np.float32))

    @property
    def best(self) -> Found:
        """The best product so far."""
        best = self._best
        said = {"converged": best.converged, "exact": best.exact, "slow": best.slow}
        found = Found(best.start, self.objective.vectors(best.parameters), best.history, **said)
        return found.scaled(self._log2_scale)

    def run(self) -> None:
        """Look at the products that are known or in closed form first, then explore: without end if time is limited."""
        for found in (*self._scaled_known(), *self._closed_forms()):
            if len(found.vectors) <= self.layout.n_factors:
                self._offer(self._candidate(found.start, self.objective.parameters(found.vectors)))
        nearest_diagonal = self.layout.n_factors == 1 and self.problem.inputs is None
        if nearest_diagonal or self._is_exact():
            return
        pool = self._read_off()
        if not self._best.history:  # It is a closed form.
            self._saddles.append(self._best)
        if not self._is_exact():
            self._offer_fewer_factors()
            self._explore(pool)

    def _explore(self, pool: list[Candidate]) -> None:
        """Explore from random products and polish, in rounds; those of the pool were read off the matrix."""
        if self._may_be_exact and self.objective.dtype.kind == "c" and not self._is_exact():
            pool += self._descended()
        read_off = min((one.error for one in pool if one.start in STARTS), default=math.inf)
        for number, (chains, steps, polish) in enumerate(self._rounds()):
            if self._is_exact():
                return
            self.control.check()
            pool += self._explored(np.random.default_rng([self._seed, number]), chains, steps, read_off)
            # Without chains nothing new comes, and what is left to do are the polishes that have not ended.
            left = [one for one in pool if not self._is_finished(one)] if self.control.restarts == 0 else pool
            if not left:
                return
            chosen = self._worth_a_polish(left)
            polished = []
            for one in chosen:
                polished.append(one if one.converged else self._polished(one, polish))
                if polished[-1].exact:
                    return
            if not self._may_be_exact:
                best = min(polished, key=_error)
                refined = self._refined(best, polish)
                if refined.exact:
                    return
                polished = [refined if one is best else one for one in polished]
            pool = polished + [one for one in pool if one not in chosen and one.start in STARTS]

    def _scaled_known(self) -> list[Found]:
        """Return the products that are known, for the matrix as the search has it."""
        return [found.scaled(-self._log2_scale) for found in self.known]

    def _worth_a_polish(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return the best product, and if that was read off the best of the explored ones where it is close.

        Where one may be exact, these are more: the error of a chain says little of whether it is near to an exact one.
        """
        if self._may_be_exact:
            return sorted(candidates, key=_error)[: self._second_order_runs]
        best = min(candidates, key=_error)
        if len(best.history) == 1:  # It is a shorter product with noise: that of the best closed form may win.
            others = [one for one in candidates if len(one.history) > 1]
            close = min(map(_error, others), default=math.inf) <= (1.0 + _CLOSE) * best.error
            beside = [one for one in candidates if len(one.history) == 1]
            return beside + self._worth_a_polish(others) if close else beside
        explored = [one for one in candidates if one.start not in STARTS]
        if best.start not in STARTS or not explored:
            return [best]
        rival = min(explored, key=_error)
        return [best, rival] if rival.error <= (1.0 + _CLOSE) * best.error else [best]

    def _is_finished(self, candidate: Candidate) -> bool:
        """Whether a polish does not go on from a product."""
        return candidate.converged or len(candidate.history) > self.control.max_iter

    def _is_exact(self) -> bool:
        """Whether nothing is left to search for."""
        return self._best.exact

    def _offer_fewer_factors(self) -> None:
        """Search for fewer factors first: the same search that a fit by so many factors makes with the same seed."""
        count = self.layout.n_factors
        fewer = count - 1 - count % 2 if count <= _NESTED_STEP else (count // 2) | 1
        known = max((len(found.vectors) for found in self.known), default=0)
        if fewer <= 3 or known > 3 or self._side > _NESTED_SIDE or self._may_be_exact:
            return
        control = replace(self.control)
        if control.endless:
            control.endless, control.max_iter = False, min(control.max_iter, _NESTED_ITERATIONS)
        problem = replace(self.problem, layout=replace(self.layout, n_factors=fewer))
        found = Search(problem, control, copy.deepcopy(self._rng_at_first), self._scaled_known()).result()
        shorter = self._candidate(found.start, self.objective.parameters(found.vectors))
        self._offer(shorter)
        self._saddles.append(shorter)
        self.control.status, self.control.best = control.status, control.best
        self.control.check()

    @cached_property
    def _may_be_exact(self) -> bool:
        """Whether a count of numbers allows products that are the matrix, and steps of second order are affordable.

        A scalar can move between neighbouring factors, so that a product of F factors has F - 1 numbers fewer than
        parameters. What is beside the outer diagonal and the grid of the shape of the matrix is square, with its
        smaller side, and counts no more than any such square.
        """
        shape, numbers = self.layout.shape, self.layout.n_parameters
        if numbers > _SECOND_ORDER_MOST:
            return False
        whole = [
            math.prod(of)
            for of, side in zip(self.layout.vector_shapes, self.layout.factor_shapes, strict=True)
            if max(side) == max(shape)
        ][:2]
        squares = numbers - sum(whole) - (self.layout.n_factors - 1)
        entries = shape[0] * min(self.objective.target.shape[1], shape[1])
        return sum(whole) + min(squares, min(shape) ** 2) >= entries

    @property
    def _second_order_runs(self) -> int:
        """How many products steps of second order are made from."""
        return max(1, min(_SECOND_ORDER_STARTS, _SECOND_ORDER_WORK // self.layout.n_parameters**2))

    def _descended(self) -> list[Candidate]:
        """Return what steps of second order make of random products, up to the first that is exact."""
        most = self._second_order_runs
        count = most if self.control.restarts is None else min(most, self.control.restarts)
        found: list[Candidate] = []
        for number in range(count):
            rng = np.random.default_rng([self._seed, *b"second order", number])
            start = self._candidate("random", self.objective.random(1, rng)[0])
            found.append(self._polished(start, _SECOND_ORDER_POLISH))
            if found[-1].exact:
                break
        return found

    def _closed_forms(self) -> list[Found]:
        """Return products of up to three factors that the answer must not be worse than."""
        problem, layout, rng = self.problem, self.layout, self.rng
        found: list[Found] = []
        if layout.is_single_block:
            found.append(Found("diagonal", [np.diag(problem.matrix)]))
            circulant = Circulant.nearest(problem.matrix).c
            found.append(Found("circulant", [np.ones_like(circulant), circulant[None, None]]))
        if layout.n_factors < 3:
            return found
        if problem.inputs is None and layout.n_factors > 3:
            most = self.control.max_iter
            most = min(most, OF_A_START) if self.control.endless else most
            # First with the random numbers of a fit by three factors: with the same seed more factors are never worse.
            sources = (copy.deepcopy(self._rng_at_first), rng)
            searches = [ThreeFactorSearch(problem, self.control, own, max_iter=most) for own in sources]
            return [*found, *(search.result() for search in searches)]
        grid = BlockGrid(problem.matrix, layout.block_size)
        found += [Found(name, grid.vectors(start(grid, rng))) for name, start in CLOSED_FORMS.items()]
        if layout.is_single_block and problem.inputs is not None:
            u, v = truncated_svd(problem.target, 1, rng, problem.inputs)
            ones = np.ones((1, 1, layout.block_size), dtype=u.dtype)
            found.append(Found("rank-one", [u[:, 0], ones, v[:, 0]]))
        return found

    def _rounds(self) -> Iterator[tuple[int, int, int]]:
        """Yield for each round the number of chains, their steps, and the iterations of the polish."""
        chains, polish = min(_MOST_CHAINS, max(1, _CHAINS // self._side)), self._scaled(_POLISH)
        if not self.control.endless:
            yield chains, self._scaled(_STEPS), polish
            return
        for number in count():
            of_chains = min(number // 2, chains.bit_length() - 1)
            yield 1 << of_chains, _FIRST_STEPS << (number - of_chains), min(_FIRST_POLISH << number, polish)

    def _scaled(self, work: int) -> int:
        """Return a number of steps or iterations, reduced for a large matrix."""
        return min(work, work * _FULL_SIDE // self._side)

    def _read_off(self) -> list[Candidate]:
        """Return the products that are read off the matrix, after a short polish.

        Those that may be the planted product are polished to the end at once: if one of them is, the search is over.
        Otherwise they are not returned, as they have nothing more to gain.
        """
        found = []
        for name, start in STARTS.items():
            rng = np.random.default_rng([self._seed, *name.encode()])
            for vectors in start(self.problem, rng, self.control):
                candidate = self._candidate(name, self.objective.parameters(vectors))
                self._offer(candidate)
                if name in PLANTED:
                    candidate = self._polished(candidate, self._scaled(_POLISH), to_the_end=True)
                else:
                    candidate = self._polished(candidate, _FIRST_POLISH)
                    found.append(candidate)
                if candidate.exact:
                    return []
        return found

    def _explored(
        self, rng: np.random.Generator, chains: int, steps: int, read_off: float = math.inf
    ) -> list[Candidate]:
        """Return what large annealed steps make of random products.

        `read_off` is the least error of the products that were read off the matrix. If the best product so far is a
        shorter one, it is returned too, with the noise that leaves its saddle, and so is the best closed form.
        """
        starts = self._coarse.random(chains if self.control.restarts is None else self.control.restarts, rng)
        steps = max(1, min(steps, int(_EXPLORING_SHARE * self.control.max_iter)))
        share = self.layout.n_parameters / math.prod(self.layout.shape)
        found = self._annealed(starts, steps, low_rank=_LOW_RANK * share <= 1.0 - read_off**2 <= _NEARLY_ALL)
        if not self._best.history:  # It is a shorter product.
            found += [self._beside(saddle, rng) for saddle in self._saddles]
        self._offer(*found)
        return found

    def _beside(self, saddle: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a shorter product with the noise that leaves its saddle."""
        real = rng.standard_normal(2 * len(saddle.parameters)).astype(self.objective.dtype.type(0).real.dtype)
        noise = real.view(self.objective.dtype)[: len(saddle.parameters)]
        left = saddle.parameters + _SADDLE_NOISE * noise
        return replace(saddle, parameters=left, history=(saddle.error,))

    def _annealed(self, starts: NDArray[Any], steps: int, *, low_rank: bool) -> list[Candidate]:
        """Return what large annealed steps make of random products, whose parameters are overwritten.

        Chains of small matrices run together, and others one after the other; there are no more of these after one that
        is hopeless, unless their number was asked for. If the matrix is nearly of low rank, only the best goes on after
        half of its steps.
        """
        together = self._side <= _TOGETHER_SIDE
        width = max(1, len(starts)) if together else 1
        groups = [starts[k : k + width] for k in range(0, len(starts), width)]
        is_race = low_rank and not together
        rate, first = (_LOW_RATE, max(1, int(_HALF * steps))) if is_race else (1.0, None)
        runs = [_Annealing(group, annealing(self._coarse, group, rate, steps)) for group in groups]
        chosen: list[_Annealing] = []
        try:
            for run in runs:
                self._advance(run, first, steps)
                explained, known = 1.0 - run.least() ** 2, 1.0 - self._best.error**2
                if explained < _HOPELESS * known and self.control.restarts is None and not together:
                    break
                chosen.append(run)
            if is_race:
                chosen = sorted(chosen, key=_Annealing.least)[:1]
            for run in chosen:
                self._advance(run, None, steps)
        except BaseException:
            # The last steps are small ones: a chain that is cut short in them is lower than all before.
            for run in runs:
                if run.errors:
                    self._offer(*self._candidates(run))
            raise
        return [candidate for run in chosen for candidate in self._candidates(run)]

    def _advance(self, run: _Annealing, steps: int | None, most: int) -> None:
        """Make so many of the steps of some chains, which are `most` in all, or all that are left."""
        # A chain may be lost to an overflow; its error tells, and the others go on.
        with np.errstate(over="ignore", invalid="ignore"):
            for errors in islice(run.steps, steps):
                run.errors.append(errors)
                self._report("random", "exploration", len(run.errors), most, _least(errors))

    def _candidates(self, run: _Annealing) -> list[Candidate]:
        """Return the products that some chains have come to."""
        histories = np.reshape(run.errors, (len(run.errors), len(run.parameters)))
        found = [self._candidate("random", chain) for chain in run.parameters]
        return [replace(one, history=histories[:, k].tolist()) for k, one in enumerate(found)]

    def _polished(self, start: Candidate, most: int, *, to_the_end: bool = False) -> Candidate:
        """Return what small steps make of a product in up to `most` iterations: of second order, or L-BFGS.

        They end before where they gain little, unless they have to go on to the end; L-BFGS goes on under a limit of
        time, too.
        """
        if self._may_be_exact:
            is_slow = None if to_the_end else partial(_has_stalled, share=_STALLED, steps=_STALLED_FOR)
            return self._descended_from(start, most, second_order_steps, is_slow)
        return self._descended_from(start, most, lbfgs, None if to_the_end or self.control.endless else _gains_little)

    def _refined(self, start: Candidate, most: int) -> Candidate:
        """Return what steps of second order make of a product that a polish has ended with, while they gain much."""
        if self.layout.n_parameters > _REFINED_NUMBERS or start.exact:
            return start
        is_slow = partial(_has_stalled, share=_REFINED, steps=_REFINED_FOR)
        return self._descended_from(start, min(most, _REFINED_MOST), second_order_steps, is_slow)

    def _descended_from(
        self, start: Candidate, most: int, descend: Any, is_slow: Callable[[Sequence[float]], bool] | None
    ) -> Candidate:
        """Return what some kind of steps makes of a product, in up to `most` of them, until they are slow.

        The result is offered as the answer, also where an exception cuts the iterations short.
        """
        errors = list(start.history) or [start.error]
        most = min(most, self.control.max_iter - len(errors) + 1)
        if most < 1:
            return start
        objective, first, end = self.objective, len(errors) - 1, len(errors) - 1 + most
        checked = _CHECKED if descend is lbfgs else 1  # of dearer steps a lookup is a small part
        last = kept = objective.parameters(objective.vectors(start.parameters))
        allowed = objective.allowed_spread(last, self.dtype)
        recent: deque[float] = deque(maxlen=_WINDOW + 1)
        converged = slow = False

        def after_iteration(parameters: NDArray[Any], error: float) -> None:
            nonlocal last, kept, converged, slow
            last = parameters
            errors.append(error)
            recent.append(error)
            if len(errors) % checked == 0 and objective.spread(last) <= allowed:
                kept = last
            converged = len(recent) > _WINDOW and recent[0] - error <= _WINDOW * self.control.tol * error
            self._report(start.start, "polish", len(errors) - 1, end, error)
            slow = is_slow is not None and is_slow(errors[first:])
            if converged or slow:
                raise StopIteration

        try:
            at_a_minimum = descend(objective, last, most, after_iteration)
            converged = converged or at_a_minimum
        finally:
            last = last if objective.spread(last) <= allowed else kept
            found = self._candidate(start.start, last)
            exact = found.error <= _ROUNDINGS * float(np.finfo(self.dtype).eps)
            found = replace(found, history=errors, converged=converged or exact, exact=exact, slow=slow)
            self._offer(found)
        return found

    def _candidate(self, name: str, parameters: NDArray[Any]) -> Candidate:
        """Return the product with these parameters, and with its error in the precision of the answer."""
        parameters = parameters.astype(self.objective.dtype)
        error = self.objective.error(parameters, self.dtype)
        exact = error <= ROUNDINGS_AT_FIRST * float(np.finfo(self.dtype).eps)
        return Candidate(name, parameters, error, (), converged=exact, exact=exact)

    def _offer(self, *candidates: Candidate) -> None:
        """Take the best of these products for the answer, if it is better than that."""
        self._best = min((self._best, *candidates), key=_error)
        if any(candidate.exact for candidate in candidates):  # Then one with a lower error is exact, too.
            self._best = replace(self._best, converged=True, exact=True)

    def _report(self, start: str, phase: str, iteration: int, most: int, error: float) -> None:
        n_factors = self.layout.n_factors
        self.control.report(start, iteration, error, phase=phase, n_factors=n_factors, most=most)


STARTS = {"low-rank": low_rank_start, "peeling": peeling_start}
"""Starts that are read off the matrix, by name: ``start(problem, rng, control)`` yields the vectors of products of no
more factors than the layout of the problem has. It yields none where it has nothing to offer."""

PLANTED = {"peeling"}
"""The names of those starts that find planted products."""


def _gains_little(errors: Sequence[float]) -> bool:
    """Tell whether the last iterations of a polish have lowered the error by so little that it ends without a limit."""
    return len(errors) > _GAIN_OF and errors[-1 - _GAIN_OF] - errors[-1] < _GAIN * errors[-1]


def _has_stalled(errors: Sequence[float], share: float, steps: int) -> bool:
    """Tell whether the last so many steps of second order have lowered the error by less than this share of it."""
    return len(errors) > steps and errors[-1 - steps] - errors[-1] < share * errors[-1 - steps]


def _least(errors: ArrayLike) -> float:
    """Return the least of some errors; those of chains that were lost may be NaN."""
    return float(np.fmin.reduce(np.ravel(errors), initial=np.inf))


def _error(candidate: Candidate) -> float:
    return candidate.error
