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
import scipy  # its `fft` is imported on first use

from structmat._arrays.namespaces import numpy_namespace
from structmat._krylov import Product, conjugate_gradients, gmres
from structmat._toeplitz_systems import thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


class _Stagnation:
    """Tells after some steps whether none of the residuals has become half as large in the last ones."""

    def __init__(self) -> None:
        self.steps = 0
        self.least: Any = np.inf

    def __call__(self, squares: NDArray[Any]) -> bool:
        self.steps = 0 if np.any(squares < self.least / 4) else self.steps + 1
        self.least = np.minimum(self.least, squares)
        return self.steps > thresholds.BLOCK_PATIENCE


def solve_by_conjugate_gradients(product: Product, preconditioned: Product, b: NDArray[Any]) -> NDArray[Any]:
    """Return solutions for the rows of b, all at once, with a Hermitian matrix; NaN where it is not positive definite.

    Iteration ends where the residuals of all are small, or no longer become smaller.
    """
    found = conjugate_gradients(
        product,
        b,
        preconditioned,
        rtol=thresholds.BLOCK_ITERATED_TO,
        max_iter=thresholds.BLOCK_STEPS,
        xp=numpy_namespace,
        stagnates=_Stagnation(),
    )
    return found.x if np.all(found.is_definite) else np.full_like(b, np.nan)


def solve_by_gmres(product: Product, preconditioned: Product, b: NDArray[Any]) -> NDArray[Any]:
    """Return solutions for the rows of b, which are to be refined, or NaN where the few steps do not suffice."""
    solutions = np.full_like(b, np.nan)
    for k in range(len(b)):
        row = b[k : k + 1]
        x, _ = gmres(
            product,
            row,
            preconditioned,
            rtol=thresholds.ITERATED_TO,
            max_iter=2 * thresholds.GMRES_STEPS,
            restart=thresholds.GMRES_STEPS,
            xp=numpy_namespace,
        )
        if not np.linalg.norm(row - product(x)) <= thresholds.WORTH_REFINING * np.linalg.norm(row):
            break  # other rows need about as many steps
        solutions[k] = x
    return solutions
