"""Fine-tuning layers for PyTorch: frozen weights with trainable CDD changes. Needs the extra ``torch``.

- `_rows`: the change of some rows and its gradients; pure functions
- `_product`: the one differentiable operation, chunked, that keeps nothing but the input
- `_init`, `_adapter`: `CDDAdapter`, the vectors of one change and how they start
- `_adapted`: what all layers share: several adapters, merging, choosing
- `_bases`, `_linear`, `_conv`, `_embedding`: `CDDLinear`, `CDDConv`, `CDDEmbedding`
- `_targets`, `_attach`, `_adapt`, `_summary`: `adapt`, a whole model and what that costs
- `_switches`: merge, remove, disable, activate, select
- `_groups`: `param_groups`, learning rates that suit every size
- `_files`: state dicts and safetensors files of just the vectors

>>> import torch
>>> from structmat.torch import adapt, param_groups
>>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 10))
>>> summary = adapt(model, ["0"], train=["2"])
>>> summary.n_parameters
192
>>> optimizer = torch.optim.AdamW(param_groups(model, lr=0.03, other_lr=0.003))
"""

from __future__ import annotations

try:
    import torch as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError('structmat.torch needs the extra "torch": pip install "structmat[torch]"') from error

from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.adapter import CDDAdapter
from structmat.torch._layers.conv import CDDConv
from structmat.torch._layers.embedding import CDDEmbedding
from structmat.torch._layers.linear import CDDLinear
from structmat.torch._model.adapt import adapt
from structmat.torch._model.files import adapter_state_dict, load_adapter, save_adapter
from structmat.torch._model.param_groups import param_groups
from structmat.torch._model.set_adapters import (
    activate_adapters,
    disable_adapters,
    merge_adapters,
    remove_adapters,
    select_adapters,
    unmerge_adapters,
)
from structmat.torch._model.summary import AdapterSummary, LayerSummary, change_flops, summarise

__all__ = [
    "AdaptedLayer",
    "AdapterSummary",
    "CDDAdapter",
    "CDDConv",
    "CDDEmbedding",
    "CDDLinear",
    "LayerSummary",
    "activate_adapters",
    "adapt",
    "adapter_state_dict",
    "change_flops",
    "disable_adapters",
    "load_adapter",
    "merge_adapters",
    "param_groups",
    "remove_adapters",
    "save_adapter",
    "select_adapters",
    "summarise",
    "unmerge_adapters",
]
