"""How a base layer stores its weight, and whether a change may be merged into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._other_tools import split_by

__all__ = [
    "dtype_and_device",
    "has_computed_weight",
    "merged_weight",
    "multiplies_by_weight",
    "own_weight",
    "owner_of",
    "weight_plus",
]


def owner_of(base: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that has a parameter itself, and its name there; `name` may be a path such as "out.weight"."""
    path, _, own = name.rpartition(".")
    return base.get_submodule(path), own


def has_computed_weight(base: Any, name: str = "weight") -> bool:
    """Return whether a base computes its weight from other parameters, as with weight_norm or pruning."""
    stored = name in base._parameters or name in base._buffers
    return not stored and isinstance(getattr(base, name, None), Tensor)


def own_weight(base: Any, owner: str, name: str = "weight") -> Tensor:
    """Return the weight of a base, a parameter of some name, if a change may be added to it.

    Raises
    ------
    TypeError
        If it is quantised, computed from other parameters, a buffer, split among processes, or on the device meta.
    """
    base, name = owner_of(base, name)
    weight: Any = getattr(base, name, None)
    problem = ""
    if has_computed_weight(base, name):
        problem = "is no parameter, as after weight_norm or pruning; remove these before merging"
    elif name in base._buffers:
        problem = "is a buffer, to be made a torch.nn.Parameter first"
    elif engine := split_by(base):
        problem = (
            f"is split among processes by {engine}, which keeps its own: save the adapter, and merge it after loading "
            "it into a model that is not split"
        )
    elif not (isinstance(weight, nn.Parameter) and type(weight.data) is Tensor and weight.is_floating_point()):
        problem = f"is {type(weight).__name__}, not a plain floating tensor; PEFT can merge into quantised weights"
    elif weight.is_meta:
        problem = "is on the device meta, without values: merge before offloading"
    if problem:
        raise ArgumentTypeError(owner, None, f"the {name} of {type(base).__name__} {problem}")
    return weight


def multiplies_by_weight(base: Any, shape: Sequence[int]) -> bool:
    """Return whether a layer multiplies by its weight as it is, of shape (out, in), and does not scale it before.

    The output of the layer for one input is compared with the product by the weight. Where the weight is quantised or
    not in memory, nothing can be said, and the answer is yes.
    """
    weight = getattr(base, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
        return True
    if weight.shape[:2] != tuple(shape):
        return False
    # Entries of both signs and of different sizes, whose sum is not zero either.
    x = torch.linspace(-10, 5, weight.shape[1], dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            expected = nn.functional.linear(x, weight.flatten(1), getattr(base, "bias", None))
            given = type(base).forward(base, x.reshape(1, -1, *weight.shape[2:]))
            error = (given.flatten() - expected).abs().max()
            size = expected.abs().max()
    except (AttributeError, RuntimeError, TypeError, ValueError):  # the layer has other inputs or outputs
        return False
    # Rounding may differ, by far less than the root of the unit roundoff; a scale would differ by more.
    return bool(error <= 2 * torch.finfo(weight.dtype).eps ** 0.5 * size)


def dtype_and_device(base: nn.Module) -> dict[str, Any]:
    """Return the dtype and the device that the vectors of an adapter get from its base layer.

    The dtype is that of the floating parameters, or float32 where these are quantised. A layer without parameters tells
    no device.

    Raises
    ------
    TypeError
        If a parameter is complex, which the vectors of adapters are not.
    """
    tensors = [*base.parameters(), *base.buffers()]
    if any(tensor.is_complex() for tensor in tensors):
        text = f"must be real, as the vectors of an adapter are, got a {type(base).__name__} with complex weights"
        raise ArgumentTypeError("CDDAdapter", "base", text)
    floating = [t.dtype for t in tensors if t.is_floating_point() and t.element_size() > 1]
    found: dict[str, Any] = {"dtype": floating[0] if floating else torch.float32}
    if tensors:
        # Where accelerate keeps the weights elsewhere, one of its hooks tells the device that it brings them to.
        hook = getattr(base, "_hf_hook", None) if tensors[0].is_meta else None
        targets = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook])]
        found["device"] = torch.device(next((each for each in targets if each is not None), tensors[0].device))
    return found


def weight_plus(weight: Tensor, change: Tensor) -> Tensor:
    """Return a weight plus a change of the same layout, computed in float32 at least and rounded once."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return (wide + change.to(wide)).to(weight.dtype)


def merged_weight(weight: Tensor, change: Tensor, owner: str) -> nn.Parameter:
    """Return a new frozen parameter: a weight plus a change of the same layout.

    Raises
    ------
    ValueError
        If it held NaN or infinity.
    """
    # In inference mode the new weight would become a tensor that autograd refuses for good.
    with torch.inference_mode(mode=False), torch.no_grad():
        merged = weight_plus(weight, change)
        if not torch.isfinite(merged).all():
            raise ArgumentValueError(owner, None, "NaN or infinity in the merged weight; the adapter is broken")
        return nn.Parameter(merged, requires_grad=False)
