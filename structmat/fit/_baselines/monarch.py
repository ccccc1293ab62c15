"""Monarch matrices."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._baselines.member import Member, best_members, divisors, tails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["monarch"]


def monarch(matrix: NDArray[Any], budgets: Sequence[int]) -> list[Member]:
    """Products of two block-diagonal matrices with a fixed permutation between them, of any number of blocks.

    With g blocks the matrix falls into g x g parts, part (j, k) made of every g-th row from row j on and of the k-th
    run of ``cols / g`` columns. A Monarch matrix has rank one in every part, so the nearest is known in closed form: g²
    small SVDs. With rank r in every part it has ``g r (rows + cols)`` parameters. Of all g > 1 that divide both sides
    and all r in the budget the best is taken; g = 1 would be the truncated SVD.
    """
    rows, cols = matrix.shape
    most = max(budgets, default=0) // (rows + cols)
    members = []
    for g in divisors(gcd(rows, cols)):
        if not 1 < g <= most:
            continue
        parts = matrix.reshape(rows // g, g, g, cols // g).transpose(1, 2, 0, 3)
        values = np.linalg.svd(parts, compute_uv=False)
        energies = np.square(values).sum(axis=(0, 1), dtype=np.float64)
        errors = tails(np.sqrt(energies))
        ranks = range(1, min(most // g, len(errors) - 1) + 1)
        members += [Member(g * rank * (rows + cols), float(errors[rank])) for rank in ranks]
    return best_members(matrix, members, budgets)
