"""The problem of the search: a matrix scaled and set up for it, and the answer scaled back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._many_factors.array_work import has_double
from structmat.fit._many_factors.objective import Objective
from structmat.fit._many_factors.parameters import from_vectors
from structmat.fit._many_factors.random_starts import weighted_rank_one
from structmat.fit._many_factors.runs import Candidate, Runs
from structmat.fit._many_factors.search import Search, SearchOptions
from structmat.fit._start_product import KnownProduct
from structmat.fit._three_factors.blocks import BlockGrid, transposed_circulants
from structmat.fit._three_factors.search import best_from_all_starts
from structmat.fit._three_factors.start_list import CLOSED_FORMS
from structmat.fit._three_factors.vectors import largest_exponent, scale_by_power_of_two
from structmat.operators import CDDLayout, Circulant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import Array
    from structmat.fit._control import Control
    from structmat.fit._three_factors.vectors import Factors

__all__ = ["Problem"]

# With more entries than a square of this side a matrix of single precision is fitted in single precision.
_DOUBLE_SIDE = 512


class Problem:
    """A matrix, and what products of its own shape and scale are compared with.

    A wide matrix without inputs is fitted as its transpose: the rows that are carried along the product are then as few
    as its smaller side.

    Parameters
    ----------
    values : (rows, cols) ndarray
        Finite and not zero.
    block_size : int
    inputs : (cols, k) ndarray, optional
        What the columns of the products, and of the matrix, are combined with: `weighted_inputs`.
    like : array
        A tensor of torch whose device does the work of the search; else NumPy does.
    """

    def __init__(self, values: NDArray[Any], block_size: int, inputs: NDArray[Any] | None, like: Array) -> None:
        self._transposed = inputs is None and values.shape[0] < values.shape[1]
        matrix, self._log2_scale = _scaled_matrix(values.T if self._transposed else values, double=has_double(like))
        self._matrix = matrix
        """The matrix as it was given is two to the power `_log2_scale` times this, transposed or not."""
        inputs = None if inputs is None else inputs.astype(matrix.dtype)
        target = matrix if inputs is None else matrix @ inputs
        rows, cols = matrix.shape
        self.fine = Objective(CDDLayout((rows, cols), block_size=block_size), target, inputs, values.dtype, like)
        self.coarse = self.fine.astype(np.dtype(np.complex64 if np.iscomplexobj(values) else np.float32))

    def rounds(
        self,
        layout: CDDLayout,
        rng: np.random.Generator,
        control: Control,
        *,
        options: SearchOptions,
        begin_with_als: bool,
        known: Sequence[KnownProduct] = (),
        beside: Iterable[KnownProduct] = (),
    ) -> Iterator[Candidate]:
        """Yield the best product so far, of the scaled problem: see `Search.rounds`.

        `begin_with_als` says whether the best of three factors by alternating least squares stands for all of three.
        """
        # What is found with three factors is found with the same random numbers as by a fit with three factors.
        own = copy.deepcopy(rng)
        inner = self._inner_layout(layout)
        holds_three = not layout.is_single_block or layout.n_factors + (layout.first == "diagonal") >= 4
        sought = holds_three and (begin_with_als or not layout.is_single_block)
        search = Search(
            Runs(
                fine=self.fine,
                coarse=self.coarse,
                matrix=self._matrix if layout.is_single_block and not self.fine.weighted else None,
                control=control,
            ),
            closed_forms=[*self._closed_forms(layout, copy.deepcopy(own), holds_three=holds_three)],
            of_three=lru_cache(lambda: [self._best_of_three(layout, own, control, options.restarts)] if sought else []),
            has_best_of_three=begin_with_als and not self.fine.weighted,
            seed=int(rng.integers(1 << 62)),
            options=options,
        )

        def of(product: KnownProduct) -> Candidate:
            name, first, vectors = product
            own_layout = replace(inner, n_factors=len(vectors), first=first)
            return Candidate(name, own_layout, from_vectors(own_layout, self._inner(vectors)), np.inf)

        return search.rounds(inner, map(of, known), map(of, beside))

    def _closed_forms(
        self, layout: CDDLayout, rng: np.random.Generator, *, holds_three: bool
    ) -> Iterator[KnownProduct]:
        """Products of up to three factors that the answer must not be worse than."""
        if layout.is_single_block:
            yield KnownProduct("circulant", "circulant", [Circulant.nearest(self._matrix).c[None, None]])
            yield KnownProduct("diagonal", "diagonal", [np.diag(self._matrix)])
        if holds_three:
            grid = self._grid(layout)
            for name, start in CLOSED_FORMS:
                yield self._three_factors(name, start(grid, rng), grid, layout)
            if layout.is_single_block and self.fine.inputs is not None:
                u, v = weighted_rank_one(self._matrix, self.fine.inputs)
                yield KnownProduct("rank-one", "diagonal", [u, np.ones((1, 1, layout.block_size), dtype=u.dtype), v])

    def _best_of_three(
        self, layout: CDDLayout, rng: np.random.Generator, control: Control, restarts: int | None
    ) -> KnownProduct:
        """The best of three factors by alternating least squares."""
        part = control.for_start(apart=self.fine.weighted)
        grid = self._grid(layout)
        best = best_from_all_starts(grid, rng, part, n_random=restarts)
        return self._three_factors(best.start, best.run.factors, grid, layout)

    def _grid(self, layout: CDDLayout) -> BlockGrid:
        grid = BlockGrid(self._matrix.T if self._transposed else self._matrix, layout.block_size)
        grid.products = self.fine.products
        return grid

    def _three_factors(self, name: str, factors: Factors, grid: BlockGrid, layout: CDDLayout) -> KnownProduct:
        rows, cols = layout.shape
        a, c, b = factors.scaled(grid.exponent)
        vectors = [a.reshape(-1)[:rows], c, b.reshape(-1)[:cols]]
        return KnownProduct(name, "diagonal", _transposed(vectors) if self._transposed else vectors)

    def vectors(self, candidate: Candidate) -> list[NDArray[Any]]:
        """Return the vectors of a product that fits the matrix as it was given."""
        vectors = _scaled(candidate.vectors, self._log2_scale)
        return _transposed(vectors) if self._transposed else vectors

    def _inner_layout(self, layout: CDDLayout) -> CDDLayout:
        rows, cols = layout.shape
        return replace(layout, shape=(cols, rows)) if self._transposed else layout

    def _inner(self, vectors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the vectors of the scaled, and perhaps transposed, problem."""
        scaled = _scaled(vectors, -self._log2_scale)
        return _transposed(scaled) if self._transposed else scaled


