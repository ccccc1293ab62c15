"""Three factors, Diagonal @ BlockCirculant @ Diagonal on any grid of blocks: alternating least squares in closed form.

Each of the three vectors has an elementwise closed form given the two others: a ratio of weighted sums over rows,
cyclic diagonals or columns of the matrix, in O(rows * cols). Where entries have weights the denominators are the same
sums over the weights; otherwise they are convolutions.

**Rounding.** A product ``P @ x`` goes through transforms, whose rounding errors spread evenly over the m entries of a
block. For the unit vectors together they add up to ``eps * S``, up to a factor of order ``log(m)``, with the *spread*
``S**2 = sum_pq norm(a_p)**2 * norm(c_pq)**2 * norm(b_q)**2 / m``. It is the norm that the product would have if its
entries in every block had the same energy on all cyclic diagonals, and ``norm(P)`` itself for a block circulant or a
matrix of rank one. Where small entries of one factor meet large ones of another it exceeds ``norm(P)``, without bound.
The spread is, as the product is, of degree one in each factor. So the best factor under a bound on it has a closed form
up to one multiplier, and at a point where none of the three can be improved under the bound, all three together are
stationary: their multipliers agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # Its `fft` is imported on first use.

from structmat.fit._block_grid import (
    BlockGrid,
    Factors,
    conjugate_column_sums,
    conjugate_row_sums,
    cyclic_windows,
    residual_norm2,
)
from structmat.fit._matrices import absolute_square, most_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Run", "alternate", "alternations", "circulant_step", "iteration", "spread2", "with_best_circulant"]

_MOMENTUM = 0.5
"""An iteration begins a step beyond the last iterate, along the last change. This is the first step in units of that
change. An iteration that raises the error is dropped."""

_GROWTH = 1.2
"""The step grows by this factor after an iteration that lowers the error."""

_CUT = 0.5
"""The step is cut by this factor after an iteration that is dropped."""

_CEILING = 8.0
"""The step grows no further than this."""

_FFT_DYNAMIC_RANGE = 1e-6
"""A convolution by FFT is right up to rounding of its largest entry. If there are entries below this share of the
largest one, the sums are computed directly."""

_EXCESS = 1e-10
"""Newton's method for the multiplier of the spread ends at this relative excess over the bound."""

_STEPS = 100
"""Newton's method makes no more steps than this, whatever rounding does."""


class Run(NamedTuple):
    """A starting point and what alternating steps have made of it so far."""

    factors: Factors
    history: list[float]
    """Relative error of the starting point and after every iteration; never rises."""
    converged: bool
    start: str = ""
    """The name of the starting point."""

    @classmethod
    def begin(cls, grid: BlockGrid, start: Factors, name: str = "") -> Run:
        """Return the run of no iterations."""
        error = _relative_error(grid, residual_norm2(grid, start))
        return cls(start.scaled(0), [error], error <= float(np.finfo(grid.dtype).eps), name)

    @property
    def error(self) -> float:
        """The relative error reached."""
        return self.history[-1]


def alternate(grid: BlockGrid, run: Run, max_iter: int, tol: float) -> Run:
    """Return the run after all of its iterations."""
    *_, last = (run, *alternations(grid, run, max_iter, tol))
    return last


def alternations(grid: BlockGrid, run: Run, max_iter: int, tol: float) -> Iterator[Run]:
    """Yield the run after every iteration of alternating least squares with momentum, until it has converged.

    Every iteration starts a step beyond the last iterate, along the last change. If the error then rises, the iteration
    is dropped, and the next one starts from the last iterate itself, which cannot raise it.
    """
    current, history, converged = run.factors, list(run.history), run.converged
    previous: Factors | None = None
    momentum = _MOMENTUM
    # A start that exceeds the bound on the spread may keep what it has.
    limit = max(most_spread(grid.products) ** 2 * grid.mean_norm2, spread2(current))
    while not converged and len(history) <= max_iter:
        c, b = current.c, current.b
        if previous is not None:
            c, b = c + momentum * (c - previous.c), b + momentum * (b - previous.b)
        candidate, residual = iteration(grid, c, b, limit)
        error = _relative_error(grid, residual)
        if error <= history[-1]:
            momentum = min(momentum * _GROWTH, _CEILING) if previous is not None else momentum
            converged = history[-1] - error <= tol * error or error <= float(np.finfo(grid.dtype).eps)
            current, previous = candidate, current
        else:
            # After an iteration without momentum only rounding can have raised the error.
            converged = previous is None
            momentum, previous, error = momentum * _CUT, None, history[-1]
        history.append(error)
        yield run._replace(factors=current, history=history, converged=converged)


