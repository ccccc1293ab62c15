"""Giving adapters to the layers of a model: all of them, or none if one fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from structmat.torch._adapted import AdaptedLayer
from structmat.torch._bases import features
from structmat.torch._conv import CDDConv, is_pointwise
from structmat.torch._embedding import CDDEmbedding
from structmat.torch._linear import CDDLinear

__all__ = ["attach", "keep_calling", "put", "sizes"]


def sizes(module: nn.Module) -> tuple[int, int]:
    """Return the columns and rows of the change of a module that can be adapted, or is.

    Raises
    ------
    TypeError
        If it cannot be.
    """
    if isinstance(module, AdaptedLayer):
        return module.in_features, module.out_features
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and is_pointwise(module):
        return module.in_channels, module.out_channels
    if type(module) is nn.Embedding:
        return module.embedding_dim, module.num_embeddings
    return features(module)


def _wrapped(module: nn.Module, name: str, options: Mapping[str, Any]) -> AdaptedLayer:
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return CDDConv(module, name=name, **options)
    if type(module) is nn.Embedding:
        return CDDEmbedding(module, name=name, **options)
    return CDDLinear.from_linear(module, name=name, **options)


def attach(model: nn.Module, options: Mapping[str, Mapping[str, Any]], name: str) -> list[AdaptedLayer]:
    """Add an adapter to each layer, by path, with its options; wrap those that are not adapted yet.

    A layer that is shared under several paths is wrapped once. If one fails the model is left as it was.
    """
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    new: dict[str, AdaptedLayer] = {}
    extended: list[AdaptedLayer] = []
    by_base: dict[int, AdaptedLayer] = {}
    try:
        for path, own in options.items():
            module = model.get_submodule(path)
            if isinstance(module, AdaptedLayer):
                module.add_adapter(name, **own)
                extended.append(module)
            else:
                layer = by_base.get(id(module)) or _wrapped(module, name, own)
                by_base[id(module)] = new[path] = layer
    except BaseException:
        for layer in extended:
            layer.remove_adapter(name)
        for parameter, before in trainable.items():
            parameter.requires_grad_(before)
        raise
    for path, layer in new.items():
        put(model, path, layer)
    return [*by_base.values(), *extended]


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set a submodule by path."""
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, module)
    keep_calling(owner, adapted=any(isinstance(child, AdaptedLayer) for child in owner.children()))


def keep_calling(owner: nn.Module, *, adapted: bool) -> None:
    """Keep a torch.nn.TransformerEncoderLayer with adapted children off its fast path; let it back without them.

    That path reads the weights of the linear layers without calling them; the flag set here is what torch asks first.
    """
    if isinstance(owner, nn.TransformerEncoderLayer):
        owner.activation_relu_or_gelu = 0 if adapted else _fast_activation(owner.activation)


def _fast_activation(activation: Any) -> int:
    """Return what torch.nn.TransformerEncoderLayer notes about its activation."""
    if activation is nn.functional.relu or isinstance(activation, nn.ReLU):
        return 1
    return 2 if activation is nn.functional.gelu or isinstance(activation, nn.GELU) else 0
