"""The units of work of a sweep: one for each layer, setting, method and seed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import structmat
from structmat._arrays.errors import ArgumentError, ArgumentValueError
from structmat.fit import weighted_norm
from structmat.studies._sweep._layers import Layer, find_layers
from structmat.studies._sweep._methods import WEIGHTED, Setting, apply, budget
from structmat.studies._sweep._study import StudyRow, side_of

if TYPE_CHECKING:
    from structmat.studies._sweep._config import SweepConfig

__all__ = ["Failure", "SweepPlan", "Unit", "cost", "do_unit", "fit_options", "make_plan"]

_MOST_UNITS = 1_000_000
"""A plan is held in memory, and every unit is a file."""


class Unit(NamedTuple):
    """What a worker needs for one row of the table."""

    layer: Layer
    setting: Setting
    fit_options: dict[str, Any]


class Failure(NamedTuple):
    """Why there is no row."""

    text: str


@dataclass(frozen=True)
class SweepPlan:
    """All units of a sweep."""

    units: dict[str, Unit] = field(default_factory=dict)
    """By key, which holds a checksum of the matrix: a file that has changed is another layer."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reasons why combinations of settings are no units, and how many units they would have been."""


def make_plan(config: SweepConfig, callback: Callable[[str], object] | None = None) -> SweepPlan:
    """Find the layers and return what is to be done with them, in the order of the table.

    The callback hears the name of every layer that is about to be read.
    """
    plan = SweepPlan()
    options = fit_options(config)
    layers = find_layers(config)
    _check_count(config, len(layers))
    for layer in layers:
        if callback is not None:
            callback(layer.name)
        digest, is_zero = layer.look()
        sizes = dict.fromkeys(side_of(size, *layer.shape) for size in config.block_sizes)
        for method, block_size, n_factors in product(config.methods, sizes, config.n_factors):
            seeds = config.seeds if method == "cdd" else (None,)
            reason = _unavailable(layer, method, n_factors, block_size)
            if layer.is_change and is_zero:
                reason = "a weight does not change"
            if reason:
                plan.left_out[reason] += len(seeds)
                continue
            for seed in seeds:
                setting = Setting(method, n_factors, block_size, seed)
                ending = "" if seed is None else f", seed {seed}"
                key = f"{layer.name} {method}, {n_factors} factors, blocks of {block_size}{ending} ({digest[:16]})"
                plan.units[key] = Unit(layer, setting, options)
    return plan


def _check_count(config: SweepConfig, n_layers: int) -> None:
    """Refuse more units than a plan can hold, before any matrix is read."""
    by_method = sum(len(config.seeds) if method == "cdd" else 1 for method in config.methods)
    count = n_layers * len(config.block_sizes) * len(config.n_factors) * by_method
    if count > _MOST_UNITS:
        text = f"the configuration asks for {count:,} results, more than {_MOST_UNITS:,}: give each sweep a part of it"
        raise ArgumentValueError("sweep", None, text)


def _unavailable(layer: Layer, method: str, n_factors: int, block_size: int) -> str:
    """Return why there is no such approximation, or nothing."""
    if layer.read_moment is not None and method not in WEIGHTED:
        return f"{method} has no closed form for weighted errors"
    try:
        budget(layer.shape, n_factors, block_size)
    except ArgumentError as error:
        return f"{error.argument} {error.text}"
    return ""


def cost(unit: Unit) -> float:
    """Return what a unit takes, roughly, in units of its cheapest kind: a model of fits of 384 x 384 entries."""
    rows, cols = unit.layer.shape
    method, n_factors, *_ = unit.setting
    if method != "cdd":
        return float(rows * cols)
    limit = unit.fit_options["time_limit"]
    if limit is not None and n_factors > 3:
        return 1e6 * limit
    return float(rows * cols) * (1.0 if n_factors <= 3 else n_factors**3 / 3.0)


def fit_options(config: SweepConfig) -> dict[str, Any]:
    """Return the options that all fits of a sweep share."""
    return {name: getattr(config, name) for name in ("max_iter", "restarts", "growth", "time_limit")}


def do_unit(unit: Unit) -> StudyRow | Failure:
    """Do one unit of work."""
    began = time.perf_counter()
    layer, setting, options = unit
    try:
        matrix, moment = layer.matrix(), layer.input_second_moment()
        outcome = apply(matrix, setting, input_second_moment=moment, **options)
        norm = weighted_norm(matrix, input_second_moment=moment)
    except (ArgumentError, ValueError, OSError, MemoryError) as error:
        return Failure(" ".join(str(error).split()) or type(error).__name__)
    return StudyRow(
        layer=layer.name,
        rows=layer.shape[0],
        cols=layer.shape[1],
        norm=norm,
        weighted=moment is not None,
        **setting._asdict(),
        budget=budget(layer.shape, setting.n_factors, setting.block_size),
        **outcome._asdict(),
        version=structmat.__version__,
        seconds=time.perf_counter() - began,
    )
