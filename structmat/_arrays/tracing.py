"""Whether results of a computation on arrays may be stored."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from structmat._arrays.libraries import namespace, rules_of
from structmat._arrays.typing import Array


def is_plain(arrays: Iterable[Array]) -> bool:
    """Tell whether results computed from arrays may be stored, since they belong to no trace or graph of a library."""
    others = [array for array in arrays if type(array) is not np.ndarray]  # arrays of NumPy belong to none
    return not others or rules_of(namespace(*others)).is_plain(others)
