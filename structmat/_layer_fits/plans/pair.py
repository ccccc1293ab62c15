"""Plans of a tuned checkpoint minus its base."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from structmat._files.wrappers import unwrapped
from structmat._layer_fits.changes import Difference, equal
from structmat._layer_fits.plans.change_plan import WEIGHT, ChangePlan, is_embedding, is_target, located, module_of
from structmat._layer_fits.plans.orientation import model_types, stored_by_inputs
from structmat.io import Checkpoint, CheckpointError, Entry

__all__ = ["plan_pair"]


def plan_pair(base_path: Path, tuned_path: Path, targets: str | None, *, cast: bool) -> ChangePlan:
    """Plan the fit of a tuned checkpoint minus its base."""
    base, tuned = located(base_path), located(tuned_path)
    plan = ChangePlan(base=str(base_path), checksums={"base": base.checksum(), "tuned": tuned.checksum()})
    plan.faults |= {str(file): text for side in (base, tuned) for file, text in side.broken.items()}
    plan.modules = {path[: dot.start()] for path in map(unwrapped, tuned) for dot in re.finditer(r"\.", path)}
    tied = {side: _tied(side) if targets is None else set() for side in (base, tuned)}
    partners = base.partners(tuned)
    for key in tuned:
        wanted = key not in tied[tuned] and is_target(module_of(key), targets)
        _add_pair(plan, tuned, base, (key, partners.get(key)), wanted=wanted, cast=cast)
    plan.transposed = stored_by_inputs(plan, tuned, {*model_types(tuned_path), *model_types(base_path)})
    met = {*partners.values()}
    for key in base:
        name = module_of(key)
        if key in met or not key.endswith(WEIGHT) or not is_target(name, targets) or key in tied[base]:
            continue
        if key in base.faults:
            plan.faults[name] = base.faults[key]
        elif len(base.entries[key].shape) == 2:
            plan.faults[name] = f"{base.entries[key]}: {tuned.path} has no such weight"
    return plan


def _add_pair(
    plan: ChangePlan, tuned: Checkpoint, base: Checkpoint, keys: tuple[str, str | None], *, wanted: bool, cast: bool
) -> None:
    """Take in one weight of the tuned checkpoint, by its name there and in the base; a matrix is fitted if wanted."""
    key, base_key = keys
    name = module_of(key)
    try:
        after = tuned.entry(key)
        before = None if base_key is None else base.entry(base_key)
    except CheckpointError as error:
        plan.faults[name] = str(error)
        return
    matrix = key.endswith(WEIGHT) and len(after.shape) == 2
    if matrix:
        plan.seen.append(name)
    fitted = matrix and wanted
    if before is not None and fitted:
        plan.add(name, Difference(after, before), cast=cast)
    elif before is not None:
        plan.pairs.append((after, before))
    elif fitted:
        plan.faults[name] = f"{after}: {base.path} has no such weight"
    else:
        plan.left_out.append(key)


def _tied(checkpoint: Checkpoint) -> set[str]:
    """Return the matrices that have the values of an embedding, as the last layer of many language models."""
    tables: dict[Any, list[Entry]] = {}
    for key, entry in checkpoint.entries.items():
        if is_embedding(module_of(key)):
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
