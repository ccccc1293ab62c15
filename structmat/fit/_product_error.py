"""The error of a fitted operator as its users meet it: through its products, in their library and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import moved_like, to_numpy
from structmat._array_tools import warn_caller
from structmat.fit._three_factors.blocks import absolute_square
from structmat.fit._three_factors.vectors import scale_by_power_of_two

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import Array
    from structmat.operators import CDDProduct

__all__ = ["product_error", "warn_of_rounding"]

# Products with so many numbers at a time.
_CHUNK_ENTRIES = 1 << 16


def product_error(
    operator: CDDProduct,
    matrix: Array,
    target: NDArray[Any],
    *,
    exponent: int = 0,
    inputs: NDArray[Any] | None = None,
    entry_weights: NDArray[Any] | None = None,
) -> float:
    """Return ``norm(target - 2**-exponent * (operator @ inputs)) / norm(target)``, 0.0 for a target of zeros.

    Parameters
    ----------
    operator : CDDProduct
        Of shape (rows, cols).
    matrix : array
        Tells the library, dtype and device of the products.
    target : (rows, k) ndarray
    exponent : int, default 0
    inputs : (cols, k) or (cols,) ndarray, optional
        A vector stands for the matrix with this diagonal; the identity by default.
    entry_weights : (rows, k) ndarray, optional
        Weights of the squared entries in both norms.
    """
    rows, cols = operator.shape
    width = max(1, _CHUNK_ENTRIES // max(rows, cols))
    lost = norm2 = 0.0
    for start in range(0, target.shape[1], width):
        part = slice(start, min(start + width, target.shape[1]))
        if inputs is None or inputs.ndim == 1:
            x = np.eye(cols, part.stop - start, -start)
            x = x if inputs is None else x * inputs[:, None]
        else:
            x = inputs[:, part]
        with np.errstate(over="ignore", invalid="ignore"):
            y = to_numpy(operator @ moved_like(x, matrix))
        wanted = target[:, part]
        with np.errstate(over="ignore", invalid="ignore"):
            # Complex factors of a real matrix leave imaginary parts.
            residual = wanted - scale_by_power_of_two(y.astype(np.result_type(y, np.float64)), -exponent)
            weights = 1.0 if entry_weights is None else entry_weights[:, part]
            if entry_weights is not None:  # what a missing entry is in the product does not count, be it out of range
                residual = np.where(weights > 0, residual, 0.0)
            lost += float(np.sum(absolute_square(residual) * weights))
        norm2 += float(np.sum(absolute_square(wanted.astype(np.result_type(wanted, np.float64))) * weights))
    if norm2 == 0.0:
        return 0.0
    return float(np.sqrt(lost / norm2)) if np.isfinite(lost) else np.inf


def warn_of_rounding(spread: float, products: np.dtype[Any]) -> None:
    """Warn the caller of `fit_cdd` where half of the digits of products are lost; only a given start can bring that."""
    rounding = float(np.finfo(products).eps)
    if spread > rounding**-0.5:
        warn_caller(
            "fit_cdd: rounding changes products with the operator by about "
            f"{spread * rounding:.1g} of the norm of W, for its factors, from the start given, have entries of too "
            "wide a range for transforms. Use operator.direct_matvec or operator.to_dense(), or fit without this start",
            UserWarning,
        )
