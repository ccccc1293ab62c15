"""Fine-tuning layers for PyTorch: frozen weights with trainable CDD changes. Needs the extra ``torch``.

- `_model`: a whole model: `adapt`, merging, files, costs, learning rates
- `_layers`: a frozen layer with changes: `CDDLinear` and its relatives
- `_adapter`: the change of one layer: `CDDAdapter`, and its mathematics

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
from structmat.torch._layers.frozen_base import has_computed_weight, has_transposed_weight, reads_weight
from structmat.torch._layers.linear import CDDLinear
from structmat.torch._layers.tensor_parallel import is_tensor_parallel
from structmat.torch._model.adapt_model import adapt
from structmat.torch._model.adapter_actions import (
    adapters_per_sample,
    disable_adapters,
    merge_adapters,
    remove_adapters,
    set_adapters,
    train_adapters,
    unmerge_adapters,
)
from structmat.torch._model.costs import AdapterSummary, LayerSummary, change_flops, summarise
from structmat.torch._model.files import adapter_state_dict, load_adapter, save_adapter
from structmat.torch._model.learning_rates import param_groups
from structmat.torch._model.sharing import share_circulants
from structmat.torch._model.targets import unreached_experts

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
    "has_computed_weight",
    "has_transposed_weight",
    "is_tensor_parallel",
    "load_adapter",
    "merge_adapters",
    "param_groups",
    "reads_weight",
    "remove_adapters",
    "save_adapter",
    "set_adapters",
    "share_circulants",
    "summarise",
    "train_adapters",
    "unmerge_adapters",
    "unreached_experts",
]
