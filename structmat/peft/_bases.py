"""Which layers can be adapted."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import resolve_quantization_backend
from torch import nn

from structmat._arrays.errors import ArgumentTypeError
from structmat.torch import has_transposed_weight, reads_weight

__all__ = ["is_left_out", "require_adaptable"]


def is_left_out(model: nn.Module, path: str) -> bool:
    """Return whether a layer is not called, or has complex weights."""
    parent, _, name = path.rpartition(".")
    return reads_weight(model.get_submodule(parent), name) or _is_complex(model.get_submodule(path))


def require_adaptable(target: nn.Module, model: nn.Module, quantization: dict[str, Any]) -> None:
    """Check a layer of a model, given what PEFT knows of the model's quantisation.

    Raises
    ------
    TypeError
        If it cannot be adapted.
    """
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    try:
        backend = resolve_quantization_backend(base, **quantization)
        linear = backend is not None and backend.layer_type == "linear"
    except ValueError:  # torchao without a way to quantise again: good for everything but merging
        linear = True
    problem = ""
    if not (linear or isinstance(base, nn.Linear) or has_transposed_weight(base)):
        problem = (
            "is not supported. Currently, only the following modules are supported: "
            "`torch.nn.Linear`, `transformers.pytorch_utils.Conv1D` and quantized linear layers."
        )
    elif _is_complex(base):
        problem = "has complex weights; the vectors of an adapter are real."
    elif _is_tensor_parallel(base, model):
        problem = (
            "holds a piece of its weight in each process, by tensor parallelism; vectors of a piece are not those of "
            "the whole weight. Load the model without `tp_plan`; FSDP works."
        )
    if problem:
        raise ArgumentTypeError("CDDConfig", None, f"Target module {target} {problem}")


def _is_complex(layer: nn.Module) -> bool:
    return any(parameter.is_complex() for parameter in layer.parameters())


def _is_tensor_parallel(layer: nn.Module, model: nn.Module) -> bool:
    if getattr(layer, "_hf_tp_plan", None) is not None:  # of transformers before it used DTensor
        return True
    if not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor  # noqa: PLC0415  # not in every build of torch

    weight = getattr(layer, "weight", None)
    if not isinstance(weight, DTensor):
        return False
    from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415  # slow to import

    # FSDP2 splits weights too, and gathers them for the forward pass; PEFT knows it by the names of the mesh.
    names = set(weight.device_mesh.mesh_dim_names or ())
    return not (names <= {"fsdp"} and any(isinstance(module, FSDPModule) for module in model.modules()))
