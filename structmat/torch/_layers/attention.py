"""`CDDMultiheadAttention`: a frozen `torch.nn.MultiheadAttention` with a change of its four projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import linear, pad

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._changes.dense import change_as_matrix, wide_dtype
from structmat.torch._changes.operation import apply_change, autocast_dtype
from structmat.torch._layers.adapted_layer import AdaptedLayer, Change
from structmat.torch._other_tools.calls import is_watched

__all__ = ["CDDMultiheadAttention"]

_IN = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
"""The names of the weights before attention where keys or values have other numbers of features than queries."""
_OUT = 3
"""The place of the projection behind attention, among the four."""


class CDDMultiheadAttention(AdaptedLayer):
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

    The module's own kernels for evaluation are not used. If somebody watches the base by hooks, or inputs are nested
    tensors, it is called with changed weights: that costs a dense gradient of these, and the dropout of the change is
    left out.

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
    _calls_base = False
    _shown = frozenset(
        {
            *("embed_dim", "kdim", "vdim", "_qkv_same_embed_dim", "num_heads", "head_dim", "dropout", "batch_first"),
            *("in_proj_weight", *_IN, "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "out_proj", "merge_masks"),
        }
    )

    def __init__(self, base: nn.MultiheadAttention, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

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
    def _pieces(cls, base: Any, change: Tensor) -> dict[str, Tensor]:
        weights = {name: base.get_parameter(name) for name in cls._weight_names(base)}
        rows = change.split([len(weight) for weight in weights.values()])
        return {name: piece[:, : weight.shape[1]] for (name, weight), piece in zip(weights.items(), rows, strict=True)}

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        return True  # torch's own forward pass does; `_recognises` takes no other

    @classmethod
    def _batch_axis(cls, base: Any) -> int:
        return 0 if base.batch_first else 1

    @classmethod
    def _with_changes(
        cls, base: Any, changes: Sequence[Change], call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if not changes:
            return call(x, *args, **kwargs)
        # Of nested tensors the kernels of torch alone know how to attend.
        if is_watched(base) or is_watched(base.out_proj) or x.is_nested:
            return cls._called_with_changed_weights(base, changes, x, *args, **kwargs)
        return _attended(base, changes, x, *args, **kwargs)

    @classmethod
    def _called_with_changed_weights(cls, base: Any, changes: Sequence[Change], *args: Any, **kwargs: Any) -> Any:
        """Call a base itself, for those who watch it, and for nested tensors."""
        if any(samples is not None for _, samples in changes):
            text = (
                "has hooks, or its inputs are nested tensors, with which samples with changes of their own cannot pass "
                "together: remove the hooks, or pad the inputs"
            )
            raise ArgumentValueError("CDDMultiheadAttention", "base", text)
        weights: dict[str, Tensor] = {name: base.get_parameter(name) for name in cls._weight_names(base)}
        for adapter, _ in changes:
            vectors = adapter.vectors.forward()
            pieces = cls._pieces(base, change_as_matrix(vectors, adapter.gain, wide_dtype(*vectors)))
            weights = {name: (weight + pieces[name]).to(weight.dtype) for name, weight in weights.items()}
        return torch.func.functional_call(base, weights, args, kwargs)

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


# ---- the projections


def _projected(base: Any, changes: Sequence[Change], x: Tensor, parts: range) -> tuple[Tensor, ...]:
    """Return the products of inputs (batch, length, features) with some of the four weights, changed."""
    if parts[0] == _OUT:
        weight, bias = base.out_proj.weight, base.out_proj.bias
    else:
        rows = slice(parts[0] * base.embed_dim, (parts[-1] + 1) * base.embed_dim)
        weight = base.in_proj_weight[rows] if base._qkv_same_embed_dim else getattr(base, _IN[parts[0]])
        bias = None if base.in_proj_bias is None else base.in_proj_bias[rows]
    y: Tensor | None = None
    for adapter, samples in changes:
        # The first change can be one operation with the projection; further ones are added to its outputs.
        if y is None and samples is None and _fuses(adapter, x, weight, bias):
            vectors, before = _vectors_of(base, adapter, x, parts)
            # With rows of zeros before those of the parts the change would have more outputs than the projection.
            if not before:
                y = apply_change(None, x, weight, bias, vectors, adapter.gain)
                continue
        y = linear(x, weight, bias) if y is None else y
        if samples is None:
            y = _plus_change(base, adapter, y, x, parts)
        else:
            y = y.index_copy(0, samples, _plus_change(base, adapter, y[samples], x[samples], parts))
    y = linear(x, weight, bias) if y is None else y
    return y.chunk(len(parts), -1)


def _fuses(adapter: CDDAdapter, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether a projection and its change may be one operation: with frozen weights of the inputs' dtype."""
    given = [weight] if bias is None else [weight, bias]
    plain = all(type(each) in {Tensor, nn.Parameter} and not each.requires_grad for each in given)
    return plain and not adapter.drops and autocast_dtype(x) is None and all(each.dtype == x.dtype for each in given)


def _plus_change(base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor, parts: range) -> Tensor:
    """Return products of inputs with some of the weights plus those with their change."""
    x = adapter.dropped(x)
    vectors, before = _vectors_of(base, adapter, x, parts)
    y = apply_change(pad(y, (before, 0)), x, None, None, vectors, adapter.gain)
    return y[..., before:] if before else y


