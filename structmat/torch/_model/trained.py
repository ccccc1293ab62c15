"""What is trained beside the changes, such as a head: its tensors belong to the adapter's file, as the vectors do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from torch import Tensor, nn

from structmat._files import unwrapped
from structmat.torch._layers.adapted_layer import AdaptedLayer

__all__ = ["record_trained", "tensors_beside", "train_beside", "trained_beside"]

_RECORD = "_trained_with_adapters"
"""Attribute of a module: the names of its parameters that are trained with adapters, even if they are frozen later."""


def record_trained(modules: Iterable[nn.Module]) -> None:
    """Note which parameters of modules are trained now; their buffers, such as statistics, may change with them."""
    for module in modules:
        names = {name for name, value in module._parameters.items() if value is not None and value.requires_grad}
        module.__dict__[_RECORD] = names | module.__dict__.get(_RECORD, set())


def tensors_beside(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers that are no vectors of adapters, by their keys in the plain model."""
    return {key: tensor for key, tensor, _ in _beside(model)}


def trained_beside(model: nn.Module) -> dict[str, Tensor]:
    """Return those of them that training changes, each once.

    These are parameters that are or were trained, buffers of their modules, and statistics of normalisations, which
    frozen layers collect as well.
    """
    first: dict[int, str] = {}
    return {
        key: tensor
        for key, tensor, is_trained in _beside(model)
        if is_trained and first.setdefault(id(tensor), key) == key
    }


def train_beside(model: nn.Module, keys: Collection[str]) -> None:
    """Train the parameters of some keys."""
    for path, module in _modules(model, "", set()):
        own = {name for name in module._parameters if _join(path, name) in keys}
        for name in own:
            getattr(module, name).requires_grad_()
        if own or any(_join(path, name) in keys for name in module._buffers):
            module.__dict__[_RECORD] = own | module.__dict__.get(_RECORD, set())


def _beside(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield keys, tensors, and whether training changes them."""
    merged = {id(m.base): m._unmerged[0] for m in model.modules() if isinstance(m, AdaptedLayer) and m._unmerged}
    for path, module in _modules(model, "", set()):
        record = module.__dict__.get(_RECORD)
        parameters = {name: value for name, value in module._parameters.items() if value is not None}
        if id(module) in merged:
            parameters["weight"] = merged[id(module)]
        trained = {name for name, value in parameters.items() if value.requires_grad} | (record or set())
        for name, value in parameters.items():
            yield _join(path, name), value, name in trained
        changes = record is not None or bool(trained) or isinstance(module, nn.modules.batchnorm._NormBase)
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield _join(path, name), buffer, changes


def _modules(module: nn.Module, path: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules by their paths in the plain model: bases in the place of adapted layers, adapters left out."""
    if module not in seen:
        seen.add(module)
        yield unwrapped(path), module
        for name, child in module.named_children():
            if not isinstance(module, AdaptedLayer):
                yield from _modules(child, _join(path, name), seen)
            elif name == "base":
                yield from _modules(child, path, seen)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