def iteration(grid: BlockGrid, c: NDArray[Any], b: NDArray[Any], limit: float = np.inf) -> tuple[Factors, float]:
    """Find `a`, then `c`, then `b`, each the best for the two others; return them and their squared residual norm.

    Their squared spread is kept to `limit`. The residual is the norm of the matrix less what the last step explains.
    Where this difference would lose more than a few digits it is computed entry by entry.
    """
    low, weights = grid.dtype, grid.weight_diagonals
    b2 = absolute_square(b)
    above = _left_sums(grid, grid.weighted_diagonals, c.astype(low), b.astype(low))
    c2 = absolute_square(c)
    below = _left_convolution(c2, b2) if weights is None else _left_sums(grid, weights, c2, b2)
    a = _bounded_ratio(grid.dtype, above, below, _spread_weights("pq,q->p", c, b), limit)
    c = circulant_step(
        grid, a.astype(low), b.astype(low), absolute_square(a), b2, _spread_weights("p,q->pq", a, b), limit
    )
    above = _right_sums(grid, grid.weighted, a.astype(low), c.astype(low))
    a2, c2 = absolute_square(a), absolute_square(c)
    below = _right_convolution(a2, c2) if grid.weights is None else _right_sums(grid, grid.weights, a2, c2)
    b = _bounded_ratio(grid.dtype, above, below, _spread_weights("p,pq->q", a, c), limit)
    factors = Factors(a, c, b)
    explained = 2.0 * float(np.vdot(above, b).real) - float(np.vdot(below, absolute_square(b)))
    residual = grid.norm2 - explained
    if residual < float(np.finfo(grid.dtype).eps) ** 0.2 * grid.norm2:
        residual = residual_norm2(grid, factors)
    return factors, residual


def circulant_step(
    grid: BlockGrid,
    a: NDArray[Any],
    b: NDArray[Any],
    a2: NDArray[Any],
    b2: NDArray[Any],
    spread: NDArray[np.float64] | None = None,
    limit: float = np.inf,
) -> NDArray[Any]:
    """Return the best `c` for given diagonals and their squares; in the precision of the diagonals."""
    above = _circulant_sums(grid, grid.weighted_diagonals, a, b)
    weights = grid.weight_diagonals
    below = _circulant_convolution(a2, b2) if weights is None else _circulant_sums(grid, weights, a2, b2)
    return (
        _ratio(grid.dtype, above, below) if spread is None else _bounded_ratio(grid.dtype, above, below, spread, limit)
    )


def with_best_circulant(grid: BlockGrid, a: NDArray[Any], b: NDArray[Any]) -> Factors:
    """Return two diagonals with the best block circulant for them."""
    return Factors(a, circulant_step(grid, a, b, absolute_square(a), absolute_square(b)), b)


