"""Circulants that the layers of one kind share, each with diagonals of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapter.cdd_adapter import CDDAdapter

__all__ = ["check_tied", "share_circulants", "tie_vectors", "tied_keys", "vector_key", "vectors_by_key"]


def share_circulants(adapters: Mapping[str, CDDAdapter]) -> int:
    """Let adapters of one kind share their circulants, each with diagonals of its own; for wrappers of layers.

    Of one kind are those whose paths differ in whole numbers between dots only, as in repeated blocks, and which have
    the same sizes, options, dtype and device. All get the circulants of the first. `adapt` has this as an option.

    Parameters
    ----------
    adapters : dict of str to CDDAdapter
        By path; changed in place.

    Returns
    -------
    int
        How many vectors are those of an earlier adapter now.

    Raises
    ------
    TypeError
        If it is no such dict.

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
    _check(adapters)
    first: dict[tuple[Any, ...], CDDAdapter] = {}
    count = 0
    for path, adapter in adapters.items():
        kind = re.sub(r"(?<![^.])\d+(?![^.])", "#", path)  # "fc1" and "fc2" are two kinds
        for i, (factor, vector) in enumerate(zip(adapter.layout.kinds, adapter.factors, strict=True)):
            if factor != "diagonal":
                like = kind, adapter.layout, i, vector.dtype, vector.device, vector.requires_grad
                owner = first.setdefault(like, adapter)
                if owner is not adapter:
                    adapter.factors[i] = owner.factors[i]
                    count += 1
    return count


def _check(adapters: Any) -> None:
    named = isinstance(adapters, Mapping) and all(isinstance(path, str) for path in adapters)
    if not named or not all(isinstance(adapter, CDDAdapter) for adapter in adapters.values()):
        raise ArgumentTypeError("share_circulants", "adapters", "must be a dict of CDDAdapter by path")


def vector_key(path: str, i: int) -> str:
    """Return the key of a vector in a state dict, by the path of its layer and its number."""
    return f"{path}{'.' if path else ''}factors.{i}"


def vectors_by_key(adapters: Mapping[str, CDDAdapter]) -> dict[str, tuple[CDDAdapter, int]]:
    """Return where the vectors of all layers are, an adapter and a number, by their keys in a state dict."""
    return {vector_key(path, i): (adapter, i) for path, adapter in adapters.items() for i in range(adapter.n_factors)}


def tied_keys(adapters: Mapping[str, CDDAdapter]) -> dict[str, str]:
    """Return the keys of vectors that an earlier layer has too, each with the first key of the same vector."""
    first: dict[int, str] = {}
    owners = {
        key: first.setdefault(id(adapter.factors[i]), key) for key, (adapter, i) in vectors_by_key(adapters).items()
    }
    return {key: owner for key, owner in owners.items() if owner != key}


def tie_vectors(adapters: Mapping[str, CDDAdapter], owners: Mapping[str, str]) -> None:
    """Replace vectors by those of other layers, all named by their keys; where dtype and device are the same."""
    where = vectors_by_key(adapters)
    for key, owner in owners.items():
        (adapter, i), (other, j) = where[key], where[owner]
        old, new = adapter.factors[i], other.factors[j]
        if (old.dtype, old.device) == (new.dtype, new.device):
            adapter.factors[i] = new


def check_tied(tied: Mapping[str, str], state: Mapping[str, Tensor], caller: str) -> None:
    """Refuse a state dict with other values for a vector in each of the layers that share it.

    Raises
    ------
    ValueError
        If values differ.
    """
    for key, owner in tied.items():
        if not torch.equal(state[key].to(state[owner].device), state[owner]):
            text = f"has different values for {owner} and {key}, which the model shares"
            raise ArgumentValueError(caller, "source", text)
