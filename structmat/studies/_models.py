"""`model_of`: what transformers knows of the model of a checkpoint, which loads many weights by other names."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from structmat._files import one_line, unwrapped

__all__ = ["Model", "Part", "Stack", "model_of"]


class Stack(NamedTuple):
    """A parameter that holds a matrix for each of several experts."""

    n_experts: int
    shape: tuple[int, int]
    """Of a matrix as it is stored."""
    transposed: bool
    """Whether that is inputs by outputs."""


class Part(NamedTuple):
    """What a stored weight is of a stack: all of it, or a part of the matrix of one expert."""

    parameter: str
    """The path of the parameter."""
    expert: int | None = None
    """Its number; None if the weight is the whole stack."""
    place: int = 0
    """Which of the parts of the matrix it is."""
    n_parts: int = 1
    axis: int = 0
    """The axis of the matrix along which the parts are joined."""


def _no_part(_: str) -> Part | None:
    """Return what a stored weight is of a stack where nothing is known."""
    return None


@dataclass(frozen=True)
class Model:
    """The modules of a model, and which stored weight belongs to which of them.

    By default nothing is known of a model. The names of weights are then taken for paths of modules.
    """

    name: str | None = None
    """The name of its class, and the library that knows it; None if the model is not known."""
    problem: str = ""
    """Why the model is not known although config.json names it; empty otherwise."""
    modules: set[str] | None = None
    """The paths of all modules; None if the model is not known."""
    layers: Mapping[str, bool] = field(default_factory=dict)
    """The linear layers that can be adapted, by path, and whether each stores its weight as inputs by outputs."""
    loaded_as: Callable[[str], str] = unwrapped
    """Returns the name of the parameter that a stored weight becomes, or nothing if it becomes only a part of one."""

    stacks: Mapping[str, Stack] = field(default_factory=dict)
    """The parameters that stack matrices of experts, by path."""
    part_of: Callable[[str], Part | None] = _no_part
    """Returns what a stored weight is of a stack, or None if it is nothing of one."""

    def layer_of(self, key: str) -> str:
        """Return the path of the linear layer whose weight a stored one may be, or nothing if it is no such weight."""
        path, _, kind = self.loaded_as(key).rpartition(".")
        return path if kind == "weight" and (self.name is None or path in self.layers) else ""


def model_of(*paths: Path) -> Model:
    """Return the model that config.json of transformers names beside the first of the checkpoints that has one."""
    for path in paths:
        file = (path if path.is_dir() else path.parent) / "config.json"
        try:
            kind = json.loads(file.read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # they concern the use of a model, which is not used here
                return _built(file.parent)
        except Exception as error:  # noqa: BLE001  # any model may raise anything in any version of transformers
            why = one_line(error).partition(". ")[0]
            return Model(problem=f"the modules of {kind} are not known ({file}: {why})")
    return Model()


def _built(folder: Path) -> Model:
    """Build the model of a folder, without memory for its weights, and return what its modules tell."""
    import torch  # noqa: PLC0415  # an extra
    import transformers  # noqa: PLC0415  # an extra
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key  # noqa: PLC0415

    from structmat.torch import linear_weights  # noqa: PLC0415  # it needs torch

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = getattr(transformers, *(config.architectures or ["architectures"])[:1])
    if not issubclass(kind, transformers.PreTrainedModel):  # a file may name anything, which is not called
        raise TypeError(f"{kind.__name__} is no model")
    with torch.device("meta"):
        model = kind(config)
    weights = linear_weights(model)
    layers = {path: held.transposed for path, held in weights.items() if held.n_experts is None}
    stacks = {
        path: Stack(held.n_experts, held.shape, held.transposed)
        for path, held in weights.items()
        if held.n_experts is not None
    }
    changes, state = get_model_conversion_mapping(model), model.state_dict()
    by_kind = [[each for each in changes if isinstance(each, way)] for way in (WeightRenaming, WeightConverter)]

    def loaded_as(key: str) -> str:
        key = unwrapped(key)
        name, converted = rename_source_key(key, *by_kind, model.base_model_prefix, state)
        if name not in state and key in state:  # `from_pretrained` keeps such a name as well
            name, converted = key, None
        return "" if converted else name

    converters = {pattern: each for each in by_kind[1] for pattern in each.source_patterns}

    def part_of(key: str) -> Part | None:
        key = unwrapped(key)
        name, pattern = rename_source_key(key, *by_kind, model.base_model_prefix, state)
        if key in stacks or (name in stacks and not pattern):
            return Part(key if key in stacks else name)
        return _part(key, name, pattern, converters[pattern]) if pattern and name in stacks else None

    name = f"{kind.__name__} of transformers {transformers.__version__}"
    return Model(name, "", {path for path, _ in model.named_modules()}, layers, loaded_as, stacks, part_of)


def _part(key: str, parameter: str, pattern: str, converter: Any) -> Part | None:
    """Return which part of an expert's matrix a weight is that transformers puts into a stack.

    None if it does more with it than to join matrices and to stack them.
    """
    first, *others = ((type(each).__name__, getattr(each, "dim", None)) for each in converter.operations)
    experts = re.findall(r"\.(\d+)(?=\.)", key)
    patterns = list(converter.source_patterns)
    joins = [axis - 1 for name, axis in others if name == "Concatenate" and axis in {1, 2}]
    if first != ("MergeModulelist", 0) or len(joins) != len(others) or len(joins) > 1 or not experts:
        return None
    return Part(parameter, int(experts[-1]), patterns.index(pattern), len(patterns), *joins)
