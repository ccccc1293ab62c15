"""Layers for PyTorch: frozen weights with trainable CDD changes, long convolutions. Needs the extra ``torch``.

Map of the package; each file imports only from those below it:

- `_for_peft`: what `structmat.peft` takes of this package beside its public names
- `_bank`: many adapters, of which each sample of a batch has its own, `AdapterBank`
- `_files`: an adapter in a folder, in the format of PEFT: `save_adapter`, `load_adapter`, `using_adapter`
- `_model`: a whole model: `adapt`, `remove_adapters`
- `_parameter_names`: which stacked matrices of experts names mean
- `_layers`: a frozen layer with a change: `CDDLinear` and its relatives, one file for each kind of layer
- `_changed_convolution`: the differentiable operation of convolutions with a changed kernel
- `_kernel_geometry`: a kernel as a matrix, and where its convolution puts it
- `_long_convolutions`: `FFTConv1d` and its relatives, `fft_conv`, `replace_convolutions`
- `_experts`: a module whose stacked matrices of experts are changed while it runs
- `_stacked_adapter`: the trainable vectors of such changes, one for each expert, `StackedCDDAdapter`
- `_stacked_change`: the operation of these
- `_sample_changes`: the changes of a layer where each sample of a batch has one of several
- `_adapter`: the trainable vectors of a change, `CDDAdapter`
- `_former_parts`: files of earlier revisions, whose changes are of some parts of a layer's rows
- `_from_lora`: what users of LoRA write, and what to write instead
- `_options`: what can be chosen for a change, with defaults and checks, `AdapterOptions`
- `_autograd`: the one differentiable operation of changes, which keeps nothing but the input
- `_change`: a change and its gradients, row by row and in chunks; pure functions
- `_dense_change`: a change as a dense matrix, its sum with a weight, and its gradients
- `_base_weight`: how a base layer stores its weight, and whether a change may be merged into it
- `_other_tools`: what exporters, wrappers, offloading and modules that read weights need
- `_linear_operator`, `_structured_operator`: the bridge to linear_operator and GPyTorch, `as_linear_operator`

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

from structmat.torch._adapter import CDDAdapter
from structmat.torch._bank import AdapterBank
from structmat.torch._files import load_adapter, save_adapter, using_adapter
from structmat.torch._layers import CDDConv, CDDEmbedding, CDDExperts, CDDLinear, CDDMultiheadAttention
from structmat.torch._linear_operator import as_linear_operator
from structmat.torch._long_convolutions import (
    FFTConv1d,
    FFTConv2d,
    FFTConv3d,
    fft_conv,
    replace_convolutions,
)
from structmat.torch._model import AdapterSummary, adapt, remove_adapters
from structmat.torch._stacked_adapter import StackedCDDAdapter

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
    "StackedCDDAdapter",
    "adapt",
    "as_linear_operator",
    "fft_conv",
    "load_adapter",
    "remove_adapters",
    "replace_convolutions",
    "save_adapter",
    "using_adapter",
]
