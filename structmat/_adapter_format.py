"""The format of PEFT, in which adapters of this package are stored: names of files and keys, settings, scales."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CONFIG",
    "FACTOR_KEY",
    "FACTOR_SCALE",
    "PREFIX",
    "REQUIRES",
    "SETTINGS",
    "WEIGHTS",
    "config_bytes",
    "exact_targets",
    "factor_key",
    "factor_scales",
    "require_known_settings",
    "says_nothing",
    "weights_bytes",
]

CONFIG = "adapter_config.json"
"""The file of the settings: PEFT looks for an adapter under this name."""

WEIGHTS = "adapter_model.safetensors"
"""The file of the weights, under the name that PEFT gives it."""

PREFIX = "base_model.model."
"""PEFT puts this before the path of a module in the keys of its files, since it wraps the model twice."""

FACTOR_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<path>.*)\.cdd_adapters(?:\.(?P<parameter>[^.]+))?\.vectors\.(?P<index>\d+)$"
)
"""The keys of the vectors of a product: the path of the module, the name of its parameter if that is no layer's weight
but stacks matrices of experts, and the place of the factor in the product."""

FACTOR_SCALE = 30.0
"""The vectors of diagonals are divided by this number to be stored and trained; `factor_scales` has the reason."""

REQUIRES = 'pip install "structmat[peft]"; import structmat.peft'
"""What PEFT needs to load an adapter, written into the settings for who opens them without this package."""


SETTINGS = frozenset({
    # What the vectors mean.
    *("alpha", "bits", "block_size", "dropout", "factor_scale", "n_factors"),
    # What was trained.
    *("bias", "exclude_modules", "init_weights", "layers_pattern", "layers_to_transform", "modules_to_save"),
    *("target_modules", "target_parameters", "trainable_token_indices"),
    # What every folder of PEFT has, and what this one needs.
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "requires"),
    *("revision", "task_type"),
})  # fmt: skip
"""The names of the settings that a folder may have."""


def says_nothing(value: Any) -> bool:
    """Return whether a setting has no value, as PEFT writes an option that nobody has chosen."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def require_known_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a file with names that are not known here: with them its vectors may mean another change."""
    unknown = [name for name, value in settings.items() if name not in SETTINGS and not says_nothing(value)]
    if unknown:
        names = ", ".join(unknown)
        raise ValueError(f"it has {names}, unknown here: read it by the revision of structmat that wrote it")


def factor_key(name: str, index: int | str, parameter: str = "") -> str:
    """Return the key of the vector of a factor of a module, or of one of its parameters."""
    of_parameter = f".{parameter}" if parameter else ""
    return f"{PREFIX}{name}.cdd_adapters{of_parameter}.vectors.{index}"


def factor_scales(layout: CDDLayout, scale: float = FACTOR_SCALE) -> tuple[float, ...]:
    """Return what trained and stored vectors are multiplied by to be those of the factors D C D ... D.

    A step of an optimiser of Adam's kind changes every stored entry by about the learning rate. If the entries of a
    circulant with n columns change by s, its product with a vector changes by s times the root of n. Therefore the
    scale of a circulant is smaller by the root of n than that of a diagonal, and one step changes the products of all
    factors alike.
    """
    factors = zip(layout.kinds, layout.factor_shapes, strict=True)
    return tuple(scale / math.sqrt(columns if kind == "circulant" else 1) for kind, (_, columns) in factors)


def exact_targets(names: Collection[str], others: Iterable[str] | None = None) -> list[str] | str:
    """Return `target_modules` of PEFT that match the modules of these names, and no others of the model.

    PEFT takes a name in a list for the end of a path as well, so that it also matches other modules whose paths end
    with it. If the model has such modules, or if its other modules are not known, the names are joined to a regular
    expression, which PEFT compares with whole paths.
    """
    chosen = set(names)
    if others is not None:
        ends = (other[dot.end() :] for other in others if other not in chosen for dot in re.finditer(r"\.", other))
        if chosen.isdisjoint(ends):
            return list(names)
    return "|".join(map(re.escape, names))


def config_bytes(
    targets: list[str] | str, *, n_factors: int, block_size: int | str, base: str | None, **others: Any
) -> bytes:
    """Return the file of settings that `structmat.peft.CDDConfig` reads; `others` replace these defaults."""
    settings = {
        "alpha": 1.0,
        "base_model_name_or_path": base,
        "block_size": block_size,
        "dropout": 0.0,
        "factor_scale": FACTOR_SCALE,
        "inference_mode": True,
        "n_factors": n_factors,
        "peft_type": "CDD",
        "requires": REQUIRES,
        "target_modules": targets,
        **others,
    }
    return json.dumps(settings, indent=2).encode() + b"\n"


def weights_bytes(
    layers: Mapping[str, Mapping[str, NDArray[Any]]], stacks: Mapping[str, Mapping[str, NDArray[Any]]] | None = None
) -> bytes:
    """Return the file of weights, from the vectors of the factors, by their place in the product.

    They are given by path of the module, and for stacks of matrices, with these on the first axis, by path of the
    parameter.
    """
    from safetensors.numpy import save  # noqa: PLC0415  # an extra

    arrays = {}
    owners = {(name, ""): vectors for name, vectors in layers.items()}
    for path, vectors in (stacks or {}).items():
        module, _, name = path.rpartition(".")
        owners[module, name] = vectors
    for (module, parameter), vectors in owners.items():
        rows, grid, *_, columns = vectors.values()
        layout = CDDLayout((rows.shape[-1], columns.shape[-1]), len(vectors), grid.shape[-1])
        scales = factor_scales(layout)
        for (i, vector), scale in zip(vectors.items(), scales, strict=True):
            arrays[factor_key(module, i, parameter)] = vector / np.asarray(scale, vector.dtype)
    return save(arrays, {"format": "pt"})
