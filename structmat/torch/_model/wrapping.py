"""Giving adapters to the layers of a model: all of them, or none if one fails; and freezing the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from structmat._array_tools import ArgumentTypeError, ArgumentValueError, naming
from structmat.torch._adapter.cdd_adapter import CDDAdapter
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.frozen_base import features
from structmat.torch._layers.kinds import layer_kind
from structmat.torch._layers.linear import CDDLinear
from structmat.torch._layers.tensor_parallel import is_tensor_parallel
from structmat.torch._model.sharing import share_circulants
from structmat.torch._model.targets import adapted_layers
from structmat.torch._model.trained import record_trained

__all__ = ["change_shape", "freeze_others", "replace_layer", "require_no_lazy_parameters", "wrap_layers"]


def change_shape(module: nn.Module) -> tuple[int, int]:
    """Return the columns and rows of the change of a module that can be adapted, or is.

    Raises
    ------
    TypeError
        If it cannot be.
    """
    if isinstance(module, AdaptedLayer):
        return module.in_features, module.out_features
    kind = layer_kind(module)
    return features(module) if kind is None else kind.shape(module)


def require_no_lazy_parameters(model: nn.Module, caller: str) -> None:
    """Refuse parameters without a shape yet, which can't be frozen."""
    for path, parameter in model.named_parameters():
        if is_lazy(parameter):
            text = f"has the lazy parameter {path}: run a batch through the model first"
            raise ArgumentValueError(caller, "model", text)


def _wrapped(module: nn.Module, name: str, options: Mapping[str, Any]) -> AdaptedLayer:
    kind = layer_kind(module)
    wrap = CDDLinear.from_linear if kind is None else kind.wrap  # which says why it cannot be
    return wrap(module, name=name, **options)


def wrap_layers(model: nn.Module, options: Mapping[str, Mapping[str, Any]], name: str, *, share: bool = False) -> None:
    """Add an adapter to each layer, by path, with its options; wrap those that are not adapted yet.

    A layer that is shared is wrapped once, and replaced everywhere. With `share`, layers of one kind share circulants.
    If one fails the model is left as it was.
    """
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    new: dict[int, AdaptedLayer] = {}
    extended: list[AdaptedLayer] = []
    adapters: dict[str, CDDAdapter] = {}
    try:
        for path, own in options.items():
            module = model.get_submodule(path)
            with naming(path):
                base = module.base if isinstance(module, AdaptedLayer) else module
                if is_tensor_parallel(base, model):
                    text = "has a piece of a weight in each process, by tensor parallelism: FSDP works"
                    raise ArgumentTypeError("adapt", "model", text)  # noqa: TRY301  # rolled back as others
                if isinstance(module, AdaptedLayer):
                    adapters[path] = module.add_adapter(name, **own)
                    extended.append(module)
                elif id(module) not in new:
                    new[id(module)] = _wrapped(module, name, own)
                    adapters[path] = new[id(module)].adapters[name]
        if share and share_circulants(adapters) == 0:
            text = "finds no two layers of one kind: of equal paths but for numbers, sizes, options, dtypes and devices"
            raise ArgumentValueError("adapt", "share_circulants", text)  # noqa: TRY301  # rolled back as others
    except BaseException:
        for layer in extended:
            layer.remove_adapter(name)
        for parameter, before in trainable.items():
            parameter.requires_grad_(before)
        raise
    for layer in new.values():
        replace_layer(model, layer.base, layer)


def freeze_others(model: nn.Module, names: Iterable[str], kept: Iterable[nn.Module] = ()) -> None:
    """Train the adapters of some names, and the modules that are kept, and nothing else."""
    kept = list(kept)
    trained = {id(p) for module in kept for p in module.parameters()}
    for layer in adapted_layers(model).values():
        for name in layer.adapters.keys() & set(names):
            trained |= {id(p) for p in layer.adapters[name].parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained and (parameter.is_floating_point() or parameter.is_complex()))
        if not parameter.requires_grad:
            parameter.grad = None
    record_trained(inner for module in kept for inner in module.modules())


def replace_layer(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another one, everywhere in a model."""
    places = [(owner, name) for owner in model.modules() for name, child in owner._modules.items() if child is old]
    for owner, name in places:
        setattr(owner, name, new)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            _watch_gradients(module)


def _watch_gradients(encoder: nn.TransformerEncoder) -> None:
    """Add a hook to an encoder with adapted layers, or take it away with the last of them."""
    adapted = any(isinstance(module, AdaptedLayer) for module in encoder.modules())
    present = [key for key, hook in encoder._forward_pre_hooks.items() if hook is _as_if_trained]
    if adapted and not present:
        encoder.register_forward_pre_hook(_as_if_trained, with_kwargs=True)
    elif not adapted:
        for key in present:
            del encoder._forward_pre_hooks[key], encoder._forward_pre_hooks_with_kwargs[key]


def _as_if_trained(encoder: nn.TransformerEncoder, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Have the inputs of an encoder require gradients where something in it does.

    In evaluation torch makes nested tensors of padded batches, unless the inputs or weights of the first layer require
    gradients; then attention refuses those that do. Frozen weights with trained changes look as if nothing was trained.
    """
    if encoder.training or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    x = args[0] if args else kwargs["src"]
    if x.is_nested or x.requires_grad or not any(parameter.requires_grad for parameter in encoder.parameters()):
        return None
    x = x.detach().requires_grad_()
    return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "src": x})
