"""The changes of an adapter that is a weighted sum of others, by each combination that `add_weighted_adapter` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from structmat._errors import ArgumentValueError
from structmat.peft._config import CDDConfig
from structmat.peft._layers.sum import CDDSum, terms_of
from structmat.peft._layers.tuner_linear import CDDTunerLinear
from structmat.torch._for_peft import AdapterOptions

__all__ = ["COMBINATIONS", "Vectors", "fill_terms", "options_of_terms"]

Vectors: TypeAlias = Sequence[Tensor]
"""The vectors of one change, as they are stored."""
Named: TypeAlias = tuple[str, CDDConfig]
"""The name of an adapter, and its settings."""
_OWNER = "add_weighted_adapter"
_CAT = 'combination_type="cat" adds exactly'


def _linear(layer: CDDTunerLinear, adapters: Sequence[Named], weights: Sequence[float]) -> list[Vectors | None]:
    """Return the vectors of one product, with alpha 1, that is the weighted sum of the changes of a layer."""
    pairs = zip(adapters, weights, strict=True)
    terms = [(weight, layer.cdd_adapters[name]) for (name, _), weight in pairs if name in layer.cdd_adapters]
    if any(isinstance(each, CDDSum) for _, each in terms):
        raise ArgumentValueError(_OWNER, "adapters", f"have a sum among them, which is no product; {_CAT}")
    _, first = terms[0]
    vectors = [vector.detach() for vector in first.vectors.forward()]
    if any((each.layout, each.scales) != (first.layout, first.scales) for _, each in terms):
        raise ArgumentValueError(_OWNER, "adapters", f"have other numbers of factors, block sizes or scales; {_CAT}")
    others = [each.vectors.forward() for _, each in terms]
    differing = [k for k, vector in enumerate(vectors) if any(not torch.equal(each[k], vector) for each in others)]
    if len(differing) > 1:
        text = f"have no sum that is a product of {first.n_factors} factors: they differ in {len(differing)} of them"
        raise ArgumentValueError(_OWNER, "adapters", f"{text}; {_CAT}")
    # A product is linear in each of its factors: where all are alike, the first diagonal takes the weights.
    k = differing[0] if differing else 0
    parts = [weight * each.alpha * own[k].detach() for (weight, each), own in zip(terms, others, strict=True)]
    vectors[k] = torch.stack(parts).sum(0)
    return [vectors]


def _cat(layer: CDDTunerLinear, adapters: Sequence[Named], _: Sequence[float]) -> list[Vectors | None]:
    """Return the vectors of all changes, one after the other; None for those that the layer has not got.

    `options_of_terms` tells what they are multiplied by. The first diagonals hold a scale that was set for the layer
    alone, of which no settings tell.
    """
    found: list[Vectors | None] = []
    for name, config in adapters:
        adapter: Any = layer.cdd_adapters._modules.get(name)
        if adapter is None:
            found += [None] * (1 if config.terms is None else len(config.terms))
            continue
        scale = adapter.alpha / layer.cdd_alpha[name] if layer.cdd_alpha[name] else 1.0
        for term in terms_of(adapter):
            first, *others = (vector.detach() for vector in term.vectors.forward())
            found.append([scale * first, *others])
    return found


COMBINATIONS: Mapping[str, Callable[[CDDTunerLinear, Sequence[Named], Sequence[float]], list[Vectors | None]]] = {
    "linear": _linear,
    "cat": _cat,
}
"""What each `combination_type` makes of the adapters of a layer: the vectors of the terms of the new one."""


def options_of_terms(adapters: Sequence[Named], weights: Sequence[float]) -> list[dict[str, Any]]:
    """Return the options of the terms that adapters have in a sum, in which `alpha` takes the weights in."""
    found = []
    for (_, config), weight in zip(adapters, weights, strict=True):
        own = {name: getattr(config, name) for name in AdapterOptions.names()}
        terms = [own | {"alpha": 1.0}] if config.terms is None else config.terms
        found += [{**term, "alpha": weight * config.alpha * term["alpha"]} for term in terms]
    return found


def fill_terms(adapter: Any, given: Sequence[Vectors | None]) -> None:
    """Give the changes of an adapter their vectors; those for which there are none stay zero."""
    for term, vectors in zip(terms_of(adapter), given, strict=True):
        if vectors is None:
            continue
        term.to(vectors[0].dtype)
        with torch.no_grad():
            for vector, value in zip(term.vectors, vectors, strict=True):
                vector.copy_(value)
