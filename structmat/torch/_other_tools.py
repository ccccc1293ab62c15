"""What other people's tools do to layers: exporters, tracers, wrappers, offloading, and modules that read weights.

Nothing here is called in a usual forward pass but `sees_operations`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from structmat._array_tools import warn_caller

__all__ = [
    "change_by_matrices",
    "for_compilers",
    "gathered",
    "has_pieces",
    "has_transforms",
    "has_transposed_weight",
    "is_gathered",
    "is_never_called",
    "is_of_several_processes",
    "is_tensor_parallel",
    "leave_fast_paths",
    "no_fast_path",
    "reads_weight",
    "return_to_fast_paths",
    "rewritten_by",
    "sees_operations",
    "split_by",
    "text_of_unreached",
    "unreached_experts",
    "unwrapped_model",
    "watch_calls",
    "whole_numel",
]

# ---- compilers, exporters and the transforms of torch.func


def sees_operations() -> bool:
    """Whether a tool wants plain operations, or one that it knows, in place of a function of autograd.

    Compilers, exporters, tracers, `make_fx`, the transforms of torch.func, and derivatives in forward mode do.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def for_compilers() -> bool:
    """Whether a compiler asks, and no exporter, whose programs run where this package is not."""
    # Older versions of torch cannot tell: there compilers see plain operations.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return torch.compiler.is_compiling() and not exporting() and not transformed


def has_transforms(vectors: Sequence[Tensor]) -> bool:
    """Whether circulants are computed well by transforms: everywhere but in some files of ONNX.

    The older exporter has none, and those of ONNX Runtime lose digits where lengths are no powers of two: for 384 the
    errors in float32 are 3e-5, in place of 3e-7.
    """
    if not torch.onnx.is_in_onnx_export():
        return True
    return not torch.jit.is_tracing() and all(v.shape[2].bit_count() == 1 for v in vectors[1::2])


def change_by_matrices(x: Tensor, vectors: Sequence[Tensor], gain: float, dtype: torch.dtype) -> Tensor:
    """Return what the change adds to the outputs of rows `x` (R, n), by dense circulants instead of transforms."""
    wide = [vector.to(dtype) for vector in vectors]
    h = x.to(dtype)
    for left, circulants, right in zip(wide[-3::-2], wide[-2::-2], wide[-1::-2], strict=False):
        p, q, side = circulants.shape
        lags = torch.arange(side, device=x.device)
        blocks = circulants[:, :, (lags[:, None] - lags) % side]  # (p, q, b, b)
        matrix = blocks.transpose(1, 2).reshape(p * side, q * side)[: left.shape[0], : right.shape[0]]
        h = (h * right) @ matrix.T
    return gain * (h * wide[0])


# ---- layers of transformers


def has_transposed_weight(base: Any) -> bool:
    """Whether a layer stores its weight (in, out): transformers' ``Conv1D``, known by its name."""
    return type(base).__name__ == "Conv1D" and hasattr(base, "nx") and hasattr(base, "nf")


# ---- engines for several processes, and other wrappers of whole models

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
_ENGINES = {"deepspeed", "lightning", "lightning_fabric"}
"""Packages whose own modules wrap a whole model as ``module``: DeepSpeed's engine, Fabric's module."""


def unwrapped_model(model: nn.Module) -> nn.Module:
    """Return the model that wrappers for several processes, of averaged and of compiled models contain."""
    while True:
        if "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        elif isinstance(model, _WRAPPERS) or _is_engine(model):
            model = model.module
        else:
            return model


def _is_engine(model: nn.Module) -> bool:
    return type(model).__module__.partition(".")[0] in _ENGINES and isinstance(
        getattr(model, "module", None), nn.Module
    )


def split_by(module: nn.Module) -> str:
    """Return the name of the engine that splits the parameters of a module among processes, or an empty string.

    Engines gather parameters for the forward pass, and go back to tensors of their own: a parameter that is put in the
    place of another one is lost then.
    """
    if any(hasattr(parameter, "ds_id") for parameter in module.parameters()):
        return "DeepSpeed ZeRO-3"
    return "FSDP" if any(getattr(each, "_is_fsdp_managed_module", False) for each in module.modules()) else ""


