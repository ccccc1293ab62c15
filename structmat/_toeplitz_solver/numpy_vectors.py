"""The choice between the algorithms, and one step of refinement of what they find, with NumPy in double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # its `linalg` is imported on first use
from array_api_compat import numpy as numpy_namespace

from structmat._engine import Settings, bezoutian, convolution, kernel_of_diagonals
from structmat._toeplitz_solver.iteration import iterated
from structmat._toeplitz_solver.levinson import levinson, symmetries
from structmat._toeplitz_solver.schur import schur

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, Namespace

__all__ = ["NumpyVectors", "inverse_bound", "numpy_vectors"]

DENSE = 128
"""Up to this size elimination of the dense matrix is as fast as the recursions, and the most accurate."""
ITERATED = 1024
"""From this size on iteration is tried first."""
ACCURATE = 1e-11
"""Residuals of x and y, relative to the norms of T and of them, for which the faster algorithms are trusted."""
EXACT = 1e-13
"""The same before refinement, for determinants, which are not refined."""

WRITTEN_OUT = 2048
"""Up to this size the determinant of an ill-conditioned matrix is that of the dense matrix."""
SENSITIVE = 1e-8
"""Bounds of the condition number times eps, above which the recursions lose digits of a determinant."""


class NumpyVectors(NamedTuple):
    """What determines inverse and determinant of each matrix of a stack."""

    x: NDArray[Any]
    """``T x = e_0``, shape ``(..., n)``; NaN where T is singular."""
    y: NDArray[Any]
    """``T y = (s, t[1 - n], ..., t[-1])`` with some s."""
    sign: NDArray[Any]
    """Phases of the determinants, shape ``(...)``."""
    logabsdet: NDArray[Any]
    """Logarithms of their absolute values; zeros where they were not asked for."""


def numpy_vectors(c: NDArray[Any], r: NDArray[Any], *, determinant: bool) -> NumpyVectors:
    """Return what determines the inverses, and if asked for the determinants, of square Toeplitz matrices.

    Parameters
    ----------
    c, r : array, shape (..., n)
        First columns and first rows, of one shape and dtype.
    determinant : bool
        Whether to find the determinants as well, which iteration does not.

    Returns
    -------
    NumpyVectors
        In the precision of `c`, found in double precision.
    """
    batch, n = c.shape[:-1], c.shape[-1]
    wide = np.complex128 if np.iscomplexobj(c) else np.float64
    rows = zip(c.reshape(-1, n).astype(wide), r.reshape(-1, n).astype(wide), strict=True)
    found = [_one(*pair, determinant=determinant) for pair in rows]
    x, y = (np.array([f[i] for f in found], c.dtype).reshape(*batch, n) for i in range(2))
    sign = np.array([f[2] for f in found], c.dtype).reshape(batch)
    return NumpyVectors(x, y, sign, np.array([f[3] for f in found], c.real.dtype).reshape(batch))


def _one(c: NDArray[Any], r: NDArray[Any], *, determinant: bool) -> tuple[NDArray[Any], NDArray[Any], Any, float]:
    """Return vectors and determinant of one matrix."""
    n = len(c)
    if not (np.all(np.isfinite(c)) and np.all(np.isfinite(r[1:]))):
        nothing = np.full(n, np.nan, c.dtype)
        return nothing, nothing, np.nan, np.nan
    if n <= DENSE:
        return _dense(c, r, determinant=determinant)
    if not determinant and n >= ITERATED and (pair := iterated(c, r)):
        x, y, _, residual = _refined(c, r, *pair)
        if residual <= ACCURATE:
            return x, y, 0.0, 0.0
    x, y, sign, log = levinson(c, r) if determinant or n >= ITERATED else _by_scipy(c, r)
    x, y, before, residual = _refined(c, r, x, y)
    if not (before if determinant else residual) <= (EXACT if determinant else ACCURATE):  # nor where it is NaN
        x, y, sign, log = schur(c, r)
        if not np.iscomplexobj(c):
            x, y, sign = x.real, y.real, np.sign(sign.real)
        x, y, _, _ = _refined(c, r, x, y)
    if determinant and n <= WRITTEN_OUT and np.all(np.isfinite(x)):
        bound = _size(c, r) * inverse_bound(x, y, numpy_namespace)
        if not bound * np.finfo(float).eps < SENSITIVE:
            sign, log = np.linalg.slogdet(_matrix(c, r))
    return x, y, sign if np.iscomplexobj(c) else np.real(sign), log


def _by_scipy(c: NDArray[Any], r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Any, float]:
    """Return the vectors by SciPy's recursion, the faster one for short ones as it is compiled."""
    symmetric, hermitian = symmetries(c, r)
    try:
        if symmetric or hermitian:
            x = scipy.linalg.solve_toeplitz((c, r), _known(c, r)[:, 0])
            last = x if symmetric else x.conj()  # the last column of the inverse, in reverse order
            with np.errstate(all="ignore"):
                y = np.append(np.zeros(1, c.dtype), last[:0:-1]) / -last[0]
        else:
            x, y = scipy.linalg.solve_toeplitz((c, r), _known(c, r)).T
    except np.linalg.LinAlgError:
        x = y = np.full(len(c), np.nan, c.dtype)
    return x, y, 0.0, 0.0


