"""Toeplitz systems by iteration: a few steps of GMRES with Strang's circulant as preconditioner [1]_.

Where the symbol of a matrix, the function whose Fourier coefficients its diagonals are, is smooth and has no zeros, the
number of steps does not grow with the size, so that a solution takes O(n log n).

References
----------
.. [1] Chan, R. H., Ng, M. K., Conjugate gradient methods for Toeplitz systems, SIAM Rev. 38, 1996.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `sparse` is imported on first use

from structmat._arrays.libraries import device_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._toeplitz_systems import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def central_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the first column of Strang's circulant, which has the diagonals of a matrix that lie near its main one.

    `lower` holds the diagonals from the main one downward. Diagonal k of a circulant of size n is its diagonal k - n
    too, which lies above the main one: `wrapped` holds these, in the same order. Of two that are equally far away it is
    the mean.
    """
    n = lower.shape[-1]
    k = xp.arange(n, device=device_of(lower))
    return xp.where(2 * k == n, lower / 2 + wrapped / 2, xp.where(2 * k < n, lower, wrapped))


def solve_by_iteration(
    c: NDArray[Any], r: NDArray[Any], product: Callable[[NDArray[Any]], NDArray[Any]], b: NDArray[Any]
) -> NDArray[Any]:
    """Return solutions for the rows of b, which are to be refined, or NaN where the few steps do not suffice.

    `product` multiplies by the Toeplitz matrix of that first column and first row.
    """
    n, xp = len(c), numpy_namespace
    real = not np.iscomplexobj(c)
    solutions = np.full_like(b, np.nan)
    circulant = central_diagonals(c, np.append(c[:1], r[:0:-1]), xp)
    eigenvalues: Any = spectrum(circulant, xp, real=real)
    moduli = np.abs(eigenvalues)
    if not moduli.min() > thresholds.REGULAR_CIRCULANT * moduli.max():
        return solutions

    def preconditioned(v: NDArray[Any]) -> Any:
        return from_spectrum(spectrum(v.ravel(), xp, real=real) / eigenvalues, n, xp, real=real)

    linear_operator = scipy.sparse.linalg.LinearOperator
    T = linear_operator((n, n), lambda v: product(v.ravel()), dtype=b.dtype)
    M = linear_operator((n, n), preconditioned, dtype=b.dtype)

    def approximate(b: NDArray[Any], tolerance: float, patience: float) -> Any:
        options: dict[str, Any] = {"restart": thresholds.GMRES_STEPS, "maxiter": 1, "callback_type": "pr_norm"}
        first = float(np.linalg.norm(preconditioned(b)) / np.linalg.norm(b))
        try:
            return scipy.sparse.linalg.gmres(
                T, b, M=M, rtol=tolerance, callback=_Patience(patience * first), **options
            )[0]
        except _GivenUp:
            return np.full_like(b, np.nan)

    size = np.abs(c).sum() + np.abs(r).sum()
    for row, right in zip(solutions, b, strict=True):
        x = approximate(right, thresholds.ITERATED_TO, thresholds.PROMISING)
        residual = right - product(x)
        if not np.linalg.norm(residual) <= thresholds.WORTH_REFINING * (
            np.linalg.norm(right) + size * np.linalg.norm(x)
        ):
            break  # other rows need about as many steps
        row[:] = x + approximate(residual, thresholds.CORRECTED_TO, math.inf)
    return solutions if np.all(np.isfinite(solutions)) else np.full_like(b, np.nan)


class _GivenUp(Exception):  # noqa: N818  # no error: another way is taken
    """Iteration does not converge within the steps that are allowed."""


class _Patience:
    """Gives iteration up after some steps with which the preconditioned residual has hardly become smaller."""

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.steps = 0

    def __call__(self, residual: float) -> None:
        self.steps += 1
        if self.steps == thresholds.PATIENCE and not residual <= self.allowed:
            raise _GivenUp
