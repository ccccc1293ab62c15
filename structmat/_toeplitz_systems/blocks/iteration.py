"""Long block Toeplitz systems by iteration, with T. Chan's block circulant as preconditioner [1]_ [2]_.

Its block of offset k is the mean of the blocks of the matrix that lie on its two cyclic diagonals, so that it is the
nearest block circulant, and positive definite where the matrix is. One small matrix for each frequency is its inverse.
Where the symbol of a matrix is smooth and its values are regular, the number of steps does not grow with the size.

References
----------
.. [1] Chan, T. F., Olkin, J. A., Circulant preconditioners for Toeplitz-block matrices, Numer. Algorithms 6, 1994.
.. [2] Chan, R. H., Ng, M. K., Conjugate gradient methods for Toeplitz systems, SIAM Rev. 38, 1996.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `fft` and `sparse` are imported on first use

from structmat._toeplitz_systems import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Product = Callable[[NDArray[Any]], NDArray[Any]]


def block_circulant_inverse(offsets: NDArray[Any]) -> Product | None:
    """Return the product of rows with the inverse of T. Chan's block circulant, or None if that is near a singular one.

    `offsets` holds the blocks at the offsets from ``1 - n`` to ``n - 1``, shape ``(2 n - 1, p, p)``.
    """
    n, p = (len(offsets) + 1) // 2, offsets.shape[-1]
    real = not np.iscomplexobj(offsets)
    k = np.arange(n)[:, None, None]
    wrapped = np.concatenate([offsets[:1] * 0, offsets[: n - 1]])
    mean = ((n - k) * offsets[n - 1 :] + k * wrapped) / n
    transforms: Any = (scipy.fft.rfft, scipy.fft.irfft) if real else (scipy.fft.fft, scipy.fft.ifft)
    forward, backward = transforms
    spectrum = forward(mean, axis=0)
    values = np.linalg.svdvals(spectrum)
    if not values.min() > thresholds.REGULAR_CIRCULANT * values.max():
        return None
    of_rows = np.ascontiguousarray(np.linalg.inv(spectrum).swapaxes(-2, -1))

    def product(v: NDArray[Any]) -> Any:
        blocks = v.reshape(-1, n, p).transpose(1, 0, 2)
        return backward(forward(blocks, axis=0) @ of_rows, n, axis=0).transpose(1, 0, 2).reshape(v.shape)

    return product


def solve_by_conjugate_gradients(product: Product, preconditioned: Product, b: NDArray[Any]) -> NDArray[Any]:
    """Return solutions for the rows of b, all at once, with a Hermitian matrix; NaN where it is not positive definite.

    Iteration ends where the residuals of all are small, or no longer become smaller.
    """
    x = np.zeros_like(b)
    residuals = b.copy()
    sizes = np.linalg.norm(b, axis=-1)
    least = sizes.copy()
    z = preconditioned(residuals)
    directions = z
    rz = np.sum(residuals.conj() * z, axis=-1).real
    stagnant = 0
    for _ in range(thresholds.BLOCK_STEPS):
        q = product(directions)
        curvature = np.sum(directions.conj() * q, axis=-1).real
        moving = rz != 0
        if np.any(moving & ~(curvature > 0)) or np.any(rz < 0):
            return np.full_like(b, np.nan)
        alpha = np.where(moving, rz / np.where(moving, curvature, 1), 0)[:, None]
        x += alpha * directions
        residuals -= alpha * q
        norms = np.linalg.norm(residuals, axis=-1)
        if np.all(norms <= thresholds.BLOCK_ITERATED_TO * sizes):
            break
        stagnant = 0 if np.any(norms < least / 2) else stagnant + 1
        least = np.minimum(least, norms)
        if stagnant > thresholds.BLOCK_PATIENCE:
            break
        z = preconditioned(residuals)
        new = np.sum(residuals.conj() * z, axis=-1).real
        directions = z + np.where(moving, new / np.where(moving, rz, 1), 0)[:, None] * directions
        rz = new
    return x


def solve_by_gmres(product: Product, preconditioned: Product, b: NDArray[Any]) -> NDArray[Any]:
    """Return solutions for the rows of b, which are to be refined, or NaN where the few steps do not suffice."""
    n = b.shape[-1]
    solutions = np.full_like(b, np.nan)
    linear_operator = scipy.sparse.linalg.LinearOperator
    T = linear_operator((n, n), lambda v: product(v.reshape(1, n))[0], dtype=b.dtype)
    M = linear_operator((n, n), lambda v: preconditioned(v.reshape(1, n))[0], dtype=b.dtype)
    options: dict[str, Any] = {"rtol": thresholds.ITERATED_TO, "restart": thresholds.GMRES_STEPS, "maxiter": 2}
    for x, row in zip(solutions, b, strict=True):
        x[:], _ = scipy.sparse.linalg.gmres(T, row, M=M, **options)
        if not np.linalg.norm(row - product(x[None])[0]) <= thresholds.WORTH_REFINING * np.linalg.norm(row):
            x[:] = np.nan
            break  # other rows need about as many steps
    return solutions
