"""The units of work of `fit_checkpoint`: one layer each, and one for all weights that are not fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit import fit_cdd
from structmat.fit._baselines.low_rank import low_rank_error
from structmat.fit._many_factors.block_objective import block_layout
from structmat.fit._numpy_bridge import to_numpy
from structmat.fit._second_moment import column_roots, weighted_inputs
from structmat.io import CheckpointError, Entry
from structmat.studies._checkpoint._changes import Change, equal
from structmat.studies._engine import unit_rng

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit import FitResult

__all__ = ["LayerTask", "OtherWeights", "Outcome", "run_task"]


class Outcome(NamedTuple):
    """What a unit of work gives."""

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    fault: str = ""
    """Why there is nothing, if files are to blame."""


@dataclass(frozen=True)
class LayerTask:
    """The fit of the change of one layer."""

    name: str
    change: Change
    transposed: bool
    n_factors: int
    block_size: int | None
    weights: Entry | None
    seed: int
    time_limit: float | None

    @property
    def size(self) -> int:
        """Entries of the matrix, to which the time is roughly proportional."""
        return math.prod(self.change.shape)

    def run(self) -> Outcome:
        """Read, fit and compare; nothing of it stays in memory."""
        matrix = self.change.matrix()
        if not np.isfinite(matrix).all():
            raise CheckpointError(f"{self.change}: the change holds NaN or infinity")
        if self.transposed:
            matrix = np.ascontiguousarray(matrix.T)
        weights = None if self.weights is None else self.weights.read()
        rows, cols = matrix.shape
        values: dict[str, Any] = {
            "name": self.name,
            "rows": rows,
            "cols": cols,
            "dtype": self.change.dtype,
            "norm": math.hypot(*np.linalg.norm(matrix, axis=1).tolist()),
        }
        if not values["norm"]:
            return Outcome({**values, "error": 0.0, "n_parameters": 0}, {})
        size = min(rows, cols) if self.block_size is None else self.block_size
        layout = block_layout((rows, cols), size, self.n_factors)
        n_parameters = sum(math.prod(shape) for shape in layout.vector_shapes)
        values |= {"n_parameters": n_parameters, "block_size": size}
        try:
            values |= _by_svd(matrix, n_parameters, weights)
            result = fit_cdd(
                matrix,
                self.n_factors,
                block_size=size,
                weights=weights,
                rng=unit_rng(self.seed, self.name),
                time_limit=self.time_limit,
                overwrite_W=True,  # what was to be read of it has been
            )
        except ValueError as error:
            raise CheckpointError(f"{self.change}: {error}") from error
        if result.stopped == "interrupted":  # half a fit is no result
            raise KeyboardInterrupt
        return Outcome({**values, "error": result.error}, _vectors(result, layout.vector_shapes))


@dataclass(frozen=True)
class OtherWeights:
    """Which of the weights that are not fitted were tuned too."""

    pairs: tuple[tuple[Entry, Entry], ...]

    @property
    def size(self) -> int:
        """None of the work of fits."""
        return 0

    def run(self) -> Outcome:
        """Compare them, a few rows at a time."""
        return Outcome({"changed": [tuned.key for tuned, base in self.pairs if not equal(tuned, base)]}, {})


def run_task(task: LayerTask | OtherWeights) -> Outcome:
    """Do a unit of work; faults of files are part of the outcome."""
    try:
        return task.run()
    except CheckpointError as error:
        return Outcome({}, {}, str(error))


def _by_svd(matrix: NDArray[Any], n_parameters: int, weights: NDArray[Any] | None) -> dict[str, Any]:
    """Return what a truncated SVD of no more parameters reaches."""
    rows, cols = matrix.shape
    rank = min(n_parameters // (rows + cols), rows, cols)
    if weights is not None:
        inputs = weights if weights.ndim == 1 else weighted_inputs(weights, cols, real=True)
        matrix = matrix * column_roots(inputs, cols) if weights.ndim == 1 else matrix @ inputs
        rank = min(rank, *matrix.shape)
    # Divided by its largest entry, so that no square over- or underflows.
    largest = max(float(matrix.max()), -float(matrix.min()))
    error = low_rank_error(matrix / largest, rank) if largest else 0.0
    return {"svd_rank": rank, "svd_parameters": rank * (rows + cols), "svd_error": error}


def _vectors(result: FitResult, shapes: list[tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """Return the vectors of a fit as an adapter holds them: circulants as grids of blocks."""
    leaves = [to_numpy(factor._arrays()[0]) for factor in result.operator.factors]
    return {str(i): leaf.reshape(shape) for i, (leaf, shape) in enumerate(zip(leaves, shapes, strict=True))}
