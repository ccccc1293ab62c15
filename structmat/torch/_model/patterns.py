"""Options of single layers: other values by names or regular expressions of paths, as PEFT's patterns."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from structmat._array_tools import ArgumentTypeError, ArgumentValueError

__all__ = ["by_layer"]


def by_layer(
    paths: Collection[str], options: Mapping[str, Any], patterns: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, dict[str, Any]]:
    """Return the options of each layer, by path; of several keys that match a path the first one counts.

    `patterns` holds, for each option with other values, those by key: a name, the end of one, or a regular expression
    for either.

    Raises
    ------
    TypeError
        If a pattern is not a mapping from str.
    ValueError
        If a key decides no layer, or is no valid regular expression.
    """
    found = {path: dict(options) for path in paths}
    for option, values in patterns.items():
        argument = f"{option}_pattern"
        decided: set[str] = set()
        for key, value in _items(values, argument):
            matching = {path for path in paths if _matches(key, path, argument)}
            if not matching:
                raise ArgumentValueError("adapt", argument, f"has {key!r}, which matches no adapted layer")
            if matching <= decided:
                raise ArgumentValueError("adapt", argument, f"has {key!r}, whose layers earlier keys match already")
            for path in matching - decided:
                found[path][option] = value
            decided |= matching
    return found


def _items(values: Any, argument: str) -> list[tuple[str, Any]]:
    if values is None:
        return []
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ArgumentTypeError("adapt", argument, f"must be a dict of values by names of layers, got {values!r}")
    return list(values.items())


def _matches(key: str, path: str, argument: str) -> bool:
    try:
        return re.match(rf"(.*\.)?({key})$", path) is not None  # as peft.utils.other.get_pattern_key
    except re.error as error:
        raise ArgumentValueError("adapt", argument, f"has {key!r}, no regular expression: {error}") from error
