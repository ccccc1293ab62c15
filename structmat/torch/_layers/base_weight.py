"""How a base layer stores its weight, and whether a change may be merged into it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._distributed import is_gathered, split_by

__all__ = [
    "dtype_and_device",
    "has_own_forward",
    "merged_parameter",
    "multiplies_by_weight",
    "own_weight",
    "owner_of",
    "require_whole",
    "stored_as",
]


def owner_of(base: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that has a parameter itself, and its name there; `name` may be a path such as "out.weight"."""
    path, _, own = name.rpartition(".")
    return base.get_submodule(path), own


def own_weight(base: Any, owner: str, name: str = "weight", *, overwrite: bool = False) -> Tensor:
    """Return the weight of a base, a parameter of some name, if a change may be added to it.

    Parameters
    ----------
    overwrite : bool, default False
        Whether the sum is written into the tensor, as PEFT does it, and not put in its place as a new parameter. Then
        it may be a buffer, engines keep what is written while they have gathered it, and it may come to the device
        later.

    Raises
    ------
    TypeError
        If it is quantised, computed from other parameters, a buffer, split among processes, or on the device meta.
    """
    base, name = owner_of(base, name)
    weight: Any = getattr(base, name, None)
    require_whole(base, owner, name, overwrite=overwrite)
    problem = ""
    is_stored = name in base._parameters or name in base._buffers
    if not is_stored and isinstance(weight, Tensor):
        problem = "is no parameter, as after weight_norm or pruning; remove these before merging"
    elif not _is_plain(weight):
        kind = type(weight.data).__name__ if isinstance(weight, Tensor) else type(weight).__name__
        of_dtype = f" of {weight.dtype}" if isinstance(weight, Tensor) else ""
        problem = (
            f"is {kind}{of_dtype}, not a plain tensor of a floating dtype of 16 bits or more: merge into the model "
            "before it is quantised, or keep the adapter; PEFT can merge into weights that bitsandbytes, torchao or "
            "HQQ quantised"
        )
    elif name in base._buffers and not overwrite:
        problem = "is a buffer, to be made a torch.nn.Parameter first"
    elif weight.is_meta and not overwrite:
        problem = "is on the device meta, without values: merge before offloading"
    if problem:
        raise ArgumentTypeError(owner, None, f"the {name} of {type(base).__name__} {problem}")
    return weight


def require_whole(base: Any, owner: str, name: str = "weight", *, overwrite: bool = False) -> None:
    """Refuse a base whose parameters are split among processes, unless the one to be overwritten is gathered now."""
    engine = split_by(base)
    if engine and not (overwrite and is_gathered(base, name)):
        text = (
            f"the {name} of {type(base).__name__} is split among processes by {engine}, which keeps its own: save the "
            "adapter, and merge it after loading it into a model that is not split"
        )
        raise ArgumentTypeError(owner, None, text)


def _is_plain(weight: Any) -> bool:
    """Return whether a weight is a tensor whose entries are numbers that a change can be added to.

    Quantised ones are of a class of their own, or of a dtype of 8 bits, to which a number beside them belongs.
    """
    return (
        isinstance(weight, Tensor)
        and type(weight.data) is Tensor
        and weight.is_floating_point()
        and weight.element_size() > 1
    )


def has_own_forward(base: Any) -> bool:
    """Return whether somebody gave a module a forward pass that its class does not have, which may compute anything.

    That of accelerate calls the one of the class.
    """
    return "forward" in vars(base) and not hasattr(base, "_hf_hook")


def multiplies_by_weight(base: Any, shape: Sequence[int]) -> bool:
    """Return whether a layer multiplies by its weight as it is, of shape (out, in), and does not scale it before.

    The output of the layer for one input is compared with the product by the weight. Where the weight is quantised or
    not in memory, nothing can be said, and the answer is yes.
    """
    weight: Any = getattr(base, "weight", None)
    if not _is_plain(weight) or weight.is_meta:
        return True
    if weight.shape[:2] != tuple(shape):
        return False
    # Entries of both signs and of different sizes, whose sum is not zero either.
    x = torch.linspace(-10, 5, weight.shape[1], dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            expected = nn.functional.linear(x, weight.flatten(1), getattr(base, "bias", None))
            forward = base.forward if has_own_forward(base) else partial(type(base).forward, base)
            given = forward(x.reshape(1, -1, *weight.shape[2:]))
            error = (given.flatten() - expected).abs().max()
            size = expected.abs().max()
    except (AttributeError, RuntimeError, TypeError, ValueError):  # the layer has other inputs or outputs
        return False
    # Rounding may differ, by far less than the root of the unit roundoff; a scale would differ by more.
    return bool(error <= 2 * torch.finfo(weight.dtype).eps ** 0.5 * size)


def dtype_and_device(base: nn.Module) -> dict[str, Any]:
    """Return the dtype and the device that the vectors of an adapter get from its base layer.

    The dtype is that of the floating parameters, but float32 where these are quantised or of half precision, bfloat16
    included. PEFT's `cast_adapter_dtype` has the same rule: optimisers take steps of 1e-4 to 1e-3, which vanish beside
    a number near 1 in bfloat16, and whose squares vanish in float16, so that AdamW divides by zero. A layer without
    parameters tells no device.

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
    found: dict[str, Any] = {"dtype": torch.promote_types(floating[0], torch.float32) if floating else torch.float32}
    if tensors:
        # Where accelerate keeps the weights elsewhere, one of its hooks tells the device that it brings them to.
        hook = getattr(base, "_hf_hook", None) if tensors[0].is_meta else None
        targets = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook])]
        found["device"] = torch.device(next((each for each in targets if each is not None), tensors[0].device))
    return found


def stored_as(weight: Tensor, value: Tensor) -> Tensor:
    """Return a value with memory of its own, in the order in which a weight is stored."""
    is_alone = value.stride() == weight.stride() and value.untyped_storage().nbytes() == value.nbytes
    return value if is_alone else torch.empty_like(weight).copy_(value)


def merged_parameter(weight: Tensor, merged: Tensor, owner: str) -> nn.Parameter:
    """Return the new frozen parameter that takes the place of a weight.

    Raises
    ------
    ValueError
        If it held NaN or infinity.
    """
    if not torch.isfinite(merged).all():
        raise ArgumentValueError(owner, None, "NaN or infinity in the merged weight; the adapter is broken")
    return nn.Parameter(stored_as(weight, merged), requires_grad=False)
