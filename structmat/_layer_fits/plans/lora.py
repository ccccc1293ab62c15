"""Plans of the changes that a LoRA adapter in the layout of PEFT makes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from structmat._files.wrappers import unwrapped
from structmat._layer_fits.adapter_files import CONFIG, PREFIX, changes_the_base
from structmat._layer_fits.changes import LowRank
from structmat._layer_fits.plans.change_plan import WEIGHT, ChangePlan, is_target, located
from structmat.io import CheckpointError

__all__ = ["plan_lora"]

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


def plan_lora(folder: Path, targets: str | None) -> ChangePlan:
    """Plan the fit of a LoRA adapter in the layout of PEFT."""
    settings = _lora_settings(folder)
    adapter = located(folder)
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
    for prefixed, keys in sides.items():
        name = unwrapped(prefixed).removeprefix(PREFIX)
        plan.seen.append(name)
        if not is_target(name, targets):
            plan.left_out += keys.values()
            continue
        if ".base_layer." in name or any(other.startswith(f"{prefixed}.base_layer.") for other in sides):
            plan.faults[name] = f"{folder}: {name} is of a layer of attention with one weight for all, not linear"
            continue
        try:
            left, right = (adapter.entry(f"{prefixed}.lora_{side}{WEIGHT}", exact=True) for side in "BA")
        except CheckpointError as error:
            plan.faults[name] = str(error)
            continue
        rank = max(1, right.shape[0]) if right.shape else 1  # of no rows the change is zero
        alpha = _by_pattern(settings.get("alpha_pattern"), name, settings.get("lora_alpha", 8))
        plan.add(name, LowRank(left, right, alpha / (rank**0.5 if settings.get("use_rslora") else rank)))
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
    start = settings.get("init_lora_weights")
    if changes_the_base(start):
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
