"""The checks of the arguments of `fit_cdd`."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

__all__ = ["check_for_blocks", "choice", "generator", "integer", "non_negative"]


def integer(value: Any, name: str, least: int = 1) -> int:
    """Return an integer that is at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"fit_cdd: {name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"fit_cdd: {name} must be at least {least}, got {number}")
    return number


def non_negative(value: Any, name: str) -> float:
    """Return a finite number that is not negative."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"fit_cdd: {name} must be a number, got {value!r}") from None
    if not (number >= 0.0 and math.isfinite(number)):
        raise ValueError(f"fit_cdd: {name} must be finite and not negative, got {value!r}")
    return number


def choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return one of some words."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(f'"{word}"' for word in choices)
        raise ValueError(f"fit_cdd: {name} must be one of {words}, got {value!r}")
    return value


def generator(rng: Any) -> np.random.Generator:
    """Return the generator itself, or one seeded by an integer or by the system."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"fit_cdd: rng must be a numpy.random.Generator, a seed or None, got {rng!r}") from error


def check_for_blocks(n_factors: int, first: str, solver: str) -> None:
    """Refuse what is not available for rectangles and several blocks, and say what is."""
    where = "for a W that is not square, or several blocks"
    if n_factors < 3 or n_factors % 2 == 0:
        raise ValueError(f"fit_cdd: n_factors must be odd and at least 3 {where}, got {n_factors}")
    if first != "diagonal":
        raise ValueError(f'fit_cdd: first must be "diagonal" {where}, got {first!r}')
    if solver == "lm":
        raise ValueError(f'fit_cdd: solver must be "auto", "sweep", "adam" or "lbfgs" {where}, got {solver!r}')
