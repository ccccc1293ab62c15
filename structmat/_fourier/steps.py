"""Products that are computed again and again: functions of vectors, of which some can write into a given array."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from structmat._arrays.typing import Array, DType

if TYPE_CHECKING:
    from collections.abc import Callable


class Step:
    """The products of one vector or of rows, with all that does not depend on the vectors done before.

    Parameters
    ----------
    product : callable
        Returns the products of the vectors that are its argument.
    writes : bool
        Whether `product` takes as a second argument, where one is given, a contiguous array that it returns the
        products in. For other steps the products are copied there.
    """

    __slots__ = ("into", "product")

    product: Callable[..., Any]
    """Returns the products of vectors."""
    into: Callable[[Any, Any], Any]
    """Returns its second argument, an array, with the products of vectors in it."""

    def __init__(self, product: Callable[..., Any], *, writes: bool = False) -> None:
        self.product = product
        self.into = product if writes else partial(_copied, product)


def _copied(product: Callable[[Any], Any], x: Any, out: Any) -> Any:
    """Return `out` with the products in it, of a step that cannot write there itself."""
    out[...] = product(x)
    return out


class Products(NamedTuple):
    """The products of arrays of one type and dtype, without checks."""

    kind: Any
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Step
    """Those of one vector."""
    batched: Step
    """Those of any batch of vectors along the last axis."""

    def takes(self, x: Array) -> bool:
        """Tell whether they are for arrays such as `x`, of the right length."""
        return isinstance(x, self.kind) and bool(x.dtype == self.dtype)

    def __call__(self, x: Array) -> Array:
        return (self.one if x.ndim == 1 else self.batched).product(x)
