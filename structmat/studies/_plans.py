"""Which layers of files are to be fitted, where their changes are, and what is wrong with others."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from structmat._adapter_format import CONFIG, FACTOR_KEY, FACTOR_SCALE, PREFIX, WEIGHTS, require_known_settings
from structmat._errors import ArgumentValueError
from structmat._files import unwrapped
from structmat.studies._changes import AnyChange, Change, LowRankChange, ProductChange
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError, Entry, JoinedEntry
from structmat.studies._models import Model, Part

__all__ = ["Plan", "is_adapter", "is_found", "plan_adapter", "plan_delta", "plan_pair"]

_WEIGHT = ".weight"
"""The name of the weight of a linear layer is the path of the layer with this at its end."""

_EMBEDDING = re.compile(r"(.*\.)?([^.]*embed[^.]*|wte|wpe|shared|relative_attention_bias)(\.\d+)?", re.IGNORECASE)
"""Modules whose matrix is a table that is looked up, not a linear layer, in models that are not known."""

_CONV1D = re.compile(r"(.*\.)?(c_attn|c_proj|c_fc|q_attn)")
"""Modules that store their weight as inputs by outputs in some models of transformers."""


@dataclass
class Plan:
    """What is to be fitted of the files that were given, and what was found out of everything else in them."""

    changes: dict[str, AnyChange] = field(default_factory=dict)
    """The layers to fit, by path of the module."""
    pairs: list[tuple[Entry, Entry]] = field(default_factory=list)
    """The weights that are not fitted but are in both checkpoints, tuned and base: some may have been tuned too."""
    left_out: list[str] = field(default_factory=list)
    """The names of weights that the base does not have, or of changes in a file, that are not fitted."""
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong, by path of the module, or by name of the file if that cannot be read at all."""
    base: str | None = None
    """Name of the base model."""
    seen: list[str] = field(default_factory=list)
    """The modules that could be fitted, whether `targets` chose them or not."""
    experts: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of the layers that are matrices of a stack: the path of the parameter, and the number of the expert."""
    stacks: dict[str, int] = field(default_factory=dict)
    """The numbers of experts of these parameters."""
    modules: set[str] | None = None
    """The paths of all modules that have weights, and of those around them; None if only some of them are known."""

    def add(self, name: str, change: AnyChange, *, cast: bool = False) -> None:
        """Take in a layer that is to be fitted, or what is wrong with it."""
        if name in self.changes:
            self.faults[name] = f"{change} and {self.changes.pop(name)} are both the change of {name}"
        if name in self.faults:
            return
        try:
            change.check(cast=cast)
        except CheckpointError as error:
            self.faults[name] = str(error)
        else:
            self.changes[name] = change

    def turn(self, names: set[str]) -> None:
        """Take some of the changes for stored as inputs by outputs."""
        for name, change in self.changes.items():
            if isinstance(change, Change) and name in names:
                self.changes[name] = replace(change, transposed=True)


def plan_pair(old: Path, new: Path, targets: str | None, model: Model, *, cast: bool) -> Plan:
    """Plan the fit of a tuned checkpoint minus its base, by what is known of their model."""
    base, tuned = _located(old), _located(new)
    plan = Plan(base=str(old), modules=model.modules)
    if plan.modules is None:
        plan.modules = {path[: dot.start()] for path in map(unwrapped, tuned) for dot in re.finditer(r"\.", path)}
    tied = {side: _tied(side) if targets is None else set() for side in (base, tuned)}
    partners = _partners(base, tuned, model)
    taken = _add_experts(plan, base, tuned, targets, model, cast=cast)
    for key in (key for key in tuned if key not in taken):
        layer = model.layer_of(key)
        name, fitted = layer or _module_of(key), False
        try:
            after = tuned.entry(key)
            before = base.entry(partners[key]) if key in partners else None
        except CheckpointError as error:
            plan.faults[name] = str(error)
            continue
        if layer and len(after.shape) == 2:
            plan.seen.append(name)
            fitted = key not in tied[tuned] and _is_target(name, targets, model)
        if before is not None and fitted:
            plan.add(name, Change(after, before), cast=cast)
        elif before is not None:
            plan.pairs.append((after, before))
        elif fitted:
            plan.faults[name] = f"{after}: {base.path} has no such weight"
        else:
            plan.left_out.append(key)
    plan.turn(_stored_by_inputs(plan, tuned, model))
    plan.turn({name for name, (path, _) in plan.experts.items() if model.stacks[path].transposed})
    alone = set(base) - set(partners.values()) - tied[base]
    for key in sorted(alone):
        name = model.layer_of(key)
        if name and _is_target(name, targets, model):
            plan.faults |= _lost_layer(name, base, key, tuned)
    return plan


def _partners(base: Checkpoint, tuned: Checkpoint, model: Model) -> dict[str, str]:
    """Return the names in the base of the weights that the tuned checkpoint has too, perhaps by other names.

    Names of one model may differ if different versions of transformers have written them.
    """
    found = base.partners(tuned)
    if model.name is not None:
        left = set(base) - set(found.values())
        loaded = {name: key for key in sorted(left) if (name := model.loaded_as(key))}
        names = {key: model.loaded_as(key) for key in tuned if key not in found}
        found |= {key: loaded[name] for key, name in names.items() if name in loaded}
    return found


def _add_experts(
    plan: Plan, base: Checkpoint, tuned: Checkpoint, targets: str | None, model: Model, *, cast: bool
) -> set[str]:
    """Take in the matrices of experts that are to be fitted; return the names of the tuned weights that hold them.

    The two checkpoints may store them in different ways: stacked, or each by itself.
    """
    before, after = _experts(base, model), _experts(tuned, model)
    taken: set[str] = set()
    for parameter, stack in model.stacks.items():
        for expert in range(stack.n_experts):
            name = f"{parameter}.{expert}"
            sources = [side.get((parameter, expert)) for side in (before, after)]
            if not any(sources):
                continue
            plan.seen.append(name)
            if targets is not None and not is_found(targets, name):
                continue
            plan.experts[name] = parameter, expert
            plan.stacks[parameter] = stack.n_experts
            for source, side in zip(sources, (base, tuned), strict=True):
                if source is None:
                    plan.faults[name] = f"{side.path} has no weight of {name}"
                elif source.fault:
                    plan.faults[name] = source.fault
                elif source.matrix.shape != stack.shape:
                    text = f"{source.matrix} has shape {source.matrix.shape}, but {name} has {stack.shape}"
                    plan.faults[name] = text
            old, new = sources
            taken |= set(new.keys if new else ())
            if old and new and name not in plan.faults:
                plan.add(name, Change(new.matrix, old.matrix), cast=cast)
    return taken


class _Expert(NamedTuple):
    """Where a checkpoint holds the matrix of an expert."""

    keys: tuple[str, ...]
    """The names of the weights that hold it, or parts of it."""
    matrix: Any = None
    """The entry, or the joined one, unless something is wrong."""
    fault: str = ""
    """What is wrong."""


def _experts(checkpoint: Checkpoint, model: Model) -> dict[tuple[str, int], _Expert]:
    """Return where the matrices of experts are, by path of the parameter and number of the expert."""
    found: dict[tuple[str, int], _Expert] = {}
    parts: dict[tuple[str, int], dict[int, tuple[Part, str]]] = {}
    for key in checkpoint if model.stacks else ():
        part = model.part_of(key)
        if part is None:
            continue
        if part.expert is not None:
            parts.setdefault((part.parameter, part.expert), {})[part.place] = part, key
            continue
        experts = _of_stack(checkpoint, key, model.stacks[part.parameter].n_experts)
        found |= {(part.parameter, number): each for number, each in enumerate(experts)}
    return found | {place: _of_parts(checkpoint, own) for place, own in parts.items()}


def _of_stack(checkpoint: Checkpoint, key: str, count: int) -> list[_Expert]:
    """Return the matrices of all experts in a stored stack."""
    try:
        entry = checkpoint.entry(key)
    except CheckpointError as error:
        return [_Expert((key,), fault=str(error))] * count
    if entry.shape[:1] != (count,):
        return [_Expert((key,), fault=f"{entry} has shape {entry.shape}, but there are {count} experts")] * count
    return [_Expert((key,), matrix) for matrix in entry.matrices()]


def _of_parts(checkpoint: Checkpoint, own: Mapping[int, tuple[Part, str]]) -> _Expert:
    """Return the matrix of an expert whose parts are stored by themselves."""
    keys = tuple(key for _, key in own.values())
    part, _ = next(iter(own.values()))
    if len(own) < part.n_parts:
        return _Expert(keys, fault=f"{checkpoint.path} lacks weights that are one matrix with {', '.join(keys)}")
    try:
        entries = tuple(checkpoint.entry(own[place][1]) for place in range(part.n_parts))
        matrix = entries[0] if len(entries) == 1 else JoinedEntry(entries, part.axis)
        matrix.check_floats()
    except CheckpointError as error:
        return _Expert(keys, fault=str(error))
    return _Expert(keys, matrix)


def _lost_layer(name: str, base: Checkpoint, key: str, tuned: Checkpoint) -> dict[str, str]:
    """Return what is wrong with a weight that the base alone has, by path of its module; nothing if it is no matrix."""
    if key in base.faults:
        return {name: base.faults[key]}
    entry = base.entries[key]
    return {name: f"{entry}: {tuned.path} has no such weight"} if len(entry.shape) == 2 else {}


def is_adapter(path: Path) -> bool:
    """Tell whether a folder holds an adapter in the format of PEFT, and no model."""
    return (path / CONFIG).is_file()


def plan_adapter(old: Path, folder: Path, targets: str | None, model: Model) -> Plan:
    """Plan the fit of the changes that an adapter of LoRA, or one of this package, makes in a base."""
    base, adapter = _located(old), _located(folder / WEIGHTS)
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, found = settings["peft_type"], _LAYERS_OF_ADAPTER[settings["peft_type"]](adapter, settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = (
            f"holds no adapter of {' or '.join(_LAYERS_OF_ADAPTER)} that can be read ({type(error).__name__}: {error})"
        )
        raise CheckpointError(f"{folder / CONFIG} {text}") from error
    plan = Plan(base=str(old), modules=model.modules)
    layers = {model.layer_of(key) or _module_of(key): base.entry(key) for key in base}
    used = set()
    for name, (change, keys) in found.items():
        used |= set(keys)
        plan.seen.append(name)
        if targets is not None and not is_found(targets, name):
            continue
        if name not in layers:
            plan.faults[name] = f"{change}: {base.path} has no layer of this name"
        elif sorted(layers[name].shape) != sorted(change.shape):
            plan.faults[name] = (
                f"{change} is a change of shape {change.shape}, but {layers[name]} is {layers[name].shape}"
            )
        else:
            plan.add(name, change)
    plan.left_out += [key for key in adapter if key not in used]
    if not found:
        raise CheckpointError(f"{folder}: the adapter of {kind} changes no linear layer")
    return plan


_Found = dict[str, tuple[AnyChange, tuple[str, ...]]]
"""By path of the layer its change, and the names of the weights that make it."""


def _low_rank_layers(adapter: Checkpoint, settings: Mapping[str, Any]) -> _Found:
    """Return what an adapter of LoRA changes."""
    if settings.get("use_dora"):
        raise ValueError("a change by DoRA depends on the norms of the columns of the base: merge it")
    found: _Found = {}
    for key in adapter:
        path, mark, _ = key.removeprefix(PREFIX).rpartition(".lora_A.weight")
        other = key.replace(".lora_A.weight", ".lora_B.weight")
        if not mark or other not in adapter.entries or len(adapter.entries[other].shape) != 2:
            continue
        right, left = adapter.entry(key), adapter.entry(other)
        alphas = settings.get("alpha_pattern") or {}
        own = next((alphas[each] for each in alphas if re.match(rf"(.*\.)?({each})$", path)), settings["lora_alpha"])
        rank = right.shape[0]
        scale = float(own) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        found[path] = LowRankChange(left, right, scale), (key, other)
    return found


def _product_layers(adapter: Checkpoint, settings: Mapping[str, Any]) -> _Found:
    """Return what an adapter of this package changes."""
    require_known_settings(settings)
    vectors: dict[str, dict[int, str]] = {}
    for key in adapter:
        match = FACTOR_KEY.match(key)
        if match and match["parameter"] is None:
            vectors.setdefault(match["path"], {})[int(match["index"])] = key
    scales = float(settings.get("alpha", 1.0)), float(settings.get("factor_scale", FACTOR_SCALE))
    return {
        path: (ProductChange(tuple(adapter.entry(own[i]) for i in sorted(own)), *scales), tuple(own.values()))
        for path, own in vectors.items()
    }


_LAYERS_OF_ADAPTER = {"LORA": _low_rank_layers, "CDD": _product_layers}
"""What adapters change, by their kind as PEFT names it."""


def plan_delta(path: Path, targets: str | None) -> Plan:
    """Plan the fit of changes that stand in a file, by name of the module or of its weight."""
    deltas = _located(path)
    plan = Plan()
    for key in deltas:
        name = _module_of(key).removeprefix(PREFIX)
        if key in deltas.faults:
            plan.faults[name] = deltas.faults[key]
            continue
        entry = deltas.entries[key]
        # A file of changes is named by paths: stacks of experts are known by these alone.
        stacked = len(entry.shape) == 3 and "experts" in name.split(".")
        found = {f"{name}.{i}": each for i, each in enumerate(entry.matrices())} if stacked else {name: entry}
        if stacked or len(entry.shape) == 2:
            plan.seen += found
        chosen = [each for each in found if _is_target(each, targets, Model())]
        if not chosen or not (stacked or len(entry.shape) == 2):
            plan.left_out.append(key)
            continue
        for each in chosen:
            if stacked:
                plan.experts[each] = name, int(each.rpartition(".")[2])
                plan.stacks[name] = entry.shape[0]
            plan.add(each, Change(found[each]))
    return plan


def _is_target(name: str, targets: str | None, model: Model) -> bool:
    """Return whether a module is to be fitted: all but embeddings, or those in whose path `targets` is found."""
    if targets is None:
        return name in model.layers or _EMBEDDING.fullmatch(name) is None
    return is_found(targets, name)


def is_found(targets: str, name: str) -> bool:
    """Return whether a regular expression is found in a name."""
    try:
        return re.search(targets, name) is not None
    except re.error as error:
        text = f"must be a regular expression, got {targets!r}: {error}"
        raise ArgumentValueError("studies", "targets", text) from error


def _module_of(key: str) -> str:
    """Return the path of the module that a weight belongs to, by its name alone."""
    return unwrapped(key).removesuffix(_WEIGHT)


def _located(path: Path) -> Checkpoint:
    """Open a checkpoint by its whole path: workers may have another working directory."""
    return Checkpoint(path.absolute())


def _tied(checkpoint: Checkpoint) -> set[str]:
    """Return the matrices that have the values of an embedding, as the last layer of many language models."""
    tables: dict[Any, list[Entry]] = {}
    for key, entry in checkpoint.entries.items():
        if _EMBEDDING.fullmatch(_module_of(key)):
            tables.setdefault((entry.shape, entry.dtype), []).append(entry)
    found = set()
    for key, entry in checkpoint.entries.items():
        for table in tables.get((entry.shape, entry.dtype), []):
            with suppress(CheckpointError):  # a weight that cannot be read is told where it is to be fitted
                same = entry is not table and len(entry.shape) == 2 and entry.equals(table)
                if same and any(part.any() for _, part in entry.chunks()):
                    found.add(key)
    return found


def _stored_by_inputs(plan: Plan, tuned: Checkpoint, model: Model) -> set[str]:
    """Return the layers whose weight is stored as inputs by outputs, as in GPT-2.

    If the model is not known, the length of the bias tells it for a weight that is not square: a bias has one entry for
    each output. All layers of one stack are stored alike, so that those with a bias tell it for the others.
    """
    if model.name is not None:
        return {name for name in plan.changes if model.layers.get(name)}
    stacks: dict[str, list[str]] = {}
    for name in plan.seen:
        if _CONV1D.fullmatch(name):
            stacks.setdefault(re.split(r"(?:^|\.)\d+\.", name)[0], []).append(name)
    shapes = {unwrapped(key): entry.shape for key, entry in tuned.entries.items()}
    chosen: set[str] = set()
    for names in stacks.values():
        told = [
            shapes[f"{name}.bias"] == shapes[name + _WEIGHT][1:]
            for name in names
            if f"{name}.bias" in shapes and len({*shapes[name + _WEIGHT]}) == 2  # no square
        ]
        if told and all(told):
            chosen.update(names)
    return chosen & plan.changes.keys()
