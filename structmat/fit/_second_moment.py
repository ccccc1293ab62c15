"""From second moments of the inputs to a matrix whose columns are fitted instead of the unit vectors.

With ``S = M @ M^H`` the weighted error ``norm((W - P) S^(1/2))`` is ``norm(W @ M - P @ M)``: a fit of the products with
the columns of `M`, of which a singular `S` needs no more than its rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import as_floating, to_numpy
from structmat._array_tools import ArgumentValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import ArrayLike

__all__ = ["column_roots", "second_moment", "weighted_inputs"]

_ARGUMENT = "input_second_moment"


def second_moment(value: ArrayLike, cols: int, owner: str) -> NDArray[Any]:
    """Return `S`, or the diagonal of it, in NumPy."""
    moment = to_numpy(as_floating(value, owner, _ARGUMENT))
    if moment.shape not in {(cols,), (cols, cols)}:
        text = f"must have shape ({cols},) or ({cols}, {cols}), got {moment.shape}"
        raise ArgumentValueError(owner, _ARGUMENT, text)
    if not np.isfinite(moment).all():
        raise ArgumentValueError(owner, _ARGUMENT, "must be finite, got NaN or infinity")
    if not moment.any():
        raise ArgumentValueError(owner, _ARGUMENT, "must not be zero")
    return moment


def column_roots(moment: NDArray[Any], owner: str) -> NDArray[Any]:
    """Return the square roots, in double precision, of the diagonal of `S`; the largest is one."""
    scaled, _ = _scaled(moment)
    if np.iscomplexobj(scaled) or scaled.min() < 0.0:
        raise ArgumentValueError(owner, _ARGUMENT, "must be real and not negative where it is a vector")
    roots: NDArray[Any] = np.sqrt(scaled)
    return roots


def weighted_inputs(moment: NDArray[Any], owner: str, *, real: bool) -> NDArray[Any]:
    """Return `M`, in double precision, scaled to a largest entry of order one; real if the matrix is to be `real`.

    Parameters
    ----------
    moment : (cols,) or (cols, cols) ndarray
        As `second_moment` returns it.
    owner : str
        Whose argument that is.
    real : bool
        Whether the matrix to be fitted is real.
    """
    if moment.ndim == 1:
        roots = column_roots(moment, owner)
        return np.diag(roots)[:, roots > 0]
    scaled, largest = _scaled(moment)
    rounding = 10.0 * len(moment) * float(np.finfo(moment.dtype).eps)
    if np.abs(scaled - scaled.conj().T).max() > rounding:
        raise ArgumentValueError(owner, _ARGUMENT, "must be a symmetric (Hermitian) matrix")
    if real and np.iscomplexobj(scaled):
        # Of a real residual only the real part of S, symmetric and positive semi-definite too, matters.
        scaled = np.ascontiguousarray(scaled.real)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] < -rounding * values[-1]:
        text = f"must be positive semi-definite, got the eigenvalue {values[0] * largest:.6g}"
        raise ArgumentValueError(owner, _ARGUMENT, text)
    # More would be lost with a higher threshold than noise: a product is free to do anything in directions left out.
    kept = values > float(np.finfo(moment.dtype).eps) * values[-1]
    root: NDArray[Any] = vectors[:, kept] * np.sqrt(values[kept])
    return root


def _scaled(moment: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return second moments over the modulus of their largest, in double precision, and that modulus."""
    largest = float(np.abs(moment).max())
    return moment.astype(np.result_type(moment.dtype, np.float64)) / largest, largest