def inverse_bound(x: Array, y: Array, xp: Namespace) -> Array:
    """Return a bound of the 1-norm of the inverse, by its formula."""
    size_x, size_y = (xp.sum(xp.abs(v), axis=-1) for v in (x, y))
    bound: Array = size_x * (1 + 2 * size_y)
    return bound


def _size(c: NDArray[Any], r: NDArray[Any]) -> float:
    """Return the sum of the moduli of all constants, a bound of the norms of the matrix."""
    return float(np.sum(np.abs(c)) + np.sum(np.abs(r[1:])))


def _known(c: NDArray[Any], r: NDArray[Any]) -> NDArray[Any]:
    """Return the right-hand sides of x and y as columns, with zero as the free entry."""
    known = np.zeros((len(c), 2), c.dtype)
    known[0, 0], known[1:, 1] = 1, r[:0:-1]
    return known


def _dense(c: NDArray[Any], r: NDArray[Any], *, determinant: bool) -> tuple[NDArray[Any], NDArray[Any], Any, float]:
    """Return vectors and determinant by elimination."""
    n, T = len(c), _matrix(c, r)
    sign, log = np.linalg.slogdet(T) if determinant else (0.0, 0.0)
    try:
        x, y = np.linalg.solve(T, _known(c, r)).T
    except np.linalg.LinAlgError:
        x = y = np.full(n, np.nan, c.dtype)
    return x, y, sign, float(log)


def _matrix(c: NDArray[Any], r: NDArray[Any]) -> NDArray[Any]:
    n, constants = len(c), np.append(r[:0:-1], c)
    matrix: NDArray[Any] = constants[np.arange(n)[:, None] - np.arange(n) + n - 1]
    return matrix


def _refined(
    c: NDArray[Any], r: NDArray[Any], x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], float, float]:
    """Return x and y after one step of refinement where it helps, and how large the residuals are before and after."""
    xp, n = numpy_namespace, len(c)
    plan = convolution(kernel_of_diagonals(c, r[1:], xp), (n, n), Settings(ready=True), xp)
    norm = _size(c, r)

    def residuals(v: NDArray[Any]) -> tuple[NDArray[Any], float]:
        rest = -plan.apply(v, xp)
        rest[0, 0] += 1
        rest[1, 1:] += r[:0:-1]
        rest[1, 0] = 0  # which is free
        sizes = norm * np.max(np.abs(v), axis=-1)
        return rest, float(np.max(np.max(np.abs(rest), axis=-1) / np.where(sizes > 0, sizes, 1)))

    with np.errstate(all="ignore"):
        v = np.stack([x, y])
        rest, before = residuals(v)
        if not np.isfinite(before):
            return x, y, np.inf, np.inf
        better = v + bezoutian(x, y, Settings(), xp, flips=(False, False)).apply(rest, xp)
        _, after = residuals(better)
    return (*better, before, after) if after < before else (x, y, before, before)
