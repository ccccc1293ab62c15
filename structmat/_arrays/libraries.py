"""Which library arrays belong to: its namespace, its name, its rules, its devices, and whether values may be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_array_api_strict_namespace
from array_api_compat import device as compat_device

from structmat._arrays.namespaces import extended, numpy_namespace
from structmat._arrays.typing import Array, Device, Namespace
from structmat._errors import ArgumentTypeError
from structmat._rules import Rules


def is_torch(value: Any) -> bool:
    module = type(value).__module__
    return (module == "torch" or module.startswith("torch.")) and hasattr(value, "requires_grad")


def namespace(*arrays: Array) -> Namespace:
    # Known without array_api_compat for NumPy, which is faster, and for torch: torch.compile cannot trace its look-up
    # in older versions, and remarks on its caches in newer ones.
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:
        return numpy_namespace
    for array in arrays:
        if not is_torch(array):
            found = array_namespace(*arrays)
            library = library_of(found)
            if library == "numpy":
                return numpy_namespace
            rules_of(found)  # as transformations of JAX take operators that are registered, as no other
            return extended(library, found)
    known: Namespace | None = getattr(array_api_compat, "torch", None)
    if known is not None:  # which costs a sixth of an import
        return known
    from array_api_compat import torch as torch_namespace  # noqa: PLC0415  # torch is there already

    return torch_namespace


def is_array(value: Any) -> bool:
    """Tell whether `value` is an array of a library that follows the array API standard."""
    return type(value) is np.ndarray or is_torch(value) or is_array_api_obj(value)


def is_numpy(xp: Namespace) -> bool:
    """Tell whether `xp` is the namespace of NumPy arrays."""
    return xp is numpy_namespace


def library_of(xp: Namespace) -> str:
    """Return the name of the library of a namespace: ``numpy``, ``torch``, ``jax``, ..."""
    name: str = xp.__name__.removeprefix("array_api_compat.")
    return name.partition(".")[0]


def _rules_of_torch() -> Rules:
    from structmat._torch_rules import rules  # noqa: PLC0415  # torch is there already

    return rules


def _rules_of_jax() -> Rules:
    from structmat._jax_rules import rules  # noqa: PLC0415  # JAX is there already

    return rules


_WITH_RULES: dict[str, Callable[[], Rules]] = {"torch": _rules_of_torch, "jax": _rules_of_jax}
"""By the name of a library that differentiates or compiles: what imports its rules."""

_RULES: dict[str, Rules] = {}
"""By the name of a library: its rules, once they have been asked for."""


def rules_of(xp: Namespace) -> Rules:
    """Return the rules of a library: what it makes of a computation beside its values."""
    library = library_of(xp)
    known = _RULES.get(library)
    if known is None:
        load = _WITH_RULES.get(library)
        known = _RULES[library] = Rules(xp) if load is None else load()
    return known


def device_of(array: Array) -> Device:
    """Return the device of an array."""
    if is_torch(array):
        return array.device
    if type(array).__module__ == "mlx.core":  # whose arrays are in memory that all devices share
        return namespace(array).default_device()
    return compat_device(array)


def namespace_of(owner: str, *arrays: Array) -> Namespace:
    """Return the one array namespace of all `arrays`; `owner` names the caller in the error."""
    try:
        return namespace(*arrays)
    except TypeError as error:
        kinds = ", ".join(sorted({f"{type(a).__module__}.{type(a).__qualname__}" for a in arrays}))
        raise ArgumentTypeError(owner, None, f"all arrays must come from one array library, got {kinds}") from error


def can_raise_for_values(xp: Namespace) -> bool:
    """Tell whether reading a value is free, so that values can be checked: with NumPy, as its own ``linalg`` does.

    Elsewhere it would wait for the device and fail under a tracer, so there infinities and NaN flow as in
    ``jax.numpy.linalg``.
    """
    return xp is numpy_namespace or bool(is_array_api_strict_namespace(xp))
