"""`ModelState`: a model as it is now, to be put back where a change of it fails, or at the end of a context.

It holds references, not copies: adapting, merging and assigning put other modules and tensors into the places of those
that were there. Copied is only what is to be written in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from structmat._files import first_names
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._calls import NESTED

__all__ = ["RECORD", "ModelState", "as_before_at_the_end", "as_before_on_error"]

RECORD = "_trained_with_adapter"
"""Attribute of a model that holds the paths of the modules trained with the adapter, even if they are frozen later."""
_COLLECTIONS = (dict, list, set)
"""The kinds of attributes whose entries are kept too."""
_STRUCTURE = ("_modules", "_parameters", RECORD, NESTED, "use_nested_tensor")
"""The attributes of a module that adapting, merging and assigning change."""


class ModelState:
    """The modules, parameters and buffers of a model, what is trained of them, and the values of some tensors.

    Parameters
    ----------
    model : Module
        The model.
    whole : bool, default True
        Whether all attributes of modules belong to the state, as where nothing but a change of the model runs
        meanwhile. Otherwise these are the modules, the parameters, the persistent buffers, and `alpha` of adapters:
        what forward passes keep, such as a cache, stays as they leave it.
    """

    def __init__(self, model: nn.Module, *, whole: bool = True) -> None:
        self.model = model
        self._names = None if whole else _STRUCTURE
        self._attributes: list[tuple[nn.Module, dict[str, tuple[Any, Any]]]] = []
        self._buffers: list[tuple[nn.Module, str, Tensor | None]] = []
        self._alphas: list[tuple[CDDAdapter, float]] = []
        # All in one loop: every attribute of every module is asked for, of which functions would be half of the time.
        for module in model.modules():
            own = vars(module)
            kept: dict[str, tuple[Any, Any]] = {}
            for name in own if whole else _STRUCTURE:
                if name in own:
                    value = own[name]
                    kept[name] = value, value.copy() if isinstance(value, _COLLECTIONS) else None
            self._attributes.append((module, kept))
            for name, buffer in module._buffers.items():
                if name not in module._non_persistent_buffers_set:
                    self._buffers.append((module, name, buffer))
            if isinstance(module, CDDAdapter):
                self._alphas.append((module, module.alpha))
        self._parameters: list[tuple[nn.Parameter, Tensor, bool, Tensor | None]] = []
        for each in model.parameters():
            self._parameters.append((each, each.data, each.requires_grad, each.grad))
        self._values: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, tensor: Tensor) -> None:
        """Copy a tensor that is to be written in place."""
        if not self.keeps(tensor):
            self._values[id(tensor)] = (tensor, tensor.detach().clone())

    def keeps(self, tensor: Tensor) -> bool:
        """Return whether there is a copy of a tensor."""
        return id(tensor) in self._values

    def put_back(self, later: Sequence[ModelState] = ()) -> None:
        """Put everything back; states that were taken `later` take over what they will put back themselves."""
        heir = next((each for each in later if each.model is self.model), None)
        if heir is None:
            self._put_structure_back()
            self._put_parameters_back()
        else:
            heir._attributes, heir._buffers, heir._alphas = self._attributes, self._buffers, self._alphas
            heir._parameters = self._parameters
        # In inference mode autograd would refuse the tensors afterwards.
        with torch.inference_mode(mode=False), torch.no_grad():
            for key, (tensor, value) in self._values.items():
                heir = next((each for each in later if key in each._values), None)
                if heir is None:
                    tensor.copy_(value)
                else:
                    heir._values[key] = (tensor, value)

    def _put_structure_back(self) -> None:
        for module, attributes in self._attributes:
            own = vars(module)
            for name in [name for name in self._names or own if name in own and name not in attributes]:
                del own[name]
            for name, (value, entries) in attributes.items():
                if own.get(name) is not value:
                    own[name] = value
                _refill(value, entries)
        for module, name, buffer in self._buffers:
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
        for adapter, alpha in self._alphas:
            adapter.alpha = alpha

    def _put_parameters_back(self) -> None:
        for parameter, data, requires_grad, gradient in self._parameters:
            # Merging, a cast, or a move to another device puts other memory into the same parameter.
            if _memory(parameter.data) != _memory(data):
                parameter.data = data
            if parameter.requires_grad != requires_grad:
                with torch.inference_mode(parameter.is_inference()):  # torch refuses those of inference mode elsewhere
                    parameter.requires_grad_(requires_grad)
            if parameter.grad is not gradient:
                parameter.grad = gradient


@contextmanager
def as_before_on_error(model: nn.Module) -> Iterator[ModelState]:
    """Put a model back, bit for bit, if an error or Ctrl-C comes before the end of the context.

    Yields the state: it has to `keep` each tensor that is written in place, before it is.
    """
    before = ModelState(model)
    try:
        yield before
    except BaseException:
        before.put_back()
        raise


_OPEN: list[ModelState] = []
"""The states that contexts will put back at their ends, in the order in which these began."""


@contextmanager
def as_before_at_the_end(model: nn.Module, owner: str) -> Iterator[ModelState]:
    """Put a model back at the end of a context: its structure, and the values of the tensors that the state keeps.

    Contexts may end in any order: what one of them has replaced comes back when the last one ends that replaced it.

    Raises
    ------
    RuntimeError
        At the end, where another parameter was written in place.
    """
    before = ModelState(model, whole=False)
    versions = {name: (each, each._version) for name, each in model.named_parameters() if not each.is_inference()}
    _OPEN.append(before)
    try:
        yield before
        changed = [name for name, (each, version) in versions.items() if each._version != version]
        written = [name for name in changed if not before.keeps(versions[name][0])]
    finally:
        later = _OPEN[_OPEN.index(before) + 1 :]
        _OPEN.remove(before)
        # FSDP puts shards into the places of parameters here that a forward pass left whole.
        model.state_dict(keep_vars=True)
        before.put_back(later)
    if written:
        text = (
            f"{owner}: {first_names(written, 3)} was written in place inside of the block, where the folder holds no "
            "values for it, and stays so: train or load before the block or after it"
        )
        raise RuntimeError(text)


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells whether two tensors are the same memory; where a class hides it, what else is known."""
    place = tensor.data_ptr() if type(tensor) is Tensor and not tensor.is_meta else None
    return tensor.dtype, tensor.device, tensor.shape, place


def _refill(value: Any, entries: Any) -> None:
    """Give a collection its former entries.

    It is not touched if it has them: code is compiled again where somebody has written to a table of modules.
    """
    if entries is None or _identities(value) == _identities(entries):
        return
    value.clear()
    if isinstance(value, list):
        value.extend(entries)
    else:
        value.update(entries)


def _identities(collection: Any) -> list[Any]:
    """Return what tells whether two collections hold the same objects; tensors have no equality."""
    if isinstance(collection, dict):
        return [(key, id(value)) for key, value in collection.items()]
    return [*map(id, collection)]
