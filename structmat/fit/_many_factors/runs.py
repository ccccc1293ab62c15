"""Runs of the solvers on one matrix: exploration with several chains, polish, steps on the matrix itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import to_numpy
from structmat.fit._control import rounding_error
from structmat.fit._many_factors.adam import anneal
from structmat.fit._many_factors.descent import descend
from structmat.fit._many_factors.lbfgs import polish
from structmat.fit._many_factors.parameters import extended, from_vectors, to_vectors
from structmat.fit._many_factors.solver_list import MATRIX_SOLVERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._many_factors.objective import Objective
    from structmat.operators import CDDLayout

__all__ = ["Candidate", "Runs"]

# A polish returns to the last iterate with accurate products, which are looked for once in so many iterations.
_CHECKED = 50
# A chain read off the matrix is the planted one with an error of no more than so many units in the last place.
_ROUNDINGS = 200.0


@dataclass(frozen=True)
class Candidate:
    """A chain and how it was found."""

    start: str
    layout: CDDLayout
    parameters: NDArray[Any]
    error: float
    history: Sequence[float] = ()
    converged: bool = False
    """Whether the last iteration lowered the error by no more than the tolerance, or the chain is exact."""
    exact: bool = False
    """Whether it is the matrix to rounding."""

    @property
    def vectors(self) -> list[NDArray[Any]]:
        """The vectors of the product."""
        return to_vectors(self.layout, self.parameters)


@dataclass(frozen=True)
class Runs:
    """What makes candidates of candidates.

    Parameters
    ----------
    fine, coarse : Objective
        The problem in the precision of the answer and in that of the exploration.
    matrix : ndarray or None
        The matrix itself for solvers that take it, which know no weights; None with weights.
    control : Control
    """

    fine: Objective
    coarse: Objective
    matrix: NDArray[Any] | None
    control: Control

    def explore(self, starts: Sequence[Candidate], rates: Sequence[float], steps: int) -> list[Candidate]:
        """Return the starts after large annealed steps; nothing if they were cut short, while steps are still large."""
        layout = starts[0].layout
        chains = self.coarse.work.moved(np.stack([start.parameters for start in starts]).astype(self.coarse.dtype))
        errors: list[NDArray[np.float64]] = []

        def report(step: int, now: NDArray[np.float64]) -> None:
            errors.append(now)
            self.control.report(
                starts[int(now.argmin())].start,
                step,
                float(now.min()),
                phase="exploration",
                n_factors=layout.n_factors,
                most=steps,
            )

        with np.errstate(over="ignore", invalid="ignore"):
            objective = self.coarse.of(layout)
            whole = anneal(objective, chains, np.array(rates), steps, deadline=self.control.deadline, report=report)
        if not whole:
            return []
        histories = np.array(errors).T
        return [
            replace(self.candidate(start.start, layout, chain.astype(self.fine.dtype)), history=history.tolist())
            for start, chain, history in zip(starts, to_numpy(chains), histories, strict=True)
        ]

    def polish(self, start: Candidate, most: int) -> Candidate:
        """Return a chain after up to `most` iterations of L-BFGS."""
        last, errors, converged = start.parameters.astype(self.fine.dtype), list(start.history), False
        room = min(most, self.control.max_iter - len(errors))
        if self.control.stopped() or room < 1:
            return replace(self.candidate(start.start, start.layout, last), history=errors)

        objective = self.fine.of(start.layout)
        kept = last
        end = len(errors) + room
        allowed = objective.allowed_spread(last)

        def report(error: float, parameters: NDArray[Any]) -> None:
            nonlocal last, kept
            last = parameters
            errors.append(error)
            if len(errors) % _CHECKED == 0 and objective.spread(last) <= allowed:
                kept = last
            self._report_polish(start, len(errors), end, error)

        with self.control.interruptible(), np.errstate(over="ignore", invalid="ignore"):
            converged = polish(
                objective, last, max_iter=room, tol=self.control.tol, deadline=self.control.deadline, report=report
            )
        if objective.spread(last) > allowed:
            last = kept
        found = self.candidate(start.start, start.layout, last)
        return replace(found, history=errors, converged=converged or found.exact)

    def by_matrix(self, solver: str, start: Candidate, max_iter: int) -> Candidate:
        """Return a chain after up to `max_iter` iterations of a solver that takes the matrix."""
        before = len(start.history)
        max_iter = min(max_iter, self.control.max_iter - before)
        if self.matrix is None or self.done(start) or max_iter < 1:
            return start
        double = np.result_type(self.fine.dtype, np.float64)

        def report(iteration: int, error: float) -> None:
            self._report_polish(start, before + iteration, before + max_iter, error)

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
        shaped = [vector.reshape(shape) for vector, shape in zip(vectors, start.layout.vector_shapes, strict=True)]
        parameters = from_vectors(start.layout, shaped)
        objective = self.fine.of(start.layout)
        if objective.spread(parameters) > objective.allowed_spread(start.parameters):
            return start
        found = self.candidate(start.start, start.layout, parameters)
        return replace(found, history=[*start.history, *history[1:]], converged=converged or found.exact)

    def _report_polish(self, start: Candidate, iteration: int, most: int, error: float) -> None:
        n_factors = start.layout.n_factors
        self.control.report(start.start, iteration, error, phase="polish", n_factors=n_factors, most=most)

    def candidate(self, name: str, layout: CDDLayout, parameters: NDArray[Any]) -> Candidate:
        """Return a chain with its error."""
        parameters = parameters.astype(self.fine.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            error = self.fine.of(layout).error(parameters)
        exact = error <= rounding_error(self.fine.dtype)
        error = error if np.isfinite(error) else np.inf
        return Candidate(name, layout, parameters, error, converged=exact, exact=exact)

    def extend(self, candidate: Candidate, layout: CDDLayout) -> Candidate:
        """Return a chain with identities for the factors that it lacks."""
        first = candidate.layout.first
        return self.candidate(candidate.start, layout, extended(layout, candidate.vectors, first))

    def done(self, candidate: Candidate) -> bool:
        """Return whether to look no further."""
        return self.control.stopped() or candidate.exact

    def planted(self, candidate: Candidate) -> Candidate:
        """Return a chain that was read off the matrix, as an exact one where it is the planted one."""
        if candidate.error <= _ROUNDINGS * float(np.finfo(self.fine.dtype).eps):
            return replace(candidate, converged=True, exact=True)
        return candidate
