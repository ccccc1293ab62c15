"""The two files of an adapter in the layout of PEFT: their names, their keys, and their content without PEFT."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from structmat._files.safetensors import Tensor, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CONFIG",
    "FACTOR_KEY",
    "PREFIX",
    "WEIGHTS",
    "changes_the_base",
    "config_bytes",
    "exact_targets",
    "factor_key",
    "weights_bytes",
]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Of names in the files of PEFT."""
_STARTS_IN_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How values of `init_lora_weights` begin which change the weights of the base too."""
FACTOR_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<path>.*)\.cdd_adapters\.factors\.(?P<index>\d+)$")
"""Keys of the vectors of a product: path of the module, and place of the factor."""


def factor_key(name: str, index: int | str) -> str:
    """Return the key of the vector of a factor of a module."""
    return f"{PREFIX}{name}.cdd_adapters.factors.{index}"


def changes_the_base(init_lora_weights: object) -> bool:
    """Return whether a start of LoRA changes the weights of the base too."""
    return str(init_lora_weights).lower().startswith(_STARTS_IN_THE_BASE)


def exact_targets(names: Collection[str], others: Iterable[str] | None = None) -> list[str] | str:
    """Return `target_modules` of PEFT that match the modules of these names, and no others of the model.

    A name in a list matches modules whose names end with it too. Where others do, or are not known, names become a
    regular expression.
    """
    chosen = set(names)
    if others is not None:
        ends = (other[dot.end() :] for other in others if other not in chosen for dot in re.finditer(r"\.", other))
        if chosen.isdisjoint(ends):
            return list(names)
    return "|".join(map(re.escape, names))


def config_bytes(
    targets: list[str] | str, *, n_factors: int, block_size: int | str, base: str | None, task_type: str | None
) -> bytes:
    """Return the settings, those of `structmat.peft.CDDConfig`."""
    settings = {
        "alpha": 1.0,
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "block_size": block_size,
        "block_size_pattern": {},
        "dropout": 0.0,
        "exclude_modules": None,
        "inference_mode": True,
        "init_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "mode": "recompute",
        "modules_to_save": None,
        "n_factors": n_factors,
        "n_factors_pattern": {},
        "peft_type": "CDD",
        "revision": None,
        "target_modules": targets,
        "task_type": task_type,
        "trainable_token_indices": None,
    }
    return json.dumps(settings, indent=2).encode() + b"\n"


def weights_bytes(layers: Mapping[str, Mapping[str, NDArray[Any]]]) -> bytes:
    """Return the weights: of each module its vectors, by their place in the product."""
    tensors = {
        factor_key(name, i): Tensor.of(vector) for name, vectors in layers.items() for i, vector in vectors.items()
    }
    return to_bytes(tensors, {"format": "pt"})
