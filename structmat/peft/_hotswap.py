"""`hotswap_adapter`: the vectors of one adapter replaced in place by those of a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from peft.config import PeftConfig
from peft.utils import get_peft_model_state_dict, load_peft_weights
from torch import Tensor, nn

from structmat._adapter_format import FACTOR_KEY
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._files import first_names
from structmat.peft._config import CDDConfig
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._distributed import unwrapped_model
from structmat.torch._files.folder import naming_damage, require_finite
from structmat.torch._files.low_bits import unpacked_state
from structmat.torch._files.replacement import Replacement, taking_values
from structmat.torch._model.model_state import as_before_on_error

__all__ = ["hotswap_adapter"]

_OWNER = "hotswap_adapter"


def hotswap_adapter(
    model: nn.Module, folder: str | os.PathLike[str], adapter_name: str = "default", **options: Any
) -> None:
    """Replace the vectors of an adapter, and what was trained beside it, by those of a folder, in place.

    The adapter keeps its name, its parameters and its settings, so that a compiled model is not compiled again.

    Parameters
    ----------
    model : PeftModel
        With an adapter of this method for the same layers; compiled by `torch.compile` or not.
    folder : path-like or str
        What ``save_pretrained`` or `structmat.torch.save_adapter` wrote, or a name on the Hub.
    adapter_name : str, default "default"
        Which adapter of the model is replaced.
    **options
        For reading from the Hub: ``subfolder``, ``revision``, ``token``, ``cache_dir``.

    Raises
    ------
    ValueError
        If there is no adapter of that name, it is merged now, the folder holds another method, other layers, shapes or
        scales, or a tensor with NaN or a vector with infinity, or parameters are on the device meta, or in the hands of
        DeepSpeed or FSDP 1; nothing has changed then.
    TypeError
        If the model is no model of PEFT.

    See Also
    --------
    structmat.torch.using_adapter : Serves another folder for a while, without PEFT.

    Notes
    -----
    `peft.utils.hotswap.hotswap_adapter` does this for LoRA. Where the folder has another `alpha`, which is a constant
    in compiled code, the first diagonals are multiplied by the ratio of the two instead: the changes are those of the
    folder, and no call like ``prepare_model_for_compiled_hotswap`` is needed before.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from peft import get_peft_model
    >>> from structmat.peft import CDDConfig, hotswap_adapter
    >>> def make():
    ...     _ = torch.manual_seed(0)
    ...     return torch.nn.Sequential(torch.nn.Linear(4, 4))
    >>> serving = get_peft_model(make(), CDDConfig(target_modules=["0"]))
    >>> other = get_peft_model(make(), CDDConfig(target_modules=["0"], init_weights=False))
    >>> x = torch.ones(2, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     other.save_pretrained(folder)
    ...     hotswap_adapter(serving, folder)
    >>> torch.equal(serving(x), other(x))
    True
    """
    inside = unwrapped_model(model)
    if not isinstance(inside, PeftModel):
        raise ArgumentTypeError(_OWNER, "model", f"must be a model of PEFT, got {type(inside).__name__}")
    own = inside.peft_config.get(adapter_name)
    if not isinstance(own, CDDConfig):
        names = [name for name, each in inside.peft_config.items() if isinstance(each, CDDConfig)]
        text = f"must be one of this method, {first_names(names) or 'of which there is none'}, got {adapter_name!r}"
        raise ArgumentValueError(_OWNER, "adapter_name", text)
    if any(adapter_name in getattr(module, "merged_adapters", ()) for module in inside.modules()):
        text = f"{adapter_name!r} is merged into the weights now: call unmerge_adapter() first"
        raise ArgumentValueError(_OWNER, "adapter_name", text)
    taking_values(model, _OWNER)
    config = CDDConfig.from_pretrained(os.fspath(folder), **options)
    ratio = _ratio_of_alphas(own, config)
    # What it returns shares its memory with the model.
    places = get_peft_model_state_dict(inside, adapter_name=adapter_name, save_embedding_layers=False)
    with naming_damage(folder, _OWNER):
        stored = load_peft_weights(os.fspath(folder), device="cpu", **options)
    stored = unpacked_state(stored, _OWNER)
    _require_same_keys(places, stored)
    values = {key: _times(ratio, value) if _is_first(key) else value for key, value in stored.items()}
    require_finite(values, _OWNER, "folder")
    replacement = Replacement(_OWNER)
    replacement.plan(places, values)
    with as_before_on_error(inside) as before:
        replacement.write(before)


def _ratio_of_alphas(own: CDDConfig, config: PeftConfig) -> float:
    """Return what the first diagonals of a folder are multiplied by; refuse settings with which vectors differ."""
    if not isinstance(config, CDDConfig):
        raise ArgumentValueError(_OWNER, "folder", f"holds an adapter of the method {config.peft_type}")
    if config.factor_scale != own.factor_scale:
        text = f"has factor_scale={config.factor_scale}, the adapter in the model {own.factor_scale}"
        raise ArgumentValueError(_OWNER, "folder", text)
    if config.alpha == own.alpha:
        return 1.0
    if own.alpha == 0:
        raise ArgumentValueError(_OWNER, "folder", f"has alpha={config.alpha}, the adapter in the model 0")
    return config.alpha / own.alpha


def _is_first(key: str) -> bool:
    """Return whether a key is that of a first diagonal."""
    found = FACTOR_KEY.match(key)
    return found is not None and found["index"] == "0"


def _times(ratio: float, vector: Tensor) -> Tensor:
    """Return a vector times a number, which is rounded to the dtype of the model alone."""
    if not vector.is_floating_point():  # a product would be, and nobody would see that the vector is not
        return vector
    return ratio * vector.to(wide_dtype(vector))


def _require_same_keys(places: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Refuse tensors of a folder that are of other layers than those of an adapter in a model."""
    if places.keys() != stored.keys():
        lacking, more = sorted(places.keys() - stored.keys()), sorted(stored.keys() - places.keys())
        text = f"has other layers than the adapter: lacks {first_names(lacking, 3) or 'none'}"
        raise ArgumentValueError(_OWNER, "folder", f"{text}, and has in addition {first_names(more, 3) or 'none'}")
