"""What an adapter is loaded into: whether the weights fit, and the model as it was if they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping

from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from structmat.peft._tuner_layer import CDDTunerLinear

__all__ = ["Snapshot", "misfits"]


class Snapshot:
    """A model as it is before an adapter is added."""

    def __init__(self, model: nn.Module) -> None:
        self.plain = "peft_config" not in vars(model)
        self._modules = set(model.modules())
        self._trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}

    def restore(self, model: nn.Module, adapter_name: str) -> None:
        """Take an adapter out of the model again, with all that was put in for it."""
        for parent in list(model.modules()):
            for name, module in list(parent.named_children()):
                base = module
                while base not in self._modules and isinstance(base, CDDTunerLinear | AuxiliaryTrainingWrapper):
                    base = base.base_layer if isinstance(base, CDDTunerLinear) else base.original_module
                if base is not module:
                    setattr(parent, name, base)
                if isinstance(base, CDDTunerLinear | AuxiliaryTrainingWrapper):
                    _forget(base, adapter_name)
        for parameter, wanted in self._trainable.items():
            parameter.requires_grad_(wanted)


def _forget(module: CDDTunerLinear | AuxiliaryTrainingWrapper, adapter_name: str) -> None:
    if isinstance(module, CDDTunerLinear):
        module.cdd_adapters.pop(adapter_name) if adapter_name in module.cdd_adapters else None
        module.cdd_alpha.pop(adapter_name, None)
        return
    module._adapters.discard(adapter_name)
    if isinstance(module, ModulesToSaveWrapper) and adapter_name in module.modules_to_save:
        del module.modules_to_save[adapter_name]
    elif isinstance(module, TrainableTokensWrapper):
        tokens = module.token_adapter  # a tied one has the tables of the other
        for table in (tokens.trainable_tokens_delta, tokens.trainable_tokens_original, tokens.token_indices):
            if adapter_name in table:
                del table[adapter_name]


def misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], adapter_name: str, prefix: str) -> list[str]:
    """Tell why weights of an adapter do not fit a model.

    Vectors that are not given are left to PEFT, which warns about them, but for a layer that gets only some of its own.

    Parameters
    ----------
    state : mapping
        What PEFT hands to the model: where that has the vector, the key has the name of the adapter.
    own : mapping
        The weights of the model by key.
    adapter_name : str
        Name of the adapter.
    prefix : str
        Of all keys of the model.
    """
    vector = re.compile(rf"(?:{re.escape(prefix)})?(.*)\.cdd_adapters\.(?:{re.escape(adapter_name)}\.)?factors\.(\d+)")
    given, shapes = ({key: tuple(value.shape) for key, value in each.items()} for each in (state, own))
    found, expected = _by_layer(given, vector), _by_layer(shapes, vector)
    problems = [f"{path} is not adapted in this model" for path in found if path not in expected]
    problems += [
        f"{path} takes vectors of shapes {expected[path]}, the file has {found[path]}"
        for path in found
        if path in expected and found[path] != expected[path]
    ]
    return problems + [
        f"{key.removeprefix(prefix)} has the shape {shapes[key]}, in the file {shape}"
        for key, shape in given.items()
        if not vector.fullmatch(key) and shapes.get(key, shape) != shape
    ]


def _by_layer(shapes: Mapping[str, tuple[int, ...]], vector: re.Pattern[str]) -> dict[str, list[tuple[int, ...]]]:
    indexed: dict[str, dict[int, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        if match := vector.fullmatch(key):
            indexed.setdefault(match[1], {})[int(match[2])] = shape
    return {path: [shape for _, shape in sorted(each.items())] for path, each in indexed.items()}
