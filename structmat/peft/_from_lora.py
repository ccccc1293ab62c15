"""Adapters of LoRA, and of other methods that add to weights, turned into CDD ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat._layer_fits import PREFIX, exact_targets
from structmat.peft._config import CDDConfig
from structmat.peft._fitted_adapter import FittedAdapter, fit_changes
from structmat.torch import has_transposed_weight

__all__ = ["from_lora"]

_STARTS_IN_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How values of `init_lora_weights` begin which change the weights of the base too."""


@dataclass(frozen=True)
class _Computed:
    """A change that a method in memory computes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    matrix: Callable[[], NDArray[Any]]
    """Returns a new array."""

    def __str__(self) -> str:
        return self.name


def from_lora(model: PeftModel, adapter_name: str = "default", **settings: Any) -> FittedAdapter:
    """Fit an adapter of LoRA, or of another method of PEFT that adds to weights of linear layers.

    Others are AdaLoRA, LoHa, LoKr, VeRA, RandLoRA, FourierFT, C3A and CDD itself.

    Parameters
    ----------
    model : PeftModel
        With the adapter.
    adapter_name : str, default "default"
        Its name.
    **settings
        Arguments of `CDDConfig`; target modules, task type and modules to save are taken over.

    Returns
    -------
    FittedAdapter
        Settings, weights and errors. Rank one is met exactly, higher ranks need more factors.

    Raises
    ------
    ValueError
        If there is no such adapter.
    TypeError
        If it changes layers otherwise than by adding to the weight of a linear layer (DoRA, trained biases, IA3, MiSS),
        or its start changed the base's weight too (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA).

    See Also
    --------
    to_lora : The other way.
    structmat.torch.CDDLinear.from_lora : For one layer of `structmat.torch`.

    Examples
    --------
    >>> import peft, torch
    >>> from structmat.peft import from_lora
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> lora = peft.LoraConfig(r=1, target_modules=["0"], init_lora_weights=False)
    >>> adapter = from_lora(peft.get_peft_model(model, lora))
    >>> adapter.error < 1e-5, adapter.layers[0].n_parameters  # rank one is met exactly
    (True, 24)
    """
    if adapter_name not in model.peft_config:
        raise ArgumentValueError(
            "from_lora", "adapter_name", f"{adapter_name!r} is no adapter here, only {list(model.peft_config)}"
        )
    tuned = {
        name: module
        for name, module in model.base_model.model.named_modules()
        if isinstance(module, BaseTunerLayer) and not isinstance(module, TrainableTokensLayer)  # saved as they are
    }
    tuned = {name: module for name, module in tuned.items() if adapter_name in module._all_available_adapter_names()}
    source = model.peft_config[adapter_name]
    for name, module in tuned.items():
        if obstacle := _obstacle(source, module, adapter_name):
            raise ArgumentTypeError("from_lora", "model", f"has {name}, a {type(module).__name__}, {obstacle}")

    config = CDDConfig(
        **{
            "target_modules": exact_targets(tuned, (name for name, _ in model.base_model.model.named_modules())),
            "task_type": source.task_type,
            "modules_to_save": copy.copy(getattr(source, "modules_to_save", None)),
            "trainable_token_indices": copy.copy(getattr(source, "trainable_token_indices", None)),
            "base_model_name_or_path": source.base_model_name_or_path,
            **settings,
        }
    )
    changes = {name: _change(name, module, adapter_name) for name, module in tuned.items()}
    transposed = {name for name, module in tuned.items() if has_transposed_weight(module.get_base_layer())}
    state, layers = fit_changes(config, changes, transposed=transposed)
    every = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    inside = tuple(f"{PREFIX}{name}." for name in tuned)
    others = {key: tensor.detach().cpu() for key, tensor in every.items() if not key.startswith(inside)}
    return FittedAdapter(config, {**state, **others}, layers)


def _obstacle(source: Any, module: Any, adapter_name: str) -> str | None:
    """Return why the adapter of a layer is no matrix that is added to the weight of the original model, if so."""
    base, start = module.get_base_layer(), getattr(source, "init_lora_weights", None)
    if not (isinstance(base, nn.Linear) or has_transposed_weight(base) or module.quantization_backend is not None):
        return "around no linear layer"
    if getattr(source, "bias", "none") != "none" or getattr(module, "lora_bias", {}).get(adapter_name, False):
        return "with a trained bias, which a CDD adapter does not have"
    if adapter_name in getattr(module, "lora_variant", {}):
        return "of a variant of LoRA that does more than add to the weight"
    if str(start).lower().startswith(_STARTS_IN_THE_BASE):
        return (
            f"whose start init_lora_weights={start!r} changed the weight of the base too: give the base as it was and "
            "the merged model to from_weights"
        )
    converts = module.supports_lora_conversion(adapter_name) or isinstance(module, AdaLoraLayer)
    if not (converts and hasattr(module, "get_delta_weight")):
        return "which does not add to the weight"
    try:
        signature(module.get_delta_weight).bind(adapter_name)
    except TypeError:
        return "whose change depends on the weight that it is added to"
    return None


def _change(name: str, module: Any, adapter_name: str) -> _Computed:
    """Return the change of a layer, computed when it is needed."""

    def delta() -> Tensor:
        change: Tensor = module.get_delta_weight(adapter_name).detach()
        return change.to("cpu", torch.promote_types(change.dtype, torch.float32), copy=True)

    weight = getattr(module.get_base_layer(), "weight", None)
    dtype = str(getattr(weight, "dtype", torch.float32)).removeprefix("torch.")
    return _Computed(name, (module.out_features, module.in_features), dtype, lambda: delta().numpy())
