"""Who reads the weight of a layer without calling it, where changes are lost."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from structmat._errors import warn_caller

__all__ = [
    "NESTED",
    "is_never_called",
    "leave_fast_paths",
    "no_fast_path",
    "reads_weight",
    "return_to_fast_paths",
    "watch_calls",
]


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


NESTED = "_used_nested_tensor"
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
            module.__dict__.setdefault(NESTED, module.use_nested_tensor)
            module.use_nested_tensor = False


def return_to_fast_paths(model: nn.Module) -> None:
    """Undo `leave_fast_paths` and `watch_calls`, once no layer is adapted any more."""
    _remove(model._forward_hooks, _report_calls)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and NESTED in module.__dict__:
            module.use_nested_tensor = module.__dict__.pop(NESTED)
