"""`SummedLayer`: a layer whose base runs with sums of its weights and the changes in the places of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from structmat._errors import ArgumentValueError
from structmat._torch_modes import sees_operations
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._changes.dense import summed
from structmat.torch._changes.operation import without_autocast
from structmat.torch._distributed import within_fsdp
from structmat.torch._layers.adapted_layer import AdaptedLayer, Change
from structmat.torch._layers.base_weight import owner_of
from structmat.torch._layers.changed_call import forward_replaced, replaced

__all__ = ["SummedLayer"]


class SummedLayer(AdaptedLayer):
    """A layer whose base runs its own forward pass with other weights, whatever that pass does with them.

    A kind says which modules are its bases (`_recognises`), of which size their matrix is (`_features`), and how their
    weights are one matrix (`_summed`, `_weight_names`); its `forward` hands on what the base takes. The sums are kept
    for the backward pass. Dropout sets whole columns of the change to zero, the same for all rows.
    """

    _calls_base = False

    def __init__(self, base: Any, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        return True  # its own forward pass, with which `_recognises` knows it, does

    @classmethod
    def _with_changes(
        cls, base: Any, changes: Sequence[Change], call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if not changes:
            return call(x, *args, **kwargs)
        if all(samples is None for _, samples in changes):
            return cls._called_with_sums(base, [adapter for adapter, _ in changes], x, *args, **kwargs)
        return cls._of_samples(base, changes, x, *args, **kwargs)

    @classmethod
    def _of_samples(cls, base: Any, changes: Sequence[Change], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of a base where samples have changes of their own."""
        text = "must be those of one adapter: run the samples of each by themselves"
        raise ArgumentValueError(cls.__name__, "x", text)

    @classmethod
    def _called_with_sums(cls, base: Any, adapters: Sequence[CDDAdapter], *args: Any, **kwargs: Any) -> Any:
        """Call a base whose weights are sums with some changes."""
        if not adapters:
            return base(*args, **kwargs)
        if sees_operations():
            return torch.func.functional_call(base, cls._sums(base, adapters), args, kwargs)
        inner = within_fsdp(base)
        with forward_replaced(inner, partial(cls._with_sums, inner, adapters)):
            return base(*args, **kwargs)

    @classmethod
    def _with_sums(
        cls, base: Any, adapters: Sequence[CDDAdapter], inner: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Return what the forward pass of a base returns with sums in the place of its weights."""
        with replaced(base, cls._sums(base, adapters)):
            return inner(*args, **kwargs)

    @classmethod
    def _weights(cls, base: Any) -> dict[str, Tensor]:
        """Return the weights by name: parameters, or tensors that FSDP puts into their places while it gathers them."""
        return {name: getattr(*owner_of(base, name)) for name in cls._weight_names(base)}

    @classmethod
    def _sums(cls, base: Any, adapters: Sequence[CDDAdapter]) -> Mapping[str, Tensor]:
        """Return the sums of the weights of a base and some changes, by the names of the weights."""

        def plus(matrix: Tensor) -> Tensor:
            with without_autocast(matrix):
                for adapter in adapters:
                    *others, right = adapter.vectors.forward()
                    matrix = summed(matrix, [*others, adapter.dropped(right)], adapter.gain)
            return matrix

        return cls._summed(base, cls._weights(base), plus)
