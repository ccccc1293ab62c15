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
from structmat._numpy_rules import NumPyRules
from structmat._rules import Rules


def is_torch(value: Any) -> bool:
    """Tell whether `value` is a tensor of torch, without an import of torch."""
    module = type(value).__module__
    return (module == "torch" or module.startswith("torch.")) and hasattr(value, "requires_grad")


def namespace(*arrays: Array) -> Namespace:
    """Return the array namespace of the library that all arrays belong to."""
    # array_api_compat is not asked for NumPy, since that takes longer, and not for torch: older versions of
    # torch.compile cannot trace its look-up, and newer ones warn of its caches.
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:
        return numpy_namespace
    kind = type(arrays[0]) if is_torch(arrays[0]) else None  # usually that of all
    for array in arrays:
        if type(array) is not kind and not is_torch(array):
            xp = array_namespace(*arrays)
            library = library_of(xp)
            if library == "numpy":
                return numpy_namespace
            xp = extended(library, xp)
            rules_of(xp)  # imports those of JAX, whose transformations take operators only after they are registered
            return xp
    already_imported: Namespace | None = getattr(array_api_compat, "torch", None)
    if already_imported is not None:  # this look-up costs a sixth of an import statement
        return already_imported
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


def _rules_of_torch(xp: Namespace) -> Rules:  # noqa: ARG001
    from structmat._torch_rules import rules  # noqa: PLC0415  # torch is there already

    return rules


def _rules_of_jax(xp: Namespace) -> Rules:  # noqa: ARG001
    from structmat._jax_rules import rules  # noqa: PLC0415  # JAX is there already

    return rules


def _rules_of_dask(xp: Namespace) -> Rules:
    from structmat._dask_rules import DaskRules  # noqa: PLC0415  # Dask is there already

    return DaskRules(xp)


_NUMPY = NumPyRules(numpy_namespace)

_WITH_RULES: dict[str, Callable[[Namespace], Rules]] = {
    "dask": _rules_of_dask,
    "jax": _rules_of_jax,
    "torch": _rules_of_torch,
}
"""For each library that is not as `Rules` says, but for NumPy, by name, the function that imports its rules."""

_RULES: dict[str, Rules] = {"numpy": _NUMPY}
"""For each namespace, by name, the rules of its library, once they have been asked for."""


def rules_of(xp: Namespace) -> Rules:
    """Return the rules of a library: what it is able to do, and makes of a computation beside its values."""
    if xp is numpy_namespace:
        return _NUMPY
    rules = _RULES.get(xp.__name__)
    if rules is None:
        load = _WITH_RULES.get(library_of(xp))
        rules = Rules(xp) if load is None else load(xp)
        _RULES[xp.__name__] = rules
    return rules


def device_of(array: Array) -> Device:
    """Return the device of an array, for those that are made beside it.

    Parameters
    ----------
    array : array
        Of any library.

    Returns
    -------
    device
        As the library has it.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import device_of
    >>> device_of(np.ones(2))
    'cpu'
    """
    if type(array) is np.ndarray:
        return "cpu"
    if is_torch(array):
        return array.device
    if type(array).__module__ == "mlx.core":  # arrays of MLX are in memory that all devices share
        return namespace(array).default_device()
    return compat_device(array)


def namespace_of(owner: str, *arrays: Array) -> Namespace:
    """Return the one array namespace of all arrays.

    Parameters
    ----------
    owner : str
        The function or class that was called, which the error names.
    *arrays : array
        Arrays of one library.

    Returns
    -------
    namespace
        By the array API standard.

    Raises
    ------
    TypeError
        If they come from several libraries.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import namespace_of
    >>> namespace_of("Mine", np.ones(2)).sqrt(np.array([4.0]))
    array([2.])
    """
    try:
        return namespace(*arrays)
    except TypeError as error:
        kinds = ", ".join(sorted({f"{type(a).__module__}.{type(a).__qualname__}" for a in arrays}))
        raise ArgumentTypeError(owner, None, f"all arrays must come from one array library, got {kinds}") from error


def can_raise_for_values(xp: Namespace) -> bool:
    """Tell whether values can be read at no cost, so that an error can be raised for them, as `numpy.linalg` does.

    In torch and JAX reading a value would wait for the device, and would fail under a tracer. There results hold
    infinities and NaN instead, as those of ``jax.numpy.linalg`` do.
    """
    return xp is numpy_namespace or bool(is_array_api_strict_namespace(xp))
