"""Starting points of chains of many factors that are read off the matrix, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat.fit._many_factors.block_objective import BlockLayout
from structmat.fit._many_factors.rank_two import low_rank_chain, low_rank_grid, truncated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.objective import First, Layout

__all__ = ["MATRIX_STARTS", "MatrixStart", "Sought"]


class Sought(NamedTuple):
    """What a start is to be for."""

    target: NDArray[Any]
    """The matrix, or its product with the inputs."""
    inputs: NDArray[Any] | None
    layout: Layout


MatrixStart: TypeAlias = "Callable[[Sought, np.random.Generator, Callable[[], bool]], Iterable[tuple[First, Any]]]"
"""``start(sought, rng, stopped)``: kinds of the first factors and vectors of chains that `extended` makes chains of the
layout, none where the start has nothing to offer. It looks at `stopped` every few seconds at least."""


def _low_rank(sought: Sought, rng: np.random.Generator, _stopped: Callable[[], bool]) -> Iterable[tuple[First, Any]]:
    """The truncated SVD of rank two, or of as many terms as the smaller side has blocks."""
    layout, inputs = sought.layout, sought.inputs
    if layout.n_factors - (layout.first == "circulant") < 5:
        return
    if isinstance(layout, BlockLayout):
        blocks = -(-min(layout.shape) // layout.block_size)
        if blocks > 1 or layout.block_size > 1:
            pair = truncated(sought.target, max(2, blocks), rng, inputs)
            yield "diagonal", low_rank_grid(*pair, layout.block_size)
    elif layout.n > 1:
        yield "diagonal", low_rank_chain(*truncated(sought.target, 2, rng, inputs))


MATRIX_STARTS: tuple[tuple[str, MatrixStart], ...] = (("low-rank", _low_rank),)
"""Names and starts, tried in this order until one is exact."""