def _scaled_matrix(values: NDArray[Any], *, double: bool) -> tuple[NDArray[Any], float]:
    """Return a matrix of the norm of an isometry, in the precision of the fit, and the logarithm of its scale."""
    side = min(values.shape)
    single = np.result_type(values.dtype, np.float32)
    large = values.size > _DOUBLE_SIDE**2
    dtype = single if large or not double else np.result_type(values.dtype, np.float64)
    exponent = largest_exponent(values)
    matrix = scale_by_power_of_two(values, -exponent).astype(dtype, copy=False)
    norm = float(np.linalg.norm(matrix)) / np.sqrt(side)
    matrix /= norm
    return matrix, float(exponent + np.log2(norm))


def _scaled(vectors: Sequence[NDArray[Any]], log2_scale: float) -> list[NDArray[Any]]:
    """Multiply a product by two to the power `log2_scale`, every factor by its share."""
    exponent, rest = divmod(log2_scale / len(vectors), 1.0)
    with np.errstate(over="ignore"):  # the error of the products tells
        return [scale_by_power_of_two(v * v.real.dtype.type(2.0**rest), int(exponent)) for v in vectors]


def _transposed(vectors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the vectors of the transposed product."""
    return [_transposed_blocks(vector) if vector.ndim == 3 else vector for vector in reversed(vectors)]


def _transposed_blocks(c: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(transposed_circulants(c).swapaxes(0, 1))
