"""The parameters that first-order solvers move: all vectors of a product, scaled, in one flat vector.

The vectors of a `CDDLayout` have different lengths, so they stand one after the other. A grid of circulants is held as
``sqrt(max(p, q) * b)`` times its first columns: entries are then of size one where the matrices of all frequencies have
orthonormal rows or columns, as those of diagonals of signs are, and one step size suits all parameters. Leading axes of
the parameters hold independent products.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from structmat.operators import CDDLayout, FactorKind

__all__ = ["balanced", "extended", "from_vectors", "join", "mean_side", "scales", "split", "to_vectors"]


def scales(layout: CDDLayout) -> list[float]:
    """Return how many times its vector the parameters of each factor are."""
    return [math.sqrt(max(shape[:2]) * shape[2]) if len(shape) == 3 else 1.0 for shape in layout.vector_shapes]


def split(layout: CDDLayout, parameters: NDArray[Any]) -> list[NDArray[Any]]:
    """Return views (..., *shape) of the parameters of each factor."""
    shapes = layout.vector_shapes
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(parameters, ends[:-1], axis=-1)
    return [part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def join(layout: CDDLayout, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the flat parameters of those of each factor, the inverse of `split`."""
    flat = [
        part.reshape(*part.shape[: part.ndim - len(shape)], math.prod(shape))
        for part, shape in zip(parts, layout.vector_shapes, strict=True)
    ]
    return np.concatenate(flat, axis=-1)


def from_vectors(layout: CDDLayout, vectors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the parameters of a product given by its vectors."""
    return join(layout, [v * v.real.dtype.type(s) for v, s in zip(vectors, scales(layout), strict=True)])


def to_vectors(layout: CDDLayout, parameters: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the vectors of the product that the parameters make."""
    parts = split(layout, parameters)
    return [part / part.real.dtype.type(s) for part, s in zip(parts, scales(layout), strict=True)]


def extended(layout: CDDLayout, vectors: Sequence[NDArray[Any]], first: FactorKind) -> NDArray[Any]:
    """Return the parameters of a product of fewer factors, the first of kind `first`; all factors have one size."""
    whole: Any = layout.balanced(layout.extended(vectors, first))
    return from_vectors(layout, whole)


def balanced(layout: CDDLayout, parameters: NDArray[Any]) -> NDArray[Any]:
    """Return parameters of the same product whose factors have one size; zeros if a factor is zero."""
    vectors: Any = layout.balanced(to_vectors(layout, parameters))
    return from_vectors(layout, vectors)


def mean_side(layout: CDDLayout) -> int:
    """Return the side of a square with as many entries: what the work of a search goes by."""
    return max(1, math.isqrt(math.prod(layout.shape)))