def is_gathered(layer: Any) -> bool:
    """Whether the weight of a layer is whole within ``deepspeed.zero.GatheredParameters``, which keeps its changes."""
    return bool(getattr(getattr(layer, "weight", None), "_ds_z3_gathered_param_context_depth", 0))


def is_of_several_processes(model: nn.Module) -> bool:
    """Whether each process of a group has a copy of a model, or a piece."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    replicas = nn.parallel.DistributedDataParallel
    replicated = any(isinstance(module, replicas) or _is_engine(module) for module in model.modules())
    sharded = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    return replicated or sharded or bool(split_by(model))


def rewritten_by(model: nn.Module, parameters: Iterable[Tensor]) -> str:
    """Return what writes some parameters of a model anew from copies of its own, or an empty string.

    Values that others put there are lost after a step.
    """
    engines = {type(module).__module__.partition(".")[0] for module in model.modules() if _is_engine(module)}
    several = list(parameters)
    if "deepspeed" in engines or any(hasattr(each, "ds_id") or hasattr(each, "_hp_mapping") for each in several):
        return "deepspeed.initialize"
    return "FullyShardedDataParallel" if any(hasattr(each, "_fsdp_flattened") for each in several) else ""


def has_pieces(model: nn.Module, parameters: Iterable[Tensor]) -> bool:
    """Whether some parameters of a model are the pieces that FullyShardedDataParallel has in this process.

    Those are flat, and so is every other parameter then.
    """
    if not any(hasattr(parameter, "_fsdp_flattened") for parameter in parameters):
        return False
    return all(each.ndim == 1 for each in model.parameters() if hasattr(each, "_fsdp_flattened"))


def is_tensor_parallel(layer: Any, model: nn.Module) -> bool:
    """Whether a layer's weight is split among processes that compute with their pieces.

    FSDP2 splits weights too, but gathers them for the forward pass, and shows in what contains them.
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


@contextmanager
def gathered(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Have those of some parameters whole for a while that DeepSpeed ZeRO-3 splits; all processes take part."""
    split = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not split:
        yield
        return
    import deepspeed  # noqa: PLC0415  # is there where it has split parameters

    with deepspeed.zero.GatheredParameters(split):
        yield


def whole_numel(parameter: Tensor) -> int:
    """Return the number of entries of a parameter, of which DeepSpeed ZeRO-3 may keep a part alone here."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


# ---- modules that read the weight of a layer without calling it


def reads_weight(parent: Any, name: str) -> bool:
    """Whether a module reads the weight of a child without calling it, so that an adapter would do nothing.

    `torch.nn.MultiheadAttention` does, and mixers of Mamba, which are known by their parts. Others show in the first
    forward pass: see `watch_calls`.
    """
    if isinstance(parent, nn.MultiheadAttention):
        return True
    return name in {"dt_proj", "out_proj"} and hasattr(parent, "A_log") and hasattr(parent, "conv1d")


_STACKED = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3", "input_linear"),
    "down_proj": ("w2", "output_linear"),
}
"""Names that matrices of experts have in checkpoints and in models of other versions, by the parameter they are in."""


def unreached_experts(model: nn.Module) -> dict[str, list[str]]:
    """Return the weights of experts that no adapter reaches: by path, the paths by which targets may mean them.

    Mixtures of experts of transformers keep the matrices of all experts of a block in one parameter, of shape (experts,
    rows, columns), and call no layer. Targets mean it by its own name, or by those that the matrices have apart:
    ``experts.gate_up_proj`` holds what checkpoints call ``experts.0.gate_proj`` or ``experts.0.w1``.
    """
    found = {}
    for path, module in model.named_modules():
        of_experts = "experts" in path.split(".") or "Experts" in type(module).__name__
        if not of_experts or hasattr(module, "in_features") or re.search(r"\.(adapter|cdd_adapters)\.", path):
            continue  # no experts, the layer of a router, or its adapter
        for name, value in module.named_parameters(recurse=False):
            if len(getattr(value, "ds_shape", value.shape)) > 1 and not name.endswith("bias"):
                parent, _, own = (f"{path}.{name}").removesuffix(".weight").rpartition(".")
                names = (own, *_STACKED.get(own, ()))
                found[f"{path}.{name}"] = [f"{parent}.{part}{each}" for each in names for part in ("", "0.")]
    return found


