"""CDD adapters turned into LoRA ones, for programs that know LoRA only, and what that loses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.functional import pad

from structmat._arguments import finite, integer
from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat._layer_fits import FACTOR_KEY, PREFIX, exact_targets
from structmat.peft._fitted_adapter import FittedAdapter, FittedLayer
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.torch import has_transposed_weight

__all__ = ["lora_errors", "to_lora"]


def lora_errors(model: nn.Module, adapter_name: str = "default") -> dict[str, Tensor]:
    """Return what each rank of LoRA would lose of an adapter, before one is chosen for `to_lora`.

    Parameters
    ----------
    model : PeftModel
        With the adapter.
    adapter_name : str, default "default"
        Its name.

    Returns
    -------
    dict of Tensor
        By path of the layer, relative errors in the Frobenius norm, float64: the entry r is that of the best matrix of
        rank r, from 1 at rank zero down to 0 at full rank. A change of zero has no error at any rank.

    Raises
    ------
    ValueError
        If there is no such adapter.

    Notes
    -----
    The error of rank r is the root of the share of squared singular values after the first r (Eckart and Young). Costs
    one singular value decomposition of a dense matrix for each layer.

    Examples
    --------
    >>> import peft, torch
    >>> from structmat.peft import CDDConfig, lora_errors
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> model = peft.get_peft_model(model, CDDConfig(target_modules=["0"], init_weights="normal"))
    >>> errors = lora_errors(model)["0"]
    >>> errors.shape, float(errors[0]), float(errors[8])
    (torch.Size([9]), 1.0, 0.0)
    """
    layers = _layers_of(model, adapter_name, "lora_errors")
    return {
        name.removeprefix(PREFIX): _errors(torch.linalg.svdvals(layer.cdd_adapters[adapter_name].dense().cpu()))
        for name, layer in layers.items()
    }


def to_lora(
    model: nn.Module, rank: int | None = None, adapter_name: str = "default", *, error: float | None = None
) -> FittedAdapter:
    """Turn an adapter into one of LoRA, by truncated singular value decompositions, and tell what that loses.

    Parameters
    ----------
    model : PeftModel
        With the adapter.
    rank : int, optional
        At most the smaller side of every layer.
    adapter_name : str, default "default"
        Its name.
    error : float, optional
        Instead of a rank: the smallest one is taken with which the relative error of every layer is at most this, from
        0 up to but not 1. `lora_errors` tells what other ranks would lose.

    Returns
    -------
    FittedAdapter
        A LoRA adapter: settings, weights, errors. Changes of this method have full rank: low ranks lose much. All
        layers have one rank and the scale 1, so that programs agree which read ranks from the settings, and which read
        them from the weights; a layer with a smaller side than the rank is filled up with zeros.

    Raises
    ------
    ValueError
        If there is no such adapter, the rank or error is wrong, both or none are given, or the adapter trains biases,
        which would be lost.
    TypeError
        If the rank is no integer, or the error no number.

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
    >>> to_lora(model, error=0.1).error <= 0.1
    True
    """
    converted = _layers_of(model, adapter_name, "to_lora")
    source = getattr(model, "peft_config", {}).get(adapter_name)
    if source is not None and source.bias != "none":
        raise ArgumentValueError("to_lora", "model", f"has an adapter with bias={source.bias!r}, which would be lost")
    _check(rank, error, converted)

    parts = {
        name: torch.linalg.svd(layer.cdd_adapters[adapter_name].dense().cpu(), full_matrices=False)
        for name, layer in converted.items()
    }
    curves = {name: _errors(S) for name, (_, S, _) in parts.items()}
    if rank is None:
        rank = max(1, *(int((curve > error).sum()) for curve in curves.values()))
    state: dict[str, Tensor] = {}
    layers: list[FittedLayer] = []
    for name, (U, S, Vh) in parts.items():
        own, dtype = min(rank, len(S)), converted[name].cdd_adapters[adapter_name].factors[0].dtype
        A = pad(Vh[:own], (0, 0, 0, rank - own)).to(dtype)
        B = pad(U[:, :own] * S[:own], (0, rank - own)).to(dtype)
        state |= {f"{name}.lora_A.weight": A.contiguous(), f"{name}.lora_B.weight": B.contiguous()}
        norm, lost, count = torch.linalg.vector_norm(S.double()).item(), curves[name][own].item(), A.numel() + B.numel()
        shape = (len(B), A.shape[1], str(dtype).removeprefix("torch."))
        # It is a truncated singular value decomposition itself.
        layers.append(FittedLayer(name.removeprefix(PREFIX), *shape, norm, lost, count, None, own, count, lost))
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=exact_targets(
            [layer.name for layer in layers], (name.removeprefix(PREFIX) for name, _ in model.named_modules())
        ),
        fan_in_fan_out=all(has_transposed_weight(module.get_base_layer()) for module in converted.values()),
        task_type=getattr(source, "task_type", None),
        base_model_name_or_path=getattr(source, "base_model_name_or_path", None),
        modules_to_save=copy.copy(getattr(source, "modules_to_save", None)),
        trainable_token_indices=copy.copy(getattr(source, "trainable_token_indices", None)),
        inference_mode=True,
    )
    if source is not None:
        every = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
        state |= {key: value.detach().cpu() for key, value in every.items() if not FACTOR_KEY.match(key)}
    return FittedAdapter(config, state, tuple(layers))


def _layers_of(model: nn.Module, adapter_name: str, owner: str) -> dict[str, CDDTunerLinear]:
    """Return the layers that have an adapter, by name."""
    tuned = {name: module for name, module in model.named_modules() if isinstance(module, CDDTunerLinear)}
    layers = {name: module for name, module in tuned.items() if adapter_name in module.cdd_adapters}
    if not layers:
        known = sorted({name for module in tuned.values() for name in module.cdd_adapters})
        raise ArgumentValueError(owner, "adapter_name", f"{adapter_name!r} is no CDD adapter here: {known}")
    return layers


def _errors(S: Tensor) -> Tensor:
    """Return the relative error of every rank from singular values, from rank zero to the full one."""
    # Summed from the smallest, so that the last errors are no differences of large numbers.
    tails = pad(S.double().square().flip(0).cumsum(0), (1, 0)).flip(0).sqrt()
    return tails / tails[0] if tails[0] > 0 else tails


def _check(rank: Any, error: Any, layers: Mapping[str, CDDTunerLinear]) -> None:
    if (rank is None) == (error is None):
        raise ArgumentValueError("to_lora", "rank", f"or error must be given, not both, got {rank!r} and {error!r}")
    if rank is None:
        if not 0 <= finite(error, "to_lora", "error") < 1:
            raise ArgumentValueError("to_lora", "error", f"must be at least 0 and less than 1, got {error}")
        return
    if isinstance(rank, bool):
        raise ArgumentTypeError("to_lora", "rank", f"must be an integer, got {rank!r}")
    rank = integer(rank, "to_lora", "rank")
    for name, layer in layers.items():
        largest = min(layer.in_features, layer.out_features)
        if rank > largest:
            path = name.removeprefix(PREFIX)
            raise ArgumentValueError("to_lora", "rank", f"must be at most {largest} for {path}, got {rank}")
