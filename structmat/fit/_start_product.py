"""Products that are known before a search begins: closed forms, the warm start, fits of an easier problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from structmat.operators import FactorKind

__all__ = ["KnownProduct"]


class KnownProduct(NamedTuple):
    """A product to start from."""

    name: str
    """What the result calls the start if this one wins."""
    first: FactorKind
    """The kind of its first factor."""
    vectors: Sequence[NDArray[Any]]
    """Its vectors, in the shapes of the `CDDLayout` with as many factors."""