def _left_sums(grid: BlockGrid, diagonals: NDArray[Any], c: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(q,k) diagonals[p, i, q, k] * conj(c[p, q, k] * b[q, i - k])``."""
    windows = cyclic_windows(b.conj())
    sums = np.zeros((grid.p, grid.m), dtype=np.result_type(diagonals, np.float64))
    for ps, rows in grid.chunks():
        sums[ps, rows] = conjugate_row_sums(diagonals[ps, rows] * windows[rows], c[ps])
    return sums


def _circulant_sums(grid: BlockGrid, diagonals: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_i diagonals[p, i, q, k] * conj(a[p, i] * b[q, i - k])``."""
    windows = cyclic_windows(b.conj())
    sums = np.zeros((grid.p, grid.q, grid.m), dtype=np.result_type(diagonals, np.float64))
    for ps, rows in grid.chunks():
        sums[ps] += conjugate_column_sums(diagonals[ps, rows] * windows[rows], a[ps, rows])
    return sums


def _right_sums(grid: BlockGrid, blocks: NDArray[Any], a: NDArray[Any], c: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(p,i) blocks[p, i, q, j] * conj(a[p, i] * c[p, q, i - j])``."""
    windows = cyclic_windows(c.conj())
    sums = np.zeros((grid.q, grid.m), dtype=np.result_type(blocks, np.float64))
    for ps, rows in grid.chunks():
        sums += conjugate_column_sums(blocks[ps, rows] * windows[ps, rows], a[ps, rows]).sum(axis=0)
    return sums


def _left_convolution(c2: NDArray[Any], b2: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(q,k) c2[p, q, k] * b2[q, i - k]``."""
    fast = scipy.fft.irfft(np.einsum("pqf,qf->pf", scipy.fft.rfft(c2), scipy.fft.rfft(b2)), n=b2.shape[-1])
    return fast if _trusted(fast) else np.einsum("iqk,pqk->pi", cyclic_windows(b2), c2)


def _circulant_convolution(a2: NDArray[Any], b2: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_i a2[p, i] * b2[q, i - k]``."""
    fast = scipy.fft.irfft(scipy.fft.rfft(a2)[:, None, :] * scipy.fft.rfft(b2).conj(), n=b2.shape[-1])
    return fast if _trusted(fast) else np.einsum("pi,iqk->pqk", a2, cyclic_windows(b2))


def _right_convolution(a2: NDArray[Any], c2: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(p,i) a2[p, i] * c2[p, q, i - j]``."""
    fast = scipy.fft.irfft(np.einsum("pf,pqf->qf", scipy.fft.rfft(a2), scipy.fft.rfft(c2).conj()), n=a2.shape[-1])
    return fast if _trusted(fast) else np.einsum("pi,piqj->qj", a2, cyclic_windows(c2))


def _trusted(sums: NDArray[Any]) -> bool:
    """Whether all sums are large enough for the accuracy of a convolution by FFT."""
    return bool(sums.min() > _FFT_DYNAMIC_RANGE * sums.max())


def _relative_error(grid: BlockGrid, residual: float) -> float:
    """Return the relative error of a squared residual norm; zero for a zero matrix, which every start fits exactly."""
    return float(np.sqrt(max(residual, 0.0) / grid.norm2)) if grid.norm2 else 0.0


# The spread of the factors


def spread2(factors: Factors) -> float:
    """Return the squared spread of a product."""
    a, c, b = factors
    with np.errstate(over="ignore"):
        return float(_norms2(a) @ _spread_weights("pq,q->p", c, b))


def _spread_weights(subscripts: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the energies of the blocks of a factor count in the squared spread, given the two others."""
    weights: NDArray[np.float64] = np.einsum(subscripts, _norms2(x), _norms2(y)) / x.shape[-1]
    return weights


def _norms2(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the squared norm of every block."""
    sums: NDArray[np.float64] = absolute_square(x).sum(axis=-1)
    return sums


def _ratio(dtype: np.dtype[Any], numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[Any]:
    """Return the quotient of sums over a matrix of `dtype`.

    Zero where the denominator vanishes, and with it the numerator, or is near underflow.
    """
    floor = float(np.finfo(dtype).tiny) ** 0.8
    quotient: NDArray[Any] = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > floor)
    return quotient


def _bounded_ratio(
    dtype: np.dtype[Any], numerator: NDArray[Any], denominator: NDArray[Any], weights: NDArray[np.float64], limit: float
) -> NDArray[Any]:
    """Minimise ``sum(denominator * abs(x)**2 - 2 * real(conj(numerator) * x))`` under a bound on the squared spread.

    Parameters
    ----------
    dtype : dtype
        That of the matrix, as for `_ratio`.
    numerator, denominator : (..., m) ndarray
    weights : (...) ndarray
        The squared spread of `x` is ``sum(weights * abs(x)**2)``.
    limit : float
        What it must not exceed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = _ratio(dtype, numerator, denominator)
        if np.sum(weights * _norms2(x)) <= limit:
            return x
    # The multiplier t solves 1 / sqrt(spread(t)) = 1 / sqrt(limit), whose left side is concave and nearly linear:
    # Newton's method goes up to it from below without overshooting. It begins where no entry exceeds the limit alone.
    w = np.broadcast_to(weights[..., None], denominator.shape)
    excess = np.abs(numerator) * np.sqrt(w / limit) - denominator
    multiplier = max(0.0, float(np.max(np.divide(excess, w, out=np.zeros_like(excess), where=w > 0.0))))
    for _ in range(_STEPS):
        damped = denominator + multiplier * w
        x = _ratio(dtype, numerator, damped)
        spread = float(np.sum(w * absolute_square(x)))
        if spread <= limit * (1.0 + _EXCESS):
            break
        slope = float(np.sum(np.square(w) * _ratio(dtype, absolute_square(x), damped)))
        multiplier += (np.sqrt(spread / limit) - 1.0) * spread / slope
    return x if spread <= limit else x * np.sqrt(limit / spread)
