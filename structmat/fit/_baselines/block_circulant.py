"""Block-circulant matrices: the best case of C3A."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from structmat.fit._baselines.member import Member, best_members, divisors, relative_norm
from structmat.operators import BlockCirculant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["block_circulant"]


def block_circulant(matrix: NDArray[Any], budgets: Sequence[int]) -> list[Member]:
    """Means of the cyclic diagonals of b x b blocks: the best case of C3A.

    The block sizes are the divisors of either side; blocks at the end of the other side are cropped. Of all sizes whose
    ``ceil(rows / b) * ceil(cols / b) * b`` parameters are in the budget the one with the smallest error is taken, which
    need not be the smallest size.
    """
    rows, cols = matrix.shape
    counts = {b: -(-rows // b) * -(-cols // b) * b for b in sorted({*divisors(rows), *divisors(cols)})}
    members = [
        Member(count, relative_norm(matrix - BlockCirculant.nearest(matrix, b).to_dense(), matrix))
        for b, count in counts.items()
        if count <= max(budgets, default=0)
    ]
    return best_members(matrix, members, budgets)
