"""What users of LoRA write by habit, and what to write here instead.

An option that the adapters of this package have is never looked up here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from structmat._arguments import refuses_unknown
from structmat._errors import did_you_mean

__all__ = ["INSTEAD", "explaining"]

Function = TypeVar("Function", bound=Callable[..., Any])

INSTEAD = {
    "r": "leave it out, n_factors and block_size set the number of parameters",
    "rank": "leave it out, n_factors and block_size set the number of parameters",
    "lora_alpha": "write alpha, not divided by r; the default 1 suits the learning rates of lora_alpha=16 with r=8",
    "lora_dropout": "write dropout={value!r}",
    "init_lora_weights": 'write init_weights=True or False in CDDConfig, and init="zero" or "normal" elsewhere',
    "init_weights": 'write init="zero" or "normal"',
    "target_modules": "write targets in adapt",
    "target_parameters": "write parameters in adapt",
    "exclude_modules": "write exclude in adapt",
    "modules_to_save": "write train in adapt",
}
"""What to write instead of the arguments that users of LoRA write most; others are unknown here as any others."""


def explaining(owner: str, otherwise: str = "") -> Callable[[Function], Function]:
    """Return a decorator for a function: arguments that it does not have are refused with what to write instead.

    `owner` is what users call, for the error; `otherwise` is what it says of those for which nothing is to be written.
    """

    def advice(name: str, value: Any, known: Sequence[str]) -> str:
        if name in INSTEAD:
            return f" of LoRA: {INSTEAD[name].format(value=value)}"
        return did_you_mean(name, known) or otherwise

    return refuses_unknown(owner, advice)  # type: ignore[return-value]
