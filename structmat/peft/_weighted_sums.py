"""A weighted sum of changes as one change, where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from structmat._arrays.errors import ArgumentValueError
from structmat.torch import CDDAdapter

__all__ = ["combined"]


def combined(terms: Sequence[tuple[float, CDDAdapter]], path: str, *, fit: bool) -> CDDAdapter:
    """Return the weighted sum of changes of one shape, with alpha 1.

    Raises
    ------
    ValueError
        If they have other factors, or the sum is no such product and `fit` is false.
    """
    first = terms[0][1]
    if any((adapter.n_factors, adapter.block_size) != (first.n_factors, first.block_size) for _, adapter in terms):
        raise ArgumentValueError(
            "add_weighted_adapter", "adapters", f"have other numbers of factors or block sizes in {path}"
        )
    differing = [
        k for k, factor in enumerate(first.factors) if any(not torch.equal(a.factors[k], factor) for _, a in terms)
    ]
    total = CDDAdapter(
        **{**first.options(), "alpha": 1.0}, dtype=first.factors[0].dtype, device=first.factors[0].device
    )
    if len(differing) > 1:
        if not fit:
            raise ArgumentValueError(
                "add_weighted_adapter",
                "adapters",
                f"have no sum that is a product of {first.n_factors} factors in {path}, where they differ in "
                f'{len(differing)} of them; set_adapter with a list of names sums exactly, and "fit" approximates',
            )
        total.fit_(torch.stack([weight * adapter.dense() for weight, adapter in terms]).sum(0))
        return total
    summed = differing[0] if differing else 0
    with torch.no_grad():
        for k, factor in enumerate(total.factors):
            factor.copy_(_sum(terms, k) if k == summed else first.factors[k])
    return total


def _sum(terms: Sequence[tuple[float, CDDAdapter]], k: int) -> Tensor:
    return torch.stack([weight * adapter.alpha * adapter.factors[k].detach() for weight, adapter in terms]).sum(0)
