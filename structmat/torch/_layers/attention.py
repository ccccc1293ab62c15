"""`CDDMultiheadAttention`: a frozen `torch.nn.MultiheadAttention` with a change of its four projections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._layers.adapted_layer import Change
from structmat.torch._layers.summed_layer import SummedLayer

__all__ = ["CDDMultiheadAttention"]

_IN = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
"""The names of the weights before attention where keys or values have other numbers of features than queries."""
_CALL = inspect.signature(nn.MultiheadAttention.forward)


class CDDMultiheadAttention(SummedLayer):
    """A frozen attention module of torch and a trainable change ``alpha D C D`` of its projections.

    The weights of queries, keys, values and outputs, on top of each other, are changed as one matrix of
    ``4 * embed_dim`` rows. With the default `block_size` each of them has a circulant of its own, and they share the
    right diagonal.

    Parameters
    ----------
    base : torch.nn.MultiheadAttention
        Frozen and shared, not copied.
    **options
        Arguments of `CDDAdapter`.

    Raises
    ------
    TypeError
        If the base is another module, or a subclass with another forward pass.
    ValueError
        If an option is wrong.

    See Also
    --------
    CDDLinear : The same for linear layers.

    Notes
    -----
    Where keys or values have other numbers of features than queries, the matrix is as wide as the widest of the four,
    and the others take its first columns.

    The base is called with the sums of its weights and the change, which are kept for the backward pass. In weights of
    half precision a sum loses those digits of the change that the weight has no room for. Dropout sets whole input
    features of the change to zero, the same for all samples.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDMultiheadAttention
    >>> layer = CDDMultiheadAttention(torch.nn.MultiheadAttention(8, 2, batch_first=True))
    >>> x = torch.ones(2, 3, 8)
    >>> outputs, weights = layer(x, x, x)
    >>> outputs.shape, weights.shape
    (torch.Size([2, 3, 8]), torch.Size([2, 3, 3]))
    >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)
    72
    """

    _plural = "attention modules of torch"
    _shown = frozenset(
        {
            *("embed_dim", "kdim", "vdim", "_qkv_same_embed_dim", "num_heads", "head_dim", "dropout", "batch_first"),
            *("in_proj_weight", *_IN, "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "out_proj", "merge_masks"),
        }
    )

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if not cls._recognises(base):
            text = f"must be a torch.nn.MultiheadAttention with the forward pass of torch, got {type(base).__name__}"
            raise ArgumentTypeError("CDDMultiheadAttention", "base", text)
        return max(base.embed_dim, base.kdim, base.vdim), 4 * base.embed_dim

    @classmethod
    def _weight_names(cls, base: Any) -> tuple[str, ...]:
        return (*(("in_proj_weight",) if base._qkv_same_embed_dim else _IN), "out_proj.weight")

    @classmethod
    def _summed(cls, base: Any, weights: Mapping[str, Tensor], plus: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        columns, _ = cls._features(base)
        matrix = plus(torch.cat([pad(weight, (0, columns - weight.shape[1])) for weight in weights.values()]))
        rows = matrix.split([len(weight) for weight in weights.values()])
        return {name: piece[:, : weight.shape[1]] for (name, weight), piece in zip(weights.items(), rows, strict=True)}

    @classmethod
    def _batch_axis(cls, base: Any) -> int:
        return 0 if base.batch_first else 1

    @classmethod
    def _of_samples(
        cls, base: Any, changes: Sequence[Change], x: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Call a base for the samples of each adapter in turn, and put the outputs in the order of the samples."""
        given = _CALL.bind(base, x, *args, **kwargs).arguments
        if x.is_nested or x.ndim != 3:
            text = "must be a tensor with three axes where samples have changes of their own: pad it"
            raise ArgumentValueError("CDDMultiheadAttention", "query", text)
        axis = cls._batch_axis(base)
        of_all = [adapter for adapter, samples in changes if samples is None]
        groups: dict[tuple[int, ...], list[CDDAdapter]] = {}
        for adapter, samples in changes:
            if samples is not None:
                groups.setdefault(tuple(samples.tolist()), [*of_all]).append(adapter)
        # Each sample stands in one group; those that nobody named have the changes of all samples alone.
        groups[tuple(sorted(set(range(x.shape[axis])).difference(*groups)))] = of_all
        outputs: list[tuple[Tensor, Tensor | None]] = []
        order: list[int] = []
        for key, adapters in groups.items():
            if key:
                numbers = torch.tensor(key, device=x.device)
                outputs.append(cls._called_with_sums(base, adapters, **_samples_of(given, numbers, axis)))
                order.extend(key)
        places = torch.tensor(order, device=x.device).argsort()
        y, weights = zip(*outputs, strict=True)
        seen = None if weights[0] is None else torch.cat(weights).index_select(0, places)
        return torch.cat(y, axis).index_select(axis, places), seen

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs of attention, and its weights.

        Parameters
        ----------
        query, key, value : Tensor
            Inputs, as for the base.
        key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal : optional
            As for the base.

        Returns
        -------
        outputs : Tensor
            Of the shape of `query`.
        weights : Tensor or None
            None without `need_weights`.
        """
        outputs: tuple[Tensor, Tensor | None] = self._with_changes(
            self.base,
            [(self.adapter, None)],
            self.base,
            query,
            key,
            value,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return outputs


def _samples_of(given: dict[str, Any], numbers: Tensor, axis: int) -> dict[str, Any]:
    """Return the arguments of a call for some of its samples alone; inputs have these on an axis."""
    part = {name: value for name, value in given.items() if name != "self"}
    for name in ("query", "key", "value"):
        part[name] = given[name].index_select(axis, numbers)
    padding, mask = given.get("key_padding_mask"), given.get("attn_mask")
    if padding is not None:
        part["key_padding_mask"] = padding.index_select(0, numbers)
    if mask is not None and mask.ndim == 3:
        samples = given["query"].shape[axis]
        part["attn_mask"] = mask.unflatten(0, (samples, -1)).index_select(0, numbers).flatten(0, 1)
    return part
