"""What to write in place of options of LoRA, for those who come from it."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any, TypeVar

from peft import LoraConfig

from structmat._arrays.errors import ArgumentTypeError

__all__ = ["naming_lora_options"]

_Config = TypeVar("_Config", bound=type)

_INSTEAD = {
    "r": "there is no rank: n_factors and block_size set the number of parameters",
    "lora_alpha": "here alpha, which is not divided by a rank",
    "lora_dropout": "here dropout",
    "init_lora_weights": "here init_weights",
    "rank_pattern": "here n_factors_pattern and block_size_pattern",
    "use_rslora": "not needed, since alpha is not divided by a rank",
    "fan_in_fan_out": "not needed, since Conv1D is recognised",
    "lora_bias": 'here bias="cdd_only"',
    "target_parameters": "parameters that are no layers stay as they are",
}


def naming_lora_options(config: _Config) -> _Config:
    """Have a dataclass say what stands in place of an option of LoRA, where it has none of that name."""
    own, init = {each.name for each in fields(config)}, config.__init__  # type: ignore[misc]
    foreign = [each.name for each in fields(LoraConfig) if each.name not in own]

    @functools.wraps(init)
    def explained(self: Any, *args: Any, **options: Any) -> None:
        if given := [name for name in foreign if name in options]:
            texts = [f"{name} ({_INSTEAD.get(name, 'nothing like it here')})" for name in given]
            # PEFT drops options of newer files by the first words.
            text = f"got an unexpected keyword argument of LoRA: {', '.join(texts)}"
            raise ArgumentTypeError(config.__name__, None, text)
        init(self, *args, **options)

    config.__init__ = explained  # type: ignore[misc]
    return config
