"""What a library makes of a computation beside its values: gradients, traces, compiled code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from structmat._arrays.libraries import device_of, library_of, namespace
from structmat._arrays.typing import Array, Namespace


def is_eager_on_cpu(tensor: Array, xp: Namespace) -> bool:
    """Tell whether a tensor of torch lies in the memory of the CPU, and no compiler traces what is done with it."""
    return str(device_of(tensor)) == "cpu" and not xp.compiler.is_compiling()


_UNTRACED: dict[Callable[..., Any], Callable[..., Any]] = {}


def untraced(function: Callable[..., Any], torch: Namespace) -> Callable[..., Any]:
    """Return a function that works on the values of tensors, so that no compiler of torch traces what it calls.

    Kept in a dictionary, since a compiler knows functions by their identity and looks through caches of functools.
    What compiles is imported by torch when it is first asked for, which takes longer than all else.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _UNTRACED:
        _UNTRACED[function] = torch.compiler.disable(function)
    return _UNTRACED[function]


def constant(value: Array, xp: Namespace) -> Array:
    """Return an array that has no derivative."""
    library = library_of(xp)
    if library == "torch":
        return value.detach()
    return sys.modules["jax"].lax.stop_gradient(value) if library == "jax" else value


def is_differentiated(arrays: Iterable[Array], xp: Namespace) -> bool:
    """Tell whether torch is to differentiate what is computed of arrays, in any mode, or to map it over an axis."""
    if library_of(xp) != "torch":
        return False
    torch: Any = sys.modules["torch"]
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arrays)


def is_plain(arrays: Iterable[Array]) -> bool:
    """Tell whether what is computed of arrays may be kept, as it belongs to no trace, graph or mode of a library."""
    values: list[Any] = list(arrays)
    if all(type(value) is np.ndarray or type(value).__name__ == "ArrayImpl" for value in values):
        return True  # of NumPy, or in JAX such as are no tracers
    torch: Any = sys.modules.get("torch")
    if torch is None or not all(type(value) is torch.Tensor and not value.requires_grad for value in values):
        return False
    special = torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
    return not special and not is_differentiated(values, namespace(*values))
