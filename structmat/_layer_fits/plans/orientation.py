"""Which layers of models of transformers store their weight as inputs by outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from structmat._files.wrappers import unwrapped
from structmat._layer_fits.plans.change_plan import WEIGHT, ChangePlan
from structmat.io import Checkpoint

__all__ = ["model_types", "stored_by_inputs"]

_CONV1D_MODELS = {"decision_transformer", "gpt2", "imagegpt", "openai-gpt"}
_CONV1D = re.compile(r"(.*\.)?(c_attn|c_proj|c_fc|q_attn)")
"""Modules of these models of transformers that store their weight as inputs by outputs."""


def stored_by_inputs(plan: ChangePlan, tuned: Checkpoint, model_types: set[str]) -> set[str]:
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
            shapes[f"{name}.bias"] == shapes[name + WEIGHT][1:]
            for name in names
            if f"{name}.bias" in shapes and len({*shapes[name + WEIGHT]}) == 2  # no square
        ]
        if all(told) if told else not model_types.isdisjoint(_CONV1D_MODELS):
            chosen.update(names)
    return chosen & plan.changes.keys()


def model_types(path: Path) -> Iterator[str]:
    """Yield what config.json beside a checkpoint calls the model and its parts, if there is one."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for part in [found, *found.values()] if isinstance(found, dict) else []:
        if isinstance(part, dict) and isinstance(part.get("model_type"), str):
            yield part["model_type"]
