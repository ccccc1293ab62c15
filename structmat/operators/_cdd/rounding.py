"""Rounding errors of products of circulant and diagonal matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import padded
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._blocks.block_circulant import BlockCirculant
from structmat.operators._families.circulants import Circulant, SpectralCirculant

_TRANSFORMED = (Circulant, SpectralCirculant, BlockCirculant)
"""The classes of factors whose products are computed by transforms."""


def _errors(factor: Any, z: Any) -> Any:
    """Return the squared errors of the entries in each block of the product of a factor and `z`.

    They are in units of the square of ``eps``.
    """
    energy = _mean_square(_blocks(z, factor, axis=1))
    if not isinstance(factor, BlockCirculant):
        return (factor._norm("fro", numpy_namespace) / factor.shape[0]) ** 2 * energy
    return np.sum(np.abs(factor.c) ** 2, axis=-1) @ energy / factor.c.shape[-1]


def _mean_square(x: Any) -> Any:
    """Return the means over the first axis of the squared norms along the last one."""
    return np.mean(np.sum(np.abs(x) ** 2, axis=-1), axis=0)


def _blocks(x: Any, factor: Any, axis: int) -> Any:
    """Return vectors (k, n) in the blocks of the rows (axis 0) or columns (axis 1) of a factor: (k, blocks, side).

    The last block is padded with zeros.
    """
    if not isinstance(factor, BlockCirculant):
        return x[:, None, :]
    count = factor.c.shape[axis - 3]
    side = factor.c.shape[-1]
    return np.reshape(padded(x, count * side, numpy_namespace), (-1, count, side))


def _normalised(x: Any, log: float) -> tuple[Any, float]:
    """Return vectors over their largest modulus, and the logarithm of the scale that they are to be multiplied by.

    `log` is that of `x`.
    """
    largest = np.max(np.abs(x)) or 1.0
    return x / largest, log + float(np.log(largest))


def log_spread(factors: Sequence[LinearOperator], right: Any, left: Any) -> float:
    """Return the logarithm of the spread of the rounding errors of one product of such factors, of NumPy arrays.

    A transform leaves rounding errors of the norm ``eps * norm(c) * norm(z)`` in the convolution of `c` and `z`,
    spread evenly over the entries of every block, which the factors to the left then carry on. With ``P = L_k C_k
    R_k`` for each circulant-like factor, the squared spread is the sum over k of ``norm(L_k)**2 * norm(c_k)**2 *
    norm(R_k)**2 / n`` (Frobenius norms), block by block: the expected squared norm of the errors of the products
    with the unit vectors, over that of ``eps``. Norms of partial products are estimated with random vectors:
    `right` (k, cols) and `left` (k, rows) are independent standard normal ones. In place of the first there may be
    products of such vectors and a matrix that the product is multiplied by.
    """
    xp = numpy_namespace
    errors = []
    terms = []
    z, log = _normalised(right, 0.0)
    for factor in reversed(factors):
        if isinstance(factor, _TRANSFORMED):
            errors.append((_errors(factor, z), log))
        z, log = _normalised(factor._matvec(z, xp), log)
    with np.errstate(divide="ignore"):
        if not errors:
            return float(0.5 * np.log(_mean_square(z)) + log)
        y, log = _normalised(left, 0.0)
        for factor in factors:
            if isinstance(factor, _TRANSFORMED):
                squared_errors, log_of_errors = errors.pop()
                total = np.sum(squared_errors * _mean_square(_blocks(y, factor, axis=0)))
                terms.append(np.log(total) + 2.0 * (log_of_errors + log))
            y, log = _normalised(factor._rmatvec(y, xp), log)
    return float(0.5 * np.logaddexp.reduce(terms))
