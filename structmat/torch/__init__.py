"""Layers for PyTorch: frozen weights with trainable CDD changes, long convolutions. Needs the extra ``torch``.

Map of the package; each line imports only from those below it:

- `_bank`: many adapters, of which each sample of a batch has its own, `AdapterBank`
- `_files`: an adapter in a folder: `save_adapter`, `load_adapter`, `using_adapter`
- `_model`: a whole model: `adapt`, `remove_adapters`, and which layers names mean
- `_layers`: a frozen layer with a change: `CDDLinear` and its relatives, one file for each kind of layer
- `_adapters`: the trainable vectors of a change: `CDDAdapter`, and what can be chosen for them
- `_changes`: the mathematics of a change: rows, dense sums, experts, and the differentiable operation
- `_calls`: modules that read the weight of a layer without calling it, where changes are lost
- `_distributed`: engines that train a model in several processes, and other wrappers of whole models

>>> import torch
>>> from structmat.torch import adapt
>>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 10))
>>> summary = adapt(model, ["0"], train=["2"])
>>> summary.n_parameters
192
>>> optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
"""

from __future__ import annotations

try:
    import torch as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError('structmat.torch needs the extra "torch": pip install "structmat[torch]"') from error

from structmat._gpytorch.bridge import as_linear_operator
from structmat._long_convolutions import (
    FFTConv1d,
    FFTConv2d,
    FFTConv3d,
    fft_conv,
    replace_convolutions,
)
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._bank import AdapterBank
from structmat.torch._files.load import load_adapter, using_adapter
from structmat.torch._files.save import save_adapter
from structmat.torch._layers import CDDConv, CDDEmbedding, CDDExperts, CDDLinear, CDDMultiheadAttention
from structmat.torch._model.adapt import AdapterSummary, adapt, remove_adapters
from structmat.torch._model.linear_weights import LinearWeight, linear_weights

__all__ = [
    "AdapterBank",
    "AdapterSummary",
    "CDDAdapter",
    "CDDConv",
    "CDDEmbedding",
    "CDDExperts",
    "CDDLinear",
    "CDDMultiheadAttention",
    "FFTConv1d",
    "FFTConv2d",
    "FFTConv3d",
    "LinearWeight",
    "adapt",
    "as_linear_operator",
    "fft_conv",
    "linear_weights",
    "load_adapter",
    "remove_adapters",
    "replace_convolutions",
    "save_adapter",
    "using_adapter",
]