def _vectors_of(base: Any, adapter: CDDAdapter, x: Tensor, parts: range) -> tuple[list[Tensor], int]:
    """Return the vectors of the rows of some parts, with zeros for so many rows before them, and this number.

    These are whole rows and columns of blocks; blocks need not begin where a part does.
    """
    start, stop = parts[0] * base.embed_dim, (parts[-1] + 1) * base.embed_dim
    first, *others, last = adapter.vectors.forward()
    side, last_side = others[0].shape[2], others[-1].shape[2]
    before = start % side
    others[0] = others[0][start // side : -(-stop // side)]
    others[-1] = others[-1][:, : -(-x.shape[-1] // last_side)]
    return [pad(first[start:stop], (before, 0)), *others, last[: x.shape[-1]]], before


# ---- attention


def _attended(
    base: Any,
    changes: Sequence[Change],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what the forward pass of a base does, as `torch.nn.functional.multi_head_attention_forward` computes it.

    That function takes weights alone. Weights with a change added would be kept for the backward pass, and get dense
    gradients.
    """
    is_batched = _is_batched(query, key, value, key_padding_mask)
    is_self, is_shared = query is key and key is value, key is value
    if not is_batched:
        query, key, value = (x[None] for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
    elif not base.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    _require_alike(query, key, value)
    mask, is_causal = _mask(base, query, key, key_padding_mask, attn_mask, need_weights, is_causal)
    # The rows of the three weights lie together, so that one product gives all parts of the same inputs.
    if is_self and base._qkv_same_embed_dim:
        q, k, v = _projected(base, changes, query, range(3))
    elif is_shared and base._qkv_same_embed_dim:
        (q,), (k, v) = _projected(base, changes, query, range(1)), _projected(base, changes, key, range(1, 3))
    else:
        q, k, v = (_projected(base, changes, x, range(i, i + 1))[0] for i, x in enumerate((query, key, value)))
    batch, length, width = q.shape
    if base.bias_k is not None:
        k, v = (torch.cat([x, own.expand(batch, -1, -1)], 1) for x, own in ((k, base.bias_k), (v, base.bias_v)))
    q, k, v = (x.unflatten(-1, (base.num_heads, base.head_dim)).transpose(1, 2) for x in (q, k, v))
    if base.add_zero_attn:
        k, v = (pad(x, (0, 0, 0, 1)) for x in (k, v))
    dropout = base.dropout if base.training else 0.0
    weights: Tensor | None = None
    if need_weights:
        # Torch's fused attention returns no weights.
        scores = q * base.head_dim**-0.5 @ k.transpose(2, 3)
        weights = functional.dropout(functional.softmax(scores if mask is None else scores + mask, -1), dropout)
        heads = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        heads = functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
    (outputs,) = _projected(base, changes, heads.transpose(1, 2).reshape(batch, length, width), range(_OUT, _OUT + 1))
    if not is_batched:
        return outputs[0], None if weights is None else weights[0]
    return outputs if base.batch_first else outputs.transpose(0, 1), weights


def _is_batched(query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> bool:
    """Return whether inputs have an axis of samples; all of them or none."""
    padding = query.ndim - 1 if key_padding_mask is None else key_padding_mask.ndim
    if query.ndim not in {2, 3} or not query.ndim == key.ndim == value.ndim == padding + 1:
        text = (
            "query, key and value must have 3 axes and key_padding_mask 2, or 2 and 1 for one sample, got "
            f"{query.ndim}, {key.ndim}, {value.ndim} and {padding}"
        )
        raise ArgumentValueError("CDDMultiheadAttention", None, text)
    return query.ndim == 3


def _require_alike(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuse inputs (batch, length, features) of other numbers of samples, or keys and values of other lengths."""
    # Exporters take the length of a tensor for a constant, and its shape for a symbol.
    if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
        shapes = ", ".join(str(tuple(x.shape[:2])) for x in (query, key, value))
        text = f"query, key and value must have the same samples, key and value the same length, got {shapes}"
        raise ArgumentValueError("CDDMultiheadAttention", None, text)


def _mask(
    base: Any,
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    need_weights: bool,
    is_causal: bool,
) -> tuple[Tensor | None, bool]:
    """Return what is added to the scores (batch, heads, queries, keys), and whether a causal mask stands for it."""
    if is_causal and attn_mask is None:
        raise ArgumentValueError("CDDMultiheadAttention", "attn_mask", "must be given with is_causal=True")
    padding = functional._canonical_mask(
        mask=key_padding_mask,
        mask_name="key_padding_mask",
        other_type=functional._none_or_dtype(attn_mask),
        other_name="attn_mask",
        target_type=query.dtype,
    )
    if is_causal and padding is None and not need_weights:
        return None, True
    mask = functional._canonical_mask(
        mask=attn_mask,
        mask_name="attn_mask",
        other_type=None,
        other_name="",
        target_type=query.dtype,
        check_other=False,
    )
    (batch, length), sources = query.shape[:2], key.shape[1]
    if mask is not None:
        single, wanted = (length, sources), (batch * base.num_heads, length, sources)
        if mask.shape != (single if mask.ndim == 2 else wanted):
            text = f"must have shape {single} or {wanted}, got {tuple(mask.shape)}"
            raise ArgumentValueError("CDDMultiheadAttention", "attn_mask", text)
        mask = mask[None, None] if mask.ndim == 2 else mask.unflatten(0, (batch, base.num_heads))
    if padding is not None:
        if padding.shape != (batch, sources):
            text = f"must have shape {(batch, sources)}, got {tuple(padding.shape)}"
            raise ArgumentValueError("CDDMultiheadAttention", "key_padding_mask", text)
        padding = padding[:, None, None]
        mask = padding if mask is None else mask + padding
    if mask is not None:
        mask = pad(mask, (0, (base.bias_k is not None) + base.add_zero_attn))
    return mask, False
