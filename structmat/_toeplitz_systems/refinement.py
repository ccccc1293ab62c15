"""Rows that ways solve one after the other, and the loops that refine and correct what a way has found.

They serve systems with entries and with blocks, stacks, and triangles: a caller brings the ways, the residuals, and how
errors are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPS = float(np.finfo(float).eps)
"""The machine epsilon of double precision."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class RowsWay:
    """A way to the solutions for rows."""

    name: str
    takes: float | None
    """What it takes, in products with the matrix that take as long; None where it is not offered."""
    solve: Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
    """Returns solutions for rows, and their errors, which are infinite where there are none."""

    def cost(self, rows: Rows) -> float | None:
        """Return what it takes, for any rows."""
        return self.takes

    def run(self, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return solutions and errors for the rows that are not solved yet."""
        return self.solve(rows.b[rows.unsolved])


class Rows:
    """Right-hand sides as rows: for each the first solution whose error is `allowed`, else that of the least error."""

    def __init__(self, b: NDArray[Any], allowed: float) -> None:
        self.b = b
        self.allowed = allowed
        self.x = np.zeros_like(b)
        """The solutions so far."""
        self.errors = np.full(len(b), np.inf)
        """Their errors."""
        self.unsolved = np.arange(len(b))
        """Which rows have no solution that is accepted."""

    @property
    def is_settled(self) -> bool:
        """Whether all solutions are accepted."""
        return not len(self.unsolved)

    def take(self, way: RowsWay, others: list[Any]) -> None:
        """Run a way for what those before it have not solved."""
        unsolved = self.unsolved
        x, errors = way.run(self)
        better = errors < self.errors[unsolved]
        self.x[unsolved[better]] = x[better]
        self.errors[unsolved[better]] = errors[better]
        self.unsolved = unsolved[self.errors[unsolved] > self.allowed]


def refined_while_it_helps(
    solve: Callable[[Array], Array],
    measured: Callable[[Array], tuple[Array, Array]],
    x: Array,
    wanted: float,
    xp: Namespace,
) -> tuple[Array, Array, Array]:
    """Return solutions, refined as long as that at least halves an error that is above `wanted`, with what is measured.

    `measured` returns the residuals of solutions, and their errors, which have axes of length one in place of that of
    the entries. Mostly all solutions of one matrix are refined, or none, so that no part of them is taken.
    """
    residuals, errors = measured(x)
    inexact = errors > wanted
    while bool(xp.any(inexact)):
        new_x = x + solve(residuals)
        new_residuals, new_errors = measured(new_x)
        helps = inexact & (new_errors < errors / 2)
        if not bool(xp.any(helps)):
            break
        if bool(xp.all(helps)):
            x, residuals, errors = new_x, new_residuals, new_errors
        else:
            x = xp.where(helps, new_x, x)
            residuals = xp.where(helps, new_residuals, residuals)
            errors = xp.where(helps, new_errors, errors)
        inexact = errors > wanted
    return x, residuals, errors


def refined_to_the_last_digit(
    solve: Callable[[Array], Array],
    residuals: Callable[[Array], Array],
    x: Array,
    xp: Namespace,
    *,
    axis: int = -1,
    adjusted: Callable[[Array], Array] = lambda x: x,
) -> Array:
    """Return solutions after corrections by residuals of a higher precision, until these change nothing.

    The entries of a solution lie along `axis`. Solutions are `adjusted` before each step and at the end.
    """

    def goes_on(state: tuple[Array, Array, Any]) -> Array:
        _, changes, count = state
        return xp.any(changes) & (count < thresholds.REFINEMENTS)

    def step(state: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        x, _, count = state
        correction = solve(residuals(x))
        x = adjusted(x + correction)
        largest, size = (xp.max(xp.abs(v), axis=axis) for v in (correction, x))
        return x, largest > _EPS * size, count + 1

    x = adjusted(x)
    count = xp.zeros((), dtype=xp.int32, device=device_of(x))
    x, _, _ = rules_of(xp).loop(goes_on, step, (x, xp.max(xp.abs(x), axis=axis) >= 0, count))
    return x


def corrected_by_itself(correct: Callable[[Found], tuple[Found, float]], inverse: Found) -> tuple[Found, float, float]:
    """Return what determines an inverse after corrections, with the first and the last relative correction.

    `correct` corrects it once, by the products with the inverse that it determines.
    """
    inverse, first = correct(inverse)
    last = first
    for _ in range(1, thresholds.CORRECTIONS):
        if last <= thresholds.TRUSTED or not last < 1:
            break
        inverse, last = correct(inverse)
    return inverse, first, last
