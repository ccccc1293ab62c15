"""The rules of Dask, whose arrays are lazy: what a loop has found is computed before the next step.

Otherwise each step would compute all steps before it once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.base

from structmat._rules import Rules

_persist: Any = dask.base.persist  # which has no types


class DaskRules(Rules):
    """The rules of Dask."""

    has_batched_factors = False

    def loop(
        self, goes_on: Callable[[Any], Any], step: Callable[[Any], tuple[Any, ...]], state: tuple[Any, ...]
    ) -> Any:
        while bool(goes_on(state)):
            state = step(state)
            computed = _persist(*state)
            state = type(state)(*computed) if hasattr(state, "_fields") else computed
        return state
