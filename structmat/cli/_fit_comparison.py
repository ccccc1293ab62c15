"""What a fit is compared with: truncated SVD at the same number of parameters, nearest circulant and diagonal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from structmat.fit import closed_form_errors, truncated_svd_error
from structmat.operators import BlockCirculant, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit import FitResult

__all__ = ["Row", "comparison", "fit_row"]


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


def comparison(
    W: NDArray[Any],
    result: FitResult,
    *,
    input_second_moment: NDArray[Any] | None = None,
    entry_weights: NDArray[Any] | None = None,
) -> list[Row]:
    """Return the fit, and the baselines whose best errors are known with these weights."""
    if entry_weights is not None:
        return [fit_row(result)]
    if input_second_moment is not None:
        return [fit_row(result), _truncated_svd(W, result.n_parameters, input_second_moment)]
    b = result.block_size
    nearest = closed_form_errors(W, block_size=b)
    label = "nearest circulant" if W.shape == (b, b) else f"nearest block circulant, b={b}"
    return [
        fit_row(result),
        _truncated_svd(W, result.n_parameters),
        Row("nearest-circulant", label, *nearest["circulant"]),
        Row("nearest-diagonal", "nearest diagonal", *nearest["diagonal"]),
    ]


def fit_row(result: FitResult) -> Row:
    """Return the fit itself."""
    letters = {Diagonal: "D", Circulant: "C", BlockCirculant: "C"}
    form = " ".join(letters.get(type(factor), "?") for factor in result.operator.factors)
    return Row("cdd-fit", f"CDD fit ({form})", result.n_parameters, result.error)


def _truncated_svd(matrix: NDArray[Any], n_parameters: int, moment: NDArray[Any] | None = None) -> Row:
    rows, cols = matrix.shape
    rank = min(n_parameters // (rows + cols), rows, cols)
    if rank == 0:
        return Row("truncated-svd", "truncated SVD (rank 1 needs more)", rows + cols, None)
    error = truncated_svd_error(matrix, rank, input_second_moment=moment)
    return Row("truncated-svd", f"truncated SVD (rank {rank})", rank * (rows + cols), error)
