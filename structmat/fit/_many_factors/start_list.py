"""Starting points of chains of many factors that are read off the matrix, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat.fit._many_factors.low_rank_start import low_rank_product, truncated
from structmat.fit._many_factors.peeling_start import peeled
from structmat.fit._many_factors.rank_three_start import rank_three_product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.operators import CDDLayout, FactorKind

# Inverses and sweeps of larger matrices take minutes; with fewer entries to a factor its phases are not to be seen.
_PEELED_SIDE, _ENTRIES_PER_FACTOR = 512, 2
# Newton's method for seven factors of rank three solves systems of this order; below the smaller side few starts lead
# to a solution.
_RANK_THREE_SIDES = range(8, 513)

__all__ = ["CLOSED_STARTS", "MATRIX_STARTS", "MatrixStart", "Sought"]


class Sought(NamedTuple):
    """What a start is to be for."""

    target: NDArray[Any]
    """The matrix, or its product with the inputs."""
    inputs: NDArray[Any] | None
    layout: CDDLayout


MatrixStart: TypeAlias = "Callable[[Sought, np.random.Generator, Control], Iterable[tuple[FactorKind, Any]]]"
"""``start(sought, rng, control)``: kinds of the first factors and vectors of chains that `extended` makes chains of the
layout, none where the start has nothing to offer."""


def _low_rank(sought: Sought, rng: np.random.Generator, _control: Control) -> Iterable[tuple[FactorKind, Any]]:
    """The truncated SVD of rank two, or of as many terms as the smaller side has blocks."""
    layout, inputs = sought.layout, sought.inputs
    if layout.n_factors - (layout.first == "circulant") < 5:
        return
    blocks = -(-min(layout.shape) // layout.block_size)
    if blocks > 1 or layout.block_size > 1:
        pair = truncated(sought.target, max(2, blocks), rng, inputs)
        yield "diagonal", low_rank_product(*pair, layout.block_size)


def _rank_three(sought: Sought, rng: np.random.Generator, control: Control) -> Iterable[tuple[FactorKind, Any]]:
    """The truncated SVD of rank three of a square matrix."""
    layout, n = sought.layout, len(sought.target)
    few = layout.n_factors - (layout.first == "circulant") < 7
    if few or not layout.is_single_block or n not in _RANK_THREE_SIDES:
        return
    double = sought.target.astype(np.result_type(sought.target.dtype, np.float64))
    pair = truncated(double, 3, rng, None if sought.inputs is None else sought.inputs.astype(double.dtype))
    if pair[0].any(axis=0).all():
        vectors = rank_three_product(*pair, rng, control.stopped)
        if vectors is not None:
            yield "diagonal", [v[None, None] if k % 2 else v for k, v in enumerate(vectors)]


def _peeling(sought: Sought, rng: np.random.Generator, control: Control) -> Iterable[tuple[FactorKind, Any]]:
    """The planted product of which a square matrix without inputs consists, with or without noise."""
    layout, target = sought.layout, sought.target
    n = len(target)
    small = n <= _PEELED_SIDE and 3 <= layout.n_factors <= n // _ENTRIES_PER_FACTOR
    # Three factors that begin with a diagonal are found by sweeps.
    known = layout.n_factors == 3 and layout.first == "diagonal"
    if not layout.is_single_block or sought.inputs is not None or known or not small:
        return
    double = target.astype(np.result_type(target.dtype, np.float64))
    vectors = peeled(double, layout.n_factors, layout.first, rng, control)
    if vectors is not None:
        yield layout.first, [v.reshape(s) for v, s in zip(vectors, layout.vector_shapes, strict=True)]


CLOSED_STARTS: tuple[tuple[str, MatrixStart], ...] = (("low-rank", _low_rank),)
"""Those that take hardly any time, which no fit is worse than."""

MATRIX_STARTS: tuple[tuple[str, MatrixStart], ...] = (
    ("peeling", _peeling),
    *CLOSED_STARTS,
    ("rank-three", _rank_three),
)
"""Names and starts, tried in this order until one is exact: peeling tells early, and the last one takes longest."""
