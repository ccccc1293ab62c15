"""Fine-tuning layers for PyTorch: frozen weights with trainable CDD changes. Needs the extra ``torch``.

- `_adapter`: the change of one layer and its mathematics
    - `_adapter.rows`: the change of some rows and its gradients; pure functions
    - `_adapter.autograd`: the one differentiable operation, chunked, that keeps nothing but the input
    - `_adapter.initial_values`: how the vectors start
    - `_adapter.cdd_adapter`: `CDDAdapter`, the trainable vectors of one change
- `_layers`: a frozen layer with changes
    - `_layers.frozen_base`: what may be a base: its features, and how it stores its weight
    - `_layers.forward`: outputs of a base plus changes, for layers of one's own too
    - `_layers.adapted_layer`: `AdaptedLayer`, what all kinds share: several adapters, merging, choosing
    - `_layers.linear`, `_layers.conv`, `_layers.embedding`: `CDDLinear`, `CDDConv`, `CDDEmbedding`
- `_model`: a whole model
    - `_model.targets`, `_model.wrapping`: which layers are adapted; all of them are wrapped, or none
    - `_model.patterns`: other options for some layers
    - `_model.adapt_model`: `adapt`
    - `_model.switches`: merge, remove, disable, set, choose for each sample
    - `_model.learning_rates`: `param_groups`, which suit every size
    - `_model.costs`: parameters, operations and bytes
    - `_model.files`: state dicts and safetensors files of just the vectors

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

from structmat.torch._adapter.cdd_adapter import CDDAdapter
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.conv import CDDConv
from structmat.torch._layers.embedding import CDDEmbedding
from structmat.torch._layers.forward import add_per_sample, forward_with_adapters
from structmat.torch._layers.frozen_base import has_transposed_weight, reads_weight
from structmat.torch._layers.linear import CDDLinear
from structmat.torch._model.adapt_model import adapt
from structmat.torch._model.costs import AdapterSummary, LayerSummary, change_flops, summarise
from structmat.torch._model.files import adapter_state_dict, load_adapter, save_adapter
from structmat.torch._model.learning_rates import param_groups
from structmat.torch._model.switches import (
    adapters_per_sample,
    disable_adapters,
    merge_adapters,
    remove_adapters,
    set_adapters,
    unmerge_adapters,
)

__all__ = [
    "AdaptedLayer",
    "AdapterSummary",
    "CDDAdapter",
    "CDDConv",
    "CDDEmbedding",
    "CDDLinear",
    "LayerSummary",
    "adapt",
    "adapter_state_dict",
    "adapters_per_sample",
    "add_per_sample",
    "change_flops",
    "disable_adapters",
    "forward_with_adapters",
    "has_transposed_weight",
    "load_adapter",
    "merge_adapters",
    "param_groups",
    "reads_weight",
    "remove_adapters",
    "save_adapter",
    "set_adapters",
    "summarise",
    "unmerge_adapters",
]
