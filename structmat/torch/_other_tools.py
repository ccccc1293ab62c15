"""What other people's tools do to layers: exporters, tracers, wrappers, offloading, and modules that read weights.

A usual forward pass calls nothing of this file but `sees_operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from structmat._errors import warn_caller

__all__ = [
    "for_compilers",
    "gathered",
    "has_pieces",
    "has_scaled_rows",
    "has_transforms",
    "has_transposed_weight",
    "is_gathered",
    "is_never_called",
    "is_of_several_processes",
    "is_recorded",
    "is_tensor_parallel",
    "is_watched",
    "leave_fast_paths",
    "no_fast_path",
    "reads_weight",
    "return_to_fast_paths",
    "rewritten_by",
    "rows_of_nested",
    "sees_operations",
    "split_by",
    "unwrapped_model",
    "watch_calls",
    "whole_numel",
]

# ---- compilers, exporters and the transforms of torch.func


def sees_operations() -> bool:
    """Return whether a tool is at work that cannot take a `torch.autograd.Function`.

    Such tools are compilers, exporters, tracers, `make_fx`, the transforms of torch.func, and derivatives in forward
    mode. They are given plain operations, or one operation that is registered with torch.
    """
    return is_recorded() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_recorded() -> bool:
    """Return whether an exporter or tracer records operations, or a compiler does."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def for_compilers() -> bool:
    """Return whether the tool at work is a compiler, which may be given an operation of this package.

    The programs of exporters run where this package is not installed: they are given plain operations.
    """
    # Older versions of torch cannot tell the two apart; there compilers are given plain operations too.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return torch.compiler.is_compiling() and not exporting() and not transformed


def has_transforms(vectors: Sequence[Tensor]) -> bool:
    """Return whether Fourier transforms compute circulants well; they do everywhere but in some files of ONNX.

    The older exporter to ONNX knows no transforms. Those of ONNX Runtime lose digits where a length is no power of two:
    for a length of 384 errors in float32 are 3e-5 instead of 3e-7.
    """
    if not torch.onnx.is_in_onnx_export():
        return True
    return not torch.jit.is_tracing() and all(v.shape[2].bit_count() == 1 for v in vectors[1::2])


# ---- layers of transformers


def has_transposed_weight(base: Any) -> bool:
    """Return whether a layer stores its weight as inputs by outputs, as transformers' ``Conv1D`` does.

    The class is known by its name, so that transformers need not be imported.
    """
    return type(base).__name__ == "Conv1D" and hasattr(base, "nx") and hasattr(base, "nf")


def has_scaled_rows(base: Any) -> bool:
    """Return whether an embedding multiplies rows of its table by one number, as those of Gemma and BART do.

    The classes of transformers are known by the end of their names.
    """
    scaled = type(base).__name__.endswith("ScaledWordEmbedding") and hasattr(base, "embed_scale")
    return isinstance(base, nn.Embedding) and scaled


# ---- nested tensors


