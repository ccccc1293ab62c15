"""What libraries that differentiate are doing with a function, and values that they are to take for constants."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from structmat._arrays.namespaces import library_of
from structmat._arrays.typing import Array, Namespace

__all__ = ["constant", "is_differentiated", "require_one_forward_level"]


def constant(value: Array, xp: Namespace) -> Array:
    """Return an array that has no derivative."""
    given: Any = value
    match library_of(xp):
        case "torch":
            found: Array = given.detach()
        case "jax":
            found = sys.modules["jax"].lax.stop_gradient(given)
        case _:
            found = value
    return found


def is_differentiated(arrays: Iterable[Array], xp: Namespace) -> bool:
    """Tell whether torch is to differentiate what is computed of arrays, in any mode, or to map it over an axis."""
    if library_of(xp) != "torch":
        return False
    torch: Any = sys.modules["torch"]
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return True
    tensors: Iterable[Any] = arrays
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def require_one_forward_level(owner: str) -> None:
    """Refuse derivatives in forward mode of such derivatives, which torch takes for zero in functions of its users.

    Raises
    ------
    RuntimeError
        If they are asked for.
    """
    functorch: Any = sys.modules["torch"]._C._functorch
    levels = [each.key() for each in functorch.get_interpreter_stack() or ()]
    if levels.count(functorch.TransformType.Jvp) > 1:
        text = "torch has no forward mode over forward mode here; use reverse mode for one, as torch.func.hessian does"
        raise RuntimeError(f"{owner}: {text}")
