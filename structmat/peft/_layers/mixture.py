"""The changes of a layer in a mixed batch, where samples name the adapters that they have, computed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structmat.torch import CDDAdapter
from structmat.torch._for_peft import SampleChanges, Samples, wide_dtype

__all__ = ["NamesOfSamples", "changes_at_once"]


class _Kept(NamedTuple):
    """What was prepared for the samples, and for which values."""

    adapters: list[CDDAdapter]
    vectors: list[Tensor]
    state: object
    changes: SampleChanges


class NamesOfSamples(list[str]):
    """Names of adapters, one for each sample, as one layer gets them in one forward pass, or in one generation.

    No adapter comes or goes in the meantime: `generate` calls a layer once for each token, and what was prepared for
    the samples is kept here.
    """

    kept: _Kept | None = None


def changes_at_once(names: Sequence[str], adapters: Mapping[str, Any]) -> SampleChanges | None:
    """Return the changes of samples with some names; None if those of these adapters cannot be stacked."""
    keeps = isinstance(names, NamesOfSamples) and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    kept = names.kept if isinstance(names, NamesOfSamples) and keeps else None
    if kept is not None and kept.state == _state(kept.adapters, kept.vectors):
        return kept.changes
    used = sorted(set(names) & set(adapters))
    several = [adapters[name] for name in used]
    if not several or any(type(each) is not CDDAdapter for each in several):
        return None
    vectors = [each.vectors.forward() for each in several]
    kinds = {
        (each.scales, each.drops and each.dropout, *((vector.shape, vector.dtype) for vector in own))
        for each, own in zip(several, vectors, strict=True)
    }
    if len(kinds) > 1:
        return None
    # The first entry of each stack, zeros, is for samples without an adapter of this layer.
    stacks = [torch.stack([torch.zeros_like(same[0]), *same]) for same in zip(*vectors, strict=True)]
    places = {name: place for place, name in enumerate(used, 1)}
    device = stacks[0].device
    numbers = torch.tensor([places.get(name, 0) for name in names], device=device)
    alphas = torch.tensor([0.0, *(each.alpha for each in several)], dtype=wide_dtype(stacks[0]), device=device)
    first = several[0]
    samples = Samples(numbers, alphas)
    changes = SampleChanges(stacks, first.product_of_scales, samples, first.dropout if first.drops else 0.0)
    flat = [vector for own in vectors for vector in own]
    # Vectors that were made in inference mode do not count the changes in place.
    if isinstance(names, NamesOfSamples) and keeps and not any(vector.is_inference() for vector in flat):
        names.kept = _Kept(several, flat, _state(several, flat), changes)
    return changes


def _state(adapters: Sequence[CDDAdapter], vectors: Sequence[Tensor]) -> object:
    """Return what differs once an adapter has other values."""
    return [adapter.alpha for adapter in adapters], [(vector.data_ptr(), vector._version) for vector in vectors]
