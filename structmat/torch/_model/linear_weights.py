"""`linear_weights`: the matrices of a model that adapters can change, with the way in which each is stored."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from structmat._errors import ArgumentTypeError
from structmat.torch._calls import reads_weight
from structmat.torch._layers.changed_experts import stack_of
from structmat.torch._layers.linear import has_transposed_weight
from structmat.torch._model.parameter_names import places_of, unreached_experts

__all__ = ["LinearWeight", "linear_weights"]


class LinearWeight(NamedTuple):
    """A matrix of a model, or a stack of matrices of experts, as `linear_weights` tells it.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import linear_weights
    >>> linear_weights(torch.nn.Sequential(torch.nn.Linear(3, 2)))["0"].shape
    (2, 3)
    """

    shape: tuple[int, int]
    """Of one matrix, as it is stored."""
    transposed: bool
    """Whether it is stored as inputs by outputs, as transformers' ``Conv1D`` does."""
    n_experts: int | None = None
    """How many matrices a stack has; None for the weight of a layer."""


def linear_weights(model: nn.Module) -> dict[str, LinearWeight]:
    """Return the matrices of a model that adapters can change: weights of linear layers, and stacks of experts.

    Parameters
    ----------
    model : Module
        Also one whose parameters are on the device meta, without values.

    Returns
    -------
    dict of str to LinearWeight
        By path: that of a layer, or that of the parameter of a stack. A layer whose weight another module reads without
        calling the layer is left out, since an adapter would do nothing.

    Raises
    ------
    TypeError
        If `model` is no module.

    See Also
    --------
    adapt : Adapts such layers, and other kinds.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import linear_weights
    >>> linear_weights(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()))
    {'0': LinearWeight(shape=(2, 3), transposed=False, n_experts=None)}
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("linear_weights", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    modules = dict(model.named_modules())
    found: dict[str, LinearWeight] = {}
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        transposed = has_transposed_weight(module)
        if (transposed or isinstance(module, nn.Linear)) and path and not reads_weight(modules[parent], name):
            rows, cols = module.weight.shape
            found[path] = LinearWeight((rows, cols), transposed)
    for path in unreached_experts(places_of(model)):
        parent, _, name = path.rpartition(".")
        held = stack_of(modules[parent], name, "linear_weights")
        if not held.single:
            rows, cols = (held.in_features, held.out_features) if held.transposed else held[1:3]
            found[path] = LinearWeight((rows, cols), held.transposed, held.n_experts)
    return found
