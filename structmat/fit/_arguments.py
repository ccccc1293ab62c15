"""The checks of the arguments of `fit_cdd`."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.arrays import as_floating
from structmat.fit._numpy_bridge import to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "check_for_blocks",
    "choice",
    "generator",
    "integer",
    "masked",
    "non_negative",
    "refuse_by_solver",
    "refuse_with_mask",
]


# A step of "als" factors a matrix of this side.
_ALS_SIDE = 512


def integer(value: Any, name: str, least: int = 1, *, owner: str = "fit_cdd") -> int:
    """Return an integer that is at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {number}")
    return number


def non_negative(value: Any, name: str, *, owner: str = "fit_cdd") -> float:
    """Return a finite number that is not negative."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}") from None
    if not (number >= 0.0 and math.isfinite(number)):
        raise ValueError(f"{owner}: {name} must be finite and not negative, got {value!r}")
    return number


def choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return one of some words."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(f'"{word}"' for word in choices)
        raise ValueError(f"fit_cdd: {name} must be one of {words}, got {value!r}")
    return value


def generator(rng: Any, *, owner: str = "fit_cdd") -> np.random.Generator:
    """Return the generator itself, or one seeded by an integer or by the system."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{owner}: rng must be a numpy.random.Generator, a seed or None, got {rng!r}") from error


def masked(values: NDArray[Any], mask: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return a matrix with zeros for the entries of no weight, and the weights of all."""
    if mask is None:
        return values, None
    weights = to_numpy(as_floating(mask, "fit_cdd: mask"))
    if weights.shape != values.shape:
        raise ValueError(f"fit_cdd: mask must have the shape of W, {values.shape}, got {weights.shape}")
    if np.iscomplexobj(weights):
        raise ValueError("fit_cdd: mask must be bool or real, got complex numbers")
    if not (np.isfinite(weights).all() and weights.min() >= 0.0):
        raise ValueError("fit_cdd: mask must be finite and not negative")
    if not weights.any():
        raise ValueError("fit_cdd: mask must not be all zero")
    return np.where(weights > 0.0, values, values.dtype.type(0)), weights


def refuse_with_mask(mask: Any, n_factors: int, first: str, solver: str, *, weighted: bool) -> None:
    """Say what is not available with a mask, if there is one."""
    if mask is None:
        return
    if weighted:
        raise ValueError("fit_cdd: mask must be None with weights")
    if n_factors != 3:
        raise ValueError(f"fit_cdd: mask must be None but for three factors, got n_factors={n_factors}")
    if first != "diagonal":
        raise ValueError(f"fit_cdd: mask must be None unless the first factor is diagonal, got first={first!r}")
    if solver not in {"auto", "sweep"}:
        raise ValueError(f'fit_cdd: mask must be None unless solver is "auto" or "sweep", got solver={solver!r}')


def refuse_by_solver(solver: str, side: int, *, weighted: bool) -> None:
    """Say what some solvers are not for."""
    if weighted and solver in {"lm", "als"}:
        raise ValueError(f'fit_cdd: solver must not be "{solver}" with weights')
    if solver == "als" and side > _ALS_SIDE:
        raise ValueError(f'fit_cdd: solver must not be "als" beyond a side of {_ALS_SIDE}, got {side}')


def check_for_blocks(n_factors: int, first: str, solver: str) -> None:
    """Refuse what is not available for rectangles and several blocks, and say what is."""
    where = "for a W that is not square, or several blocks"
    if n_factors < 3 or n_factors % 2 == 0:
        raise ValueError(f"fit_cdd: n_factors must be odd and at least 3 {where}, got {n_factors}")
    if first != "diagonal":
        raise ValueError(f'fit_cdd: first must be "diagonal" {where}, got {first!r}')
    if solver in {"lm", "als"}:
        raise ValueError(f'fit_cdd: solver must be "auto", "sweep", "adam" or "lbfgs" {where}, got {solver!r}')
