"""The range of the factors of a Diagonal @ BlockCirculant @ Diagonal product, and least squares that keep it bounded.

A product ``P @ x`` goes through transforms, whose rounding errors spread evenly over the m entries of a block. For the
unit vectors together they add up to ``eps * S``, up to a factor of order ``log(m)``, with the *spread* ``S**2 = sum_pq
norm(a_p)**2 * norm(c_pq)**2 * norm(b_q)**2 / m``. It is the norm that the product would have if its entries in every
block had the same energy on all cyclic diagonals, and ``norm(P)`` itself for a block circulant or a matrix of rank one.
Where small entries of one factor meet large ones of another it exceeds ``norm(P)``, without bound.

The spread is, as the product is, of degree one in each factor. So the best factor under a bound on it has a closed form
up to one multiplier, and at a point where none of the three can be improved under the bound, all three together are
stationary: their multipliers agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._three_factors.blocks import absolute_square, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._three_factors.blocks import BlockGrid
    from structmat.fit._three_factors.vectors import Factors

__all__ = [
    "bounded_ratio",
    "energy",
    "error_of_products",
    "largest_spread2",
    "most_spread",
    "spread2",
    "spread_weights",
]

# What rounding may do to a product, relative to the norm of the matrix, in single and in double precision. A bound on
# the spread of 84 and 4,500 times the norm: on matrices that are such products, noisy or not, and on changes of trained
# weights it is never met (they have at most 3), elsewhere it costs up to some per cent of the error.
_SINGLE_ACCURACY, _DOUBLE_ACCURACY = 1e-5, 1e-12

# Newton's method for the multiplier: relative excess of the squared spread to end at, and the most steps.
_EXCESS, _STEPS = 1e-10, 100


def spread2(factors: Factors) -> float:
    """Return the squared spread of a product."""
    a, c, b = factors
    with np.errstate(over="ignore"):
        return float(energy(a) @ spread_weights("pq,q->p", c, b))


def spread_weights(subscripts: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the energies of the blocks of a factor count in the squared spread, given the two others."""
    weights: NDArray[np.float64] = np.einsum(subscripts, energy(x), energy(y)) / x.shape[-1]
    return weights


def energy(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the squared norm of every block."""
    sums: NDArray[np.float64] = absolute_square(x).sum(axis=-1)
    return sums


def largest_spread2(grid: BlockGrid, start: Factors) -> float:
    """Return the bound on the squared spread of a run; a start that exceeds it may keep what it has."""
    return max(most_spread(grid.products) ** 2 * grid.mean_norm2, spread2(start))


def most_spread(products: np.dtype[Any]) -> float:
    """Return how many times the norm of the matrix the spread may be, for products of this dtype."""
    eps = float(np.finfo(products).eps)
    return (_SINGLE_ACCURACY if eps > _DOUBLE_ACCURACY else _DOUBLE_ACCURACY) / eps


def error_of_products(grid: BlockGrid, factors: Factors, error: float) -> float:
    """Return the relative error that products will have: that of the factors, and what rounding is expected to add."""
    rounding = float(np.finfo(grid.products).eps) ** 2 * spread2(factors)
    return float(np.sqrt(error**2 + rounding / grid.norm2)) if grid.norm2 else error


def bounded_ratio(
    dtype: np.dtype[Any],
    numerator: NDArray[Any],
    denominator: NDArray[Any],
    weights: NDArray[np.float64],
    limit: float,
) -> NDArray[Any]:
    """Minimise ``sum(denominator * abs(x)**2 - 2 * real(conj(numerator) * x))`` under a bound on the squared spread.

    Parameters
    ----------
    dtype : dtype
        That of the matrix, as for `ratio`.
    numerator, denominator : (..., m) ndarray
    weights : (...) ndarray
        The squared spread of `x` is ``sum(weights * abs(x)**2)``.
    limit : float
        What it must not exceed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = ratio(dtype, numerator, denominator)
        if np.sum(weights * energy(x)) <= limit:
            return x
    # The multiplier t solves 1 / sqrt(spread(t)) = 1 / sqrt(limit), whose left side is concave and nearly linear:
    # Newton's method goes up to it from below without overshooting. It begins where no entry exceeds the limit alone.
    w = np.broadcast_to(weights[..., None], denominator.shape)
    excess = np.abs(numerator) * np.sqrt(w / limit) - denominator
    multiplier = max(0.0, float(np.max(np.divide(excess, w, out=np.zeros_like(excess), where=w > 0.0))))
    for _ in range(_STEPS):
        damped = denominator + multiplier * w
        x = ratio(dtype, numerator, damped)
        spread = float(np.sum(w * absolute_square(x)))
        if spread <= limit * (1.0 + _EXCESS):
            break
        slope = float(np.sum(np.square(w) * ratio(dtype, absolute_square(x), damped)))
        multiplier += (np.sqrt(spread / limit) - 1.0) * spread / slope
    return x if spread <= limit else x * np.sqrt(limit / spread)
