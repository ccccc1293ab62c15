"""What adapting a model costs: parameters, operations and bytes, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, prod

from torch import nn

from structmat._array_tools import ArgumentValueError
from structmat._files import counted
from structmat.torch._adapter.cdd_adapter import CDDAdapter
from structmat.torch._model.sharing import tied_keys, vectors_by_key
from structmat.torch._model.targets import adapted_layers

__all__ = ["AdapterSummary", "LayerSummary", "change_flops", "summarise"]


def change_flops(adapter: CDDAdapter) -> int:
    """Return the number of real operations of a change for one token.

    A complex transform of length b is counted as ``5 b log2(b)`` operations, a real one as half of that; a complex
    product and addition as 8, a real product as 1. The spectra of the circulants, computed once per batch, are not
    counted.

    Parameters
    ----------
    adapter : CDDAdapter
        The change.

    Returns
    -------
    int
        For the forward pass.

    Examples
    --------
    >>> from structmat.torch import CDDAdapter, change_flops
    >>> change_flops(CDDAdapter(768, 768))
    40652
    """
    total = 0.0
    for shape in adapter.layout.vector_shapes:
        if len(shape) == 1:
            total += shape[0]
        else:
            p, q, b = shape
            total += (p + q) * 2.5 * b * log2(b) + (8 * p * q - 2 * p) * (b // 2 + 1)
    return round(total)


@dataclass(frozen=True)
class LayerSummary:
    """One adapted layer.

    Attributes
    ----------
    name : str
        Path in the model.
    shape : tuple of int
        Rows and columns of the weight.
    block_size : int
        Side of the circulants.
    n_factors : int
        Number of diagonals and circulants.
    alpha : float
        Factor of the change.
    n_parameters : int
        Of the adapter, those included that it shares with other layers.
    flops_per_token : int
        Of the change, by `change_flops`.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> layer = adapt(torch.nn.Sequential(torch.nn.Linear(8, 4))).layers[0]
    >>> layer.name, layer.shape, layer.block_size, layer.n_factors, layer.n_parameters
    ('0', (4, 8), 4, 3, 20)
    """

    name: str
    shape: tuple[int, int]
    block_size: int
    n_factors: int
    alpha: float
    n_parameters: int
    flops_per_token: int


@dataclass(frozen=True)
class AdapterSummary:
    """What one adapter adds to a model.

    Attributes
    ----------
    adapter : str
        Name of the adapter.
    layers : tuple of LayerSummary
        The adapted layers.
    n_trainable : int
        All trainable parameters of the model, those outside adapters included.
    n_total : int
        All parameters of the model.
    n_bytes : int
        Of the adapter's parameters.
    n_shared : int
        How many parameters of layers are those of earlier layers.

    See Also
    --------
    adapt : Returns one.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> summary = adapt(torch.nn.Sequential(torch.nn.Linear(8, 8)))
    >>> summary.n_parameters, summary.n_trainable, summary.n_total
    (24, 24, 96)
    """

    adapter: str
    layers: tuple[LayerSummary, ...]
    n_trainable: int
    n_total: int
    n_bytes: int
    n_shared: int = 0

    @property
    def n_parameters(self) -> int:
        """Parameters of the adapter; those that layers share count once."""
        return sum(layer.n_parameters for layer in self.layers) - self.n_shared

    @property
    def flops_per_token(self) -> int:
        """Operations that the changes add to a forward pass, for each token, by `change_flops`."""
        return sum(layer.flops_per_token for layer in self.layers)

    @property
    def dense_flops_per_token(self) -> int:
        """Operations of the adapted layers themselves, ``2 rows cols`` each."""
        return sum(2 * layer.shape[0] * layer.shape[1] for layer in self.layers)

    def __str__(self) -> str:
        share = 100 * self.n_trainable / max(self.n_total, 1)
        added = 100 * self.flops_per_token / max(self.dense_flops_per_token, 1)
        return (
            f"adapter {self.adapter!r}: {counted(len(self.layers), 'layer')}, {self.n_parameters:,} parameters, "
            f"{self.n_bytes:,} bytes\n"
            f"trainable: {self.n_trainable:,} of {self.n_total:,} parameters ({share:.3g} %)\n"
            f"added operations: {self.flops_per_token:,} per token, {added:.3g} % of the adapted layers' own; "
            "2.5 b log2(b) for a transform of b values"
        )


def summarise(model: nn.Module, name: str = "default") -> AdapterSummary:
    """Return what an adapter adds to a model.

    Parameters
    ----------
    model : Module
        An adapted model.
    name : str, default "default"
        Of the adapter.

    Returns
    -------
    AdapterSummary
        Counts, also as text by `str`.

    Raises
    ------
    ValueError
        If no layer has an adapter of that name.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, summarise
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"])
    >>> summary = summarise(model)
    >>> summary.n_parameters, summary.n_total, summary.layers[0].shape
    (12, 42, (4, 4))
    """
    found = {path: layer.adapters[name] for path, layer in adapted_layers(model).items() if name in layer.adapters}
    if not found:
        raise ArgumentValueError("summarise", "name", f"{name!r} is in no layer")
    layers = tuple(
        LayerSummary(
            path,
            (a.out_features, a.in_features),
            a.block_size,
            a.n_factors,
            a.alpha,
            a.n_parameters,
            change_flops(a),
        )
        for path, a in found.items()
    )
    parameters = list(model.parameters())
    vectors = vectors_by_key(found)
    repeated = [vectors[key] for key in tied_keys(found)]
    return AdapterSummary(
        name,
        layers,
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in {p for a in found.values() for p in a.parameters()}),
        sum(prod(a.layout.vector_shapes[i]) for a, i in repeated),
    )
