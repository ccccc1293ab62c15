"""A frozen layer with a change: linear layers, convolutions of kernel size 1, embeddings.

A kind of layer is a subclass of `AdaptedLayer` that stands in `KINDS`. Its hooks say which modules can be its bases,
and how a change meets them; `adapt`, the files of adapters and `structmat.peft` ask nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator
from structmat.torch._adapter import CDDAdapter, Init, require_floating
from structmat.torch._base_weight import dtype_and_device, multiplies_by_weight, own_weight, weight_plus
from structmat.torch._other_tools import has_transposed_weight, is_never_called

__all__ = ["KINDS", "AdaptedLayer", "CDDConv", "CDDEmbedding", "CDDLinear", "kind_of", "kind_to_wrap"]


class AdaptedLayer(nn.Module):
    """A frozen base layer and the change that is added to it; what all kinds of layers share."""

    base: Any
    """The frozen layer, or None."""
    adapter: CDDAdapter
    """The change."""

    _plural: ClassVar[str]
    """What the bases of this kind are called in errors."""
    _is_linear: ClassVar[bool] = False
    """Whether the targets "all-linear" mean the bases of this kind."""

    def __init__(self, base: nn.Module | None, in_features: int, out_features: int, **options: Any) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        for key, value in ({} if base is None else dtype_and_device(base)).items():
            if options.get(key) is None:
                options[key] = value
        adapter = CDDAdapter(in_features, out_features, **options)
        if base is not None:
            self._prepare(base, adapter)
        self.base = base
        self.adapter = adapter
        if base is not None:
            self.train(base.training)
            base.requires_grad_(requires_grad=False)

    # ---- the hooks of a kind
    #
    # They are methods of the class, as `structmat.peft` calls them for layers that have several adapters.

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        """Return whether a module can be a base, as far as its class, name and sizes tell."""
        raise NotImplementedError

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        """Return the columns and the rows of the change of a base; refuse a module that is no base of this kind."""
        raise NotImplementedError

    @classmethod
    def _wrapped(cls, base: Any, **options: Any) -> AdaptedLayer:
        """Return a layer around a base, with the options of its adapter."""
        return cls(base, **options)

    @classmethod
    def _prepare(cls, base: Any, adapter: CDDAdapter) -> None:
        """Refuse an adapter that this kind cannot use, and set the entries to zero that must stay zero."""

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `y` of the base plus the change for its inputs `x`."""
        raise NotImplementedError

    @classmethod
    def _outputs(cls, base: Any, adapter: CDDAdapter, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the outputs of the base for inputs `x`, which `call` computes, plus the change."""
        return cls._add(base, adapter, call(x), x)

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        """Return a change (out_features, in_features) in the layout of the base's weight."""
        return change

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        """Return whether the base multiplies by its weight as it is, so that a change may be merged into it."""
        columns, rows = features
        return multiplies_by_weight(base, (rows, columns))

    # ---- the weight

    @property
    def weight(self) -> Any:
        """The base's weight, without the change."""
        return getattr(self.base, "weight", None)

    def delta(self) -> LinearOperator:
        """Return the change as an operator.

        Returns
        -------
        LinearOperator
            Of shape (out_features, in_features), `alpha` included; gradients flow to the vectors.
        """
        return self.adapter.operator()

    def merge_into_base(self) -> nn.Module:
        """Add the change to the base's weight, for good; see `remove_adapters`.

        Returns
        -------
        Module
            The base. Its weight is a new parameter: layers that shared the old one keep that.

        Raises
        ------
        TypeError
            If there is no base, or its weight is quantised, split among processes, of another special kind, or not what
            it multiplies by.
        ValueError
            If the merged weight held NaN or infinity, or nothing calls this layer and the change is not zero; nothing
            has changed then.
        """
        weight = self._merged_weight()
        self.base.weight = weight
        return self.base

    def _merged_weight(self) -> nn.Parameter:
        """Return a new weight for the base, with the change added; the base has not changed yet."""
        owner = type(self).__name__
        if self.base is None:
            raise ArgumentTypeError(owner, None, "the layer has no base, whose weight could be changed")
        if self.adapter.vectors[0].is_meta:
            raise ArgumentValueError(owner, None, "the vectors are on the device meta: merge before offloading")
        weight = own_weight(self.base, owner)
        if not self._multiplies_by_weight(self.base, (self.in_features, self.out_features)):
            text = f"the weight of {type(self.base).__name__} is not what it multiplies by"
            raise ArgumentTypeError(owner, None, text)
        change = self.adapter.dense()
        if is_never_called(self) and change.any():
            raise ArgumentValueError(owner, None, "the layer was never called: its weight alone is read, unchanged")
        # In inference mode the new weight would become a tensor that autograd refuses for good.
        with torch.inference_mode(mode=False), torch.no_grad():
            merged = weight_plus(weight, self._laid_out(self.base, change))
            if not torch.isfinite(merged).all():
                raise ArgumentValueError(owner, None, "NaN or infinity in the merged weight; the adapter is broken")
            return nn.Parameter(merged, requires_grad=False)


class CDDLinear(AdaptedLayer):
    """``y = W x + bias + alpha D C D x``: a frozen linear layer and a trainable change of three vectors.

    Without a base it is a structured linear layer, ``y = alpha D C D x + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of inputs and outputs.
    bias : bool, default True
        Whether a layer without a base has a trainable bias; a base keeps its own.
    base : Module, optional
        Frozen module that maps ``(..., in_features)`` to ``(..., out_features)``, quantised ones included. Shared, not
        copied.
    init : {"zero", "normal"}, optional
        Default: "zero" with a base, so that training starts from the base's outputs, and "normal" without one.
    **options
        Further arguments of `CDDAdapter`: `n_factors`, `block_size`, `alpha`, `dropout`, ... Dtype and device are by
        default those of the base.

    Raises
    ------
    ValueError
        If a size or an option is wrong, or the base has other numbers of features.
    TypeError
        If the base does not have numbers of features, or there is no such option.

    See Also
    --------
    adapt : Wraps the layers of a whole model.
    CDDAdapter : The change alone.

    Notes
    -----
    A layer keeps only its input for the backward pass, which computes the transforms again.

    References
    ----------
    .. [1] X. Ding, L. Chen, S. Liao, Z. Wang, Parameter-efficient fine-tuning with circulant and diagonal vectors,
       IJCAI 2025, pp. 9185-9193, arXiv:2505.00580.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDLinear
    >>> linear = torch.nn.Linear(6, 4)
    >>> layer = CDDLinear.from_linear(linear)
    >>> x = torch.randn(3, 6)
    >>> bool((layer(x) == linear(x)).all())
    True
    >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)
    18
    """

    _plural = "linear layers"
    _is_linear = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        base: nn.Module | None = None,
        init: Init | None = None,
        **options: Any,
    ) -> None:
        if base is not None:
            columns, rows = self._features(base)
            if (columns, rows) != (in_features, out_features):
                text = f"maps {columns} to {rows} features, got in_features={in_features}, out_features={out_features}"
                raise ArgumentValueError("CDDLinear", "base", text)
        init = init or ("normal" if base is None else "zero")
        super().__init__(base, in_features, out_features, init=init, **options)
        like = self.adapter.vectors[0]
        own = nn.Parameter(like.new_zeros(out_features)) if bias and base is None else None
        self.register_parameter("own_bias", own)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        sized = hasattr(module, "in_features") and hasattr(module, "out_features")
        named = isinstance(module, nn.Linear) or "Linear" in type(module).__name__
        return has_transposed_weight(module) or (sized and named)

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if has_transposed_weight(base):
            return int(base.nx), int(base.nf)
        if hasattr(base, "in_features") and hasattr(base, "out_features"):
            return int(base.in_features), int(base.out_features)
        text = f"must have in_features and out_features, as torch.nn.Linear has, got {type(base).__name__}"
        raise ArgumentTypeError("CDDLinear", "base", text)

    @classmethod
    def _wrapped(cls, base: nn.Module, **options: Any) -> CDDLinear:
        return cls.from_linear(base, **options)

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        return adapter.add_to(y, x)

    @classmethod
    def _outputs(cls, base: Any, adapter: CDDAdapter, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        return adapter.add_to_outputs_of(call, x)

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        return change.T if has_transposed_weight(base) else change

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        plain = type(base).forward is nn.Linear.forward or has_transposed_weight(base)
        return plain or super()._multiplies_by_weight(base, features)

    @classmethod
    def from_linear(cls, linear: nn.Module, **options: Any) -> CDDLinear:
        """Wrap a linear layer: `torch.nn.Linear`, transformers' ``Conv1D``, or a quantised one.

        Parameters
        ----------
        linear : Module
            With ``in_features`` and ``out_features`` (``nx`` and ``nf`` for ``Conv1D``). It is frozen; its weight is
            shared, not copied.
        **options
            Arguments of `CDDLinear`.

        Returns
        -------
        CDDLinear
            In training or evaluation mode as `linear` is.

        Raises
        ------
        TypeError
            If the module has no features.
        """
        return cls(*cls._features(linear), base=linear, **options)

    @classmethod
    def from_delta(cls, linear: nn.Module, delta: Tensor, **options: Any) -> CDDLinear:
        """Wrap a linear layer with a fit of a given change, by `structmat.fit_cdd`.

        Parameters
        ----------
        linear : Module
            As for `from_linear`.
        delta : Tensor, shape (out_features, in_features)
            The change of the weight, such as the product of LoRA's two matrices, or a tuned weight minus the base's.
        **options
            Arguments of `CDDLinear`.

        Returns
        -------
        CDDLinear
            ``layer.adapter.fit.error`` is the relative error: zero for rank one, rarely small for weights from full
            fine-tuning.

        Raises
        ------
        ValueError
            If shapes differ, or an entry is not finite.
        """
        layer = cls.from_linear(linear, **options)
        layer.adapter.fit_(delta)
        return layer

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the outputs of the layer.

        Parameters
        ----------
        x : Tensor, shape (..., in_features)
            Inputs.
        *args, **kwargs
            Further arguments of the base, if its class takes some.

        Returns
        -------
        Tensor, shape (..., out_features)
            In the dtype of the base's outputs; without a base, in that of `x`.

        Raises
        ------
        ValueError
            If `x` has another shape.
        TypeError
            If `x` is no tensor, or there is no base and it is of no floating dtype.
        """
        if not isinstance(x, Tensor):
            raise ArgumentTypeError("CDDLinear", "x", f"must be a torch.Tensor, got {type(x).__name__}")
        if x.size(-1) != self.in_features:
            text = f"must have shape (..., {self.in_features}), got (..., {x.size(-1)})"
            raise ArgumentValueError("CDDLinear", "x", text)
        base = self._own_bias_alone if self.base is None else self.base
        if args or kwargs:
            base = partial(_called, base, args, kwargs)
        return self._outputs(self.base, self.adapter, x, base)

    def _own_bias_alone(self, x: Tensor) -> Tensor:
        """Return what a layer without a base adds its change to: its bias, or zeros."""
        require_floating("CDDLinear", x)
        y = x.new_zeros(*x.shape[:-1], self.out_features)
        return y if self.own_bias is None else y + self.own_bias.to(y.dtype)

    def to_linear(self) -> nn.Linear:
        """Return an equivalent plain linear layer: the change is merged into a copy of the weight.

        Returns
        -------
        torch.nn.Linear
            Trainable, in the dtype of the base.

        Raises
        ------
        ValueError
            If the weight held NaN or infinity.
        TypeError
            If the weight is quantised or of another special kind.
        """
        if self.base is None:
            weight = self.adapter.dense().to(self.adapter.vectors[0])
        else:
            merged = self._merged_weight()
            weight = merged.T if has_transposed_weight(self.base) else merged
        linear = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            self.bias is not None,
            dtype=weight.dtype,
            device=weight.device,
        )
        with torch.no_grad():
            linear.weight.copy_(weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear.train(self.training)

    @property
    def bias(self) -> Any:
        """The bias of the base, or of the layer itself."""
        bias = self.own_bias if self.base is None else getattr(self.base, "bias", None)
        # The quantised layers of torch.ao have a method instead.
        return bias() if inspect.ismethod(bias) else bias


def _called(base: Any, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor) -> Tensor:
    """Call a base with further arguments; with these bound it is a function of the inputs alone."""
    return base(x, *args, **kwargs)


class CDDConv(AdaptedLayer):
    """A frozen convolution of kernel size 1 and a trainable change ``alpha D C D`` over its channels.

    Parameters
    ----------
    base : torch.nn.Conv1d or torch.nn.Conv2d
        With kernel size and stride 1, one group, no padding. It is frozen and shared, not copied.
    **options
        Arguments of `CDDAdapter`.

    Raises
    ------
    TypeError
        If the base is another module.
    ValueError
        If an option is wrong.

    See Also
    --------
    CDDLinear : The same for linear layers.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDConv
    >>> layer = CDDConv(torch.nn.Conv2d(3, 5, 1))
    >>> layer(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 5, 4, 4])
    """

    _plural = "convolutions of kernel size 1"

    def __init__(self, base: nn.Conv1d | nn.Conv2d, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return (
            isinstance(module, (nn.Conv1d, nn.Conv2d))
            and all(size == 1 for size in (*module.kernel_size, *module.stride, module.groups))
            # The paddings "valid" and "same" add nothing around a kernel of size 1.
            and (isinstance(module.padding, str) or not any(module.padding))
        )

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if not cls._recognises(base):
            text = f"must be a Conv1d or Conv2d with kernel size and stride 1, one group and no padding, got {base!r}"
            raise ArgumentTypeError("CDDConv", "base", text)
        return base.in_channels, base.out_channels

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        channels = 0 if x.ndim == len(base.kernel_size) + 1 else 1
        # The last axis is not called -1, which the older exporter to ONNX writes into the file as it is.
        last = x.ndim - 1
        changed = adapter.add_to(y.movedim(channels, last), x.movedim(channels, last)).movedim(last, channels)
        return changed.contiguous() if y.is_contiguous() else changed

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        return change.reshape(*change.shape, *base.kernel_size)

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        return type(base) in {nn.Conv1d, nn.Conv2d} or super()._multiplies_by_weight(base, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the layer.

        Parameters
        ----------
        x : Tensor, shape (N, in_channels, ...) or (in_channels, ...)
            Inputs, as for the base.

        Returns
        -------
        Tensor, shape (N, out_channels, ...) or (out_channels, ...)
            Outputs.
        """
        return self._outputs(self.base, self.adapter, x, self.base)


