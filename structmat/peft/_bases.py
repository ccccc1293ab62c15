"""Which layers can be adapted."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import resolve_quantization_backend
from torch import nn

from structmat._array_tools import ArgumentTypeError
from structmat.torch import has_transposed_weight, is_tensor_parallel, reads_weight

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
    elif is_tensor_parallel(base, model):
        problem = (
            "holds a piece of its weight in each process, by tensor parallelism; vectors of a piece are not those of "
            "the whole weight. Load the model without `tp_plan`; FSDP works."
        )
    if problem:
        raise ArgumentTypeError("CDDConfig", None, f"Target module {target} {problem}")


def _is_complex(layer: nn.Module) -> bool:
    return any(parameter.is_complex() for parameter in layer.parameters())
