"""Rectangles and several blocks: the problem scaled and set up for the search, and its answer scaled back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._many_factors.block_objective import BlockLayout, BlockObjective, block_layout
from structmat.fit._many_factors.search import Candidate, Plan, Search
from structmat.fit._many_factors.square import scaled_matrix
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.choice import sweep_from_all_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._warm_start import Given

__all__ = ["BlockProblem"]

# Of a limited time the sweeps, for three factors, may take this share before the search for more begins.
_SWEEP_SHARE = 0.3


class BlockProblem:
    """A matrix on a grid of blocks, and what products of its own shape and scale are compared with.

    A wide matrix without inputs is fitted as its transpose: the rows that are carried along the chain are then as few
    as its smaller side.

    Parameters
    ----------
    values : (rows, cols) ndarray
        Finite and not zero.
    block_size : int
    inputs : (cols, k) ndarray, optional
        What the columns of the products, and of the matrix, are combined with: `weighted_inputs`.
    """

    def __init__(self, values: NDArray[Any], block_size: int, inputs: NDArray[Any] | None) -> None:
        self.values, self.block_size = values, block_size
        self.transposed = inputs is None and values.shape[0] < values.shape[1]
        matrix, self.log_scale = scaled_matrix(values.T if self.transposed else values)
        """The matrix is the exponential of this times the one that is fitted."""
        rows, cols = matrix.shape
        inputs = None if inputs is None else inputs.astype(matrix.dtype)
        target = matrix if inputs is None else matrix @ inputs
        self.fine = BlockObjective(block_layout((rows, cols), block_size, 3), target, inputs)
        self.coarse = self.fine.astype(np.dtype(np.complex64 if np.iscomplexobj(values) else np.float32))

    def search(
        self,
        layout: BlockLayout,
        rng: np.random.Generator,
        control: Control,
        *,
        plan: Plan,
        swept: bool,
        given: Sequence[Given] = (),
    ) -> Candidate:
        """Return the best chain found, of which one of three factors found by sweeps is always a start.

        `swept` says whether that one stands for all of three factors.
        """
        # What sweeps find is found with the same random numbers as by a fit with three factors.
        own = copy.deepcopy(rng)
        grid = BlockGrid(self.values, self.block_size)
        part = control.until(control.share(_SWEEP_SHARE))
        best = sweep_from_all_starts(grid, own, part, n_random=plan.restarts)
        rows, cols = self.values.shape
        a, c, b = best.run.factors.scaled(grid.exponent)
        del grid  # it holds copies of the matrix
        vectors = [a.reshape(-1)[:rows], c, b.reshape(-1)[:cols]]
        search = Search(
            fine=self.fine,
            coarse=self.coarse,
            matrix=None,
            closed_forms=[(best.start, "diagonal", self._inner(vectors))],
            swept=swept and not self.fine.weighted,
            seed=int(rng.integers(1 << 62)),
            control=control,
            plan=plan,
        )
        starts = []
        for start in given:
            own_layout = replace(self._inner_layout(layout), n_factors=len(start.vectors))
            starts.append(Candidate("given", own_layout, own_layout.from_vectors(self._inner(start.vectors)), np.inf))
        return search.run(self._inner_layout(layout), starts)

    def vectors(self, candidate: Candidate) -> list[NDArray[Any]]:
        """Return the vectors of a chain that fits the matrix as it was given."""
        vectors = _scaled(candidate.vectors, self.log_scale)
        return _transposed(vectors) if self.transposed else vectors

    def error(self, layout: BlockLayout, vectors: Sequence[NDArray[Any]]) -> float:
        """Return the relative error of vectors for the matrix as it was given."""
        inner = self._inner_layout(layout)
        own = self._inner([vector.astype(self.fine.dtype) for vector in vectors])
        return self.fine.of(inner).error(inner.from_vectors(own).astype(self.fine.dtype))

    def _inner_layout(self, layout: BlockLayout) -> BlockLayout:
        rows, cols = layout.shape
        return replace(layout, shape=(cols, rows)) if self.transposed else layout

    def _inner(self, vectors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the vectors of the scaled, and perhaps transposed, problem."""
        scaled = _scaled(vectors, -self.log_scale)
        return _transposed(scaled) if self.transposed else scaled


def _scaled(vectors: Sequence[NDArray[Any]], log_scale: float) -> list[NDArray[Any]]:
    """Multiply a product by the exponential of `log_scale`, every factor by its share."""
    return [vector * vector.real.dtype.type(np.exp(log_scale / len(vectors))) for vector in vectors]


def _transposed(vectors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the vectors of the transposed product."""
    return [_transposed_blocks(vector) if vector.ndim == 3 else vector for vector in reversed(vectors)]


def _transposed_blocks(c: NDArray[Any]) -> NDArray[Any]:
    turned = np.concatenate((c[..., :1], c[..., :0:-1]), axis=-1)
    return np.ascontiguousarray(turned.swapaxes(0, 1))
