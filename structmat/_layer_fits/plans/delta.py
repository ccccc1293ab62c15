"""Plans of changes that stand in files themselves."""

from __future__ import annotations

from pathlib import Path

from structmat._layer_fits.adapter_files import PREFIX
from structmat._layer_fits.changes import Stored
from structmat._layer_fits.plans.change_plan import ChangePlan, is_target, located, module_of

__all__ = ["plan_delta"]


def plan_delta(path: Path, targets: str | None) -> ChangePlan:
    """Plan the fit of changes that stand in a file, by name of the module or of its weight."""
    deltas = located(path)
    plan = ChangePlan(
        checksums={"delta": deltas.checksum()}, faults={str(f): text for f, text in deltas.broken.items()}
    )
    for key in deltas:
        name = module_of(key).removeprefix(PREFIX)
        if key in deltas.faults:
            plan.faults[name] = deltas.faults[key]
            continue
        entry = deltas.entries[key]
        matrix = len(entry.shape) == 2
        if matrix:
            plan.seen.append(name)
        if matrix and is_target(name, targets):
            plan.add(name, Stored(entry))
        else:
            plan.left_out.append(key)
    return plan
