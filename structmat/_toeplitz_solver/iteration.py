"""Preconditioned iteration: O(n log n) for matrices whose symbol is smooth, or no result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import numpy as numpy_namespace

from structmat._engine import Settings, convolution, from_spectrum, kernel_of_diagonals, spectrum

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["gmres", "iterated"]

STEPS = 25
"""After so many steps the direct recursions take over; they cost as much as some hundreds at the sizes in question."""
TOLERANCE = 1e-10
"""The relative residual; the refinement that follows about squares it."""


def iterated(c: NDArray[Any], r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return x and y as `levinson` does, or None where `STEPS` steps do not reach `TOLERANCE`.

    The preconditioner is Strang's circulant [1]_.

    References
    ----------
    .. [1] Chan, R. H., Ng, M. K., Conjugate gradient methods for Toeplitz systems, SIAM Rev. 38, 1996.
    """
    n, real = len(c), not np.iscomplexobj(c)
    plan = convolution(kernel_of_diagonals(c, r[1:], numpy_namespace), (n, n), Settings(ready=True), numpy_namespace)
    wrapped = np.append(c[:1], r[:0:-1])
    k = np.arange(n)
    circulant = np.where(2 * k < n, c, wrapped)
    circulant[2 * k == n] = (c + wrapped)[2 * k == n] / 2
    s: Any = spectrum(circulant, numpy_namespace, real=real)
    size = np.abs(s)
    if not size.min() > 1e-8 * size.max():  # of a preconditioner that is no better than none
        return None

    def product(v: NDArray[Any]) -> NDArray[Any]:
        """Return the product with T of the preconditioned vector."""
        result: Any = plan.apply(preconditioned(v), numpy_namespace)
        return result

    def preconditioned(v: NDArray[Any]) -> NDArray[Any]:
        solution: Any = from_spectrum(spectrum(v, numpy_namespace, real=real) / s, n, numpy_namespace, real=real)
        return solution

    first = np.zeros_like(c)
    first[0] = 1
    found = []
    for b in (first, np.append(c[:1] * 0, r[:0:-1])):
        v = gmres(product, b)
        if v is None:
            return None
        found.append(preconditioned(v))
    return found[0], found[1]


def gmres(product: Callable[[NDArray[Any]], NDArray[Any]], b: NDArray[Any]) -> NDArray[Any] | None:
    """Return v with ``product(v) = b`` to `TOLERANCE` by at most `STEPS` steps of GMRES, or None.

    References
    ----------
    .. [1] Saad, Y., Schultz, M. H., GMRES, SIAM J. Sci. Stat. Comput. 7, 1986.
    """
    norm = float(np.linalg.norm(b))
    if norm == 0:
        return b
    basis = np.zeros((STEPS + 1, len(b)), b.dtype)
    H = np.zeros((STEPS + 1, STEPS), b.dtype)
    basis[0] = b / norm
    for step in range(STEPS):
        w = product(basis[step])
        for _ in range(2):  # twice is enough for orthogonality
            h = basis[: step + 1].conj() @ w
            w -= h @ basis[: step + 1]
            H[: step + 1, step] += h
        H[step + 1, step] = size = float(np.linalg.norm(w))
        if not np.isfinite(size):
            return None
        target = np.zeros(step + 2, b.dtype)
        target[0] = norm
        part = H[: step + 2, : step + 1]
        coefficients = np.linalg.lstsq(part, target)[0]
        if np.linalg.norm(part @ coefficients - target) <= TOLERANCE * norm:
            return coefficients @ basis[: step + 1]
        if size == 0:
            return None
        basis[step + 1] = w / size
    return None
