"""Options of adapters that do not exist: what those who come from LoRA write instead, or which name is meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from structmat._arrays.errors import ArgumentTypeError

__all__ = ["INSTEAD_OF_LORA", "check_option_names"]

INSTEAD_OF_LORA = {
    "r": "there is no rank: n_factors and block_size set the number of parameters",
    "lora_alpha": "here alpha, which is not divided by a rank",
    "lora_dropout": "here dropout",
    "rank_pattern": "here n_factors_pattern and block_size_pattern",
    "use_rslora": "not needed, since alpha is not divided by a rank",
    "fan_in_fan_out": "not needed, since Conv1D is recognised",
    "target_parameters": "parameters that are no layers stay as they are",
}
"""Options of LoRA that have another name here, or none."""

_INSTEAD = INSTEAD_OF_LORA | {
    "init_lora_weights": "here init",
    "init_weights": "here init",
    "target_modules": "here targets, of adapt",
    "exclude_modules": "here exclude, of adapt",
    "modules_to_save": "here train, of adapt",
    "layers_to_transform": "here a regular expression as targets of adapt",
}


def check_option_names(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raise TypeError if an option is not known, and say what may have been meant."""
    unknown = [name for name in given if name not in known]
    if unknown:
        texts = ", ".join(name + _meant(name, known) for name in unknown)
        raise ArgumentTypeError(owner, None, f"got an unexpected keyword argument: {texts}")


def _meant(name: str, known: Collection[str]) -> str:
    if name in _INSTEAD:
        return f" ({_INSTEAD[name]})"
    close = get_close_matches(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else f"; there are {', '.join(known)}"
