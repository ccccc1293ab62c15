"""`ChangePlan`: layers to be fitted, where their changes are, and what is wrong with others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structmat._files.wrappers import unwrapped
from structmat._layer_fits.changes import Change
from structmat.io import Checkpoint, CheckpointError, Entry

__all__ = ["WEIGHT", "ChangePlan", "is_embedding", "is_target", "located", "module_of"]

WEIGHT = ".weight"
"""How the names of weights of linear layers end."""
_EMBEDDING = re.compile(r"(.*\.)?([^.]*embed[^.]*|wte|wpe|shared)(\.\d+)?", re.IGNORECASE)
"""Modules whose matrix is a table that is looked up, not a linear layer."""


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

    def add(self, name: str, change: Change, **options: bool) -> None:
        """Take in a layer that is to be fitted, or what is wrong with it."""
        if name in self.changes:
            self.faults[name] = f"{change} and {self.changes.pop(name)} are both the change of {name}"
        if name in self.faults:
            return
        try:
            change.check(**options)
        except CheckpointError as error:
            self.faults[name] = str(error)
        else:
            self.changes[name] = change


def is_target(name: str, targets: str | None) -> bool:
    """Return whether a module is to be fitted: a regular expression is found in its path; without, embeddings not."""
    if targets is None:
        return not is_embedding(name)
    return re.search(targets, name) is not None


def is_embedding(name: str) -> bool:
    """Return whether the matrix of a module is a table that is looked up, by the module's path."""
    return _EMBEDDING.fullmatch(name) is not None


def module_of(key: str) -> str:
    """Return the path of the module of a weight."""
    return unwrapped(key).removesuffix(WEIGHT)


def located(path: Path) -> Checkpoint:
    """Open a checkpoint by its whole path: workers may have another working directory."""
    return Checkpoint(path.absolute())
