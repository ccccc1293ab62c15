"""Prepared products with a matrix: functions of vectors, of which some can write their result to an array."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from structmat._arrays.typing import Array, DType

if TYPE_CHECKING:
    from collections.abc import Callable


class Step:
    """The product with a matrix as a function of one vector or of rows; all else has been computed before.

    Parameters
    ----------
    product : callable
        Returns the products of the vectors that are its argument.
    writes : bool
        Whether `product` has an optional second argument, a contiguous array, to which it writes the products. If not,
        `into` copies the products to the array.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import Step
    >>> negation = Step(np.negative, writes=True)
    >>> out = np.empty(2)
    >>> negation.into(np.array([1.0, 2.0]), out)
    array([-1., -2.])
    """

    __slots__ = ("into", "product")

    product: Callable[..., Any]
    """Returns the products of vectors."""
    into: Callable[[Any, Any], Any]
    """Writes the products of vectors, its first argument, to an array, its second one, and returns that."""

    def __init__(self, product: Callable[..., Any], *, writes: bool = False) -> None:
        self.product = product
        self.into = product if writes else partial(_copied, product)


def _copied(product: Callable[[Any], Any], x: Any, out: Any) -> Any:
    """Copy the products to `out`, for a step that cannot write to it, and return it."""
    out[...] = product(x)
    return out


class Products(NamedTuple):
    """The prepared products of arrays of one type and one dtype, which are not checked."""

    kind: Any
    """The type of the arrays."""
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Step
    """The product of one vector."""
    batched: Step
    """The products of any batch of vectors along the last axis."""

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
        return (self.one if x.ndim == 1 else self.batched).product(x)
