"""The parameters that first-order solvers move: all vectors of a product, scaled, in one flat vector.

The vectors of a `CDDLayout` have different lengths, so they stand one after the other. A grid of circulants is held as
``sqrt(max(p, q) * b)`` times its first columns: entries are then of size one where the matrices of all frequencies have
orthonormal rows or columns, as those of diagonals of signs are, and one step size suits all parameters. Leading axes of
the parameters hold independent products.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from structmat.operators import CDDLayout, FactorKind

__all__ = [
    "FactorParameters",
    "balanced",
    "extended",
    "factor_parameters",
    "from_vectors",
    "join",
    "mean_side",
    "split",
    "to_vectors",
]


class FactorParameters(NamedTuple):
    """Where the parameters of a factor are, and what they are of."""

    diagonal: bool
    """Whether it is a diagonal, and not a grid of circulants."""
    shape: tuple[int, ...]
    """The shape of its vector."""
    place: slice
    """Its part of the flat vector."""
    scale: float
    """How many times its vector the parameters are."""
    rows: int
    cols: int


def factor_parameters(layout: CDDLayout) -> list[FactorParameters]:
    """Return where the parameters of each factor are, left to right."""
    found, begin = [], 0
    for shape, (rows, cols) in zip(layout.vector_shapes, layout.factor_shapes, strict=True):
        end = begin + math.prod(shape)
        scale = math.sqrt(max(shape[:2]) * shape[2]) if len(shape) == 3 else 1.0
        found.append(FactorParameters(len(shape) == 1, shape, slice(begin, end), scale, rows, cols))
        begin = end
    return found


def split(layout: CDDLayout, parameters: NDArray[Any]) -> list[NDArray[Any]]:
    """Return views (..., *shape) of the parameters of each factor."""
    lead = parameters.shape[:-1]
    return [parameters[..., factor.place].reshape(*lead, *factor.shape) for factor in factor_parameters(layout)]


def join(parts: Sequence[NDArray[Any]], lead: int = 0) -> NDArray[Any]:
    """Return the flat parameters of those of each factor, the inverse of `split`, after `lead` axes."""
    # with -1 for the size, NumPy refuses no products at all
    return np.concatenate([part.reshape(*part.shape[:lead], math.prod(part.shape[lead:])) for part in parts], axis=-1)


def from_vectors(layout: CDDLayout, vectors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the parameters of products given by their vectors; leading axes make stacks."""
    factors = factor_parameters(layout)
    scaled = [v * v.real.dtype.type(factor.scale) for v, factor in zip(vectors, factors, strict=True)]
    return join(scaled, vectors[0].ndim - len(factors[0].shape))


def to_vectors(layout: CDDLayout, parameters: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the vectors of the products that the parameters make."""
    parts, factors = split(layout, parameters), factor_parameters(layout)
    return [part / part.real.dtype.type(factor.scale) for part, factor in zip(parts, factors, strict=True)]


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