def text_of_unreached(experts: Iterable[str], names: Iterable[str] = ()) -> str:
    """Return a warning of weights of experts that stay as they are, and of target names that match nothing at all."""
    text = f"weights of experts that are stacked in one parameter are not adapted: {', '.join(experts)}"
    unknown = sorted(names)
    return f"{text}; and no module has the names {', '.join(unknown)}" if unknown else text


_NEVER_CALLED = "_is_never_called"


def is_never_called(layer: nn.Module) -> bool:
    """Whether a forward pass in training has not called an adapted layer, and none has since."""
    return bool(layer.__dict__.get(_NEVER_CALLED))


def watch_calls(model: nn.Module, kinds: type | tuple[type, ...]) -> None:
    """Have a model warn after its first forward pass in training of adapted layers that were not called in it."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, kinds)]
    for layer in layers:
        if _note_call not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_note_call)
            layer.__dict__[_NEVER_CALLED] = False
    if _report_calls not in model._forward_hooks.values():
        model.register_forward_hook(_report_calls)


def _note_call(layer: nn.Module, _: Any) -> None:
    if not torch.compiler.is_compiling():
        _remove(layer._forward_pre_hooks, _note_call)
        del layer.__dict__[_NEVER_CALLED]


def _report_calls(model: nn.Module, _: Any, __: Any) -> None:
    if torch.compiler.is_compiling() or not (model.training and torch.is_grad_enabled()):
        return
    _remove(model._forward_hooks, _report_calls)
    names = []
    # What is compiled calls its layers without a note.
    compiled = {inner for module in model.modules() if _is_compiled(module) for inner in module.modules()}
    for path, module in model.named_modules():
        if _NEVER_CALLED in module.__dict__ and module not in compiled:
            module.__dict__[_NEVER_CALLED] = True
            names.append(path)
    if names:
        warn_caller(
            f"adapted layers that the forward pass did not call, so that they do not train: {', '.join(names)}. "
            "Modules that read the weight of a layer do not call it: leave such layers out.",
            RuntimeWarning,
            through=("torch", "peft", "transformers", "accelerate"),
        )


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module is compiled, or its forward pass."""
    wrapped = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
    return wrapped or hasattr(module.forward, "_torchdynamo_orig_callable")


def _remove(hooks: dict[int, Any], hook: Any) -> None:
    for key in [key for key, each in hooks.items() if each is hook]:
        del hooks[key]


_NESTED = "_used_nested_tensor"


def no_fast_path(*_: Any) -> None:
    """Do nothing, as a hook of every adapter.

    In evaluation torch's TransformerEncoderLayer reads weights without calling layers, unless it sees hooks.
    """


def leave_fast_paths(model: nn.Module, kinds: type | tuple[type, ...]) -> None:
    """Keep encoders of torch with adapted layers from making nested tensors of padded batches.

    They do so in evaluation unless the first layer's weights require gradients; their attention then refuses inputs
    that do. Frozen weights with trained changes look as if nothing was trained.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(inner, kinds) for inner in module.modules()):
            module.__dict__.setdefault(_NESTED, module.use_nested_tensor)
            module.use_nested_tensor = False


def return_to_fast_paths(model: nn.Module) -> None:
    """Undo `leave_fast_paths` and `watch_calls`, when no layer is adapted any more."""
    _remove(model._forward_hooks, _report_calls)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and _NESTED in module.__dict__:
            module.use_nested_tensor = module.__dict__.pop(_NESTED)
