"""Which layers of files are to be fitted, where their changes are, and what is wrong with others."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structmat._files.wrappers import unwrapped
from structmat._layer_fits.adapter_files import CONFIG, PREFIX, STARTS_IN_THE_BASE
from structmat._layer_fits.changes import Change, Difference, LowRank, Stored, equal
from structmat.io import Checkpoint, CheckpointError, Entry

__all__ = ["ChangePlan", "plan_delta", "plan_lora", "plan_pair"]

_WEIGHT = ".weight"
_EMBEDDING = re.compile(r"(.*\.)?([^.]*embed[^.]*|wte|wpe|shared)(\.\d+)?", re.IGNORECASE)
"""Modules whose matrix is a table that is looked up, not a linear layer."""
_CONV1D_MODELS = {"decision_transformer", "gpt2", "imagegpt", "openai-gpt"}
_CONV1D = re.compile(r"(.*\.)?(c_attn|c_proj|c_fc|q_attn)")
"""Modules of these models of transformers that store their weight as inputs by outputs."""
_NOT_PLAIN = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "layer_replication",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
"""Settings of LoRA in PEFT that do more than add a product of two matrices to the weights of the model."""
_LORA = re.compile(r"(?P<name>.*)\.lora_(?P<side>[AB])\.weight")


@dataclass
class ChangePlan:
    """Layers to fit, and the rest."""

    changes: dict[str, Change] = field(default_factory=dict)
    """By path of the module."""
    transposed: set[str] = field(default_factory=set)
    """Modules whose weight is stored as inputs by outputs."""
    pairs: list[tuple[Entry, Entry]] = field(default_factory=list)
    """Other weights, tuned and base, which may differ too."""
    left_out: list[str] = field(default_factory=list)
    """Weights that were tuned or added but cannot be part of the adapter."""
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong, by name of the weight or file."""
    base: str | None = None
    """Name of the base model."""
    task_type: str | None = None
    """As in PEFT."""
    checksums: dict[str, Any] = field(default_factory=dict)
    """What tells these checkpoints from others, by what they are for."""
    seen: list[str] = field(default_factory=list)
    """Modules that could be fitted."""
    modules: set[str] | None = None
    """All modules of the model that have weights, and those around them; None where only some are known."""

    def try_to_add(self, name: str, targets: str | None, change: Change, **options: bool) -> bool:
        """Take in a layer if it is one to be fitted; return whether it is."""
        if not is_target(name, targets):
            return False
        if name in self.changes:
            self.faults[name] = f"{change} and {self.changes.pop(name)} are both the change of {name}"
        if name in self.faults:
            return True
        try:
            change.check(**options)
        except CheckpointError as error:
            self.faults[name] = str(error)
        else:
            self.changes[name] = change
        return True


def is_target(name: str, targets: str | None) -> bool:
    """Return whether a module is to be fitted: a regular expression is found in its path; without, embeddings not."""
    if targets is None:
        return _EMBEDDING.fullmatch(name) is None
    return re.search(targets, name) is not None


def _module(key: str) -> str:
    """Return the path of the module of a weight."""
    return unwrapped(key).removesuffix(_WEIGHT)


def _tied(checkpoint: Checkpoint) -> set[str]:
    """Return the matrices that have the values of an embedding, as the last layer of many language models."""
    tables: dict[Any, list[Entry]] = {}
    for key, entry in checkpoint.entries.items():
        if _EMBEDDING.fullmatch(_module(key)) is not None:
            tables.setdefault((entry.shape, entry.dtype), []).append(entry)
    found = set()
    for key, entry in checkpoint.entries.items():
        for table in tables.get((entry.shape, entry.dtype), []):
            with suppress(CheckpointError):  # which the fit will name
                if entry is not table and len(entry.shape) == 2 and equal(entry, table) and _has_values(entry):
                    found.add(key)
    return found


def _has_values(entry: Entry) -> bool:
    """Tell whether a weight is not zero."""
    return any(part.any() for _, part in entry.chunks())


