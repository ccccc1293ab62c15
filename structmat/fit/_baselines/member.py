"""What a baseline answers, and what baselines share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Baseline", "Member", "best_members", "divisors", "relative_norm", "tails"]


class Member(NamedTuple):
    """The best member of a family."""

    n_parameters: int
    error: float
    """Relative Frobenius error."""


Baseline: TypeAlias = Callable[["NDArray[Any]", Sequence[int]], list[Member]]
"""``baseline(matrix, budgets)``: the best member with at most so many parameters, one for each budget. The entries of
the matrix must be finite, floating-point numbers whose squares neither overflow nor underflow."""


def best_members(matrix: NDArray[Any], members: list[Member], budgets: Sequence[int]) -> list[Member]:
    """Return the best of the members in each budget, the zero matrix among them; of equals the smallest."""
    every = [Member(0, 1.0 if matrix.any() else 0.0), *members]
    return [min((m for m in every if m.n_parameters <= b), key=lambda m: (m.error, m.n_parameters)) for b in budgets]


def tails(sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the relative error left by the first k terms of an orthogonal expansion, for k = 0 to all of them."""
    squares = np.square(sizes, dtype=np.float64)
    left = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    errors: NDArray[np.float64] = np.sqrt(left / (left[0] or 1.0))
    return errors


def relative_norm(residual: NDArray[Any], matrix: NDArray[Any]) -> float:
    """Return the quotient of the Frobenius norms, zero for a zero matrix."""
    size, whole = (hypot(*np.linalg.norm(part, axis=1).tolist()) for part in (residual, matrix))
    return size / whole if whole else 0.0


def divisors(n: int) -> list[int]:
    """Return the divisors of a number, rising."""
    return [d for d in range(1, n + 1) if n % d == 0]
