"""Checks of arguments that are not arrays: numbers, words, generators, functions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np

from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError

__all__ = [
    "finite",
    "grid",
    "integer",
    "non_negative",
    "odd_factors",
    "one_of",
    "optional_function",
    "random_generator",
    "side_of_blocks",
]


def integer(value: Any, owner: str, argument: str, least: int = 1) -> int:
    """Return an integer that is at least `least`; true and false are none."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentTypeError(owner, argument, f"must be an integer, got {value!r}")
    if number < least:
        raise ArgumentValueError(owner, argument, f"must be at least {least}, got {number}")
    return number


def odd_factors(value: Any, owner: str, argument: str) -> int:
    """Return the number of factors of a product that begins and ends with a diagonal and has a circulant."""
    number = integer(value, owner, argument)
    if number < 3 or number % 2 == 0:
        raise ArgumentValueError(owner, argument, f"must be odd and at least 3, got {number}")
    return number


def side_of_blocks(value: Any, owner: str, argument: str) -> int | Literal["min", "toeplitz"]:
    """Return the side of circulant blocks: an integer, or a word for what the shape of a matrix gives."""
    if isinstance(value, str) and value in {"min", "toeplitz"}:
        return cast('Literal["min", "toeplitz"]', value)
    if value is None or isinstance(value, str):
        raise ArgumentTypeError(owner, argument, f'must be an integer, "min" or "toeplitz", got {value!r}')
    return integer(value, owner, argument)


def grid(value: Any, owner: str, argument: str) -> tuple[int, ...]:
    """Return the sizes of a grid: one integer at least, none below one."""
    if not isinstance(value, (tuple, list)):
        raise ArgumentTypeError(owner, argument, f"must be a tuple of integers, got {value!r}")
    if not value:
        raise ArgumentValueError(owner, argument, "must have one size at least, got none")
    return tuple(integer(n, owner, argument) for n in value)


def _number(value: Any, owner: str, argument: str) -> float:
    """Return a number; words are none, even where `float` reads them, nor are true and false."""
    try:
        number = None if isinstance(value, (str, bytes, bool, np.bool_)) else float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ArgumentTypeError(owner, argument, f"must be a number, got {value!r}")
    return number


def finite(value: Any, owner: str, argument: str) -> float:
    """Return a finite number."""
    number = _number(value, owner, argument)
    if not math.isfinite(number):
        raise ArgumentValueError(owner, argument, f"must be finite, got {value!r}")
    return number


def non_negative(value: Any, owner: str, argument: str) -> float:
    """Return a finite number that is not negative."""
    number = _number(value, owner, argument)
    if not (number >= 0.0 and math.isfinite(number)):
        raise ArgumentValueError(owner, argument, f"must be finite and not negative, got {value!r}")
    return number


def one_of(value: Any, owner: str, argument: str, choices: tuple[str, ...]) -> str:
    """Return one of some words."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(f'"{word}"' for word in choices)
        raise ArgumentValueError(owner, argument, f"must be one of {words}, got {value!r}")
    return value


def random_generator(rng: Any, owner: str) -> np.random.Generator:
    """Return the generator itself, or one seeded by an integer or by the system."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        kind = ArgumentTypeError if isinstance(error, TypeError) else ArgumentValueError
        raise kind(owner, "rng", f"must be a numpy.random.Generator, an integer or None, got {rng!r}") from error


def optional_function(value: Any, owner: str, argument: str) -> Callable[..., Any] | None:
    """Return a function, or None."""
    if value is not None and not callable(value):
        raise ArgumentTypeError(owner, argument, f"must be callable, got {value!r}")
    return value