def _stored_by_inputs(plan: ChangePlan, tuned: Checkpoint, model_types: set[str]) -> set[str]:
    """Return the layers whose weight is stored as inputs by outputs, as in GPT-2.

    The length of a bias tells it of a weight that is no square; other layers of the same stack are stored alike. Where
    there is none, the kind of the model decides.
    """
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
        if all(told) if told else not model_types.isdisjoint(_CONV1D_MODELS):
            chosen.update(names)
    return chosen & plan.changes.keys()


def plan_pair(base_path: Path, tuned_path: Path, targets: str | None, *, cast: bool) -> ChangePlan:
    """Plan the fit of a tuned checkpoint minus its base."""
    base, tuned = _located(base_path), _located(tuned_path)
    plan = ChangePlan(base=str(base_path), checksums={"base": base.checksum(), "tuned": tuned.checksum()})
    plan.faults |= {str(file): text for side in (base, tuned) for file, text in side.broken.items()}
    plan.modules = {path[: dot.start()] for path in map(unwrapped, tuned) for dot in re.finditer(r"\.", path)}
    tied = {side: _tied(side) if targets is None else set() for side in (base, tuned)}
    partners = base.partners(tuned)
    for key in tuned:
        if key in tied[tuned]:
            _leave_out(plan, tuned, base, key, partners.get(key))
        else:
            _add_pair(plan, tuned, base, (key, partners.get(key)), targets, cast=cast)
    plan.transposed = _stored_by_inputs(plan, tuned, {*_model_types(tuned_path), *_model_types(base_path)})
    met = {*partners.values()}
    for key in base:
        name = _module(key)
        if key in met or not key.endswith(_WEIGHT) or not is_target(name, targets) or key in tied[base]:
            continue
        if key in base.faults:
            plan.faults[name] = base.faults[key]
        elif len(base.entries[key].shape) == 2:
            plan.faults[name] = f"{base.entries[key]}: {tuned.path} has no such weight"
    return plan


def _located(path: Path) -> Checkpoint:
    """Open a checkpoint by its whole path: workers may have another working directory."""
    return Checkpoint(path.absolute())


def _add_pair(
    plan: ChangePlan,
    tuned: Checkpoint,
    base: Checkpoint,
    keys: tuple[str, str | None],
    targets: str | None,
    *,
    cast: bool,
) -> None:
    """Take in one weight of the tuned checkpoint, by its name there and in the base."""
    key, base_key = keys
    name = _module(key)
    try:
        after = tuned.entry(key)
        before = None if base_key is None else base.entry(base_key)
    except CheckpointError as error:
        plan.faults[name] = str(error)
        return
    matrix = key.endswith(_WEIGHT) and len(after.shape) == 2
    if matrix:
        plan.seen.append(name)
    if before is None:
        if matrix and is_target(name, targets):
            plan.faults[name] = f"{after}: {base.path} has no such weight"
        else:
            plan.left_out.append(key)
    elif not (matrix and plan.try_to_add(name, targets, Difference(after, before), cast=cast)):
        plan.pairs.append((after, before))


def _leave_out(plan: ChangePlan, tuned: Checkpoint, base: Checkpoint, key: str, base_key: str | None) -> None:
    """Take in a weight that is not to be fitted: it is told where it has changed."""
    if base_key is None:
        plan.left_out.append(key)
    elif base_key in base.entries:
        plan.pairs.append((tuned.entries[key], base.entries[base_key]))


def plan_delta(path: Path, targets: str | None) -> ChangePlan:
    """Plan the fit of changes that stand in a file, by name of the module or of its weight."""
    deltas = _located(path)
    plan = ChangePlan(
        checksums={"delta": deltas.checksum()}, faults={str(f): text for f, text in deltas.broken.items()}
    )
    for key in deltas:
        name = _module(key).removeprefix(PREFIX)
        if key in deltas.faults:
            plan.faults[name] = deltas.faults[key]
            continue
        entry = deltas.entries[key]
        if len(entry.shape) == 2:
            plan.seen.append(name)
        if len(entry.shape) != 2 or not plan.try_to_add(name, targets, Stored(entry)):
            plan.left_out.append(key)
    return plan


