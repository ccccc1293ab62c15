"""Prepared products with a matrix, each a function of the vectors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from structmat._arrays.typing import Array, DType

if TYPE_CHECKING:
    from collections.abc import Callable


class Products(NamedTuple):
    """The prepared products of arrays of one type and one dtype, which are not checked."""

    kind: Any
    """The type of the arrays."""
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Callable[[Any], Any]
    """Returns the product of one vector."""
    batched: Callable[[Any], Any]
    """Returns the products of any batch of vectors along the last axis."""

    def takes(self, x: Array) -> bool:
        """Tell whether these products are for arrays of the type and dtype of one.

        Parameters
        ----------
        x : array
            Vectors along the last axis, whose length is not looked at.

        Returns
        -------
        bool
            Whether type and dtype agree.
        """
        return isinstance(x, self.kind) and bool(x.dtype == self.dtype)

    def __call__(self, x: Array) -> Array:
        return (self.one if x.ndim == 1 else self.batched)(x)
