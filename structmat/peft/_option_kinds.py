"""Kinds of the options that name modules, layers and tokens: PEFT would take a wrong one apart, or fail later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

from structmat._array_tools import ArgumentTypeError

__all__ = ["check_kinds"]


def check_kinds(config: Any) -> None:
    """Raise a TypeError for a list of names, layers or tokens that is none."""
    for option in ("target_modules", "exclude_modules", "layers_pattern"):
        value = getattr(config, option)
        _require(
            value is None or isinstance(value, str) or _is_list(value, str), config, option, "a str or a list of str"
        )
    names, layers, tokens = config.modules_to_save, config.layers_to_transform, config.trainable_token_indices
    _require(names is None or _is_list(names, str), config, "modules_to_save", "a list of str")
    fits = layers is None or isinstance(layers, int) or _is_list(layers, Integral)
    _require(fits, config, "layers_to_transform", "an int or a list of int")
    # PEFT indexes weights with them, where a tuple means one entry.
    lists = tokens.values() if isinstance(tokens, Mapping) else [] if tokens is None else [tokens]
    fits = all(isinstance(each, list) and _is_list(each, Integral) for each in lists)
    _require(fits, config, "trainable_token_indices", "a list of int or a dict of those")


def _is_list(value: Any, kind: type) -> bool:
    return (
        isinstance(value, Collection)
        and not isinstance(value, str | bytes)
        and all(isinstance(each, kind) for each in value)
    )


def _require(fits: bool, config: Any, option: str, kind: str) -> None:
    if not fits:
        raise ArgumentTypeError("CDDConfig", option, f"must be {kind}, got {getattr(config, option)!r}")
