"""Parts of the rows of a layer, of which some have a change: what users and files may give, and which rows they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from structmat._errors import ArgumentTypeError, ArgumentValueError

__all__ = ["NamedParts", "Parts", "checked_parts", "parts_at", "parts_of_layers"]


NamedParts: TypeAlias = dict[str, list[bool] | None]
"""Parts by name of a layer, as they stand in files; None for a layer that is changed as a whole."""


def checked_parts(value: Any, owner: str) -> NamedParts:
    """Return parts by name of a layer.

    Raises
    ------
    TypeError
        If it is no mapping of names to lists of True and False, or to None.
    ValueError
        If a list has no entry of one of the two, so that there is nothing to change, or nothing to leave out.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        text = f"must be a dict of lists by name of a layer, such as {{'c_attn': [True, False, True]}}, got {value!r}"
        raise ArgumentTypeError(owner, "parts", text)
    return {name: None if parts is None else list(Parts.checked(parts, owner).chosen) for name, parts in value.items()}


def parts_of_layers(parts: Mapping[str, Parts | None]) -> NamedParts:
    """Return the parts of layers by their paths, so that each layer finds its own by `parts_at`."""
    named: NamedParts = {path: list(own.chosen) for path, own in parts.items() if own is not None}
    # A path may be the end of another one.
    return named | {path: None for path, own in parts.items() if own is None and parts_at(named, path)}


def parts_at(named: Mapping[str, Sequence[bool] | None], path: str) -> list[bool] | None:
    """Return the parts of the layer at a path, which a name is or ends; None if there are none."""
    names = [name for name in named if path == name or path.endswith(f".{name}")]
    found = named[max(names, key=len)] if names else None
    return None if found is None else list(found)


@dataclass(frozen=True)
class Parts:
    """Equal parts of an axis, on top of each other, and which of them are chosen."""

    chosen: tuple[bool, ...]

    @classmethod
    def checked(cls, value: Any, owner: str) -> Self:
        """Return parts that somebody gave as a list of True and False, or of 1 and 0."""
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if not is_list or not all(isinstance(each, int) and each in {0, 1} for each in value):
            text = f"must be a list with True for each part that is changed and False for others, got {value!r}"
            raise ArgumentTypeError(owner, "parts", text)
        if len(set(map(bool, value))) < 2:
            text = f"must choose some of several parts, got {value!r}; without parts the whole weight is changed"
            raise ArgumentValueError(owner, "parts", text)
        return cls(tuple(map(bool, value)))

    def rows_of(self, rows: int, owner: str) -> int:
        """Return how many of some rows are chosen."""
        if rows % len(self.chosen):
            text = f"are {len(self.chosen)}, which do not divide {rows} rows into equal parts"
            raise ArgumentValueError(owner, "parts", text)
        return rows // len(self.chosen) * sum(self.chosen)

    def before(self, part: int) -> int:
        """Return how many of the parts before one are chosen."""
        return sum(self.chosen[:part])

    def of(self, y: Tensor) -> Tensor:
        """Return the entries on the last axis that are chosen."""
        grid, runs = self._runs(y)
        return torch.cat([grid[..., run] for run, is_chosen in runs if is_chosen], -1).flatten(-2)

    def put(self, values: Tensor, y: Tensor) -> Tensor:
        """Return `y` with values in the places of the entries on the last axis that are chosen."""
        grid, runs = self._runs(y)
        given = values.unflatten(-1, (grid.shape[-2], -1))
        pieces, start = [], 0
        for run, is_chosen in runs:
            size = run.stop - run.start
            pieces.append(given[..., start : start + size] if is_chosen else grid[..., run])
            start += size if is_chosen else 0
        return torch.cat(pieces, -1).flatten(-2)

    def _runs(self, y: Tensor) -> tuple[Tensor, list[tuple[slice, bool]]]:
        """Return entries on two axes, periods of the pattern and those of one, and runs of like parts in a period."""
        n = len(self.chosen)
        period = next(p for p in range(1, n + 1) if n % p == 0 and self.chosen == self.chosen[:p] * (n // p))
        size = y.shape[-1] // n
        runs: list[tuple[slice, bool]] = []
        for i, is_chosen in enumerate(self.chosen[:period]):
            start = i * size
            if runs and runs[-1][1] == is_chosen:
                start = runs.pop()[0].start
            runs.append((slice(start, (i + 1) * size), is_chosen))
        return y.unflatten(-1, (n // period, period * size)), runs
