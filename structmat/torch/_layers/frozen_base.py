"""What may be a base layer: how many features it maps, how it stores its weight, in which dtype and where."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError

__all__ = [
    "dtype_and_device",
    "features",
    "has_complex_parameters",
    "has_computed_weight",
    "has_transposed_weight",
    "is_linear",
    "multiplies_by_weight",
    "probes",
    "reads_weight",
]


def has_transposed_weight(base: Any) -> bool:
    """Return whether a layer stores its weight (in, out), as transformers' ``Conv1D`` does.

    Parameters
    ----------
    base : Module
        A linear layer; the class is known by its name, without importing transformers.

    Returns
    -------
    bool
        Whether it does.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import has_transposed_weight
    >>> has_transposed_weight(torch.nn.Linear(2, 3))
    False
    """
    return type(base).__name__ == "Conv1D" and hasattr(base, "nx") and hasattr(base, "nf")


def has_computed_weight(base: Any) -> bool:
    """Return whether a layer computes its weight from other parameters, so that a change merged into it would be lost.

    Parameters
    ----------
    base : Module
        A layer, for example after `weight_norm`, pruning or another parametrization of torch.

    Returns
    -------
    bool
        Whether it has a tensor as weight that is neither a parameter nor a buffer.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import has_computed_weight
    >>> linear = torch.nn.Linear(4, 4)
    >>> has_computed_weight(linear), has_computed_weight(torch.nn.utils.parametrizations.weight_norm(linear))
    (False, True)
    """
    stored = "weight" in base._parameters or "weight" in base._buffers
    return not stored and isinstance(getattr(base, "weight", None), torch.Tensor)


def reads_weight(parent: Any, name: str) -> bool:
    """Return whether a module reads the weight of a child without calling it, so that a wrapper would do nothing.

    Parameters
    ----------
    parent : Module
        `torch.nn.MultiheadAttention` does, and mixers of Mamba, which are known by their parts.
    name : str
        Of the child.

    Returns
    -------
    bool
        Whether it does, at least in some cases.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import reads_weight
    >>> reads_weight(torch.nn.MultiheadAttention(4, 2), "out_proj")
    True
    """
    if isinstance(parent, nn.MultiheadAttention):
        return True
    return name in {"dt_proj", "out_proj"} and hasattr(parent, "A_log") and hasattr(parent, "conv1d")


def is_linear(module: nn.Module) -> bool:
    """Whether a module maps features on the last axis linearly, as far as its class, name and sizes tell."""
    sized = hasattr(module, "in_features") and hasattr(module, "out_features")
    named = isinstance(module, nn.Linear) or "Linear" in type(module).__name__
    return has_transposed_weight(module) or (sized and named)


def probes(n: int, **like: Any) -> Tensor:
    """Return two inputs (2, n) that tell whether a layer is affine: opposite ones, large beside biases."""
    x = torch.linspace(-10, 10, n, **like)
    return torch.stack([x, -x])


def multiplies_by_weight(base: nn.Module) -> bool:
    """Whether a linear layer computes what `torch.nn.Linear` does: a class of its own may scale its weight, say."""
    weight: Any = base.weight
    if not isinstance(base, nn.Linear) or type(base).forward is nn.Linear.forward or weight.is_meta:
        return True
    with torch.no_grad():
        x = probes(weight.shape[1], dtype=weight.dtype, device=weight.device)
        expected, given = nn.functional.linear(x, weight, base.bias), type(base).forward(base, x)
    digits = torch.finfo(weight.dtype).eps ** 0.5
    return torch.allclose(given, expected, rtol=digits, atol=digits * float(expected.abs().max()))


def has_complex_parameters(base: nn.Module) -> bool:
    """Whether a module has complex parameters."""
    return any(parameter.is_complex() for parameter in base.parameters())


def dtype_and_device(base: nn.Module) -> dict[str, Any]:
    """Return dtype and device of a module's floating parameters; float32 where they are quantised.

    Raises
    ------
    TypeError
        If they are complex, which the vectors of adapters are not.
    """
    tensors = [*base.parameters(), *base.buffers()]
    if has_complex_parameters(base):
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


def features(base: nn.Module) -> tuple[int, int]:
    """Return the input and output features of a linear base.

    Raises
    ------
    TypeError
        If it has none.
    """
    if has_transposed_weight(base):
        return int(base.nx), int(base.nf)
    if hasattr(base, "in_features") and hasattr(base, "out_features"):
        return int(base.in_features), int(base.out_features)
    raise ArgumentTypeError(
        "CDDLinear",
        "base",
        f"must have in_features and out_features, as torch.nn.Linear has, got {type(base).__name__}",
    )
