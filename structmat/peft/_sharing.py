"""Circulants that layers share, and go on sharing when weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.utils import CONFIG_NAME
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from structmat._array_tools import ArgumentValueError
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.torch import CDDAdapter, share_circulants

__all__ = ["keep_shared", "require_shared_values", "share"]


def share(model: nn.Module, adapter_name: str) -> int:
    """Let the same layers of all blocks share the circulants of an adapter; return how many vectors are shared."""
    return share_circulants(_adapters(model, adapter_name))


def keep_shared(model: nn.Module) -> list[RemovableHandle]:
    """Have a model check values of shared vectors when it loads some, and share them again if it got others."""
    return [
        model.register_load_state_dict_pre_hook(require_shared_values),
        model.register_load_state_dict_post_hook(_share_again),
    ]


def require_shared_values(model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse other values for one vector in each of the layers that share it, before any is loaded."""
    first: dict[int, str] = {}
    for name in _sharing(model):
        for path, adapter in _adapters(model, name).items():
            for i, factor in enumerate(adapter.factors):
                key = f"{prefix}{path}.cdd_adapters.{name}.factors.{i}"
                owner = first.setdefault(id(factor), key) if key in state else key
                if owner != key and not torch.equal(state[key], state[owner]):
                    text = f"got other values for {key} than for {owner}, which the model shares; to load such a file"
                    raise ArgumentValueError("CDDModel", None, f"{text} set share_circulants to false in {CONFIG_NAME}")


def _share_again(model: nn.Module, _: Any) -> None:
    """Undo what `load_state_dict(assign=True)` does: it gives each layer a parameter of its own."""
    for name in _sharing(model):
        share(model, name)


def _sharing(model: nn.Module) -> list[str]:
    """Return the names of adapters with shared circulants; some may be of other methods, inside of this one."""
    configs = getattr(model, "peft_config", {})
    return [name for name, config in configs.items() if getattr(config, "share_circulants", False)]


def _adapters(model: nn.Module, adapter_name: str) -> dict[str, CDDAdapter]:
    return {
        path: layer.cdd_adapters[adapter_name]
        for path, layer in model.named_modules()
        if isinstance(layer, CDDTunerLinear) and adapter_name in layer.cdd_adapters
    }
