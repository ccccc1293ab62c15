"""Circulants that the layers of one kind share, each with diagonals of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from structmat.torch._adapter.cdd_adapter import CDDAdapter

__all__ = ["kind_of_path", "places", "share", "share_circulants", "shared"]


def kind_of_path(path: str) -> str:
    """Return a path without its numbers: the same for a layer in each of repeated blocks."""
    return re.sub(r"\d+", "#", path)


def places(adapters: Mapping[str, CDDAdapter]) -> dict[str, tuple[CDDAdapter, int]]:
    """Return where the vectors of all layers are, an adapter and a number, by their keys in a state dict."""
    return {
        f"{path}{'.' if path else ''}factors.{i}": (adapter, i)
        for path, adapter in adapters.items()
        for i in range(adapter.n_factors)
    }


def share_circulants(adapters: Mapping[str, CDDAdapter]) -> int:
    """Let adapters of one kind share their circulants, each with diagonals of its own; for wrappers of layers.

    Of one kind are those whose paths differ in numbers only, as in repeated blocks, and whose circulants have the same
    shape, dtype and device. All get those of the first. `adapt` has this as an option.

    Parameters
    ----------
    adapters : dict of str to CDDAdapter
        By path; changed in place.

    Returns
    -------
    int
        How many vectors were replaced by those of an earlier adapter.

    See Also
    --------
    adapt : Wraps the layers of a model, with ``share_circulants=True``.

    Examples
    --------
    >>> from structmat.torch import CDDAdapter, share_circulants
    >>> adapters = {"block.0.up": CDDAdapter(4, 4), "block.1.up": CDDAdapter(4, 4), "down": CDDAdapter(4, 4)}
    >>> share_circulants(adapters)
    1
    >>> first, second, other = (adapter.factors for adapter in adapters.values())
    >>> first[1] is second[1], first[1] is other[1], first[0] is second[0]
    (True, False, False)
    """
    first: dict[tuple[object, ...], CDDAdapter] = {}
    replaced = 0
    for path, adapter in adapters.items():
        for i, (kind, vector) in enumerate(zip(adapter.layout.kinds, adapter.factors, strict=True)):
            if kind != "diagonal":
                like = kind_of_path(path), i, vector.shape, vector.dtype, vector.device
                owner = first.setdefault(like, adapter)
                if owner is not adapter:
                    adapter.factors[i] = owner.factors[i]
                    replaced += 1
    return replaced


def share(adapters: Mapping[str, CDDAdapter], owners: Mapping[str, str]) -> None:
    """Replace vectors by those of other layers, all named by their keys."""
    where = places(adapters)
    for key, owner in owners.items():
        (adapter, i), (other, j) = where[key], where[owner]
        adapter.factors[i] = other.factors[j]


def shared(adapters: Mapping[str, CDDAdapter]) -> dict[str, str]:
    """Return the keys of vectors that an earlier layer has too, each with the first key of the same vector."""
    first: dict[int, str] = {}
    owners = {key: first.setdefault(id(adapter.factors[i]), key) for key, (adapter, i) in places(adapters).items()}
    return {key: owner for key, owner in owners.items() if owner != key}
