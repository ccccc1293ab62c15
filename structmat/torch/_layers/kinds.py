"""All kinds of layers, and which one a module is the base of."""

from __future__ import annotations

from typing import Any

from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.attention import CDDMultiheadAttention
from structmat.torch._layers.convolution import CDDConv
from structmat.torch._layers.embedding import CDDEmbedding
from structmat.torch._layers.linear import CDDLinear

__all__ = ["KINDS", "kind_of", "kind_to_wrap"]

KINDS: tuple[type[AdaptedLayer], ...] = (CDDLinear, CDDConv, CDDEmbedding, CDDMultiheadAttention)
"""The kinds of layers; the first that recognises a module takes it."""


def kind_of(module: Any) -> type[AdaptedLayer] | None:
    """Return the kind of layer that a module can be the base of; None if there is none."""
    for kind in KINDS:
        if kind._recognises(module):
            return kind
    return None


def kind_to_wrap(module: Any) -> type[AdaptedLayer]:
    """Return the kind of layer that wraps a module which was named, or says what it lacks.

    Linear layers take every module that has numbers of features, whatever the name of its class is.
    """
    return kind_of(module) or CDDLinear
