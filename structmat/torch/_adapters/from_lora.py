"""What users of LoRA write by habit, and what to write here instead.

Every option of `peft.LoraConfig` that the adapters of this package lack has a line in `INSTEAD`; an option that they
get later is never looked up there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from structmat._errors import ArgumentTypeError, did_you_mean

__all__ = ["INSTEAD", "explaining"]

Function = TypeVar("Function", bound=Callable[..., Any])

_LEAVE_OUT = "leave it out, there is no such thing here"
_ZERO = "leave it out, changes start at exactly zero whatever the weight is"
_PATTERN = "leave it out, layers with another value need an adapter of their own, active together with this one"

INSTEAD = {
    "r": "leave it out, n_factors and block_size set the number of parameters",
    "rank": "leave it out, n_factors and block_size set the number of parameters",
    "lora_alpha": "write alpha, not divided by r; the default 1 suits the learning rates of lora_alpha=16 with r=8",
    "lora_dropout": "write dropout={value!r}",
    "init_lora_weights": 'write init_weights=True or False in CDDConfig, and init="zero" or "normal" elsewhere',
    "use_rslora": "leave it out, no scale depends on a rank",
    "use_dora": _LEAVE_OUT,
    "fan_in_fan_out": "leave it out, layers that store the transposed weight are recognised",
    "lora_bias": 'leave it out, changes have no bias, and bias="cdd_only" of CDDConfig trains those of adapted layers',
    "rank_pattern": _PATTERN,
    "alpha_pattern": _PATTERN,
    "layer_replication": "leave it out, and repeat the layers of the model before it is adapted",
    "loftq_config": _ZERO,
    "eva_config": _ZERO,
    "corda_config": _ZERO,
    "lora_ga_config": _ZERO,
    "runtime_config": _LEAVE_OUT,
    "ensure_weight_tying": "leave it out, tied weights get a change each",
    "megatron_config": _LEAVE_OUT,
    "megatron_core": _LEAVE_OUT,
    "velora_config": _LEAVE_OUT,
    "alora_invocation_tokens": _LEAVE_OUT,
    "use_qalora": _LEAVE_OUT,
    "qalora_group_size": _LEAVE_OUT,
    "monteclora_config": _LEAVE_OUT,
    "use_bdlora": _LEAVE_OUT,
    "arrow_config": _LEAVE_OUT,
    "kasa_config": _LEAVE_OUT,
    # Those that `structmat.peft.CDDConfig` has as well, for `structmat.torch`.
    "target_modules": "write targets in adapt",
    "target_parameters": "write parameters in adapt",
    "exclude_modules": "write exclude in adapt",
    "modules_to_save": "write train in adapt",
    "layers_to_transform": "write a regular expression as targets in adapt",
    "layers_pattern": "write a regular expression as targets in adapt",
    "init_weights": 'write init="zero" or "normal"',
    "task_type": _LEAVE_OUT,
    "inference_mode": "leave it out, and call requires_grad_(False)",
}
"""What to do with each argument that LoRA has."""


def explaining(owner: str) -> Callable[[Function], Function]:
    """Return a decorator for a function: arguments that it does not have are refused with what to write instead.

    Parameters
    ----------
    owner : str
        What users call, for the error.

    Returns
    -------
    callable
        The decorator; the function keeps its signature.
    """

    def decorate(function: Function) -> Function:
        known = [*inspect.signature(function).parameters]

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            unknown = {name: value for name, value in kwargs.items() if name not in known}
            if unknown:
                lines = [f"{name!r}{_advice(name, value, known)}" for name, value in unknown.items()]
                # PEFT finds options of newer files by the first words.
                raise ArgumentTypeError(owner, None, f"got an unexpected keyword argument {'; '.join(lines)}")
            return function(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def _advice(name: str, value: Any, known: list[str]) -> str:
    """Return what to write instead of an argument, or nothing."""
    if name in INSTEAD:
        return f" of LoRA: {INSTEAD[name].format(value=value)}"
    return did_you_mean(name, known)