class CDDEmbedding(AdaptedLayer):
    """A frozen embedding and a trainable change ``alpha D C D`` of its table, of which rows are gathered.

    Parameters
    ----------
    base : torch.nn.Embedding
        Without ``max_norm``. It is frozen and shared, not copied.
    **options
        Arguments of `CDDAdapter`; three factors only, with which a row of the change is a gather and two products.

    Raises
    ------
    TypeError
        If the base is another module.
    ValueError
        If the base has a ``max_norm``, `n_factors` is not 3, or an option is wrong.

    See Also
    --------
    CDDLinear : The same for linear layers.

    Notes
    -----
    The first diagonal has one entry for each token. That of the base's ``padding_idx`` starts at zero and gets no
    gradient, like that row of the table. Dropout sets the changes of whole tokens to zero.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDEmbedding
    >>> layer = CDDEmbedding(torch.nn.Embedding(10, 4))
    >>> layer(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 4])
    """

    _plural = "embeddings"

    def __init__(self, base: nn.Embedding, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return type(module) is nn.Embedding

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if not cls._recognises(base):
            raise ArgumentTypeError("CDDEmbedding", "base", f"must be a torch.nn.Embedding, got {type(base).__name__}")
        if base.max_norm is not None:
            raise ArgumentValueError("CDDEmbedding", "base", "has a max_norm, so that it rewrites its frozen table")
        return base.embedding_dim, base.num_embeddings

    @classmethod
    def _prepare(cls, base: Any, adapter: CDDAdapter) -> None:
        if adapter.n_factors != 3:
            raise ArgumentValueError("CDDEmbedding", "n_factors", f"must be 3, got {adapter.n_factors}")
        if base.padding_idx is not None:
            with torch.no_grad():
                adapter.vectors[0][base.padding_idx] = 0

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        # Row t of D C D is left[t] times a row of the circulants, which a gather finds, times the right diagonal.
        left, grid, right = adapter.vectors.forward()
        side = grid.shape[2]
        lags = (x[..., None] - torch.arange(side, device=x.device)) % side
        blocks = grid[x // side]  # (..., q, b)
        rows = blocks.gather(-1, lags[..., None, :].expand(blocks.shape)).flatten(-2)[..., : len(right)]
        gain = adapter.alpha * adapter.product_of_scales
        scale = nn.functional.embedding(x, gain * left[:, None], base.padding_idx)
        if adapter.training and adapter.dropout:
            scale = nn.functional.dropout(torch.ones_like(scale), adapter.dropout) * scale
        return (y + scale * rows * right).to(y.dtype)

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        # No other class is recognised, and torch's own returns rows of its weight.
        return True

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of tokens.

        Parameters
        ----------
        tokens : Tensor of integers, shape (...)
            Rows of the table.

        Returns
        -------
        Tensor, shape (..., embedding_dim)
            Rows of the table with its changes.
        """
        return self._outputs(self.base, self.adapter, tokens, self.base)


KINDS: tuple[type[AdaptedLayer], ...] = (CDDLinear, CDDConv, CDDEmbedding)
"""The kinds of layers; the first that recognises a module takes it."""


def kind_of(module: Any) -> type[AdaptedLayer] | None:
    """Return the kind of layer that a module can be the base of; None if there is none."""
    return next((kind for kind in KINDS if kind._recognises(module)), None)


def kind_to_wrap(module: Any) -> type[AdaptedLayer]:
    """Return the kind of layer that wraps a module which was named, or says what it lacks.

    Linear layers take every module that has numbers of features, whatever the name of its class is.
    """
    return kind_of(module) or CDDLinear
