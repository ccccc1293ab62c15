"""Adapters of LoRA and other methods that add to weights turned into CDD ones, and CDD adapters into LoRA ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._checkpoint_fit.adapter_files import FACTOR_KEY, PREFIX
from structmat._checkpoint_fit.changes import Computed
from structmat._checkpoint_fit.table import FittedLayer
from structmat.peft._config import CDDConfig
from structmat.peft._fitted_adapter import FittedAdapter, fit_changes
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.torch import has_transposed_weight

__all__ = ["from_lora", "to_lora"]


def from_lora(model: PeftModel, adapter_name: str = "default", **settings: Any) -> FittedAdapter:
    """Fit an adapter of LoRA, or of any method of PEFT that adds to weights of linear layers.

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
        If it changes layers otherwise than by adding to the weight of a linear layer: DoRA, trained biases, IA3.

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
        name: module for name, module in model.base_model.model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    tuned = {name: module for name, module in tuned.items() if adapter_name in module._all_available_adapter_names()}
    for name, module in tuned.items():
        base = module.get_base_layer()
        linear = isinstance(base, nn.Linear) or has_transposed_weight(base) or module.quantization_backend is not None
        adds = hasattr(module, "get_delta_weight") and module.supports_lora_conversion(adapter_name)
        if not (linear and adds and not _more_than_matrices(model, module, adapter_name)):
            raise ArgumentTypeError(
                "from_lora", "model", f"has {name}, a {type(module).__name__}, which does not add to a linear layer"
            )

    source = model.peft_config[adapter_name]
    config = CDDConfig(
        **{
            "target_modules": list(tuned),
            "task_type": source.task_type,
            "modules_to_save": copy.copy(getattr(source, "modules_to_save", None)),
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


def _more_than_matrices(model: PeftModel, module: Any, adapter_name: str) -> bool:
    """Whether an adapter trains biases or magnitudes too, which no change of the weight holds."""
    biases = getattr(model.peft_config[adapter_name], "bias", "none") != "none"
    own_bias = getattr(module, "lora_bias", {}).get(adapter_name, False)
    return biases or own_bias or adapter_name in getattr(module, "lora_variant", {})


def _change(name: str, module: Any, adapter_name: str) -> Computed:
    """Return the change of a layer, computed when it is needed."""

    def delta() -> Tensor:
        change: Tensor = module.get_delta_weight(adapter_name).detach()
        return change.to("cpu", torch.promote_types(change.dtype, torch.float32), copy=True)

    weight = getattr(module.get_base_layer(), "weight", None)
    dtype = str(getattr(weight, "dtype", torch.float32)).removeprefix("torch.")
    return Computed(name, (module.out_features, module.in_features), dtype, lambda: delta().numpy())


def to_lora(model: nn.Module, rank: float, adapter_name: str = "default") -> FittedAdapter:
    """Turn an adapter into one of LoRA, by truncated singular value decompositions, and tell what that loses.

    Parameters
    ----------
    model : PeftModel
        With the adapter.
    rank : int or float
        Rank, at most the smaller side of every layer; or the share of squared singular values to keep, more than 0 and
        at most 1, which gives each layer the smallest rank whose relative error is at most ``(1 - rank) ** 0.5``.
    adapter_name : str, default "default"
        Its name.

    Returns
    -------
    FittedAdapter
        A LoRA adapter: settings, weights, errors. Changes of this method have full rank: low ranks lose much.

    Raises
    ------
    ValueError
        If there is no such adapter, the rank is wrong, or the adapter trains biases, which would be lost.
    TypeError
        If the rank is not a number.

    See Also
    --------
    from_lora : The other way.

    Examples
    --------
    >>> import peft, torch
    >>> from structmat.peft import CDDConfig, to_lora
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> model = peft.get_peft_model(model, CDDConfig(target_modules=["0"], init_weights="normal"))
    >>> lora = to_lora(model, rank=2)
    >>> lora.config.r, 0 < lora.error < 1
    (2, True)
    """
    converted = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, CDDTunerLinear) and adapter_name in module.cdd_adapters
    }
    if not converted:
        known = {name for m in model.modules() if isinstance(m, CDDTunerLinear) for name in m.cdd_adapters}
        raise ArgumentValueError("to_lora", "adapter_name", f"{adapter_name!r} is no CDD adapter here: {sorted(known)}")
    source = getattr(model, "peft_config", {}).get(adapter_name)
    if source is not None and source.bias != "none":
        raise ArgumentValueError("to_lora", "model", f"has an adapter with bias={source.bias!r}, which would be lost")
    for name, module in converted.items():
        _check_rank(rank, min(module.in_features, module.out_features), name.removeprefix(PREFIX))

    state: dict[str, Tensor] = {}
    layers: list[FittedLayer] = []
    for name, module in converted.items():
        adapter = module.cdd_adapters[adapter_name]
        U, S, Vh = torch.linalg.svd(adapter.dense().cpu(), full_matrices=False)
        energy = S.double().square().cumsum(0)
        r = rank if isinstance(rank, int) else int((energy[:-1] < rank * energy[-1]).sum()) + 1
        A, B = (part.to(adapter.factors[0].dtype).contiguous() for part in (Vh[:r], U[:, :r] * S[:r]))
        state |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
        norm = energy[-1].sqrt().item()
        error = torch.linalg.vector_norm(S[r:].double()).item() / norm if norm else 0.0
        count, dtype = A.numel() + B.numel(), str(A.dtype).removeprefix("torch.")
        path = name.removeprefix(PREFIX)
        # It is a truncated singular value decomposition itself.
        layers.append(FittedLayer(path, len(B), A.shape[1], dtype, norm, error, count, None, r, count, error))
    # One scale for all, whatever the rank of a layer: not every reader knows patterns.
    largest = max(layer.svd_rank for layer in layers)
    for name, layer in zip(converted, layers, strict=True):
        state[f"{name}.lora_B.weight"] *= layer.svd_rank / largest
    config = LoraConfig(
        r=largest,
        lora_alpha=largest,
        target_modules=[layer.name for layer in layers],
        rank_pattern={layer.name: layer.svd_rank for layer in layers if layer.svd_rank != largest},
        fan_in_fan_out=all(has_transposed_weight(module.get_base_layer()) for module in converted.values()),
        task_type=getattr(source, "task_type", None),
        base_model_name_or_path=getattr(source, "base_model_name_or_path", None),
        modules_to_save=copy.copy(getattr(source, "modules_to_save", None)),
        inference_mode=True,
    )
    if source is not None:
        every = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
        state |= {key: value.detach().cpu() for key, value in every.items() if not FACTOR_KEY.match(key)}
    return FittedAdapter(config, state, tuple(layers))


def _check_rank(rank: Any, largest: int, name: str) -> None:
    if isinstance(rank, bool) or not isinstance(rank, (int, float)):
        raise ArgumentTypeError("to_lora", "rank", f"must be an integer, or a float for a share, got {rank!r}")
    if isinstance(rank, float) and not 0 < rank <= 1:
        raise ArgumentValueError("to_lora", "rank", f"as a share must be more than 0 and at most 1, got {rank}")
    if isinstance(rank, int) and not 1 <= rank <= largest:
        raise ArgumentValueError("to_lora", "rank", f"must be from 1 to {largest} for {name}, got {rank}")
