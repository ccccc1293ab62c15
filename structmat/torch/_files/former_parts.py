"""Files of earlier revisions, which may hold changes of some of the equal parts of a layer's rows, as whole changes.

Where each part has circulants of its own, such a change is a whole one, in which the first diagonal and the circulants
of all other parts are zero. The gradients of these are zero too, so that they stay zero when they are trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from structmat._adapter_format import FACTOR_KEY
from structmat._errors import ArgumentValueError

__all__ = ["FormerParts", "chosen_parts", "whole_change", "whole_state"]

FormerParts: TypeAlias = Mapping[str, Sequence[bool] | None]
"""By the name of a layer, or the end of its path, which parts of its rows have a change; None for all rows."""


def chosen_parts(parts: FormerParts | None, path: str) -> Sequence[bool] | None:
    """Return which parts of the rows of the layer at a path have a change, by the longest name; None for all rows.

    Raises
    ------
    ValueError
        If a damaged file has something else there.
    """
    given = parts or {}
    names = [name for name in given if path == name or path.endswith(f".{name}")] if isinstance(given, dict) else None
    chosen = given[max(names, key=len)] if names else None
    if names is None or not (chosen is None or (isinstance(chosen, list) and True in chosen)):
        raise ValueError(f"parts are no lists of True and False by name of a layer: {given!r}")
    return chosen


def whole_change(vectors: Sequence[Tensor], chosen: Sequence[bool] | None, owner: str) -> list[Tensor]:
    """Return the vectors of a change of some parts of the rows as those of a change of all rows.

    Raises
    ------
    ValueError
        If parts are no whole blocks of the circulants.
    """
    if chosen is None:
        return list(vectors)
    left, grid, *others = vectors
    places = torch.tensor(chosen, dtype=torch.bool)
    size, rest = divmod(len(left), int(places.sum()))
    if rest or size % grid.shape[2] or len(left) != grid.shape[0] * grid.shape[2]:
        text = (
            f"holds a change of some parts of a layer's rows, {list(chosen)}, with circulants that several of these "
            "share: merge it into its model by the revision that wrote it"
        )
        raise ArgumentValueError(owner, "folder", text)
    several = []
    for vector, each in ((left, size), (grid, size // grid.shape[2])):
        whole = vector.new_zeros(len(places), each, *vector.shape[1:])
        whole[places] = vector.unflatten(0, (-1, each))
        several.append(whole.flatten(0, 1))
    return [*several, *others]


def whole_state(
    state: Mapping[str, Tensor], parts_of_terms: Sequence[FormerParts | None], owner: str
) -> dict[str, Tensor]:
    """Return the tensors of a file by their keys, with changes of all rows.

    `parts_of_terms` has an entry for each term of a sum of changes, or one.
    """
    found = dict(state)
    for key in state:
        match = FACTOR_KEY.match(key)
        if not match or match["index"] != "0" or not parts_of_terms:
            continue
        term = re.fullmatch(r"term(\d+)", match["parameter"] or "")
        chosen = chosen_parts(parts_of_terms[int(term[1]) if term else 0], match["path"])
        keys = [key, f"{key.removesuffix('0')}1"]
        found |= zip(keys, whole_change([state[each] for each in keys], chosen, owner), strict=True)
    return found
