"""Adapters fitted to changes of weights, and to the change between two models, in memory or in folders."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from structmat import io
from structmat._arrays.errors import ArgumentValueError
from structmat.io._checkpoint import fitting
from structmat.io._safetensors import Tensor as Stored
from structmat.peft._config import CDDConfig
from structmat.peft._fitted_adapter import PREFIX, FittedAdapter, LayerFit, fitted
from structmat.peft._stored_shapes import FACTOR
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.torch import has_transposed_weight

__all__ = ["from_delta", "from_weights"]

_FLOAT8 = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""Codes of safetensors that NumPy has no dtype for, and their names in torch."""


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
        raise ArgumentValueError("from_delta", "deltas", "is empty")
    config = CDDConfig(**{"target_modules": list(deltas), **settings})
    return FittedAdapter(config, *fitted(config, deltas.items()))


def from_weights(
    base: str | Path | nn.Module,
    tuned: str | Path | nn.Module,
    folder: str | Path | None = None,
    *,
    callback: Callable[[LayerFit], None] | None = None,
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
    callback : callable, optional
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
    if not isinstance(base, nn.Module) and config.base_model_name_or_path is None:
        config.base_model_name_or_path = str(base)
    old, new = _Weights(base), _Weights(tuned)
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
                raise ArgumentValueError(
                    "from_weights",
                    "tuned",
                    f"has {name}.weight of shape {tuple(after.shape)}, the base {tuple(before.shape)}",
                )
            wide = torch.promote_types(before.dtype, torch.float32)
            change = after.to(wide) - before.to(wide)
            yield name, change.T if has_transposed_weight(module) else change

    state, layers = fitted(config, changes(), callback)
    keys = get_peft_model_state_dict(skeleton, save_embedding_layers=False)
    others = [key for key in keys if not FACTOR.match(key)]
    state |= {key: new[key.removeprefix(PREFIX).replace(".base_layer.", ".")] for key in others}
    covered = [f"{name}.weight" for name in targets] + [key.removeprefix(PREFIX) for key in others]
    config.inference_mode = True
    adapter = FittedAdapter(config, state, layers, tuple(new.differing(old, covered)))
    if folder is not None:
        adapter.save(folder)
    return adapter


class _Weights:
    """Weights by name; names may lack, or have more of, the leading parts that wrapping classes add."""

    def __init__(self, source: str | Path | nn.Module) -> None:
        self.source = source
        self._tensors: dict[str, Tensor] = {}
        self._files: io.Checkpoint | None = None
        if isinstance(source, nn.Module):
            self._tensors = dict(source.state_dict())
            return
        self._files = io.Checkpoint(source)
        for fault in (*self._files.broken.values(), *self._files.faults.values()):
            raise ValueError(fault)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors if self._files is None else self._files)

    def find(self, name: str) -> str | None:
        """Return the stored name that fits a name, if there is one."""
        return fitting(name, self._tensors) if self._files is None else self._files.find(name)

    def __getitem__(self, name: str) -> Tensor:
        if self._files is not None:
            return _as_torch(self._files.entry(name).raw())
        key = self.find(name)
        if key is None:
            raise ValueError(f"{type(self.source).__name__} has no weight {name}")
        return self._tensors[key].detach()

    def differing(self, other: _Weights, covered: Sequence[str]) -> Iterator[str]:
        """Yield the names of weights here that are others there, but for those covered."""
        inside = {self.find(name) for name in covered}
        for key in self:
            if key not in inside:
                theirs = other.find(key)
                if theirs is None or not torch.equal(self[key].cpu(), other[theirs].cpu()):
                    yield key

    def skeleton(self) -> nn.Module:
        """Return the model without values; of a folder, the class that its config.json names."""
        if isinstance(self.source, nn.Module):
            tensors = [*self.source.parameters(), *self.source.buffers()]
            memo = {id(t): _without_values(t) for t in tensors}
            return copy.deepcopy(self.source, memo)
        import transformers  # noqa: PLC0415 - models in memory need not be of transformers

        config = transformers.AutoConfig.from_pretrained(self.source)
        names = config.architectures or []
        cls = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
        if cls is None:
            raise ValueError(f"{self.source}: transformers has no class {', '.join(names) or 'named in config.json'}")
        with torch.device("meta"):
            return cls(config)


def _as_torch(stored: Stored) -> Tensor:
    """Return a weight with the dtype that it has in the file."""
    dtype = getattr(torch, _FLOAT8.get(stored.code, stored.dtype), None)
    if dtype is None:
        raise ValueError(f"torch has no dtype {stored.dtype}")
    if not stored.data:
        return torch.empty(stored.shape, dtype=dtype)
    return torch.frombuffer(bytearray(stored.data), dtype=dtype).reshape(stored.shape)


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
