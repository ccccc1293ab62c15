"""Products that are computed again and again: functions of vectors, of which some can write into a given array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Step(NamedTuple):
    """The products of one vector or of rows, with all that does not depend on the vectors done before."""

    product: Callable[..., Any]
    """Returns the products. If it `writes`, it takes a contiguous array for them as a second argument."""
    writes: bool = False
    """Whether it can write into an array that is given."""

    def __call__(self, x: Any, out: Any) -> Any:
        """Return `out` with the products in it."""
        if self.writes:
            return self.product(x, out)
        out[...] = self.product(x)
        return out
