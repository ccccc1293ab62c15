"""The search for a product of any number of factors: closed forms, starts read off the matrix, exploration, polish.

Where many local minima lie within one per cent of each other, large annealed steps decide how good the one is that a
descent ends in: chains of such steps start from random orthogonal products, and L-BFGS polishes the best of them.

A search is a sequence of rounds. What a round does depends on the matrix, the layout, the seed and the rounds before
it, never on the time: a limit only says where the sequence ends. So a longer limit goes on where a shorter one ended,
and is never worse.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._control import StoppableSearch
from structmat.fit._low_rank_start import low_rank_start
from structmat.fit._matrices import rounding_error, truncated_svd
from structmat.fit._objective import Objective
from structmat.fit._peeling_start import peeling_start
from structmat.fit._problem import Found
from structmat.fit._three_factors import CLOSED_FORMS, BlockGrid, ThreeFactorSearch
from structmat.operators import Circulant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._problem import Problem

__all__ = ["OF_A_START", "Candidate", "Search"]

OF_A_START = 100
"""Iterations of a fit that another one starts from, at most, where time is limited: a share of the time would make what
follows depend on the clock."""

_DOUBLE_SIDE = 512
"""With more entries than a square of this side a matrix of single precision is searched in single precision."""

_CHAINS, _MOST_CHAINS = 1024, 16
"""Chains times the side of the matrix, without a limit of time, and the most of them."""

_STEPS, _POLISH, _FULL_SIDE = 1500, 1000, 256
"""Without a limit of time: steps, iterations of a polish; by how much the side exceeds the last number, the fewer."""

_FIRST_STEPS, _FIRST_POLISH = 300, 50
"""With one, the steps and iterations of the first round. Each later one makes twice as much: twice the steps or, as
long
as there are fewer, twice the chains in turn. Longer runs gain more than more runs."""

_TOGETHER_SIDE = 96
"""Up to this side transforms of several chains together cost less than one after the other."""

_EXPLORING_SHARE = 0.75
"""The most of the iterations allowed that exploration takes."""

_RATE = 2.0
"""The first step of a chain, over the root of the number of factors, since what steps do to the product adds up so, and
less by the root of two for real and imaginary parts."""

_MEAN_DECAY, _SQUARE_DECAY = 0.8, 0.7
"""The memory of Adam: chosen, as the cosine that steps fall along, on Gaussian matrices of 48 to 88 rows with 5 to 11
factors. The usual 0.9 and 0.99 need about four times as many steps; below 0.5 for the squares steps explode."""

_SADDLE_NOISE = 1e-2
"""A shorter product with identities is a saddle; this much noise leaves it without losing what was found."""

_MEMORY, _WINDOW = 20, 5
"""Pairs that L-BFGS keeps, twice as many as usual: a pair is as small as the parameters, while an evaluation goes
through the matrix. And the iterations over which its progress is measured."""

_CHECKED = 50
"""A polish returns to the last iterate with accurate products, which are looked for once in so many iterations."""

_ROUNDINGS = 200.0
"""A polished product is the matrix if its error is no more than so many units in the last place of the answer. Nine to
17 factors of Gaussian matrices of 8 to 14 rows end at 8 to 80 of them: products of several factors round more than
closed forms, of which fewer units are asked for, and there is nothing below to search for."""


@dataclass(frozen=True)
class Candidate:
    """A product and how it was found."""

    start: str
    parameters: NDArray[Any]
    error: float
    history: Sequence[float] = ()
    converged: bool = False
    """Whether the last iterations lowered the error by no more than the tolerance, or the product is exact."""
    exact: bool = False
    """Whether it is the matrix to rounding."""


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
        self._best = self._candidate("zero", np.zeros(self.layout.n_parameters, dtype))
        self._coarse = self.objective.astype(np.dtype(np.complex64 if dtype.kind == "c" else np.float32))

    @property
    def best(self) -> Found:
        """The best product so far."""
        best = self._best
        found = Found(best.start, self.objective.vectors(best.parameters), best.history, best.converged, best.exact)
        return found.scaled(self._log2_scale)

    def run(self) -> None:
        """Look at the products that are known or in closed form first, then explore: without end if time is limited."""
        known = [found.scaled(-self._log2_scale) for found in self.known]
        for found in (*known, *self._closed_forms()):
            if len(found.vectors) <= self.layout.n_factors:
                self._offer(self._candidate(found.start, self.objective.parameters(found.vectors)))
        nearest_diagonal = self.layout.n_factors == 1 and self.problem.inputs is None
        if nearest_diagonal or self._is_exact():
            return
        pool = self._read_off()
        for number, (chains, steps, polish) in enumerate(self._rounds()):
            if self._is_exact():
                return
            pool += self._explored(np.random.default_rng([self._seed, number]), chains, steps)
            one = min(pool, key=_error)
            polished = one if one.converged else self._polished(one, polish)
            pool = [polished, *(other for other in pool if other is not one and other.start in STARTS)]

    def _is_exact(self) -> bool:
        """Whether nothing is left to search for."""
        return self._best.exact

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
            return [*found, ThreeFactorSearch(problem, self.control, rng, max_iter=most).result()]
        grid = BlockGrid(problem.matrix, layout.block_size)
        found += [Found(name, grid.vectors(start(grid, rng))) for name, start in CLOSED_FORMS.items()]
        if layout.is_single_block and problem.inputs is not None:
            u, v = truncated_svd(problem.target, 1, rng, problem.inputs)
            ones = np.ones((1, 1, layout.block_size), dtype=u.dtype)
            found.append(Found("rank-one", [u[:, 0], ones, v[:, 0]]))
        return found

    def _rounds(self) -> Iterator[tuple[int, int, int]]:
        """Yield chains, steps and the iterations of a polish for each round."""
        chains, polish = min(_MOST_CHAINS, max(1, _CHAINS // self._side)), self._scaled(_POLISH)
        if not self.control.endless:
            yield chains, self._scaled(_STEPS), polish
            return
        for number in count():
            of_chains = min(number // 2, chains.bit_length() - 1)
            yield 1 << of_chains, _FIRST_STEPS << (number - of_chains), min(_FIRST_POLISH << number, polish)

    def _scaled(self, work: int) -> int:
        """Return so much work, less on a large matrix."""
        return min(work, work * _FULL_SIDE // self._side)

    def _read_off(self) -> list[Candidate]:
        """Return products that are read off the matrix and yet to be polished.

        Those that may be the planted product are polished at once, for nothing else is to be done if one is.
        """
        found = []
        for name, start in STARTS.items():
            rng = np.random.default_rng([self._seed, *name.encode()])
            for vectors in start(self.problem, rng, self.control):
                candidate = self._candidate(name, self.objective.parameters(vectors))
                self._offer(candidate)
                if name in PLANTED:
                    candidate = self._polished(candidate, self._scaled(_POLISH))
                else:
                    candidate = self._polished(candidate, _FIRST_POLISH)
                    found.append(candidate)
                if candidate.exact:
                    return []
        return found

    def _explored(self, rng: np.random.Generator, chains: int, steps: int) -> list[Candidate]:
        """Return what large annealed steps make of random products, and what leaves the saddle at the best so far."""
        starts = self._coarse.random(chains if self.control.restarts is None else self.control.restarts, rng)
        steps = max(1, min(steps, int(_EXPLORING_SHARE * self.control.max_iter)))
        together = max(1, len(starts)) if self._side <= _TOGETHER_SIDE else 1
        found: list[Candidate] = []
        for k in range(0, len(starts), together):
            found += self._annealed(starts[k : k + together], steps)
        if not self._best.history:  # a closed form
            real = rng.standard_normal(2 * len(self._best.parameters)).astype(self.objective.dtype.type(0).real.dtype)
            noise = real.view(self.objective.dtype)[: len(self._best.parameters)]
            left = self._best.parameters + _SADDLE_NOISE * noise
            found.append(replace(self._best, parameters=left, history=(self._best.error,)))
        self._offer(*found)
        return found

    def _annealed(self, parameters: NDArray[Any], steps: int) -> list[Candidate]:
        """Return what Adam with large annealed steps makes of random products; they are overwritten."""
        coarse, real = self._coarse, self._coarse.dtype.type(0).real.dtype
        rate = _RATE / math.sqrt(self.layout.n_factors * (1 + (coarse.dtype.kind == "c")))
        tiny = float(np.finfo(real).tiny) ** 0.5
        x = parameters.view(real)
        mean, square = np.zeros_like(x), np.zeros_like(x)
        errors: list[NDArray[np.float64]] = []

        def candidates() -> list[Candidate]:
            found = [self._candidate("random", chain) for chain in parameters]
            histories = np.reshape(errors, (len(errors), len(x)))
            return [replace(one, history=histories[:, k].tolist()) for k, one in enumerate(found)]

        try:
            # A chain may be lost to an overflow; its error tells, and the others go on.
            with np.errstate(over="ignore", invalid="ignore"):
                for step in range(steps):
                    values, complex_gradient = coarse.value_and_gradient(parameters)
                    errors.append(np.sqrt(values))
                    least = float(np.nanmin(errors[-1], initial=np.inf))
                    self._report("random", "exploration", step + 1, steps, least)
                    gradient = complex_gradient.view(real)
                    mean += (1 - _MEAN_DECAY) * (gradient - mean)
                    square += (1 - _SQUARE_DECAY) * (gradient * gradient - square)
                    bias = math.sqrt(1 - _SQUARE_DECAY ** (step + 1)) / (1 - _MEAN_DECAY ** (step + 1))
                    decay = 0.5 * (1 + math.cos(math.pi * step / steps))
                    x -= (rate * decay * bias) * mean / (np.sqrt(square) + tiny)
        except BaseException:
            # The last steps are small ones: a chain that is cut short in them is lower than all before.
            self._offer(*candidates())
            raise
        return candidates()

    def _polished(self, start: Candidate, most: int) -> Candidate:
        """Return what L-BFGS makes of a product in up to `most` iterations, and offer it, also if it is cut short."""
        from scipy.optimize import minimize  # noqa: PLC0415  # slow to import, so not before a fit needs it

        errors = list(start.history) or [start.error]
        most = min(most, self.control.max_iter - len(errors) + 1)
        if most < 1:
            return start
        objective, end = self.objective, len(errors) - 1 + most
        real = objective.dtype.type(0).real.dtype
        last = kept = objective.parameters(objective.vectors(start.parameters))
        allowed = objective.allowed_spread(last, self.dtype)
        recent: deque[float] = deque(maxlen=_WINDOW + 1)
        converged = False

        def parameters_of(x: NDArray[np.float64]) -> NDArray[Any]:
            return x.astype(real).view(objective.dtype)

        def function(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            values, gradient = objective.value_and_gradient(parameters_of(x)[None])
            return float(values[0]), gradient[0].view(real).astype(np.float64)

        def after_iteration(intermediate_result: Any) -> None:
            nonlocal last, kept, converged
            error = math.sqrt(intermediate_result.fun)
            last = parameters_of(intermediate_result.x)
            errors.append(error)
            recent.append(error)
            if len(errors) % _CHECKED == 0 and objective.spread(last) <= allowed:
                kept = last
            converged = len(recent) > _WINDOW and recent[0] - error <= _WINDOW * self.control.tol * error
            self._report(start.start, "polish", len(errors) - 1, end, error)
            if converged:
                raise StopIteration

        x = last.view(real).astype(np.float64)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                result = minimize(
                    function,
                    x,
                    jac=True,
                    method="L-BFGS-B",
                    callback=after_iteration,
                    # SciPy's own tolerance is absolute for values below one.
                    options={"maxiter": most, "maxfun": 2 * most + 10, "maxcor": _MEMORY, "ftol": 0.0, "gtol": 0.0},
                )
            # Without tolerances SciPy succeeds only where no step lowers the error any more.
            converged = converged or bool(result.success)
        finally:
            last = last if objective.spread(last) <= allowed else kept
            found = self._candidate(start.start, last)
            exact = found.error <= _ROUNDINGS * float(np.finfo(self.dtype).eps)
            found = replace(found, history=errors, converged=converged or exact, exact=exact)
            self._offer(found)
        return found

    def _candidate(self, name: str, parameters: NDArray[Any]) -> Candidate:
        """Return a product with its error, which is that in the precision of the answer."""
        parameters = parameters.astype(self.objective.dtype)
        error = self.objective.error(parameters, self.dtype)
        exact = error <= rounding_error(self.objective.dtype)
        return Candidate(name, parameters, error, (), converged=exact, exact=exact)

    def _offer(self, *candidates: Candidate) -> None:
        self._best = min((self._best, *candidates), key=_error)
        if any(candidate.exact for candidate in candidates):  # Then one with a lower error is exact, too.
            self._best = replace(self._best, converged=True, exact=True)

    def _report(self, start: str, phase: str, iteration: int, most: int, error: float) -> None:
        n_factors = self.layout.n_factors
        self.control.report(start, iteration, error, phase=phase, n_factors=n_factors, most=most)


STARTS = {"low-rank": low_rank_start, "peeling": peeling_start}
"""Starts that are read off the matrix, by name: ``start(problem, rng, control)`` yields the vectors of products of no
more factors than those of the problem, none where it has nothing to offer."""

PLANTED = {"peeling"}
"""Those that find planted products."""


def _error(candidate: Candidate) -> float:
    return candidate.error
