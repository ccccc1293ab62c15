"""A look at an adapter's file before a model is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from torch import nn

from structmat import io
from structmat._arrays.errors import ArgumentValueError
from structmat._layer_fits.adapter_files import FACTOR_KEY, PREFIX

__all__ = ["mismatches", "most_factors", "other_mismatches", "stored_shapes"]

_OWNER = "CDDConfig.from_pretrained"
_FILES = (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)
"""The first that is there is the one that PEFT loads."""


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the weights in an adapter's file by key; None without a file.

    Raises
    ------
    ValueError
        If it is cut short or no file of weights, or holds no vectors of this method, or NaN or infinity in one.
    """
    path = next((path for name in _FILES if (path := folder / name).is_file()), None)
    if path is None:
        return None
    try:
        weights = io.Checkpoint(path)
    except io.CheckpointError as error:
        raise ArgumentValueError(_OWNER, None, f"the file of the adapter cannot be read: {error}") from error
    if weights.faults:
        raise ArgumentValueError(
            _OWNER, None, f"the file of the adapter is broken: {next(iter(weights.faults.values()))}"
        )
    shapes = {key: entry.shape for key, entry in weights.entries.items()}
    for key in filter(FACTOR_KEY.match, shapes):
        if not all(np.isfinite(values).all() for _, values in weights.entries[key].chunks()):
            raise ArgumentValueError(_OWNER, None, f"the file of the adapter holds NaN or infinity in {key}")
    if not any(FACTOR_KEY.match(key) for key in shapes):
        raise ArgumentValueError(
            _OWNER,
            None,
            f"the adapter file {path} holds no weights of a CDD adapter; was it made by another method?",
        )
    return shapes


def most_factors(stored: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of vectors of the layer that has the most in a file."""
    return max(Counter(match["path"] for key in stored if (match := FACTOR_KEY.match(key))).values(), default=0)


def other_mismatches(stored: Mapping[str, tuple[int, ...]], model: nn.Module) -> list[str]:
    """Tell which weights in a file, vectors aside, have other shapes than those of a model: of a new head, say."""
    shapes = {name.replace(".original_module.", "."): tuple(value.shape) for name, value in model.state_dict().items()}
    found = {key.removeprefix(PREFIX): shape for key, shape in stored.items() if not FACTOR_KEY.match(key)}
    return [
        f"{name} has the shape {shapes[name]}, in the file {shape}"
        for name, shape in found.items()
        if shapes.get(name, shape) != shape
    ]


def mismatches(stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, list[tuple[int, ...]]]) -> list[str]:
    """Tell why vectors in a file do not fit those that a model takes, by path of the module.

    Vectors that the file lacks are left to PEFT, which warns about them, and so are files whose modules were all
    renamed, as happens between versions of transformers.
    """
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for key, shape in stored.items():
        if match := FACTOR_KEY.match(key):
            found.setdefault(match["path"], {})[int(match["index"])] = shape
    shapes = {path: [shape for _, shape in sorted(indexed.items())] for path, indexed in found.items()}
    if not shapes.keys() & expected.keys() and sorted(shapes.values()) == sorted(expected.values()):
        return []
    problems = [f"{path} is not adapted in this model" for path in shapes if path not in expected]
    problems += [
        f"{path} takes vectors of shapes {expected[path]}, the file has {shape}"
        for path, shape in shapes.items()
        if path in expected and shape != expected[path]
    ]
    return problems
