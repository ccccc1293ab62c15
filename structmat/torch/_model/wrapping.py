"""The adapted layers of a model: put into it and found again, and what else of the model is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from structmat._errors import ArgumentTypeError, ArgumentValueError, naming
from structmat._files import first_names
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._calls import leave_fast_paths, return_to_fast_paths, watch_calls
from structmat.torch._distributed import is_tensor_parallel
from structmat.torch._layers import AdaptedModule, CDDExperts, kind_to_wrap
from structmat.torch._model.model_state import RECORD

__all__ = [
    "adapted_layers",
    "changes_of",
    "place_of",
    "recorded",
    "require_alone",
    "require_no_lazy_parameters",
    "train_modules",
    "train_only",
    "unwrap_layers",
    "wrap_layers",
]


def adapted_layers(model: nn.Module) -> dict[str, AdaptedModule]:
    """Return the adapted layers and modules of experts of a model by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, AdaptedModule)}


def changes_of(model: nn.Module) -> dict[str, CDDAdapter]:
    """Return the changes of a model by the path of the layer, or of the parameter of experts."""
    return {
        f"{path}.{end}".strip(".") if end else path: adapter
        for path, layer in adapted_layers(model).items()
        for end, adapter in layer._changes().items()
    }


def recorded(model: nn.Module) -> list[str]:
    """Return the paths of modules that are trained with the adapter."""
    return list(model.__dict__.get(RECORD, ()))


def require_no_lazy_parameters(model: nn.Module, caller: str) -> None:
    """Refuse a model with parameters that have no shape yet, which cannot be frozen."""
    for path, parameter in model.named_parameters():
        if is_lazy(parameter):
            text = f"has the lazy parameter {path}: run a batch through the model first"
            raise ArgumentValueError(caller, "model", text)


def require_alone(parameters: Iterable[str], others: Iterable[str], caller: str, argument: str) -> None:
    """Refuse parameters of modules that hold other adapted or trained ones: wrapping would change the paths of these.

    `parameters` and `others` are paths.
    """
    inside = [other for path in parameters for other in others if other.startswith(f"{path.rpartition('.')[0]}.")]
    if inside:
        names = first_names(list(dict.fromkeys(inside)), 3)
        text = f"mean parameters of a module that holds {names}: leave out either these or the parameters"
        raise ArgumentValueError(caller, argument, text)


def wrap_layers(model: nn.Module, options: dict[str, dict[str, Any]]) -> None:
    """Wrap the layers of some paths, with options for each.

    A layer that stands in several places of the model is wrapped once, and replaced in all of them. Making a layer
    freezes its base: callers put the model back if a later one fails.
    """
    new: dict[nn.Module, AdaptedModule] = {}
    stacks: dict[nn.Module, dict[str, dict[str, Any]]] = {}
    for path, own in options.items():
        module, name = place_of(model, path)
        with naming(path):
            if is_tensor_parallel(module, model):
                text = "has a piece of a weight in each process, by tensor parallelism: FSDP works"
                raise ArgumentTypeError("adapt", "model", text)
            if not name and module not in new:
                new[module] = kind_to_wrap(module)._wrapped(module, **own)
            elif name and module is model:
                text = f"has {name} itself: nothing could stand in its place; adapt a module around it"
                raise ArgumentValueError("adapt", "model", text)
            elif name:
                stacks.setdefault(module, {})[name] = own
    new |= {module: CDDExperts._of(module, own) for module, own in stacks.items()}
    _replace(model, new)
    leave_fast_paths(model, AdaptedModule)
    watch_calls(model, AdaptedModule)


def unwrap_layers(model: nn.Module, layers: Iterable[AdaptedModule]) -> None:
    """Put the bases of all adapted layers of a model back into their places."""
    _replace(model, {layer: layer.base for layer in layers})
    model.__dict__.pop(RECORD, None)
    return_to_fast_paths(model)


def place_of(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the layer of a path and no name; or, if it is the path of a parameter, its module and its name."""
    try:
        return model.get_submodule(path), ""
    except AttributeError:
        parent, _, name = path.rpartition(".")
        return model.get_submodule(parent), name


def train_only(model: nn.Module, kept: Iterable[str]) -> None:
    """Make the adapter trainable, the modules of some paths and those of earlier calls, and freeze everything else."""
    paths = model.__dict__[RECORD] = list(dict.fromkeys([*recorded(model), *kept]))
    trained = {id(p) for path in paths for p in _own_parameters(model.get_submodule(path))}
    for layer in adapted_layers(model).values():
        trained |= {id(p) for p in _own_parameters(layer)}
    for name, parameter in model.named_parameters():
        if id(parameter) in trained and parameter.is_inference():
            text = f"has {name}, which was made in torch.inference_mode(): make and load the model outside of it"
            raise ArgumentValueError("adapt", "model", text)
        parameter.requires_grad_(id(parameter) in trained and _has_gradients(parameter))
        if not parameter.requires_grad:
            parameter.grad = None


def train_modules(model: nn.Module, paths: Iterable[str]) -> None:
    """Make the modules of some paths trainable, and leave everything else as it is."""
    for path in paths:
        for parameter in _own_parameters(model.get_submodule(path)):
            parameter.requires_grad_(_has_gradients(parameter))


def _has_gradients(parameter: nn.Parameter) -> bool:
    """Return whether a parameter can have a gradient: the integers of quantised layers have none."""
    return parameter.is_floating_point() or parameter.is_complex()


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module without those of the bases of adapted layers, which stay frozen."""
    yield from module.parameters(recurse=False)
    for name, child in module.named_children():
        if not (isinstance(module, AdaptedModule) and name == "base"):
            yield from _own_parameters(child)


def _replace(model: nn.Module, new: Mapping[Any, nn.Module]) -> None:
    """Put modules into all places of a model where others stand, those that they are given for."""
    places = [
        (owner, name, new[child])
        for owner in model.modules()
        for name, child in owner._modules.items()
        if child is not None and child in new
    ]
    for owner, name, module in places:
        if owner is not module:
            setattr(owner, name, module)
