"""Weights of a fit: from second moments of the inputs to a matrix whose columns are fitted instead of the unit vectors.

With ``S = M @ M^H`` the weighted error ``norm((W - P) S^(1/2))`` is ``norm(W @ M - P @ M)``: a fit of the products with
the columns of `M`, of which a singular `S` needs no more than its rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["column_roots", "weighted_inputs"]


def column_roots(weights: NDArray[Any], cols: int) -> NDArray[Any]:
    """Return the square roots, in double precision, of weights of the columns; the largest is one."""
    scaled, _ = _checked(weights, cols)
    if np.iscomplexobj(scaled) or scaled.min() < 0.0:
        raise ValueError("fit_cdd: weights must be real and not negative where they are a vector")
    roots: NDArray[Any] = np.sqrt(scaled)
    return roots


def _checked(weights: NDArray[Any], cols: int) -> tuple[NDArray[Any], float]:
    """Return weights over the modulus of their largest, in double precision, and that modulus."""
    owner = "fit_cdd: weights"
    if weights.shape not in {(cols,), (cols, cols)}:
        raise ValueError(f"{owner} must have shape ({cols},) or ({cols}, {cols}), got {weights.shape}")
    if not np.isfinite(weights).all():
        raise ValueError(f"{owner} must be finite, got NaN or infinity")
    largest = float(np.abs(weights).max())
    if largest == 0.0:
        raise ValueError(f"{owner} must not be zero")
    return weights.astype(np.result_type(weights.dtype, np.float64)) / largest, largest


def weighted_inputs(weights: NDArray[Any], cols: int, *, real: bool) -> NDArray[Any]:
    """Return `M`, in double precision, scaled to a largest entry of order one; real if the matrix is to be `real`.

    Parameters
    ----------
    weights : (cols,) or (cols, cols) ndarray
        The diagonal of `S`, or `S`.
    cols : int
        Columns of the matrix to be fitted.
    real : bool
        Whether the matrix to be fitted is real.
    """
    if weights.ndim == 1:
        roots = column_roots(weights, cols)
        return np.diag(roots)[:, roots > 0]
    owner = "fit_cdd: weights"
    scaled, largest = _checked(weights, cols)
    rounding = 10.0 * cols * float(np.finfo(weights.dtype).eps)
    if np.abs(scaled - scaled.conj().T).max() > rounding:
        raise ValueError(f"{owner} must be a symmetric (Hermitian) matrix")
    if real and np.iscomplexobj(scaled):
        # Of a real residual only the real part of S, symmetric and positive semi-definite too, matters.
        scaled = np.ascontiguousarray(scaled.real)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] < -rounding * values[-1]:
        raise ValueError(f"{owner} must be positive semi-definite, got the eigenvalue {values[0] * largest:.6g}")
    # More would be lost with a higher threshold than noise: a product is free to do anything in directions left out.
    kept = values > float(np.finfo(weights.dtype).eps) * values[-1]
    root: NDArray[Any] = vectors[:, kept] * np.sqrt(values[kept])
    return root
