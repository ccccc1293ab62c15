"""How a base layer stores its weight, and whether a change may be merged into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError
from structmat.torch._other_tools import split_by

__all__ = ["dtype_and_device", "has_computed_weight", "multiplies_by_weight", "own_weight", "weight_plus"]


def has_computed_weight(base: Any) -> bool:
    """Whether a layer computes its weight from other parameters: after weight_norm, pruning, a parametrization."""
    stored = "weight" in base._parameters or "weight" in base._buffers
    return not stored and isinstance(getattr(base, "weight", None), Tensor)


def own_weight(base: Any, owner: str) -> Tensor:
    """Return the weight of a base, which a change may be merged into if the base multiplies by it.

    Raises
    ------
    TypeError
        If it is quantised, computed from other parameters, a buffer, split among processes, or on the device meta.
    """
    weight: Any = getattr(base, "weight", None)
    problem = ""
    if has_computed_weight(base):
        problem = "is no parameter, as after weight_norm or pruning; remove these before merging"
    elif "weight" in base._buffers:
        problem = "is a buffer, to be made a torch.nn.Parameter first"
    elif engine := split_by(base):
        problem = f"is split among processes by {engine}, which keeps its own: save the adapter, and merge it after "
        problem += "loading it into a model that is not split"
    elif not (isinstance(weight, nn.Parameter) and type(weight.data) is Tensor and weight.is_floating_point()):
        problem = f"is {type(weight).__name__}, not a plain floating tensor; PEFT can merge into quantised weights"
    elif weight.is_meta:
        problem = "is on the device meta, without values: merge before offloading"
    if problem:
        raise ArgumentTypeError(owner, None, f"the weight of {type(base).__name__} {problem}")
    return weight


def multiplies_by_weight(base: Any, shape: Sequence[int]) -> bool:
    """Whether a layer multiplies by its weight of a shape (out, in), which layers of other classes may scale before.

    One product is compared. Of weights that are quantised or elsewhere nothing is known, and they pass.
    """
    weight, forward = getattr(base, "weight", None), type(base).forward
    if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
        return True
    if weight.shape[:2] != tuple(shape):
        return False
    x = torch.linspace(-10, 5, weight.shape[1], dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            expected = nn.functional.linear(x, weight.flatten(1), getattr(base, "bias", None))
            given = forward(base, x.reshape(1, -1, *weight.shape[2:]))
            error, size = (given.flatten() - expected).abs().max(), expected.abs().max()
    except (AttributeError, RuntimeError, TypeError, ValueError):  # of other inputs, or outputs
        return False
    return bool(error <= 2 * torch.finfo(weight.dtype).eps ** 0.5 * size)


def dtype_and_device(base: nn.Module) -> dict[str, Any]:
    """Return dtype and device of a module's floating parameters; float32 where they are quantised.

    Raises
    ------
    TypeError
        If they are complex, which the vectors of adapters are not.
    """
    tensors = [*base.parameters(), *base.buffers()]
    if any(tensor.is_complex() for tensor in tensors):
        text = f"must be real, as the vectors of an adapter are, got a {type(base).__name__} with complex weights"
        raise ArgumentTypeError("CDDAdapter", "base", text)
    floating = [t.dtype for t in tensors if t.is_floating_point() and t.element_size() > 1]
    found: dict[str, Any] = {"dtype": floating[0] if floating else torch.float32}
    if tensors:
        # Where accelerate keeps weights elsewhere, one of its hooks says where it will bring them.
        hook = getattr(base, "_hf_hook", None) if tensors[0].is_meta else None
        targets = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook])]
        found["device"] = torch.device(next((each for each in targets if each is not None), tensors[0].device))
    return found


def weight_plus(weight: Tensor, change: Tensor) -> Tensor:
    """Return a weight plus a change of the same layout, computed in float32 at least and rounded once."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return (wide + change.to(wide)).to(weight.dtype)
