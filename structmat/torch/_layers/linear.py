"""`CDDLinear`: a frozen linear layer with a change."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter, Init, require_floating
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.base_weight import has_own_forward

__all__ = ["CDDLinear", "has_transposed_weight"]


Function = TypeVar("Function", bound=Callable[..., None])


def _naming_from_linear(init: Function) -> Function:
    """Let a layer in the place of sizes be refused before Python misses further arguments."""

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and isinstance(args[0], nn.Module):
            text = f"must be an integer, got a {type(args[0]).__name__}: CDDLinear.from_linear wraps a layer"
            raise ArgumentTypeError("CDDLinear", "in_features", text)
        init(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


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
        default those of the base, but float32 for a base in half precision.

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
    _row_axes = 1

    @_naming_from_linear
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
        if not isinstance(bias, bool):
            raise ArgumentTypeError(
                "CDDLinear",
                "bias",
                f"says whether a layer without a base has one, True or False, got {bias!r}; a base keeps its own",
            )
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
    def _summed(cls, base: Any, weights: Mapping[str, Tensor], plus: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        weight = weights["weight"]
        is_transposed = type(base) is not nn.Linear and has_transposed_weight(base)
        return {"weight": plus(weight.T).T if is_transposed else plus(weight)}

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        return change.T if has_transposed_weight(base) else change

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        # Of torch's own class and of Conv1D it is known; any other one is tried out.
        plain = type(base).forward is nn.Linear.forward or has_transposed_weight(base)
        return (plain and not has_own_forward(base)) or super()._multiplies_by_weight(base, features)

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
        base = self.base
        call = self._own_bias_alone if base is None else base
        if args or kwargs or x.is_nested:
            return self._with_changes(base, [(self.adapter, None)], call, x, *args, **kwargs)
        return self.adapter.add_to_outputs_of(call, x)

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
            merged = self._merged()["weight"]
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

    def extra_repr(self) -> str:
        """Return the sizes of a layer without a base, for torch's `repr`.

        Returns
        -------
        str
            Such as ``in_features=6, out_features=4, bias=True``; nothing with a base, which has its own.
        """
        if self.base is not None:
            return ""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.own_bias is not None}"


def has_transposed_weight(base: Any) -> bool:
    """Return whether a layer stores its weight as inputs by outputs, as transformers' ``Conv1D`` does.

    The class is known by its name, so that transformers need not be imported.
    """
    return type(base).__name__ == "Conv1D" and hasattr(base, "nx") and hasattr(base, "nf")
