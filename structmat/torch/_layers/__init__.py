"""A frozen layer with a change: one class in one file for each kind of layer.

A kind of layer is a subclass of `AdaptedLayer` that stands in `KINDS`. Its hooks say which modules can be its bases,
and how a change meets them; `adapt`, the files of adapters and `structmat.peft` ask nothing else.

- `kinds`: all of them, and which one a module is the base of
- `linear`, `convolution`, `embedding`, `attention`: the kinds
- `summed_layer`: what kinds share whose base runs with sums of its weights and the changes
- `adapted_layer`: what all share
- `nested_tensors`: samples with different numbers of rows
- `experts`: a module of experts with changes of its parameters, which is no layer
- `adapted_module`: what all of these share
- `changed_experts`: the forward pass of a module of experts whose matrices are changed
- `base_weight`: how a base stores its weight, and whether a change may be merged into it
"""

from structmat.torch._layers.adapted_layer import AdaptedLayer, Change
from structmat.torch._layers.adapted_module import AdaptedModule
from structmat.torch._layers.attention import CDDMultiheadAttention
from structmat.torch._layers.convolution import CDDConv
from structmat.torch._layers.embedding import CDDEmbedding
from structmat.torch._layers.experts import CDDExperts
from structmat.torch._layers.kinds import KINDS, kind_of, kind_to_wrap
from structmat.torch._layers.linear import CDDLinear

__all__ = [
    "KINDS",
    "AdaptedLayer",
    "AdaptedModule",
    "CDDConv",
    "CDDEmbedding",
    "CDDExperts",
    "CDDLinear",
    "CDDMultiheadAttention",
    "Change",
    "kind_of",
    "kind_to_wrap",
]
