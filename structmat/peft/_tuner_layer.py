"""`CDDTunerLinear`: a linear layer, quantised or not, with the adapters that PEFT gave it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from peft.utils.other import TrainableTokensWrapper
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.operators import CDDProduct
from structmat.torch import (
    CDDAdapter,
    add_per_sample,
    forward_with_adapters,
    has_computed_weight,
    has_transposed_weight,
)

__all__ = ["CDDTunerLinear"]


class _Merged(NamedTuple):
    """A change as it was merged, whatever becomes of its adapter, and the weight before, unless it is quantised."""

    product: CDDProduct
    alpha: float
    before: Tensor | None

    @classmethod
    def of(cls, adapter: CDDAdapter, before: Tensor | None) -> _Merged:
        factors = adapter.factors.forward()
        wide = [factor.to(torch.promote_types(factor.dtype, torch.float32), copy=True) for factor in factors]
        return cls(adapter.layout.product(wide), adapter.alpha, before)

    def change(self) -> Tensor:
        return self.alpha * self.product.to_dense()


def _equal(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


class CDDTunerLinear(nn.Module, BaseTunerLayer):
    """A linear layer with CDD adapters, whose changes add up: it replaces each target module.

    Parameters
    ----------
    base_layer : Module
        `torch.nn.Linear`, transformers' ``Conv1D``, a quantised layer, or another tuner's layer around one.
    get_apply_tensor_subclass : callable, optional
        How torchao quantises, for merging; known by PEFT for models of transformers.

    Raises
    ------
    TypeError
        If the layer has no features.

    See Also
    --------
    structmat.torch.CDDLinear : The layer without PEFT.

    Examples
    --------
    >>> import torch
    >>> from peft import get_peft_model
    >>> from structmat.peft import CDDConfig
    >>> model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(6, 4)), CDDConfig(target_modules=["0"]))
    >>> layer = model.base_model.model[0]
    >>> type(layer).__name__, list(layer.cdd_adapters)
    ('CDDTunerLinear', ['default'])
    """

    adapter_layer_names = ("cdd_adapters",)
    other_param_names = ("cdd_alpha",)

    cdd_adapters: nn.ModuleDict
    """The changes, `structmat.torch.CDDAdapter`, by name of the adapter."""
    cdd_alpha: dict[str, float]
    """What they are multiplied by, unless scaled."""

    def __init__(self, base_layer: nn.Module, *, get_apply_tensor_subclass: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.base_layer = base_layer
        inner = self.get_base_layer()
        try:
            backend = resolve_quantization_backend(inner, get_apply_tensor_subclass=get_apply_tensor_subclass)
        except ValueError:  # torchao without a way to quantise again
            backend = ForwardOnlyQuantizationBackend("torchao")
        self.quantization_backend = backend
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._merged: list[_Merged] = []
        self.cast_input_dtype_enabled = True
        features = _get_in_out_features(inner)
        if None in features:
            raise ArgumentTypeError(
                "CDDTunerLinear", "base_layer", f"must have features, as a linear layer has, got {type(inner).__name__}"
            )
        self.in_features, self.out_features = (int(size) for size in features)
        self.cdd_adapters = nn.ModuleDict()
        self.cdd_alpha = {}

    def update_layer(
        self,
        adapter_name: str,
        *,
        n_factors: int = 3,
        block_size: int | Literal["min", "toeplitz"] = "min",
        alpha: float = 1.0,
        dropout: float = 0.0,
        mode: Literal["recompute", "cache"] = "recompute",
        init_weights: bool | str = True,
        inference_mode: bool = False,
    ) -> None:
        """Add an adapter.

        Parameters
        ----------
        adapter_name : str
            A new name.
        n_factors : int, default 3
            See `CDDConfig`, as for the others.
        block_size : int, "min" or "toeplitz", default "min"
            Side of the circulants.
        alpha : float, default 1.0
            Factor of the change.
        dropout : float, default 0.0
            The share of its inputs that is set to zero in training.
        mode : {"recompute", "cache"}, default "recompute"
            Whether the backward pass computes transforms again, or keeps them.
        init_weights : True, False, "normal" or "gradient", default True
            Its initial values.
        inference_mode : bool, default False
            Whether it is frozen.

        Raises
        ------
        ValueError
            If an option is wrong, or a gradient is missing; nothing has changed then.
        """
        init: Literal["zero", "normal", "gradient"] = "normal"
        if init_weights is True:
            init = "zero"
        elif init_weights == "gradient":
            init = "gradient"
        if torch.empty(0).is_meta:  # values come from a file
            init = "zero"
        adapter = CDDAdapter(
            self.in_features,
            self.out_features,
            n_factors=n_factors,
            block_size=block_size,
            alpha=alpha,
            dropout=dropout,
            mode=mode,
            init=init,
            gradient=self._gradient() if init == "gradient" else None,
        )
        self.cdd_adapters[adapter_name] = adapter.train(self.training)
        self.cdd_alpha[adapter_name] = adapter.alpha
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _gradient(self) -> Tensor:
        base = self.get_base_layer()
        gradient = getattr(getattr(base, "weight", None), "grad", None)
        if gradient is None:
            raise ArgumentValueError(
                "CDDConfig",
                "init_weights",
                '"gradient" needs the gradients of the weights of all target modules: run loss.backward() on the '
                "model before the adapter is added; quantised weights have none",
            )
        gradient = gradient.detach().to("cpu", torch.promote_types(gradient.dtype, torch.float32))
        return gradient.T if has_transposed_weight(base) else gradient

    # ---- the forward pass

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the outputs of the layer.

        Parameters
        ----------
        x : Tensor, shape (..., in_features)
            Inputs.
        *args, **kwargs
            For the base layer, but for ``adapter_names``, one name for each sample.

        Returns
        -------
        Tensor, shape (..., out_features)
            In the dtype of the base layer's outputs.

        Raises
        ------
        ValueError
            If there are more or fewer names than samples, or adapters are merged.
        """
        names = kwargs.pop("adapter_names", None)
        if names is not None:
            self._check_names(x, names)
        if self._disable_adapters and self.merged_adapters:
            self.unmerge()
        base = (lambda x: self.base_layer(x, *args, **kwargs)) if args or kwargs else self.base_layer
        if self._disable_adapters or self.merged_adapters:
            return base(x)
        if names is not None:
            known = dict(self.cdd_adapters.items())
            chosen = [known.get(name) for name in names]
            return add_per_sample(base(x), x, chosen)
        added = [self.cdd_adapters[name] for name in self.active_adapters if name in self.cdd_adapters]
        return forward_with_adapters(base, x, added)

    def _check_names(self, x: Tensor, names: Sequence[str]) -> None:
        if len(x) != len(names):
            raise ArgumentValueError(
                "CDDTunerLinear",
                None,
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(names)} and {len(x)} respectively.",
            )
        if self.merged:
            raise ArgumentValueError(
                "CDDTunerLinear",
                None,
                "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first.",
            )

    # ---- merging

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return a change as a dense matrix.

        Parameters
        ----------
        adapter : str
            Name of the adapter.

        Returns
        -------
        Tensor
            In the layout of the base layer's weight, which ``Conv1D`` stores transposed; `alpha` included.
        """
        change = self.cdd_adapters[adapter].dense()
        return change.T if has_transposed_weight(self.get_base_layer()) else change

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add changes to the base layer's weight, of which the old values are kept unless it is quantised.

        Parameters
        ----------
        safe_merge : bool, default False
            Whether to check for NaN and infinity before the weight is changed.
        adapter_names : list of str, optional
            Adapters to merge. Default: the active ones.

        Raises
        ------
        ValueError
            If `safe_merge` found some; the weight has not changed then.
        TypeError
            If the layer is quantised in a way that cannot be merged, or computes its weight.
        """
        self._require_own_weight()
        # Weights made in inference mode could not be trained with again.
        with torch.inference_mode(mode=False), torch.no_grad():
            for name in check_adapters_to_merge(self, adapter_names):
                if name in self.cdd_adapters:
                    weight = self.get_base_weight()
                    if weight.is_meta:
                        text = "the weight is on the device meta, without values: merge before offloading"
                        raise ArgumentValueError("CDDTunerLinear", None, text)
                    kept = _Merged.of(self.cdd_adapters[name], weight if self.quantization_backend is None else None)
                    merged = self._sum(weight, kept.change())
                    if safe_merge and not torch.isfinite(merged).all():
                        raise ValueError(f"NaNs detected in the merged weights. The adapter {name} seems to be broken")
                    self.set_base_weight(merged)
                    self._merged.append(kept)
                    self.merged_adapters.append(name)

    def _require_own_weight(self) -> None:
        """Refuse to merge into a weight that is computed, which would lose the change."""
        base = self.get_base_layer()
        if isinstance(base, TrainableTokensWrapper):
            text = "the layer has the trained rows of a tied embedding, by trainable_token_indices; save it unmerged"
            raise ArgumentTypeError("CDDTunerLinear", None, text)
        if self.quantization_backend is None and has_computed_weight(base):
            text = f"the weight of {type(base).__name__} is no parameter, as after weight_norm or pruning"
            raise ArgumentTypeError("CDDTunerLinear", None, f"{text}; remove these from the layer before merging")

    def unmerge(self) -> None:
        """Take all merged changes out of the weight: bit for bit, if nothing else changed it and it is not quantised.

        These are the changes as they were merged, though scales or vectors may be others now.
        """
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        with torch.inference_mode(mode=False), torch.no_grad():
            while self.merged_adapters:
                self.merged_adapters.pop()
                kept = self._merged.pop()
                weight, change = self.get_base_weight(), kept.change()
                # Others may have loaded or cast the weight, or merged into it by a layer that shares it.
                before = kept.before
                if before is not None and _equal(self._sum(before, change).to(weight), weight):
                    self.set_base_weight(before.to(weight))
                else:
                    self.set_base_weight(self._sum(weight, -change))

    def _sum(self, weight: Tensor, change: Tensor) -> Tensor:
        """Return a weight plus a change (out_features, in_features), rounded once."""
        change = change.T if has_transposed_weight(self.get_base_layer()) else change
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return (wide + change.to(wide)).to(weight.dtype)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return whether `peft.convert_to_lora` works: it does.

        Parameters
        ----------
        adapter_name : str, default "default"
            Name of the adapter.

        Returns
        -------
        bool
            True.
        """
        return True

    # ---- scaling

    def set_scale(self, adapter: str, scale: float) -> None:
        """Multiply the configured `alpha` of an adapter.

        Parameters
        ----------
        adapter : str
            Name; nothing happens where the layer has no such adapter.
        scale : float
            Factor.
        """
        if adapter in self.cdd_adapters:
            self.cdd_adapters[adapter].alpha = scale * self.cdd_alpha[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the current scale of the active adapters.

        Parameters
        ----------
        scale : float
            Factor.
        """
        for name in self.active_adapters:
            if name in self.cdd_adapters:
                self.cdd_adapters[name].alpha *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the current scale of the active adapters.

        Parameters
        ----------
        scale : float, optional
            Divisor. Default: back to the configured `alpha`.
        """
        for name in self.active_adapters:
            if name in self.cdd_adapters:
                adapter = self.cdd_adapters[name]
                adapter.alpha = self.cdd_alpha[name] if scale is None else adapter.alpha / scale

    def __repr__(self) -> str:
        return f"cdd.{super().__repr__()}"

    def extra_repr(self) -> str:
        """Return additional information for torch's `repr`.

        Returns
        -------
        str
            Such as ``quantization_backend='torchao'``.
        """
        return quantization_extra_repr(self)
