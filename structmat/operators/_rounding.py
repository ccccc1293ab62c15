"""How much rounding errors of products through transforms grow on their way through a chain of factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structmat._arrays import padded
from structmat._arrays.typing import Array, Namespace
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._circulant import Circulant, SpectralCirculant

__all__ = ["log_spread_and_norm"]

# Factors whose products go through transforms.
_TRANSFORMED = (Circulant, SpectralCirculant, BlockCirculant)


def log_spread_and_norm(factors: Sequence[Any], right: Array, left: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the logarithms of the spread and of the norm of a product, per matrix of the stack.

    A transform leaves rounding errors of the norm ``eps * norm(c) * norm(z)`` in the convolution of `c` and `z`, spread
    evenly over the entries of every block, which the factors to the left then carry on. With ``P = L_k C_k R_k`` for
    each circulant-like factor, the squared spread is the sum over k of ``norm(L_k)**2 * norm(c_k)**2 * norm(R_k)**2 /
    n`` (Frobenius norms), block by block: the expected squared norm of the errors of the products with the unit
    vectors, over that of ``eps``. Norms of partial products are estimated with random vectors.

    Parameters
    ----------
    factors : sequence of operators
        Left to right.
    right, left : array, shape (k, ..., cols) and (k, ..., rows)
        Independent standard normal vectors, with an axis for every batch axis of the factors. In place of the first
        there may be products of such vectors and a matrix that the product is multiplied by.
    xp : namespace
    """
    errors: list[tuple[Array, Array]] = []
    z, scale = _normalised(right, 0.0, xp)
    for factor in reversed(factors):
        if isinstance(factor, _TRANSFORMED):
            errors.append((_errors(factor, z, xp), scale))
        z, scale = _normalised(factor._matvec(z, xp), scale, xp)
    norm = 0.5 * _log(_mean_square(z, xp), xp) + scale
    y, scale = _normalised(left, 0.0, xp)
    terms = []
    for factor in factors:
        if isinstance(factor, _TRANSFORMED):
            made, at = errors.pop()
            carried = _mean_square(_blocks(y, factor, xp, axis=0), xp)
            terms.append(_log(xp.sum(made * carried, axis=-1), xp) + 2.0 * (at + scale))
        y, scale = _normalised(factor._rmatvec(y, xp), scale, xp)
    if not terms:
        return norm, norm
    stacked = xp.stack(terms)
    top = xp.max(stacked, axis=0)
    finite = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    return 0.5 * (_log(xp.sum(xp.exp(stacked - finite), axis=0), xp) + finite), norm


def _errors(factor: Any, z: Array, xp: Namespace) -> Array:
    """Squared size of the error of an entry in each block of the product of a factor and `z`, over that of ``eps``."""
    energy = _mean_square(_blocks(z, factor, xp, axis=1), xp)
    if not isinstance(factor, BlockCirculant):
        return (factor._norm("fro", xp) / factor.shape[0])[..., None] ** 2 * energy
    sizes = xp.sum(xp.abs(factor.c) ** 2, axis=-1)
    return xp.sum(sizes * energy[..., None, :], axis=-1) / factor.c.shape[-1]


def _mean_square(x: Array, xp: Namespace) -> Array:
    """Squared norms along the last axis, the mean over the first."""
    return xp.mean(xp.sum(xp.abs(x) ** 2, axis=-1), axis=0)


def _log(x: Array, xp: Namespace) -> Array:
    """Logarithms of numbers that are not negative, without a warning for zero."""
    positive = x > 0.0
    return xp.where(positive, xp.log(xp.where(positive, x, xp.ones_like(x))), xp.full_like(x, -float("inf")))


def _blocks(x: Array, factor: Any, xp: Namespace, axis: int) -> Array:
    """Return (..., n) as (..., blocks, side), the last block padded, for the rows or columns of a factor."""
    if not isinstance(factor, BlockCirculant):
        return x[..., None, :]
    count, side = factor.c.shape[axis - 3], factor.c.shape[-1]
    return xp.reshape(padded(x, count * side, xp), (*x.shape[:-1], count, side))


def _normalised(x: Array, scale: Any, xp: Namespace) -> tuple[Array, Any]:
    """Divide by the largest modulus for each matrix of the stack, and return what the logarithm of `scale` then is."""
    size = xp.max(xp.abs(x), axis=-1, keepdims=True)
    size = xp.max(size, axis=0, keepdims=True)
    size = xp.where(size > 0.0, size, xp.ones_like(size))
    return x / size, scale + xp.log(size[0, ..., 0])