def rows_of_nested(x: Tensor, row_axes: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the rows of all samples of a nested tensor as one tensor, and what nests other rows as these were.

    `row_axes` is the number of the last axes that belong to a row.
    """
    if x.layout == torch.jagged:
        given: Any = x
        nested: Any = torch.nested.nested_tensor_from_jagged
        # Views leave some of the values out, of which their lengths tell.
        of_samples = {"offsets": given.offsets(), "lengths": given.lengths(), "jagged_dim": given._ragged_idx}
        return given.values(), partial(nested, **of_samples)
    samples = x.unbind()
    axes = [sample.ndim - row_axes for sample in samples]
    rows = [sample.reshape(-1, *sample.shape[axis:]) for sample, axis in zip(samples, axes, strict=True)]
    counts = [len(each) for each in rows]

    def nested_again(values: Tensor) -> Tensor:
        pieces = zip(values.split(counts), samples, axes, strict=True)
        return torch.nested.as_nested_tensor(
            [piece.reshape(*sample.shape[:axis], *piece.shape[1:]) for piece, sample, axis in pieces]
        )

    return torch.cat(rows), nested_again


# ---- engines for several processes, and other wrappers of whole models

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


def split_by(module: nn.Module) -> str:
    """Return the name of the engine that splits the parameters of a module among processes, or an empty string.

    Engines gather the parameters for a forward pass and put tensors of their own back afterwards. A new parameter that
    somebody put in the place of an old one would be lost then.
    """
    if any(hasattr(parameter, "ds_id") for parameter in module.parameters()):
        return "DeepSpeed ZeRO-3"
    if any(getattr(each, "_is_fsdp_managed_module", False) for each in module.modules()):
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


# ---- hooks of those who watch a module


def is_watched(module: Any) -> bool:
    """Return whether somebody sees the calls of a module: by hooks, or by a forward pass of his own."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or "forward" in vars(module) or _every_module_is_watched()


def _every_module_is_watched() -> bool:
    """Return whether there are hooks for all modules, of a profiler, say; torch has no public name for them."""
    hooks = nn.modules.module
    return bool(
        hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks
        or hooks._global_backward_pre_hooks
    )


# ---- modules that read the weight of a layer without calling it


def reads_weight(parent: Any, name: str) -> bool:
    """Return whether a module reads the weight of a child without calling it, so that an adapter would do nothing.

    `torch.nn.MultiheadAttention` does so, and so do the mixers of Mamba, which are recognised by their parts. The first
    forward pass finds all others; see `watch_calls`.
    """
    if isinstance(parent, nn.MultiheadAttention):
        return True
    return name in {"conv1d", "dt_proj", "out_proj"} and hasattr(parent, "A_log") and hasattr(parent, "conv1d")


_NEVER_CALLED = "_is_never_called"
"""Attribute of an adapted layer that waits for its first call: whether a whole forward pass has gone by without one."""


def is_never_called(layer: nn.Module) -> bool:
    """Return whether the first forward pass in training left an adapted layer out, and every later one did too."""
    return bool(layer.__dict__.get(_NEVER_CALLED))


def watch_calls(model: nn.Module, layer_class: type) -> None:
    """Let a model warn, after its first forward pass in training, of adapted layers that this did not call."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, layer_class)]
    for layer in layers:
        if _note_call not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_note_call)
            layer.__dict__[_NEVER_CALLED] = False
    if _report_calls not in model._forward_hooks.values():
        model.register_forward_hook(_report_calls)


def _note_call(layer: nn.Module, _: Any) -> None:
    """Note, as a hook of an adapted layer, that it is called; the hook is needed once."""
    if not torch.compiler.is_compiling():
        _remove(layer._forward_pre_hooks, _note_call)
        del layer.__dict__[_NEVER_CALLED]


def _report_calls(model: nn.Module, _: Any, __: Any) -> None:
    """Warn, as a hook of a model, of layers that were not called; the hook is needed once."""
    if torch.compiler.is_compiling() or not (model.training and torch.is_grad_enabled()):
        return
    _remove(model._forward_hooks, _report_calls)
    names = []
    # Compiled modules call their layers without hooks, so that nothing is known of these.
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
    """Return whether a module or its forward pass is compiled."""
    wrapped = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
    return wrapped or hasattr(module.forward, "_torchdynamo_orig_callable")


def _remove(hooks: dict[int, Any], hook: Any) -> None:
    """Remove a function from the hooks of a module."""
    for key in [key for key, each in hooks.items() if each is hook]:
        del hooks[key]


_NESTED = "_used_nested_tensor"
"""Attribute of an encoder that keeps what `leave_fast_paths` has replaced."""


def no_fast_path(*_: Any) -> None:
    """Do nothing: that there is this hook, in every adapter, is enough.

    In evaluation torch's TransformerEncoderLayer reads weights without calling layers, unless one of them has hooks.
    """


def leave_fast_paths(model: nn.Module, layer_class: type) -> None:
    """Keep encoders of torch that have adapted layers from making nested tensors of padded batches.

    In evaluation they do so if the weights of their first layer require no gradients, as frozen weights do. Attention
    then refuses inputs that require gradients, as outputs of adapted layers do.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(
            isinstance(inner, layer_class) for inner in module.modules()
        ):
            module.__dict__.setdefault(_NESTED, module.use_nested_tensor)
            module.use_nested_tensor = False


def return_to_fast_paths(model: nn.Module) -> None:
    """Undo `leave_fast_paths` and `watch_calls`, once no layer is adapted any more."""
    _remove(model._forward_hooks, _report_calls)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and _NESTED in module.__dict__:
            module.use_nested_tensor = module.__dict__.pop(_NESTED)
