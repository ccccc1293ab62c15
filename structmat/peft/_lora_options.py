"""What to write in place of options of LoRA, for those who come from it."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any, TypeVar

from peft import LoraConfig

from structmat._arguments import INSTEAD_OF_LORA
from structmat._array_tools import ArgumentTypeError

__all__ = ["naming_lora_options"]

_Config = TypeVar("_Config", bound=type)

_INSTEAD = INSTEAD_OF_LORA | {"init_lora_weights": "here init_weights", "lora_bias": 'here bias="cdd_only"'}


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
