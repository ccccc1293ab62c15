"""Square chains: the problem scaled and set up for the search, and its answer scaled back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._many_factors.objective import First, Layout, Objective
from structmat.fit._many_factors.search import Candidate, Plan, Search
from structmat.fit._many_factors.starts import nearest_circulant, weighted_rank_one
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.choice import CLOSED_FORMS, sweep_from_all_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._control import Control
    from structmat.fit._three_factors.vectors import Factors
    from structmat.fit._warm_start import Given

__all__ = ["SquareProblem", "scaled_matrix"]

# With more entries than a square of this side a matrix of single precision is fitted in single precision.
_DOUBLE_SIDE = 512


class SquareProblem:
    """A square matrix, and what products of its own size and scale are compared with.

    Parameters
    ----------
    values : (n, n) ndarray
        Finite and not zero.
    inputs : (n, k) ndarray, optional
        What the columns of the products, and of the matrix, are combined with: `weighted_inputs`.
    """

    def __init__(self, values: NDArray[Any], inputs: NDArray[Any] | None) -> None:
        n = len(values)
        self.matrix, self.log_scale = scaled_matrix(values)
        self.dtype: np.dtype[Any] = self.matrix.dtype
        coarse = np.complex64 if np.iscomplexobj(values) else np.float32
        self.inputs = inputs = None if inputs is None else inputs.astype(self.dtype)
        self.fine = Objective(Layout(n, 1), self.matrix if inputs is None else self.matrix @ inputs, inputs)
        self.coarse = self.fine.astype(np.dtype(coarse))

    def search(
        self,
        layout: Layout,
        rng: np.random.Generator,
        control: Control,
        *,
        plan: Plan,
        swept: bool,
        given: Sequence[Given] = (),
    ) -> Candidate:
        """Return the best chain found; `swept` says whether to sweep for the best one of three factors first."""
        n = layout.n
        grid = BlockGrid(self.matrix, n)
        forms: list[tuple[str, First, NDArray[Any]]] = [
            ("circulant", "circulant", nearest_circulant(self.matrix)[None]),
            ("diagonal", "diagonal", np.diag(self.matrix)[None]),
        ]
        # What sweeps find is found with the same random numbers as by a fit with three factors.
        own = copy.deepcopy(rng)
        if layout.n_factors + (layout.first == "diagonal") >= 4:
            if swept:
                best = sweep_from_all_starts(grid, own, control, n_random=plan.restarts)
                forms.append((best.start, "diagonal", _vectors(best.run.factors, grid)))
            else:
                forms += [(name, "diagonal", _vectors(start(grid, own), grid)) for name, start in CLOSED_FORMS]
            if self.inputs is not None:
                forms.append(("rank-one", "diagonal", weighted_rank_one(self.matrix, self.inputs)))
        del grid  # it holds copies of the matrix
        search = Search(
            fine=self.fine,
            coarse=self.coarse,
            matrix=self.matrix if not self.fine.weighted else None,
            closed_forms=forms,
            swept=swept and not self.fine.weighted,
            seed=int(rng.integers(1 << 62)),
            control=control,
            plan=plan,
        )
        starts = []
        for first, vectors, _ in given:
            own_layout = Layout(n, len(vectors), first)
            parameters = own_layout.from_vectors(_scaled(vectors, -self.log_scale))
            starts.append(Candidate("given", own_layout, parameters, np.inf))
        return search.run(layout, starts)

    def vectors(self, candidate: Candidate) -> NDArray[Any]:
        """Return the vectors of a chain that fits the matrix as it was given."""
        return _scaled(candidate.vectors, self.log_scale)

    def error(self, layout: Layout, vectors: Sequence[NDArray[Any]]) -> float:
        """Return the relative error of vectors for the matrix as it was given."""
        parameters = layout.from_vectors(_scaled(np.stack(vectors).astype(self.matrix.dtype), -self.log_scale))
        return self.fine.of(layout).error(parameters.astype(self.dtype))


def scaled_matrix(values: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return a matrix of the norm of an isometry, in the precision of the fit, and the logarithm of what it lacks.

    The matrix as it was given is the exponential of this times the one returned.
    """
    side = min(values.shape)
    single = np.result_type(values.dtype, np.float32)
    large = values.size > _DOUBLE_SIDE**2
    matrix = values.astype(single if large else np.result_type(values.dtype, np.float64))
    largest = max(float(np.abs(row).max()) for row in values)
    matrix /= largest
    norm = float(np.linalg.norm(matrix)) / np.sqrt(side)
    matrix /= norm
    return matrix, float(np.log(largest) + np.log(norm))


def _scaled(vectors: NDArray[Any], log_scale: float) -> NDArray[Any]:
    """Multiply a product by the exponential of `log_scale`, every factor by its share."""
    return vectors * vectors.real.dtype.type(np.exp(log_scale / len(vectors)))


def _vectors(factors: Factors, grid: BlockGrid) -> NDArray[Any]:
    a, c, b = factors.scaled(grid.exponent)
    return np.stack([a[0], c[0, 0], b[0]])
