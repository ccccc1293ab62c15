"""Triangular factors of a Toeplitz matrix by LAPACK: of the dense matrix, or of its band where it is narrow."""

from __future__ import annotations

from functools import cache, lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # its `linalg` is imported on first use

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@cache
def lapack(dtype: Any) -> SimpleNamespace:
    """Return the functions of LAPACK for numbers of that dtype."""
    names = ("gesv", "getrf", "getrs", "gecon", "lange", "gbtrf", "gbtrs", "gttrf", "gttrs", "pttrf", "pttrs")
    functions: Any = scipy.linalg.get_lapack_funcs(names, dtype=dtype)
    return SimpleNamespace(**dict(zip(names, functions, strict=True)))


def toeplitz_view(diagonals: NDArray[Any], cols: int | None = None) -> NDArray[Any]:
    """Return the matrices with these diagonals, from the upper right corner to the lower left one, as a view of them.

    They are square unless the number of columns is given.
    """
    cols = diagonals.shape[-1] // 2 + 1 if cols is None else cols
    first = diagonals[..., cols - 1 :]  # the first column, from which rows go back
    shape, strides = (*first.shape, cols), (*first.strides, -first.strides[-1])
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)


def dense_matrix(diagonals: NDArray[Any]) -> NDArray[Any]:
    """Return the same in the order of LAPACK."""
    return np.array(toeplitz_view(diagonals), order="F")


class TriangularFactors(NamedTuple):
    """The triangular factors of a regular matrix."""

    diagonal: NDArray[Any]
    """The diagonal of the upper factor."""
    pivots: NDArray[Any]
    """Row i was exchanged with row ``pivots[i]``."""
    systems: Callable[..., Any]
    """The function of LAPACK that solves systems with the matrix, or with its adjoint (`trans` of 2)."""
    condition: float
    """An estimate of the condition number in the 1-norm, mostly from below."""

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return the solutions for the rows of b."""
        return np.transpose(self.systems(b=b.T)[0])

    def slogdet(self) -> tuple[Any, float]:
        """Return the phase of the determinant and the logarithm of its absolute value."""
        odd = np.count_nonzero(self.pivots != np.arange(len(self.pivots))) % 2
        moduli = np.abs(self.diagonal)
        return (-1) ** odd * np.prod(self.diagonal / moduli), float(np.sum(np.log(moduli)))


def dense_factors(matrix: NDArray[Any]) -> TriangularFactors | None:
    """Return the factors of a matrix, or None if a pivot is zero; they overwrite one that is in the order of LAPACK."""
    routines = lapack(matrix.dtype)
    norm = routines.lange("1", matrix)
    factors, pivots, failed = routines.getrf(matrix, overwrite_a=True)
    if failed:
        return None
    reciprocal = routines.gecon(factors, norm)[0]
    condition = 1 / reciprocal if reciprocal else np.inf
    return TriangularFactors(factors.diagonal(), pivots, partial(routines.getrs, factors, pivots), condition)


def band_factors(
    diagonals: NDArray[Any], band: tuple[int, int], n: int, *, norm: float, rounding: float
) -> TriangularFactors | None:
    """Return the factors of a band matrix of that 1-norm, or None if a pivot is zero that is not the last one.

    `band` counts the diagonals below and above the main one. The last pivot of a singular band matrix is zero on some
    machines and as small as `rounding` on others, so that a zero is replaced by that number.
    """
    routines = lapack(diagonals.dtype)
    below, above = band
    if max(band) == 1:
        diagonal, pivots, systems, failed = _tridiagonal(diagonals, band, n)
    else:
        stored = np.zeros((2 * below + above + 1, n), diagonals.dtype, order="F")
        stored[below:] = diagonals[:, None]
        factors, pivots, failed = routines.gbtrf(stored, below, above, overwrite_ab=True)
        diagonal, systems = factors[below + above], partial(routines.gbtrs, factors, below, above, ipiv=pivots)
    if failed == n:
        diagonal[-1] = rounding
    elif failed:
        return None
    return TriangularFactors(diagonal, pivots, systems, norm * _norm_of_inverse(systems, n, diagonals.dtype))


def _tridiagonal(
    diagonals: NDArray[Any], band: tuple[int, int], n: int
) -> tuple[NDArray[Any], NDArray[Any], Callable[..., Any], int]:
    """Return what LAPACK finds for a tridiagonal matrix, in a quarter of the time that it takes for it as a band.

    These are the diagonal of the upper factor, pivots and systems as `TriangularFactors` has them, and which pivot is
    zero. A real symmetric matrix that is positive definite needs no pivots, and half of the time.
    """
    routines = lapack(diagonals.dtype)
    below, above = band
    if diagonals.dtype.kind == "f" and below == above and diagonals[0] == diagonals[2] and diagonals[1] > 0:
        pivot, multipliers, failed = routines.pttrf(np.full(n, diagonals[1]), np.full(n - 1, diagonals[0]))

        def symmetric_systems(b: NDArray[Any], **_: Any) -> Any:
            return routines.pttrs(pivot, multipliers, b)

        if not failed:
            return pivot, np.arange(n), symmetric_systems, 0
    parts = np.zeros((3, n), diagonals.dtype)
    parts[1 - above : 2 + below] = diagonals[:, None]
    lower, diagonal, upper, second, pivots, failed = routines.gttrf(
        parts[2, 1:], parts[1], parts[0, 1:], overwrite_dl=True, overwrite_d=True, overwrite_du=True
    )

    def systems(b: NDArray[Any], trans: int = 0) -> Any:
        return routines.gttrs(lower, diagonal, upper, second, pivots, b, trans="NTC"[trans])

    return diagonal, pivots - 1, systems, failed


def _norm_of_inverse(systems: Callable[..., Any], n: int, dtype: Any) -> float:
    """Return a lower bound of the 1-norm of an inverse, mostly near it, by two systems: a step of Hager's method.

    The estimate that LAPACK has for band matrices takes O(n^2) operations where they are ill-conditioned.
    """
    v = uneven_vector(n)
    with np.errstate(all="ignore"):
        x, _ = systems(b=v.astype(dtype))
        signs = np.copysign(1.0, x) if x.dtype.kind == "f" else np.where(x == 0, 1, x / np.abs(x))
        z, _ = systems(b=signs, trans=2)
        bound = max(np.abs(z).max(), np.abs(x).sum() / np.abs(v).sum())
    return float(bound) if np.isfinite(bound) else np.inf


def uneven_vector(n: int) -> NDArray[Any]:
    """Return a vector without any pattern, so that it is orthogonal to no vector that has one."""
    return _uneven_vector(n).copy()


@lru_cache(maxsize=16)
def _uneven_vector(n: int) -> NDArray[Any]:
    """Return the same vector; it is kept, as it takes 4 of the 17 us in which 64 rows show their condition."""
    v = 0.6180339887498949 * np.arange(1, n + 1)
    v -= np.floor(v)
    return v - 0.3
