"""CDD adapters from weights that were tuned otherwise, and LoRA adapters from CDD ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, convert_to_lora, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from structmat.peft._checkpoint import Checkpoint
from structmat.peft._config import CDDConfig
from structmat.peft._files import FACTOR
from structmat.peft._fitted import PREFIX, FittedAdapter, LayerFit, fitted
from structmat.peft._layer import CDDTunerLinear
from structmat.torch._layers.base_layers import is_transposed

__all__ = ["from_delta", "from_lora", "from_pretrained_fit", "to_lora"]


def from_delta(deltas: Mapping[str, Tensor], **settings: Any) -> FittedAdapter:
    """Fit changes of weights, by `structmat.fit_cdd`.

    Parameters
    ----------
    deltas : dict of Tensor, shape (out_features, in_features)
        Tuned minus base weight, by path of the module.
    **settings
        Arguments of `CDDConfig`; the target modules are those with a change.

    Returns
    -------
    FittedAdapter
        Settings, weights and errors, which are rarely small for weights tuned without structure.

    Raises
    ------
    ValueError
        If there is no change, or one is no finite matrix.

    Examples
    --------
    >>> import torch
    >>> from structmat.peft import from_delta
    >>> delta = torch.outer(torch.arange(1.0, 5), torch.ones(4))  # of rank one, which is met exactly
    >>> adapter = from_delta({"0": delta})
    >>> adapter.layers[0].n_parameters, round(adapter.error, 4)
    (12, 0.0)
    """
    if not deltas:
        raise ValueError("from_delta: deltas is empty")
    config = CDDConfig(**{"target_modules": list(deltas), **settings})
    return FittedAdapter(config, *fitted(config, deltas.items()))


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
        If it changes layers otherwise than by adding to the weight of a linear layer.
    """
    if adapter_name not in model.peft_config:
        raise ValueError(f"from_lora: no adapter {adapter_name!r}, only {list(model.peft_config)}")
    tuned = {
        name: module for name, module in model.base_model.model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    tuned = {name: module for name, module in tuned.items() if adapter_name in module._all_available_adapter_names()}
    for name, module in tuned.items():
        base = module.get_base_layer()
        linear = isinstance(base, nn.Linear) or is_transposed(base) or module.quantization_backend is not None
        if not (linear and hasattr(module, "get_delta_weight") and module.supports_lora_conversion(adapter_name)):
            raise TypeError(f"from_lora: {name} is a {type(module).__name__}, which does not add to a linear layer")

    def changes() -> Iterator[tuple[str, Tensor]]:
        for name, module in tuned.items():
            with torch.no_grad():
                change = module.get_delta_weight(adapter_name)
            yield name, change.T if is_transposed(module.get_base_layer()) else change

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
    state, layers = fitted(config, changes())
    every = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    inside = tuple(f"{PREFIX}{name}." for name in tuned)
    others = {key: tensor.detach().cpu() for key, tensor in every.items() if not key.startswith(inside)}
    return FittedAdapter(config, {**state, **others}, layers)


def from_pretrained_fit(
    base: str | Path | nn.Module,
    tuned: str | Path | nn.Module,
    folder: str | Path | None = None,
    *,
    progress: Callable[[LayerFit], None] | None = None,
    **settings: Any,
) -> FittedAdapter:
    """Turn a fully tuned model and its base into a CDD adapter that PEFT loads.

    Weights are read and fitted one by one: of folders no more than one layer is held in memory.

    Parameters
    ----------
    base, tuned : str, Path or Module
        Folders of transformers with safetensors files, or models.
    folder : str or Path, optional
        Where to save the adapter.
    progress : callable, optional
        Called with each `LayerFit` as it is done.
    **settings
        Arguments of `CDDConfig`: `target_modules`, `n_factors`, ... What `modules_to_save` names is taken from the
        tuned model as it is.

    Returns
    -------
    FittedAdapter
        Its text is a table of errors by layer; ``left_out`` names what was tuned but is not in the adapter.

    Raises
    ------
    ValueError
        If files are missing, weights of both differ in shape or are not finite, or nothing matches.

    Examples
    --------
    >>> import copy, torch
    >>> from structmat.peft import from_pretrained_fit
    >>> base = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> tuned = copy.deepcopy(base)
    >>> with torch.no_grad():
    ...     _ = tuned[0].weight.add_(1.0)
    ...     _ = tuned[1].bias.add_(1.0)
    >>> adapter = from_pretrained_fit(base, tuned, target_modules=["0"])
    >>> round(adapter.error, 4), adapter.left_out
    (0.0, ('1.bias',))
    """
    config = CDDConfig(**settings)
    if not isinstance(base, nn.Module) and config.base_model_name_or_path is None:
        config.base_model_name_or_path = str(base)
    old, new = Checkpoint(base), Checkpoint(tuned)
    with torch.device("meta"):
        skeleton = get_peft_model(old.skeleton(), config, low_cpu_mem_usage=True)
    targets = {
        name: module.get_base_layer()
        for name, module in skeleton.base_model.model.named_modules()
        if isinstance(module, CDDTunerLinear)
    }

    def changes() -> Iterator[tuple[str, Tensor]]:
        for name, module in targets.items():
            before, after = old[f"{name}.weight"], new[f"{name}.weight"]
            if before.shape != after.shape:
                raise ValueError(f"{name}.weight: base {tuple(before.shape)} and tuned {tuple(after.shape)} differ")
            wide = torch.promote_types(before.dtype, torch.float32)
            change = after.to(wide) - before.to(wide)
            yield name, change.T if is_transposed(module) else change

    state, layers = fitted(config, changes(), progress)
    keys = get_peft_model_state_dict(skeleton, save_embedding_layers=False)
    others = [key for key in keys if not FACTOR.match(key)]
    state |= {key: new[key.removeprefix(PREFIX).replace(".base_layer.", ".")] for key in others}
    covered = [f"{name}.weight" for name in targets] + [key.removeprefix(PREFIX) for key in others]
    config.inference_mode = True
    adapter = FittedAdapter(config, state, layers, tuple(new.differing(old, covered)))
    if folder is not None:
        adapter.save(folder)
    return adapter


def to_lora(model: nn.Module, rank: float, adapter_name: str = "default") -> FittedAdapter:
    """Turn an adapter into one of LoRA, by `peft.convert_to_lora`, and tell what that loses.

    Parameters
    ----------
    model : PeftModel
        With the adapter.
    rank : int or float
        Rank, or the share of squared singular values to keep, between 0 and 1.
    adapter_name : str, default "default"
        Its name.

    Returns
    -------
    FittedAdapter
        A LoRA adapter: settings, weights, errors. Changes of this method have full rank: low ranks lose much.

    Raises
    ------
    ValueError
        If the rank is wrong.
    """
    config, state = convert_to_lora(model, rank, adapter_name)
    converted = {
        name.removeprefix(PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, CDDTunerLinear) and adapter_name in module.cdd_adapters
    }
    config.fan_in_fan_out = all(is_transposed(module.get_base_layer()) for module in converted.values())
    layers: list[LayerFit] = []
    for path, module in converted.items():
        change = module.cdd_adapters[adapter_name].dense()
        A, B = (next(v for k, v in state.items() if k.endswith(f"{path}.lora_{x}.weight")) for x in "AB")
        norm = torch.linalg.matrix_norm(change).item()
        error = torch.linalg.matrix_norm(change - B @ A).item() / norm if norm else 0.0
        layers.append(LayerFit(path, (len(B), A.shape[1]), A.numel() + B.numel(), norm, error))
    return FittedAdapter(config, state, tuple(layers))
