"""A product that the user gives to start from, as vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.block_circulant import BlockCirculant
from structmat.cdd import CDDProduct
from structmat.circulant import Circulant
from structmat.diagonal import Diagonal
from structmat.fit._interchange import to_numpy
from structmat.fit._result import FitResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._objective import First, Layout

__all__ = ["Given", "given_chain"]


class Given(NamedTuple):
    """A square product to start from."""

    first: First
    vectors: NDArray[Any]
    """Diagonals and first columns, (F, n), in double precision."""


def given_chain(start: Any, layout: Layout, *, single: bool, real: bool) -> Given | None:
    """Return the product of the argument `start` of `fit_cdd`, None for "auto".

    `single` tells whether the fit is square and of a single block, `real` whether the matrix is real.
    """
    if isinstance(start, str) and start == "auto":
        return None
    product = start.operator if isinstance(start, FitResult) else start
    if not isinstance(product, CDDProduct):
        raise TypeError(f'fit_cdd: start must be "auto", a CDDProduct or a FitResult, got {start!r}')
    if not single:
        raise ValueError('fit_cdd: start must be "auto" for a W that is not square, or several blocks')
    if product.shape != (layout.n, layout.n):
        raise ValueError(f"fit_cdd: start must have shape {(layout.n, layout.n)}, got {tuple(product.shape)}")
    if product.batch_shape:
        raise ValueError(f"fit_cdd: start must be one product, got a stack of shape {product.batch_shape}")
    vectors = np.stack([_vector(factor) for factor in product.factors])
    first: First = "diagonal" if isinstance(product.factors[0], Diagonal) else "circulant"
    if len(vectors) + (first != layout.first) > layout.n_factors:
        raise ValueError(
            f"fit_cdd: start must become a product of {layout.n_factors} factors, the first {layout.first}, with "
            f"identities appended, got {len(vectors)} factors, the first {first}"
        )
    if real and np.iscomplexobj(vectors):
        raise ValueError("fit_cdd: start must be real where W is, got complex factors")
    if not np.isfinite(vectors).all():
        raise ValueError("fit_cdd: start must be finite, got NaN or infinity")
    return Given(first, vectors)


def _vector(factor: Any) -> NDArray[Any]:
    """The diagonal, or the first column of a circulant."""
    if isinstance(factor, BlockCirculant) and factor.grid != (1, 1):
        raise ValueError(f"fit_cdd: start must have circulants of a single block, got a grid of {factor.grid}")
    if isinstance(factor, (Diagonal, Circulant)):
        (array,) = factor._arrays()
        vector = to_numpy(array)
    else:
        vector = to_numpy(factor.to_dense())[:, 0]
    return vector.astype(np.result_type(vector.dtype, np.float64))
