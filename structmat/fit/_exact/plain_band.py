"""A band matrix without corners as ``2d + 1`` diagonals and circulants of two entries, by elimination.

Elimination without pivoting leaves triangular bands, and these split into bidiagonal matrices, one for each diagonal
beside the main one: a unit lower band ``L = Q B`` with ``B[i, i - 1] = -a[i]`` and a band Q of one diagonal less takes
``u`` with ``u[i] = a[i] * u[i - 1]`` to the first column of Q, so that any u with ``(L u)[i] = 0`` from row l on will
do, from l initial values. A bidiagonal matrix is a circulant between two diagonals, up to a corner below rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["bandwidths", "factor_plain_band"]

# What stands in the corner of a bidiagonal factor, and for its zeros.
_FILLED = 1e-18
# Initial values that are tried.
_STARTS = 6


def bandwidths(W: NDArray[Any]) -> tuple[int, int] | None:
    """Return how many diagonals below and above the main one hold all entries, if these are few; none wraps around."""
    rows, cols = np.nonzero(W)
    lower, upper = int((rows - cols).max(initial=0)), int((cols - rows).max(initial=0))
    return (lower, upper) if 0 < lower + upper <= len(W) // 2 else None


def factor_plain_band(W: NDArray[Any], lower: int, upper: int, *, extended: bool) -> list[NDArray[Any]]:
    """Return ``2 * (lower + upper) + 1`` diagonals and first columns, real ones of a real matrix."""
    n = len(W)
    real = np.isrealobj(W)
    types: tuple[Any, Any] = (np.float64, np.longdouble) if real else (np.complex128, np.clongdouble)
    A: NDArray[Any] = W.astype(types[extended])
    with np.errstate(all="ignore"):  # what becomes of zeros is for the caller to see
        for k in range(n - 1):
            rows, cols = slice(k + 1, k + 1 + lower), slice(k + 1, k + 1 + upper)
            A[rows, k] /= A[k, k]
            A[rows, cols] -= A[rows, k, None] * A[k, cols]
        pivots = A.diagonal().copy()
        left = _bidiagonals(_rows_of_band(A, lower))
        right = _bidiagonals(_rows_of_band((A / pivots[:, None]).T, upper))
        vectors: list[NDArray[Any]] = [np.ones(n, dtype=A.dtype)]
        for a in left:
            outer, column, inner = _as_circulant(a)
            vectors[-1] = vectors[-1] * outer
            vectors += [column, inner]
        vectors[-1] = vectors[-1] * pivots
        for a in reversed(right):
            outer, column, inner = _as_circulant(a)
            vectors[-1] = vectors[-1] * inner
            vectors += [np.roll(column[::-1], 1), outer]
    return [vector.astype(types[0]) for vector in vectors]


def _rows_of_band(A: NDArray[Any], width: int) -> NDArray[Any]:
    """Return the lower diagonals of a unit triangular matrix, entry i that of row i."""
    band = np.zeros((width + 1, len(A)), dtype=A.dtype)
    band[0] = 1
    for m in range(1, width + 1):
        band[m, m:] = A.diagonal(-m)
    return band


def _bidiagonals(band: NDArray[Any]) -> list[NDArray[Any]]:
    """Return a of the factors of a unit lower band, left to right."""
    factors: list[NDArray[Any]] = []
    rng = np.random.default_rng(0)
    while len(band) > 2:
        choices = [_divided(band, a) for a in _null_ratios(band, rng)]
        sizes = [np.linalg.norm((a, *quotient[1:])) for a, quotient in choices]
        a, band = choices[int(np.argmin(np.nan_to_num(sizes, nan=np.inf)))]
        factors.insert(0, a)
    return [-band[1], *factors] if len(band) == 2 else factors


def _null_ratios(band: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return ``u[i] / u[i - 1]`` for solutions u of the recursion of the band from random initial values."""
    width, n = len(band) - 1, band.shape[1]
    recent = rng.standard_normal((width, _STARTS)).astype(band.dtype)
    if np.iscomplexobj(band):
        recent = recent + 1j * rng.standard_normal((width, _STARTS))
    ratios = np.zeros((_STARTS, n), dtype=band.dtype)
    ratios[:, 1:width] = (recent[-2::-1] / recent[:0:-1]).T
    for i in range(width, n):
        u = -(band[1:, i, None] * recent).sum(axis=0)
        ratios[:, i] = u / recent[0]
        recent = np.concatenate([u[None], recent[:-1]]) / np.abs(recent).max(axis=0)
    return ratios


def _divided(band: NDArray[Any], a: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    quotient = band[:-1].copy()
    for m in range(1, len(quotient)):
        quotient[m, m:] += quotient[m - 1, m:] * a[1 : len(a) - m + 1]
    return a, quotient


def _as_circulant(a: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the diagonal, first column and diagonal of a unit lower bidiagonal matrix with ``-a`` below."""
    n = len(a)
    steps = -np.where(np.abs(a) < _FILLED, _FILLED, a)[1:]
    sizes = np.log(np.abs(steps))
    # The corner is entry ** n over the product of the steps.
    entry = np.exp((np.log(_FILLED) + sizes.sum()) / n)
    logs = np.append(0.0, np.cumsum(sizes - np.log(entry)))
    turns = np.append(1.0, np.cumprod(steps / np.abs(steps)))
    v = turns * np.exp(logs - logs.mean())
    column = np.zeros(n, dtype=a.dtype)
    column[0], column[1] = 1, entry
    return v, column, 1 / v
