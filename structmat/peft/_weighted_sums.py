"""A weighted sum of changes as one change, where that is possible, and what else an adapter has."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from structmat._array_tools import ArgumentValueError
from structmat.torch import CDDAdapter

__all__ = ["combined", "copy_wrapped", "wrappers"]


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


def wrappers(model: nn.Module, adapter_name: str) -> list[AuxiliaryTrainingWrapper]:
    """Return the modules of which an adapter has copies, by `modules_to_save`, or tokens of its own."""
    found = (module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper))
    return [module for module in found if adapter_name in module._get_available_adapters()]


def copy_wrapped(model: nn.Module, source: str, target: str) -> None:
    """Give an adapter, in place of its own, frozen copies of the modules and tokens of another."""
    for wrapper in wrappers(model, source):
        if isinstance(wrapper, ModulesToSaveWrapper):
            held: nn.ModuleDict | nn.ParameterDict = wrapper.modules_to_save
        elif isinstance(wrapper, TrainableTokensWrapper):
            held = wrapper.token_adapter.trainable_tokens_delta
        held[target] = copy.deepcopy(held[source]).requires_grad_(False)
