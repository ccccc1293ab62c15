"""`CDDSum`: several changes of one layer under the name of one adapter.

A sum of products is not a product of the same length, so that the only exact way to add two adapters up is to keep
both. A sum has no mathematics of its own: layers add its terms as they add adapters that are active together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from structmat.torch import CDDAdapter

__all__ = ["CDDSum", "terms_of"]


class CDDSum(nn.Module):
    """Changes of one layer that add up, each with its own `alpha`, all multiplied by a further one."""

    def __init__(self, terms: Sequence[CDDAdapter]) -> None:
        super().__init__()
        for i, term in enumerate(terms):
            self.add_module(f"term{i}", term)  # in files such a name has the place of that of a parameter
        self._own_alphas = [term.alpha for term in terms]
        self._alpha = 1.0

    @property
    def alpha(self) -> float:
        """What the terms are multiplied by, beside the `alpha` that each was made with."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = value
        for term, own in zip(terms_of(self), self._own_alphas, strict=True):
            term.alpha = value * own

    def dense(self) -> Tensor:
        """Return the sum as a dense matrix."""
        first, *others = (term.dense() for term in terms_of(self))
        return sum(others, first)


def terms_of(adapter: Any) -> Sequence[CDDAdapter]:
    """Return the changes that an adapter of a layer adds: one, or those of a sum."""
    return tuple(adapter.children()) if isinstance(adapter, CDDSum) else (adapter,)
