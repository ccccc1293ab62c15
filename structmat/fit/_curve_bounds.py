"""How many factors an exact product takes: what counting allows, and what a construction is known to reach."""

from __future__ import annotations

from dataclasses import replace

from structmat.operators import CDDLayout

__all__ = ["degrees_of_freedom", "factors_by_construction", "factors_by_counting"]


def degrees_of_freedom(layout: CDDLayout) -> int:
    """Return the largest dimension that the set of products of a layout can have.

    Between two neighbouring factors a diagonal matrix that is constant on every block commutes with the circulants, so
    that one number a block may be moved from one factor to the other without a change of the product. The count is the
    same over the real and the complex numbers.
    """
    moved = sum(-(-cols // layout.block_size) for _, cols in layout.factor_shapes[:-1])
    return layout.n_parameters - moved


def factors_by_counting(layout: CDDLayout) -> int | None:
    """Return the fewest factors with which products can have as many degrees of freedom as the matrix has entries.

    With fewer factors almost no matrix is a product; with so many it may still be none. It is ``n + 1`` for a square
    matrix and a single block. None if no number of factors that products may have is enough.
    """
    rows, cols = layout.shape
    step = 1 if layout.is_single_block else 2
    first = 1 if layout.is_single_block else 3
    for number in range(first, CDDLayout.most_factors(layout.shape) + 1, step):
        if degrees_of_freedom(replace(layout, n_factors=number)) >= rows * cols:
            return number
    return None


def factors_by_construction(layout: CDDLayout) -> int | None:
    """Return the complex factors of `factorize_cdd`, ``2 n + 1``; None where it does not apply, as for rectangles."""
    return 2 * layout.shape[0] + 1 if layout.is_single_block else None