def plan_lora(folder: Path, targets: str | None) -> ChangePlan:
    """Plan the fit of a LoRA adapter in the layout of PEFT."""
    settings = _lora_settings(folder)
    adapter = _located(folder)
    plan = ChangePlan(
        base=settings.get("base_model_name_or_path"),
        task_type=settings.get("task_type"),
        checksums={"lora": adapter.checksum(), "lora_config": settings},
        faults={str(file): text for file, text in adapter.broken.items()},
    )
    sides: dict[str, dict[str, str]] = {}
    for key in adapter:
        if match := _LORA.fullmatch(key):
            sides.setdefault(match["name"], {})[match["side"]] = key
        else:
            plan.left_out.append(key)
    for prefixed in sides:
        name = unwrapped(prefixed).removeprefix(PREFIX)
        plan.seen.append(name)
        if ".base_layer." in name or any(other.startswith(f"{prefixed}.base_layer.") for other in sides):
            if is_target(name, targets):
                plan.faults[name] = f"{folder}: {name} is of a layer of attention with one weight for all, not linear"
            continue
        try:
            left, right = (adapter.entry(f"{prefixed}.lora_{side}{_WEIGHT}", exact=True) for side in "BA")
        except CheckpointError as error:
            if is_target(name, targets):
                plan.faults[name] = str(error)
            continue
        rank = max(1, right.shape[0]) if right.shape else 1  # of no rows the change is zero
        alpha = _by_pattern(settings.get("alpha_pattern"), name, settings.get("lora_alpha", 8))
        scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
        if not plan.try_to_add(name, targets, LowRank(left, right, scale)):
            plan.left_out += [left.key, right.key]
    return plan


def _lora_settings(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = settings["peft_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} is no configuration of an adapter: {error}") from error
    unlike = [name for name in _NOT_PLAIN if settings.get(name)]
    if kind != "LORA" or unlike:
        what = " with ".join([kind, ", ".join(unlike)]) if unlike else kind
        raise CheckpointError(f"{file}: the adapter is {what}; only plain LoRA is a product of two matrices")
    start = str(settings.get("init_lora_weights", ""))
    if start.lower().startswith(STARTS_IN_THE_BASE):
        text = f"the start init_lora_weights={start!r} changed the weights of the base too; merge the adapter"
        raise CheckpointError(f"{file}: {text}, and fit the merged checkpoint minus the base as it was")
    _check_alphas(settings, file)
    return settings


def _check_alphas(settings: dict[str, Any], file: Path) -> None:
    """Refuse scales that are no numbers, and patterns that are no regular expressions."""
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{file}: alpha_pattern must be a table, got {patterns!r}")
    for name, alpha in {"lora_alpha": settings.get("lora_alpha", 8), **patterns}.items():
        if not isinstance(alpha, (int, float)) or not abs(alpha) <= sys.float_info.max:
            raise CheckpointError(f"{file}: the alpha {name} must be a number, got {alpha!r}")
    for pattern in patterns:
        try:
            re.compile(_whole(pattern))
        except re.error as error:
            text = f"alpha_pattern must have regular expressions, got {pattern!r}: {error}"
            raise CheckpointError(f"{file}: {text}") from error


def _by_pattern(patterns: dict[str, float] | None, name: str, default: float) -> float:
    """Return the value of the first pattern that fits a module, as PEFT finds it."""
    return next((value for key, value in (patterns or {}).items() if re.match(_whole(key), name)), default)


def _whole(pattern: str) -> str:
    """Return the expression by which PEFT finds the modules of a pattern."""
    return rf"(.*\.)?({pattern})$"


def _model_types(path: Path) -> Iterator[str]:
    """Yield what config.json beside a checkpoint calls the model and its parts, if there is one."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for part in [found, *found.values()] if isinstance(found, dict) else []:
        if isinstance(part, dict) and isinstance(part.get("model_type"), str):
            yield part["model_type"]
