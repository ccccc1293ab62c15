"""The kinds of layers that can be adapted; a new kind is a file with its class, and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.conv import CDDConv, is_pointwise
from structmat.torch._layers.embedding import CDDEmbedding
from structmat.torch._layers.frozen_base import features, is_linear
from structmat.torch._layers.linear import CDDLinear

__all__ = ["KINDS", "LayerKind", "layer_kind"]


class LayerKind(NamedTuple):
    """A kind of layer: its bases, and what is made of them."""

    described: str
    takes: Callable[[nn.Module], bool]
    """Whether a module is a base of this kind."""
    shape: Callable[[Any], tuple[int, int]]
    """Columns and rows of the change of a base."""
    wrap: Callable[..., AdaptedLayer]
    """Makes the layer of a base, with `name` and the options of the adapter."""


KINDS = (
    LayerKind("linear layers", is_linear, features, CDDLinear.from_linear),
    LayerKind(
        "Conv1d and Conv2d with kernel size and stride 1, one group and no padding",
        is_pointwise,
        lambda base: (base.in_channels, base.out_channels),
        CDDConv,
    ),
    LayerKind(
        "embeddings",
        lambda module: type(module) is nn.Embedding,
        lambda base: (base.embedding_dim, base.num_embeddings),
        CDDEmbedding,
    ),
)


def layer_kind(base: nn.Module) -> LayerKind | None:
    """Return the kind of a base that can be adapted, else None."""
    return next((kind for kind in KINDS if kind.takes(base)), None)
