"""The rules of NumPy, whose arrays belong to no graph and no trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structmat._rules import Rules


class NumPyRules(Rules):
    """The rules of NumPy."""

    engine = "numpy"
    keeps_products = True
    multiplies_exactly = True

    def is_eager_on_cpu(self, array: Any) -> bool:
        return True

    def is_plain(self, arrays: Sequence[Any]) -> bool:
        return True
