"""Which layers of files are to be fitted, where their changes are, and what is wrong with others."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structmat._adapter_format import PREFIX
from structmat._errors import ArgumentValueError
from structmat._files import unwrapped
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError, Entry
from structmat.studies._layer_fit import Change
from structmat.studies._models import Model

__all__ = ["Plan", "is_found", "plan_delta", "plan_pair"]

_WEIGHT = ".weight"
"""The name of the weight of a linear layer is the path of the layer with this at its end."""

_EMBEDDING = re.compile(r"(.*\.)?([^.]*embed[^.]*|wte|wpe|shared|relative_attention_bias)(\.\d+)?", re.IGNORECASE)
"""Modules whose matrix is a table that is looked up, not a linear layer, in models that are not known."""

_CONV1D = re.compile(r"(.*\.)?(c_attn|c_proj|c_fc|q_attn)")
"""Modules that store their weight as inputs by outputs in some models of transformers."""


@dataclass
class Plan:
    """What is to be fitted of the files that were given, and what was found out of everything else in them."""

    changes: dict[str, Change] = field(default_factory=dict)
    """The layers to fit, by path of the module."""
    transposed: set[str] = field(default_factory=set)
    """Modules whose weight is stored as inputs by outputs."""
    pairs: list[tuple[Entry, Entry]] = field(default_factory=list)
    """The weights that are not fitted but are in both checkpoints, tuned and base: some may have been tuned too."""
    left_out: list[str] = field(default_factory=list)
    """The names of weights that the base does not have, or of changes in a file, that are not fitted."""
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong, by path of the module, or by name of the file if that cannot be read at all."""
    base: str | None = None
    """Name of the base model."""
    checksums: dict[str, Any] = field(default_factory=dict)
    """Checksums of the checkpoints, by what each is for: a run that is continued must be given the same ones."""
    seen: list[str] = field(default_factory=list)
    """The modules that could be fitted, whether `targets` chose them or not."""
    model: str | None = None
    """The class that the modules are known from, as `Model.name` has it."""
    modules: set[str] | None = None
    """The paths of all modules that have weights, and of those around them; None if only some of them are known."""

    def add(self, name: str, change: Change, *, cast: bool = False) -> None:
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


def plan_pair(old: Path, new: Path, targets: str | None, model: Model, *, cast: bool) -> Plan:
    """Plan the fit of a tuned checkpoint minus its base, by what is known of their model."""
    base, tuned = _located(old), _located(new)
    checksums = {"base": base.checksum(), "tuned": tuned.checksum()}
    plan = Plan(base=str(old), checksums=checksums, model=model.name, modules=model.modules)
    if plan.modules is None:
        plan.modules = {path[: dot.start()] for path in map(unwrapped, tuned) for dot in re.finditer(r"\.", path)}
    tied = {side: _tied(side) if targets is None else set() for side in (base, tuned)}
    partners = base.partners(tuned)
    for key in tuned:
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
    plan.transposed = _stored_by_inputs(plan, tuned, model)
    alone = set(base) - set(partners.values()) - tied[base]
    for key in sorted(alone):
        name = model.layer_of(key)
        if name and _is_target(name, targets, model):
            plan.faults |= _lost_layer(name, base, key, tuned)
    return plan


def _lost_layer(name: str, base: Checkpoint, key: str, tuned: Checkpoint) -> dict[str, str]:
    """Return what is wrong with a weight that the base alone has, by path of its module; nothing if it is no matrix."""
    if key in base.faults:
        return {name: base.faults[key]}
    entry = base.entries[key]
    return {name: f"{entry}: {tuned.path} has no such weight"} if len(entry.shape) == 2 else {}


def plan_delta(path: Path, targets: str | None) -> Plan:
    """Plan the fit of changes that stand in a file, by name of the module or of its weight."""
    deltas = _located(path)
    plan = Plan(checksums={"delta": deltas.checksum()})
    for key in deltas:
        name = _module_of(key).removeprefix(PREFIX)
        if key in deltas.faults:
            plan.faults[name] = deltas.faults[key]
            continue
        entry = deltas.entries[key]
        if len(entry.shape) == 2:
            plan.seen.append(name)
        if len(entry.shape) == 2 and _is_target(name, targets, Model()):
            plan.add(name, Change(entry))
        else:
            plan.left_out.append(key)
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
        return {name for name in plan.changes if model.layers[name]}
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
