"""Adapters for PEFT as an output of a sweep over a checkpoint: one folder for each number of factors and block size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._adapter_format import CONFIG, WEIGHTS, config_bytes, exact_targets, weights_bytes
from structmat._files import atomic_write_together

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.studies._plans import Plan

__all__ = ["Vectors", "write_adapter"]

Vectors = Mapping[str, Any]
"""The vectors of a CDD product, by the place of the factor."""


def write_adapter(
    out: Path, plan: Plan, layers: Mapping[str, Vectors], *, n_factors: int, block_size: int | str, several: bool
) -> Path:
    """Write the products of some layers as an adapter, and return its folder.

    Parameters
    ----------
    out : Path
        The folder of the study, in which that of the adapter is.
    plan : Plan
        What the layers are in the model.
    layers : mapping of str to mapping
        The vectors of each layer.
    n_factors, block_size : int
        What all products have.
    several : bool
        Whether there are adapters of several block sizes, which the name of the folder then tells.
    """
    alone = {name: own for name, own in layers.items() if name not in plan.experts}
    stacks = _stacked(plan, layers)
    written: dict[str, Any] = {"n_factors": n_factors, "block_size": block_size}
    if stacks:
        written["target_parameters"] = [*stacks]
    config = config_bytes(exact_targets([*alone], plan.modules) if alone else [], base=plan.base, **written)
    folder = out / (f"adapter-{n_factors}-blocks-{block_size}" if several else f"adapter-{n_factors}")
    folder.mkdir(exist_ok=True)
    # The settings come last: they make the folder one that PEFT loads.
    atomic_write_together({folder / WEIGHTS: weights_bytes(alone, stacks), folder / CONFIG: config}, force=True)
    return folder


def _stacked(plan: Plan, vectors: Mapping[str, Vectors]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the vectors of all experts of each parameter that has some; those of others make a change of zero."""
    found: dict[str, dict[int, Vectors]] = {}
    for name, own in vectors.items():
        if name in plan.experts:
            parameter, expert = plan.experts[name]
            found.setdefault(parameter, {})[expert] = own
    stacks = {}
    for parameter, experts in found.items():
        like = next(iter(experts.values()))
        none = _without_change(like)
        several = [experts.get(expert, none) for expert in range(plan.stacks[parameter])]
        stacks[parameter] = {i: np.stack([each[i] for each in several]) for i in like}
    return stacks


def _without_change(like: Vectors) -> dict[str, NDArray[Any]]:
    """Return vectors of such shapes that make a change of zero.

    As at the start of training, one factor is zero, and the others are not: these are identities.
    """
    vectors = {i: np.zeros_like(vector) for i, vector in like.items()}
    for i, vector in vectors.items():
        if i != "0":
            vector[..., : 1 if vector.ndim == 3 else None] = 1
    return vectors
