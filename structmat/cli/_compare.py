"""What a fit is compared with: truncated SVD at the same number of parameters, nearest circulant and diagonal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._baselines.low_rank import low_rank_error
from structmat.fit._numpy_bridge import as_matrix, to_numpy
from structmat.fit._three_factors.alternate import relative_error
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.starts import circulant_start
from structmat.fit._three_factors.steps import residual_norm2
from structmat.operators import BlockCirculant, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit import FitResult

__all__ = ["Row", "comparison"]


class Row(NamedTuple):
    """One approximation of the matrix."""

    method: str
    """A name for programs."""
    label: str
    """A name for people."""
    n_parameters: int
    error: float | None
    """Relative Frobenius error; None where the method has no member with so few parameters."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        explained = None if self.error is None else 1.0 - self.error**2
        return self._asdict() | {"explained": explained}


def comparison(W: NDArray[Any], result: FitResult) -> list[Row]:
    """Return the fit and its rivals, the fit first."""
    matrix = to_numpy(as_matrix(W, "comparison: W"))
    circulant = _nearest_circulant(matrix, result.block_size)
    # Divided by its largest entry, so that no square over- or underflows.
    matrix = matrix / (float(np.max(np.abs(matrix))) or 1.0)
    return [_fit(result), _truncated_svd(matrix, result.n_parameters), circulant, _diagonal(matrix)]


def _fit(result: FitResult) -> Row:
    letters = {Diagonal: "D", Circulant: "C", BlockCirculant: "C"}
    form = " ".join(letters.get(type(factor), "?") for factor in result.operator.factors)
    return Row("cdd-fit", f"CDD fit ({form})", result.n_parameters, result.error)


def _truncated_svd(matrix: NDArray[Any], n_parameters: int) -> Row:
    rows, cols = matrix.shape
    rank = min(n_parameters // (rows + cols), rows, cols)
    if rank == 0:
        return Row("truncated-svd", "truncated SVD (rank 1 needs more)", rows + cols, None)
    error = low_rank_error(matrix, rank)
    return Row("truncated-svd", f"truncated SVD (rank {rank})", rank * (rows + cols), error)


def _nearest_circulant(matrix: NDArray[Any], b: int) -> Row:
    # As `BlockCirculant.nearest`, but with the fit's own pieces, which never hold a second dense matrix.
    grid = BlockGrid(matrix, b)
    error = relative_error(grid, residual_norm2(grid, circulant_start(grid, np.random.default_rng(0))))
    label = "nearest circulant" if matrix.shape == (b, b) else f"nearest block circulant, b={b}"
    return Row("nearest-circulant", label, grid.p * grid.q * b, error)


def _diagonal(matrix: NDArray[Any]) -> Row:
    rest = matrix.copy()
    np.fill_diagonal(rest[: min(rest.shape), : min(rest.shape)], 0)
    return Row("nearest-diagonal", "nearest diagonal", min(matrix.shape), _relative(rest, matrix))


def _relative(residual: NDArray[Any], matrix: NDArray[Any]) -> float:
    """Return the quotient of the Frobenius norms, zero for a zero matrix."""
    size, whole = (math.hypot(*np.linalg.norm(part, axis=1).tolist()) for part in (residual, matrix))
    return size / whole if whole else 0.0
