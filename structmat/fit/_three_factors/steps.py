"""Closed-form alternating steps for a Diagonal @ BlockCirculant @ Diagonal product, O(rows * cols) each.

Each of the three vectors has an elementwise closed form given the two others: a ratio of weighted sums over rows,
cyclic diagonals or columns. An iteration reads the matrix twice: once by cyclic diagonals, for `a` and then `c`, and
once by rows, for `b`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `fft` is imported on first use

from structmat.fit._three_factors.blocks import (
    BlockGrid,
    absolute_square,
    conjugate_column_sums,
    conjugate_row_sums,
    cyclic_windows,
    ratio,
)
from structmat.fit._three_factors.masked import (
    MaskedGrid,
    masked_circulant_step,
    masked_iteration,
    masked_residual_norm2,
)
from structmat.fit._three_factors.spread import bounded_ratio, energy, spread_weights
from structmat.fit._three_factors.vectors import Factors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["circulant_step", "iteration", "residual_norm2"]

# A convolution by FFT is right to rounding of its LARGEST entry; with entries below this share of it, sum directly.
_FFT_DYNAMIC_RANGE = 1e-6


def iteration(grid: BlockGrid, c: NDArray[Any], b: NDArray[Any], limit: float = np.inf) -> tuple[Factors, float]:
    """Find `a`, then `c`, then `b`, each the best for the two others; return them and their squared residual norm.

    Their squared spread is kept to `limit`. The residual is the norm of the matrix less what the last step explains.
    Where this difference would lose more than a few digits it is computed entry by entry.
    """
    if isinstance(grid, MaskedGrid):
        return masked_iteration(grid, c, b, limit)
    a, c = _left_and_circulant_step(grid, c, b, limit)
    b, explained = _right_step(grid, a, c, limit)
    factors = Factors(a, c, b)
    residual = grid.norm2 - explained
    if residual < float(np.finfo(grid.dtype).eps) ** 0.2 * grid.norm2:
        residual = residual_norm2(grid, factors)
    return factors, residual


def circulant_step(grid: BlockGrid, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the best `c` for given diagonals, summed in double precision: a circulant matrix gives itself exactly."""
    if isinstance(grid, MaskedGrid):
        return masked_circulant_step(grid, a, b)
    numerator = np.zeros((grid.p, grid.q, grid.m), dtype=grid.double)
    b_conj = cyclic_windows(b.conj())
    for ps, rows in grid.chunks():
        numerator[ps] += conjugate_column_sums(grid.diagonals[ps, rows] * b_conj[rows], a[ps, rows])
    return ratio(grid.dtype, numerator, _circulant_denominator(absolute_square(a), absolute_square(b)))


def residual_norm2(grid: BlockGrid, factors: Factors) -> float:
    """Return the squared Frobenius norm of the blocks minus the product, entry by entry in double precision."""
    if isinstance(grid, MaskedGrid):
        return masked_residual_norm2(grid, factors)
    c = cyclic_windows(factors.c)
    total = 0.0
    for ps, rows in grid.chunks():
        part = c[ps, rows] * factors.b
        part *= factors.a[ps, rows, None, None]
        part -= grid.blocks[ps, rows]
        total += float(np.sum(absolute_square(part)))
    return total


def _left_and_circulant_step(
    grid: BlockGrid,
    c: NDArray[Any],
    b: NDArray[Any],
    limit: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Find `a`, then `c` for the new `a`, in one pass: an entry of `a` needs its own row only, unless bounded."""
    a = np.zeros((grid.p, grid.m), dtype=grid.double)
    all_sums = np.zeros_like(a)
    numerator = np.zeros_like(c)
    b2 = absolute_square(b)
    denominator = _left_denominator(absolute_square(c), b2)
    b_conj = cyclic_windows(b.astype(grid.dtype).conj())
    c_low = c.astype(grid.dtype)
    for ps, rows in grid.chunks():
        demodulated = grid.diagonals[ps, rows] * b_conj[rows]
        row_sums = conjugate_row_sums(demodulated, c_low[ps]).astype(grid.double)
        all_sums[ps, rows] = row_sums
        a[ps, rows] = ratio(grid.dtype, row_sums, denominator[ps, rows])
        numerator[ps] += conjugate_column_sums(demodulated, a[ps, rows].astype(grid.dtype))
    weights = spread_weights("pq,q->p", c, b)
    if float(energy(a) @ weights) > limit:
        a = bounded_ratio(grid.dtype, all_sums, denominator, weights, limit)
        numerator[:] = 0.0
        for ps, rows in grid.chunks():
            demodulated = grid.diagonals[ps, rows] * b_conj[rows]
            numerator[ps] += conjugate_column_sums(demodulated, a[ps, rows].astype(grid.dtype))
    weights = spread_weights("p,q->pq", a, b)
    return a, bounded_ratio(grid.dtype, numerator, _circulant_denominator(absolute_square(a), b2), weights, limit)


def _right_step(grid: BlockGrid, a: NDArray[Any], c: NDArray[Any], limit: float) -> tuple[NDArray[Any], float]:
    """Find `b`; return it with the squared norm that the product then explains."""
    numerator = np.zeros((grid.q, grid.m), dtype=grid.double)
    c_conj = cyclic_windows(c.astype(grid.dtype).conj())
    for ps, rows in grid.chunks():
        part = grid.blocks[ps, rows] * c_conj[ps, rows]
        numerator += conjugate_column_sums(part, a[ps, rows].astype(grid.dtype)).sum(axis=0)
    denominator = _right_denominator(absolute_square(a), absolute_square(c))
    b = bounded_ratio(grid.dtype, numerator, denominator, spread_weights("p,pq->q", a, c), limit)
    return b, 2.0 * float(np.vdot(numerator, b).real) - float(np.vdot(denominator, absolute_square(b)))


def _left_denominator(c2: NDArray[Any], b2: NDArray[Any]) -> NDArray[Any]:
    fast = scipy.fft.irfft(np.einsum("pqf,qf->pf", scipy.fft.rfft(c2), scipy.fft.rfft(b2)), n=b2.shape[-1])
    return fast if _trusted(fast) else np.einsum("iqk,pqk->pi", cyclic_windows(b2), c2)


def _circulant_denominator(a2: NDArray[Any], b2: NDArray[Any]) -> NDArray[Any]:
    fast = scipy.fft.irfft(scipy.fft.rfft(a2)[:, None, :] * scipy.fft.rfft(b2).conj(), n=b2.shape[-1])
    return fast if _trusted(fast) else np.einsum("pi,iqk->pqk", a2, cyclic_windows(b2))


def _right_denominator(a2: NDArray[Any], c2: NDArray[Any]) -> NDArray[Any]:
    fast = scipy.fft.irfft(np.einsum("pf,pqf->qf", scipy.fft.rfft(a2), scipy.fft.rfft(c2).conj()), n=a2.shape[-1])
    return fast if _trusted(fast) else np.einsum("pi,piqj->qj", a2, cyclic_windows(c2))


def _trusted(sums: NDArray[Any]) -> bool:
    return bool(sums.min() > _FFT_DYNAMIC_RANGE * sums.max())
