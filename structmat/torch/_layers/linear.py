"""`CDDLinear`: a linear layer with a CDD change, or one that is such a product and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from structmat._arguments import finite
from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapter.cdd_adapter import require_floating
from structmat.torch._adapter.chunked import Mode
from structmat.torch._adapter.initial_values import Init
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.forward import forward_with_adapters
from structmat.torch._layers.frozen_base import features, has_transposed_weight, multiplies_by_weight, probes

__all__ = ["CDDLinear"]


class CDDLinear(AdaptedLayer):
    """``y = W x + bias + alpha D C D x``: a frozen linear layer and a trainable change of three vectors.

    Without a base it is a structured linear layer, ``y = alpha D C D x + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of inputs and outputs.
    bias : bool, default True
        Whether a layer without a base has a trainable bias; a base keeps its own.
    n_factors : int, default 3
        Odd; see `CDDAdapter`, as for the other options.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulants; "min" is the smaller of the two numbers of features, "toeplitz" one less than their sum.
    alpha : float, default 1.0
        Factor of the product.
    init : {"zero", "normal", "gradient"}, optional
        Default: "zero" with a base, so that training starts from the base's outputs, and "normal" without one.
    base : Module, optional
        Frozen module that maps ``(..., in_features)`` to ``(..., out_features)``, quantised ones included.
    mode : {"recompute", "cache"}, default "recompute"
        Whether the backward pass computes transforms again, or keeps them.
    name : str, default "default"
        Of the adapter.
    dtype, device : optional
        Of the vectors. Default: those of the base.
    **options
        Further arguments of `CDDAdapter`.

    Raises
    ------
    ValueError
        If a size or an option is wrong, or the base has other numbers of features.
    TypeError
        If the base does not have these numbers of features.

    See Also
    --------
    CDDLinear.from_linear : Wraps a layer.
    CDDLinear.from_delta, CDDLinear.from_weights, CDDLinear.from_lora : Fit a given change.
    adapt : Wraps the layers of a model.

    Notes
    -----
    The method is that of [1]_. In the mode "recompute" only the layer's input, which the previous layer often keeps
    anyway, and the trained vectors are kept for the backward pass. Without an active adapter the outputs are those of
    the base, bit for bit.

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

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        n_factors: int = 3,
        block_size: int | Literal["min", "toeplitz"] = "min",
        alpha: float = 1.0,
        init: Init | None = None,
        base: nn.Module | None = None,
        mode: Mode = "recompute",
        name: str = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        if base is not None and features(base) != (in_features, out_features):
            raise ArgumentValueError(
                "CDDLinear",
                "base",
                f"maps {features(base)[0]} to {features(base)[1]} features, "
                f"got in_features={in_features}, out_features={out_features}",
            )
        super().__init__(
            base,
            in_features,
            out_features,
            name=name,
            n_factors=n_factors,
            block_size=block_size,
            alpha=alpha,
            init=init or ("normal" if base is None else "zero"),
            mode=mode,
            dtype=dtype,
            device=device,
            **options,
        )
        own_bias = (
            nn.Parameter(torch.zeros(out_features, dtype=dtype, device=device)) if bias and base is None else None
        )
        self.register_parameter("own_bias", own_bias)

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
        return cls(*features(linear), base=linear, **options)

    @classmethod
    def from_delta(cls, base: nn.Module | Tensor, delta: Tensor, **options: Any) -> CDDLinear:
        """Fit a given change, by `structmat.fit_cdd`.

        Parameters
        ----------
        base : Module or Tensor, shape (out_features, in_features)
            The layer to adapt, or its weight, for which a layer without bias is made that shares it.
        delta : Tensor, shape (out_features, in_features)
            The change of the weight.
        **options
            Arguments of `CDDLinear`.

        Returns
        -------
        CDDLinear
            ``layer.adapters["default"].fit.error`` is the relative error, rarely small for weights from full
            fine-tuning.

        Raises
        ------
        ValueError
            If shapes differ, or an entry is not finite.
        """
        layer = cls.from_linear(_as_module(base), **options)
        next(iter(layer.adapters.values())).fit_(delta)
        return layer

    @classmethod
    def from_weights(cls, base: nn.Module | Tensor, tuned: Tensor, **options: Any) -> CDDLinear:
        """Fit the change from a base weight to a tuned one.

        Parameters
        ----------
        base : Module or Tensor, shape (out_features, in_features)
            As for `from_delta`.
        tuned : Tensor, shape (out_features, in_features)
            The weight after full fine-tuning.
        **options
            Arguments of `CDDLinear`.

        Returns
        -------
        CDDLinear
            See `from_delta` for its error.

        Raises
        ------
        ValueError
            If shapes differ, or an entry is not finite.
        """
        layer = cls.from_linear(_as_module(base), **options)
        weight = layer.dense_weight()
        _require_real("CDDLinear.from_weights", base=weight, tuned=tuned)
        if tuned.shape != weight.shape:
            raise ArgumentValueError(
                "CDDLinear.from_weights",
                "tuned",
                f"must have the shape of base, {tuple(weight.shape)}, got {tuple(tuned.shape)}",
            )
        wide = torch.promote_types(weight.dtype, torch.float32)
        next(iter(layer.adapters.values())).fit_(tuned.to(device=weight.device, dtype=wide) - weight.to(wide))
        return layer

    @classmethod
    def from_lora(cls, base: nn.Module | Tensor, A: Tensor, B: Tensor, scale: float = 1.0, **options: Any) -> CDDLinear:
        """Fit a LoRA change, ``scale B A``.

        Parameters
        ----------
        base : Module or Tensor, shape (out_features, in_features)
            As for `from_delta`.
        A : Tensor, shape (r, in_features)
            LoRA's first matrix.
        B : Tensor, shape (out_features, r)
            LoRA's second matrix.
        scale : float, default 1.0
            LoRA's alpha / r.
        **options
            Arguments of `CDDLinear`.

        Returns
        -------
        CDDLinear
            See `from_delta` for its error. Changes of rank one are represented exactly; higher ranks need more factors.

        Raises
        ------
        ValueError
            If shapes do not fit, or an entry is not finite.
        """
        _require_real("CDDLinear.from_lora", A=A, B=B)
        if A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1]:
            raise ArgumentValueError(
                "CDDLinear.from_lora", None, f"A {tuple(A.shape)} and B {tuple(B.shape)} have no product B A"
            )
        wide = torch.promote_types(torch.promote_types(A.dtype, B.dtype), torch.float32)
        product = B.detach().to(wide) @ A.detach().to(wide)
        return cls.from_delta(base, finite(scale, "CDDLinear.from_lora", "scale") * product, **options)

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
        _require_tensors("CDDLinear", x=x)
        if x.size(-1) != self.in_features:
            raise ArgumentValueError(
                "CDDLinear", "x", f"must have shape (..., {self.in_features}), got (..., {x.size(-1)})"
            )
        base = self._own_bias_alone if self.base is None else self.base
        if args or kwargs:
            base = partial(_called, base, args, kwargs)
        if self._selects:
            return self._selected(base(x), x)
        return forward_with_adapters(base, x, self._added())

    def _own_bias_alone(self, x: Tensor) -> Tensor:
        """Return the outputs of a layer without a base, and without its changes."""
        require_floating("CDDLinear", x)
        y = x.new_zeros(*x.shape[:-1], self.out_features)
        return y if self.own_bias is None else y + self.own_bias.to(y.dtype)

    def reset_parameters(self) -> None:
        """Set the bias of a layer without a base to zero; for adapters see `CDDAdapter.reset_parameters`."""
        if self.own_bias is not None:
            nn.init.zeros_(self.own_bias)

    def dense_weight(self) -> Tensor:
        """Return the base's weight without the changes, as a dense matrix.

        Returns
        -------
        Tensor, shape (out_features, in_features)
            Detached. For quantised bases the matrix by which they multiply, computed from an identity matrix.

        Raises
        ------
        RuntimeError
            If there is no base.
        TypeError
            If the base does something else than multiply by a matrix and add a bias.
        """
        if self.base is None:
            raise RuntimeError("CDDLinear.dense_weight: there is no base")
        return self._weight_and_bias()[0]

    def _weight_and_bias(self) -> tuple[Tensor, Any]:
        """Return the base's weight without the changes, and its bias, which may be None."""
        if self._unmerged is not None:
            return self._in_layout(self._unmerged[0].detach(), self.base.weight), self.bias
        try:
            weight = self._own_weight("dense_weight").detach()
        except TypeError:
            return self._computed_weight_and_bias()
        return weight.T if has_transposed_weight(self.base) else weight, self.bias

    @torch.no_grad()
    def _computed_weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """The same from outputs of the base."""
        like = self._like_base()
        eye, x = torch.eye(self.in_features, **like), probes(self.in_features, **like)
        bias = self.base(torch.zeros_like(eye[:1]))
        weight = (self.base(eye) - bias).T
        expected, given = (each.float() for each in (x @ weight.T.to(x) + bias.to(x), self.base(x)))
        if (given - expected).norm() > 0.1 * given.norm():  # more than inputs lose that are quantised
            text = f"{type(self.base).__name__} does something else than multiply by a matrix and add a bias"
            raise ArgumentTypeError("CDDLinear", "base", text)
        return weight, bias[0]

    def _own_weight(self, method: str) -> Tensor:
        weight = super()._own_weight(method)
        if not multiplies_by_weight(self.base):
            text = f"{type(self.base).__name__} does something else than multiply by its weight"
            text += ": replace the layer by what its to_linear() returns"
            raise ArgumentTypeError(method, None, text)
        return weight

    def _in_layout(self, change: Tensor, weight: Tensor) -> Tensor:
        return change.T if has_transposed_weight(self.base) else change

    def to_linear(self) -> nn.Linear:
        """Return an equivalent plain linear layer: the active changes are merged into a copy of the weight.

        Returns
        -------
        torch.nn.Linear
            Trainable, in the dtype of the base (a quantised one is dequantised).

        Raises
        ------
        ValueError
            If the weight held NaN or infinity.
        TypeError
            If the base does something else than multiply by a matrix and add a bias.
        """
        if self.base is None:
            like = next(self.adapters.parameters(), torch.empty(0))
            weight, bias = like.new_zeros(self.out_features, self.in_features), self.bias
        else:
            weight, bias = self._weight_and_bias()
        with torch.inference_mode(mode=False), torch.no_grad():  # made in that mode, it could never be trained
            weight = self._in_layout(self._merged_weight(self._in_layout(weight, weight)), weight)
            linear = nn.Linear(
                self.in_features, self.out_features, bias=bias is not None, dtype=weight.dtype, device=weight.device
            )
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
        return linear.train(self.training)

    @property
    def bias(self) -> Any:
        """The bias of the base, or of the layer itself."""
        bias = self.own_bias if self.base is None else getattr(self.base, "bias", None)
        return bias() if inspect.ismethod(bias) else bias  # a method of torch.ao's quantised layers


def _called(base: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], x: Tensor) -> Tensor:
    return base(x, *args, **kwargs)


def _as_module(base: nn.Module | Tensor) -> nn.Module:
    if isinstance(base, nn.Module):
        return base
    _require_tensors("CDDLinear", base=base)
    if base.ndim != 2:
        raise ArgumentValueError(
            "CDDLinear", "base", f"as a weight must have shape (out_features, in_features), got {tuple(base.shape)}"
        )
    linear = nn.Linear(base.shape[1], base.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(base.detach(), requires_grad=False)
    return linear


def _require_tensors(owner: str, **given: Any) -> None:
    for argument, value in given.items():
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(
                owner, argument, f"must be a torch.Tensor, got {type(value).__module__}.{type(value).__name__}"
            )


def _require_real(owner: str, **given: Any) -> None:
    """Refuse changes whose imaginary parts would be lost, or that have no values."""
    _require_tensors(owner, **given)
    for argument, value in given.items():
        if value.is_complex():
            raise ArgumentTypeError(owner, argument, f"must be real, as the vectors are, got {value.dtype}")
        if value.is_meta:
            raise ArgumentValueError(owner, argument, "is on the device meta, where tensors have no values")
