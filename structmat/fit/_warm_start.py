"""A product that the user gives to start from, as vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._many_factors.block_objective import BlockLayout
from structmat.fit._numpy_bridge import to_numpy
from structmat.fit._result import FitResult
from structmat.operators import BlockCirculant, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.objective import First, Layout

__all__ = ["Given", "given_chain"]


class Given(NamedTuple):
    """A product to start from."""

    first: First
    vectors: Any
    """Diagonals and first columns, in double precision: (F, n), or a list of them for blocks."""
    block: bool
    """Whether it is one of block circulants."""


def given_chain(start: Any, layout: Layout, *, real: bool) -> Given | None:
    """Return the product of the argument `start` of `fit_cdd`, None for "auto".

    `real` tells whether the matrix is real.
    """
    if isinstance(start, str) and start == "auto":
        return None
    product = start.operator if isinstance(start, FitResult) else start
    if not isinstance(product, CDDProduct):
        raise TypeError(f'fit_cdd: start must be "auto", a CDDProduct or a FitResult, got {start!r}')
    block = isinstance(layout, BlockLayout)
    shape = layout.shape if isinstance(layout, BlockLayout) else (layout.n, layout.n)
    if product.shape != shape:
        raise ValueError(f"fit_cdd: start must have shape {shape}, got {tuple(product.shape)}")
    if product.batch_shape:
        raise ValueError(f"fit_cdd: start must be one product, got a stack of shape {product.batch_shape}")
    first: First = "diagonal" if isinstance(product.factors[0], Diagonal) else "circulant"
    count = product.n_factors
    if count + (first != layout.first) > layout.n_factors:
        raise ValueError(
            f"fit_cdd: start must become a product of {layout.n_factors} factors, the first {layout.first}, with "
            f"identities appended, got {count} factors, the first {first}"
        )
    if isinstance(layout, BlockLayout):
        vectors: Any = _block_vectors(product, layout)
    else:
        vectors = np.stack([_vector(factor) for factor in product.factors])
    if real and any(map(np.iscomplexobj, vectors)):
        raise ValueError("fit_cdd: start must be real where W is, got complex factors")
    if not all(np.isfinite(vector).all() for vector in vectors):
        raise ValueError("fit_cdd: start must be finite, got NaN or infinity")
    return Given(first, vectors, block)


def _block_vectors(product: CDDProduct, layout: BlockLayout) -> list[NDArray[Any]]:
    """The diagonals and first columns of blocks, if the factors are those of the layout."""
    vectors = []
    for factor in product.factors:
        (array,) = (factor if isinstance(factor, (Diagonal, BlockCirculant)) else _as_block(factor))._arrays()
        vector = to_numpy(array)
        vectors.append(vector.astype(np.result_type(vector.dtype, np.float64)))
    shapes = [vector.shape for vector in vectors]
    count = len(vectors)
    if count < layout.least or count % 2 == 0 or replace(layout, n_factors=count).vector_shapes != shapes:
        raise ValueError(
            f"fit_cdd: start must be a product of diagonals and block circulants of the shapes that such a fit has, "
            f"with blocks of {layout.block_size}, got vectors of shapes {shapes}"
        )
    return vectors


def _as_block(factor: Any) -> BlockCirculant:
    return BlockCirculant(_vector(factor)[None, None])


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
