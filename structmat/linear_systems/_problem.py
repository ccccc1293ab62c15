"""A linear system or a least-squares problem, as ways take it: what is found out is found once, when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._krylov_method import KrylovMethod
from structmat.linear_systems._results import ConvergenceError, Solutions, SolveResult
from structmat.linear_systems._written_out import fits_as_last_resort, iterations_before_elimination
from structmat.operators import LinearOperator

Fact = TypeVar("Fact")


class Facts:
    """A matrix, and what is found out of it: each thing once, when it is first asked for."""

    def __init__(self, operator: LinearOperator, xp: Namespace) -> None:
        self.operator = operator
        """The matrix, in the precision of computations."""
        self.xp = xp
        self._facts: dict[Callable[..., Any], Any] = {}

    def once(self, function: Callable[[LinearOperator, Namespace], Fact]) -> Fact:
        """Return what a function finds out of the matrix, which it is asked for once."""
        if function not in self._facts:
            self._facts[function] = rules_of(self.xp).untraced(function)(self.operator, self.xp)
        found: Fact = self._facts[function]
        return found


@dataclass(frozen=True)
class Options:
    """What was asked for, or holds by default. Equal ones have the same hash, so that what is compiled is found."""

    owner: str
    """The function that was called."""
    method: KrylovMethod
    rtol: float
    """The relative residual at which to end."""
    max_iter: int
    """The most iterations."""
    is_limited: bool = False
    """Whether the user has given that number, so that no elimination follows."""
    by_default: bool = False
    """Whether the user has left the choice of the way to the function."""
    positive: bool = False
    """Whether the matrix is positive definite; the nearest matrix is made positive definite too."""
    remedy: str = ""
    """What to do where there is no solution, if that is not what helps iteration."""
    other_method: str = ""
    """What to write for a matrix that may not be positive definite."""
    nearest: bool = False
    """Whether the nearest circulant or diagonal matrix is the preconditioner where none is given."""
    least_squares: bool = False
    """Whether solutions are those of least norm that minimise the residual."""


class Candidate(NamedTuple):
    """What a way has found."""

    found: Solutions | None
    """The solutions; None where there are none."""
    said: str = ""
    """Why there are none, or how they were found."""
    residual: Array | None = None
    """What these solutions would have left that are not good enough to be kept."""
    is_final: bool = False
    """Whether the solutions are taken without a look at their residuals, as those of a closed form."""


class LinearSystem(Facts):
    """A problem ``A x = b``, without derivatives, and the best solutions so far."""

    def __init__(
        self, operator: LinearOperator, M: LinearOperator | None, b: Array, options: Options, xp: Namespace
    ) -> None:
        super().__init__(operator, xp)
        self.preconditioner = M
        """The one that was given, in the precision of computations too."""
        self.b = b
        """The right-hand sides along the last axis, with the dtype and all batch axes of the solutions."""
        self.options = options
        self.best: Solutions | None = None

    @cached_property
    def iterations_before_elimination(self) -> int | None:
        """How many iterations are made before the matrix is written out; None where it is not."""
        options = self.options
        if options.is_limited:
            return None
        asked = not (options.by_default or options.least_squares)
        return iterations_before_elimination(self.operator, least_squares=options.least_squares, asked=asked)

    @cached_property
    def most_iterations(self) -> int:
        """The most iterations, by what was asked for and what elimination takes."""
        before = self.iterations_before_elimination
        return self.options.max_iter if before is None else min(before, self.options.max_iter)

    @property
    def takes_turns(self) -> bool:
        """Whether iteration may take turns with a factor; a rule of derivatives has ways that were chosen before."""
        return True

    @property
    def may_have_factor(self) -> bool:
        """Whether the matrix may have a direct factor, as far as is known."""
        return False

    iterations_made: float | None = None
    """The most iterations of the last try."""

    def has_no_factor(self) -> None:
        """Note that there is no direct factor, or none that is of use."""

    is_solved: bool = False
    """Whether all solutions are good enough, so that only a direct factor may find better ones."""

    @property
    def is_settled(self) -> bool:
        """Whether all solutions are good enough, or not finite, for which there is no other way; not in a trace."""
        best = self.best
        if best is None or rules_of(self.xp).compiles:
            return False
        return bool(self.xp.all(best.done | self.xp.isnan(best.residual)))

    def take(self, way: Any, others: list[Any]) -> None:
        """Run a way, in a trace for what is not settled then."""
        before = self.best
        if before is None or not rules_of(self.xp).compiles:
            found = way.run(self).found
        else:
            settled = before.done | self.xp.isnan(before.residual)
            found = rules_of(self.xp).branch(self.xp.all(settled), lambda: before, lambda: way.run(self).found)
        self.best = found

    @np.errstate(all="ignore")
    def failure(self) -> ConvergenceError:
        """Return the error that says what was reached, why not more, and what to do."""
        xp, M, b, options, best = self.xp, self.preconditioner, self.b, self.options, cast("Solutions", self.best)
        result = SolveResult(best.x, best.residual, int(best.iterations))
        largest = float(xp.max(result.residual))
        if not bool(xp.all(xp.isfinite(b))):
            cause = "b holds NaN or infinity: for data with gaps choose what is there, A[seen][:, seen] and b[seen]"
        elif M is not None and not bool(xp.all(xp.isfinite(M._matvec(b, xp)))):
            cause = "the preconditioner gives NaN or infinity"
        elif math.isnan(largest):
            cause = "the matrix holds NaN or infinity, or its products do"
        else:
            cause = self._advice()
        text = (
            f"{options.owner}: the relative residual is {largest:.2g} after {result.iterations} iterations, not "
            f"{options.rtol:.2g}; {cause}. The error's attribute `result` holds what was reached"
        )
        return ConvergenceError(text, result)

    def _advice(self) -> str:
        """Return what to do where no way solves a finite system."""
        op, options = self.operator, self.options
        if options.remedy:
            return options.remedy
        advice = "raise rtol or max_iter"
        if options.least_squares or options.owner != "solve":
            return advice
        if self.iterations_before_elimination == 0:
            return "A is singular to working precision, use lstsq"
        advice += ", give a better preconditioner, or use lstsq for a singular matrix"
        if not fits_as_last_resort(op):
            gigabytes = math.prod(op.batch_shape) * math.prod(op.shape) * 8e-9
            advice += f"; the last resort, numpy.linalg.solve(A.to_dense(), b), takes {gigabytes:.1f} GB"
        if options.positive:
            advice += f"; if the matrix may not be positive definite, {options.other_method}"
        return advice
