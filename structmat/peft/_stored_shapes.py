"""A look at an adapter's file before a model is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME

from structmat._array_tools import ArgumentValueError
from structmat._checkpoint import Checkpoint, CheckpointError
from structmat._layer_fits import FACTOR_KEY

__all__ = ["most_factors", "stored_shapes"]

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
        weights = Checkpoint(path)
    except CheckpointError as error:
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
