"""Adapters fitted to changes of weights, and to the change between two models, in memory or in folders."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from structmat._array_tools import ArgumentValueError
from structmat._checkpoint import Checkpoint, CheckpointError
from structmat._layer_fits import PREFIX, Difference, Stored, changed_weights, exact_targets
from structmat.peft._config import CDDConfig
from structmat.peft._fitted_adapter import FittedAdapter, FittedLayer, fit_changes
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.torch import has_transposed_weight

__all__ = ["from_delta", "from_weights"]

_WRAPPERS = re.compile(r"\.(?:base_layer|original_module|modules_to_save)\.")
"""Parts of names that PEFT adds to those of the model."""


def from_delta(deltas: Mapping[str, Tensor], **settings: Any) -> FittedAdapter:
    """Fit changes of weights, by `structmat.fit_cdd`.

    Parameters
    ----------
    deltas : dict of Tensor or ndarray, shape (out_features, in_features)
        Tuned minus base weight, by path of the module.
    **settings
        Arguments of `CDDConfig`; the target modules are those with a change.

    Returns
    -------
    FittedAdapter
        Settings, weights and errors, which are rarely small for weights from full fine-tuning.

    Raises
    ------
    ValueError
        If there is no change, or one is not a finite matrix.

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
        raise ArgumentValueError("from_delta", "deltas", "is empty")
    config = CDDConfig(**{"target_modules": exact_targets(deltas), **settings})
    stored = Checkpoint.in_memory(deltas, "from_delta: deltas")
    return FittedAdapter(config, *fit_changes(config, {path: Stored(stored.entry(path)) for path in deltas}))


def from_weights(
    base: str | Path | nn.Module,
    tuned: str | Path | nn.Module,
    folder: str | Path | None = None,
    *,
    callback: Callable[[FittedLayer], object] | None = None,
    **settings: Any,
) -> FittedAdapter:
    """Turn a fully tuned model and its base into a CDD adapter that PEFT loads.

    Weights are read and fitted one by one: from folders only one layer at a time is in memory.

    Parameters
    ----------
    base, tuned : str, Path or Module
        Folders of transformers, or models.
    folder : str or Path, optional
        Where to save the adapter.
    callback : callable, optional
        Called with each `FittedLayer` as it is done.
    **settings
        Arguments of `CDDConfig`: `target_modules`, `n_factors`, ... Modules in `modules_to_save` are copied from the
        tuned model.

    Returns
    -------
    FittedAdapter
        Printed, it is a table of errors by layer; ``left_out`` names weights that were tuned but are not in the
        adapter.

    Raises
    ------
    ValueError
        If files are missing, weights of both differ in shape or are not finite, nothing matches, or
        `trainable_token_indices` is given.

    Examples
    --------
    >>> import copy, torch
    >>> from structmat.peft import from_weights
    >>> base = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> tuned = copy.deepcopy(base)
    >>> with torch.no_grad():
    ...     _ = tuned[0].weight.add_(1.0)
    ...     _ = tuned[1].bias.add_(1.0)
    >>> adapter = from_weights(base, tuned, target_modules=["0"])
    >>> round(adapter.error, 4), adapter.left_out
    (0.0, ('1.bias',))
    """
    config = CDDConfig(**settings)
    if config.trainable_token_indices is not None:
        text = "must be None here: name the embedding in modules_to_save, or train the rows"
        raise ArgumentValueError("from_weights", "trainable_token_indices", text)
    if not isinstance(base, nn.Module) and config.base_model_name_or_path is None:
        config.base_model_name_or_path = str(base)
    old, new = _weights(base, "base"), _weights(tuned, "tuned")
    with torch.device("meta"):
        skeleton = get_peft_model(_skeleton(base), config, low_cpu_mem_usage=True)
    targets = {
        name: module.get_base_layer()
        for name, module in skeleton.base_model.model.named_modules()
        if isinstance(module, CDDTunerLinear)
    }
    keys = [f"{name}.weight" for name in targets]
    before, after = old.partners(keys), new.partners(keys)
    changes = {
        name: Difference(new.entry(after.get(key, key)), old.entry(before.get(key, key)))
        for name, key in zip(targets, keys, strict=True)
    }
    for change in changes.values():
        change.check(cast=True)
    transposed = {name for name, module in targets.items() if has_transposed_weight(module)}
    state, layers = fit_changes(config, changes, transposed=transposed, callback=callback)
    others = {
        key: _WRAPPERS.sub(".", key.removeprefix(PREFIX))
        for key in get_peft_model_state_dict(skeleton, save_embedding_layers=False)
        if key not in state
    }
    for key, own in others.items():
        # With all biases PEFT also saves those of modules that others replace, which are as they were.
        state[key] = (old if ".original_module." in key else new).entry(own).tensor()
    covered = [f"{name}.weight" for name in targets] + list(others.values())
    config.inference_mode = True
    adapter = FittedAdapter(config, state, layers, _tuned_too(old, new, covered))
    if folder is not None:
        adapter.save(folder)
    return adapter


def _weights(source: str | Path | nn.Module, name: str) -> Checkpoint:
    """Return the weights of a model, in memory or in a folder, to be read one by one."""
    if isinstance(source, nn.Module):
        return Checkpoint.in_memory(source.state_dict(), f"from_weights: {name}")
    weights = Checkpoint(source)
    for fault in weights.faults.values():
        raise CheckpointError(fault)
    return weights


def _tuned_too(old: Checkpoint, new: Checkpoint, covered: Sequence[str]) -> tuple[str, ...]:
    """Return the names of weights that are new or others than before, but for those covered."""
    inside, partners = {*new.partners(covered).values()}, old.partners(new)
    rest = {key: partners.get(key) for key in new if key not in inside}
    changed = changed_weights((new.entry(key), old.entry(before)) for key, before in rest.items() if before is not None)
    return tuple(key for key, before in rest.items() if before is None or key in changed)


def _skeleton(source: str | Path | nn.Module) -> nn.Module:
    """Return the model without values; of a folder, the class that its config.json names."""
    if isinstance(source, nn.Module):
        tensors = [*source.parameters(), *source.buffers()]
        return copy.deepcopy(source, {id(t): _without_values(t) for t in tensors})
    import transformers  # noqa: PLC0415 - models in memory need not be of transformers

    config = transformers.AutoConfig.from_pretrained(source)
    names = config.architectures or []
    cls = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    if cls is None:
        what = ", ".join(names) or "named in config.json"
        raise ArgumentValueError("from_weights", "base", f"{source}: transformers has no class {what}")
    with torch.device("meta"):
        return cls(config)


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
