"""Layers of which each process has a piece."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["is_tensor_parallel"]


def is_tensor_parallel(layer: Any, model: nn.Module) -> bool:
    """Return whether a layer's weight is split among processes that compute with their pieces; for methods of your own.

    Parameters
    ----------
    layer : Module
        A layer of the model.
    model : Module
        The whole: FSDP2 splits weights too, but gathers them for the forward pass, and shows in what contains them.

    Returns
    -------
    bool
        Whether it is.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import is_tensor_parallel
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    >>> is_tensor_parallel(model[0], model)
    False
    """
    if getattr(layer, "_hf_tp_plan", None) is not None:  # of transformers before it used DTensor
        return True
    weight: Any = getattr(layer, "weight", None)
    if not hasattr(weight, "device_mesh"):
        return False
    from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415  # slow to import

    # PEFT too knows FSDP by the names of the mesh.
    names = set(weight.device_mesh.mesh_dim_names or ())
    return not (names <= {"fsdp"} and any(isinstance(module, FSDPModule) for module in model.modules()))
