"""Engines that train a model in several processes, and other wrappers of whole models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "gathered",
    "has_pieces",
    "is_gathered",
    "is_of_several_processes",
    "is_tensor_parallel",
    "rewritten_by",
    "split_by",
    "unwrapped_model",
    "whole_numel",
    "within_fsdp",
]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
"""Classes of torch that hold a whole model as ``module``."""
_ENGINES = {"deepspeed", "lightning", "lightning_fabric"}
"""Packages whose own modules hold a whole model as ``module``: the engine of DeepSpeed, and the module of Fabric."""


def unwrapped_model(model: nn.Module) -> nn.Module:
    """Return the model inside of all wrappers: those for several processes, for averages, and for compiled models."""
    while True:
        if "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        elif isinstance(model, _WRAPPERS) or _is_engine(model):
            model = model.module
        else:
            return model


def _is_engine(model: nn.Module) -> bool:
    """Return whether a module is of one of the `_ENGINES` and holds a model."""
    package = type(model).__module__.partition(".")[0]
    return package in _ENGINES and isinstance(getattr(model, "module", None), nn.Module)


def within_fsdp(module: nn.Module) -> Any:
    """Return the module that FullyShardedDataParallel is around, or the module itself; FSDP2 is around none."""
    while "_fsdp_wrapped_module" in module._modules:
        module = module.get_submodule("_fsdp_wrapped_module")
    return module


def split_by(module: nn.Module) -> str:
    """Return the name of the engine that splits the parameters of a module among processes, or an empty string.

    Engines gather the parameters for a forward pass and put tensors of their own back afterwards. A new parameter that
    somebody put in the place of an old one would be lost then.
    """
    for parameter in module.parameters():
        if hasattr(parameter, "ds_id"):
            return "DeepSpeed ZeRO-3"
    for each in module.modules():
        if getattr(each, "_is_fsdp_managed_module", False):
            return "FSDP"
    return ""


def is_gathered(layer: Any, name: str = "weight") -> bool:
    """Return whether ``deepspeed.zero.GatheredParameters`` holds a parameter of a layer whole just now.

    It keeps what is written into the parameter in the meantime.
    """
    return bool(getattr(getattr(layer, name, None), "_ds_z3_gathered_param_context_depth", 0))


def is_of_several_processes(model: nn.Module) -> bool:
    """Return whether all processes of a group work on the model: each has a copy of it, or a piece."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    replicas = nn.parallel.DistributedDataParallel
    replicated = any(isinstance(module, replicas) or _is_engine(module) for module in model.modules())
    sharded = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    return replicated or sharded or bool(split_by(model))


def rewritten_by(model: nn.Module, parameters: Iterable[Tensor]) -> str:
    """Return the name of what overwrites parameters of a model by copies of its own, or an empty string.

    Values that somebody else put into such a parameter are lost with the next step of the optimiser.
    """
    engines = {type(module).__module__.partition(".")[0] for module in model.modules() if _is_engine(module)}
    several = list(parameters)
    if "deepspeed" in engines or any(hasattr(each, "ds_id") or hasattr(each, "_hp_mapping") for each in several):
        return "deepspeed.initialize"
    return "FullyShardedDataParallel" if any(hasattr(each, "_fsdp_flattened") for each in several) else ""


def has_pieces(model: nn.Module, parameters: Iterable[Tensor]) -> bool:
    """Return whether some parameters are the pieces that FullyShardedDataParallel keeps in this process.

    These are vectors. Where it has put whole parameters back for a while, some have more axes than one.
    """
    if not any(hasattr(parameter, "_fsdp_flattened") for parameter in parameters):
        return False
    return all(each.ndim == 1 for each in model.parameters() if hasattr(each, "_fsdp_flattened"))


def is_tensor_parallel(layer: Any, model: nn.Module) -> bool:
    """Return whether each process computes with a piece of a layer's weight, as in tensor parallelism.

    FSDP2 splits weights too, but gathers them for the forward pass. Modules around the layer tell that it is at work.
    """
    # Older versions of transformers split plain tensors, and leave this attribute; experts have the other one.
    if getattr(layer, "_hf_tp_plan", None) is not None or getattr(layer, "_is_expert_parallel", False):
        return True
    weight = next((each for each in layer.parameters(recurse=False) if hasattr(each, "device_mesh")), None)
    if weight is None:
        return False
    from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415  # it is slow to import

    # PEFT recognises FSDP by the names of the mesh too.
    names = set(weight.device_mesh.mesh_dim_names or ())
    return not (names <= {"fsdp"} and any(isinstance(module, FSDPModule) for module in model.modules()))


@contextmanager
def gathered(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Hold the parameters whole that DeepSpeed ZeRO-3 has split, for the while of the context.

    All processes have to enter it.
    """
    split = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not split:
        yield
        return
    import deepspeed  # noqa: PLC0415  # it is installed, as it has split these parameters

    with deepspeed.zero.GatheredParameters(split):
        yield


def whole_numel(parameter: Tensor) -> int:
    """Return the number of entries of a whole parameter, of which this process may hold a part, by DeepSpeed ZeRO-3."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
