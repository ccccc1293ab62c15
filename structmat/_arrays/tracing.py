"""Whether a computation on arrays is traced or compiled, and whether its results may be stored."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from structmat._arrays.libraries import device_of, namespace, rules_of
from structmat._arrays.typing import Array, Namespace


def is_eager_on_cpu(tensor: Array, xp: Namespace) -> bool:
    """Tell whether a tensor of torch lies in the memory of the CPU, and no compiler traces what is done with it."""
    return str(device_of(tensor)) == "cpu" and not xp.compiler.is_compiling()


def is_plain(arrays: Iterable[Array]) -> bool:
    """Tell whether results computed from arrays may be stored, since they belong to no trace or graph of a library."""
    others = [array for array in arrays if type(array) is not np.ndarray]  # arrays of NumPy belong to none
    return not others or rules_of(namespace(*others)).is_plain(others)
