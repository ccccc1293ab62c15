"""`CDDTunerLinear`: a layer of any kind, quantised or not, with the adapters that PEFT gave it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from peft.utils.other import TrainableTokensWrapper
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import CDDProduct
from structmat.peft._config import CDDConfig
from structmat.torch import CDDAdapter
from structmat.torch._base_weight import dtype_and_device, has_computed_weight, weight_plus
from structmat.torch._layers import AdaptedLayer, CDDLinear, kind_of
from structmat.torch._options import AdapterOptions
from structmat.torch._other_tools import is_gathered, is_never_called, split_by

__all__ = ["CDDTunerLinear"]


class _Merged(NamedTuple):
    """A change as it was merged, with copies of the vectors: the adapter may be another one when it is unmerged."""

    product: CDDProduct
    alpha: float
    before: Tensor | None
    """The weight before, unless the layer is quantised."""

    @classmethod
    def of(cls, adapter: CDDAdapter, before: Tensor | None) -> _Merged:
        """Keep the change that an adapter makes now."""
        dtype = torch.promote_types(adapter.vectors[0].dtype, torch.float32)
        product = adapter.layout.product([factor.detach().to(dtype, copy=True) for factor in adapter.factors])
        return cls(product, adapter.alpha, before)

    def change(self) -> Tensor:
        """Return the change as a dense matrix."""
        return self.alpha * self.product.to_dense()


class CDDTunerLinear(nn.Module, BaseTunerLayer):
    """A layer with CDD adapters, whose changes add up: it replaces each target module.

    Parameters
    ----------
    base_layer : Module
        `torch.nn.Linear`, transformers' ``Conv1D``, a quantised linear layer, a base of `structmat.torch.CDDConv` or
        `structmat.torch.CDDEmbedding`, or another tuner's layer around one of these.
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
    _kind: type[AdaptedLayer]
    """The kind of layer in `structmat.torch`, whose hooks say how changes meet the base layer."""
    shares_weight: bool
    """Whether other modules of the model have the weight too, as an embedding may: they keep it when this is merged."""

    def __init__(self, base_layer: nn.Module, *, get_apply_tensor_subclass: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.base_layer = base_layer
        inner = self.get_base_layer()
        try:
            backend = resolve_quantization_backend(inner, get_apply_tensor_subclass=get_apply_tensor_subclass)
        except ValueError:  # torchao, where PEFT does not know how to quantise a merged weight again
            backend = ForwardOnlyQuantizationBackend("torchao")
        self.quantization_backend = backend
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._merged: list[_Merged] = []  # one for each of the merged adapters
        self.shares_weight = False
        self._shared: list[nn.Parameter] = []  # while a merged layer has a weight of its own: the shared one
        self.cast_input_dtype_enabled = True
        kind = kind_of(inner)
        # Some quantised linear layers have other names for their numbers of features, which PEFT knows.
        features = _get_in_out_features(inner) if kind is None else kind._features(inner)
        if None in features:
            text = f"must have features, as a linear layer has, got {type(inner).__name__}"
            raise ArgumentTypeError("CDDTunerLinear", "base_layer", text)
        self.in_features, self.out_features = (int(size) for size in features)
        self._kind = kind or CDDLinear
        self.cdd_adapters = nn.ModuleDict()
        self.cdd_alpha = {}

    def update_layer(self, adapter_name: str, config: CDDConfig) -> None:
        """Add an adapter.

        Parameters
        ----------
        adapter_name : str
            A new name.
        config : CDDConfig
            Its settings.

        Raises
        ------
        ValueError
            If an option does not suit the size of the layer; nothing has changed then.
        """
        base = self.get_base_layer()
        adapter = CDDAdapter(
            self.in_features,
            self.out_features,
            **{name: getattr(config, name) for name in AdapterOptions.names()},
            init="zero" if config.init_weights else "normal",
        )
        self._kind._prepare(base, adapter)
        self.cdd_adapters[adapter_name] = adapter.train(self.training)
        self.cdd_alpha[adapter_name] = adapter.alpha
        # Where accelerate keeps the weight of the base elsewhere, the base is on the device meta now, and its hook
        # tells the device that the adapter has to be on.
        device = dtype_and_device(base).get("device") if hasattr(base, "_hf_hook") else None
        self._move_adapter_to_device_of_base_layer(adapter_name, device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    # ---- the forward pass

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the outputs of the layer.

        Parameters
        ----------
        x : Tensor, shape (..., in_features)
            Inputs.
        *args, **kwargs
            For the base layer, except ``adapter_names``, one name for each sample.

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
        base = (lambda x: self.base_layer(x, *args, **kwargs)) if args or kwargs else self.base_layer
        if self._disable_adapters and self.merged_adapters:
            self.unmerge()
        if names is not None:
            return self._mixed(base, x, names)
        if self._disable_adapters or self.merged_adapters:
            return base(x)
        kind = self._kind
        inner = self.get_base_layer()
        adapters = self.cdd_adapters._modules
        active = self._active_adapter
        y: Tensor | None = None
        for name in [active] if isinstance(active, str) else active:
            adapter: Any = adapters.get(name)
            if adapter is not None:
                y = kind._outputs(inner, adapter, x, base) if y is None else kind._add(inner, adapter, y, x)
        return base(x) if y is None else y

    def _mixed(self, base: Callable[[Tensor], Tensor], x: Tensor, names: Sequence[str]) -> Tensor:
        """Add to each sample, along the first axis, the change of an adapter of its own."""
        if len(x) != len(names):
            text = (
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(names)} and {len(x)} respectively."
            )
            raise ArgumentValueError("CDDTunerLinear", None, text)
        if self.merged:
            text = "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
            raise ArgumentValueError("CDDTunerLinear", None, text)
        y = base(x)
        if self._disable_adapters:
            return y
        out = y.clone()
        for name in set(names) & set(self.cdd_adapters):
            index = torch.tensor([i for i, each in enumerate(names) if each == name], device=x.device)
            changed = self._kind._add(self.get_base_layer(), self.cdd_adapters[name], y[index], x[index])
            out = out.index_copy(0, index, changed)
        return out

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
        return self._kind._laid_out(self.get_base_layer(), self.cdd_adapters[adapter].dense())

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add changes to the base layer's weight, of which the old values are kept unless it is quantised.

        Where the model merges, modules that share the weight keep the old one; unmerging ties them again.

        Parameters
        ----------
        safe_merge : bool, default False
            Whether to check for NaN and infinity before the weight is changed.
        adapter_names : list of str, optional
            Adapters to merge. Default: the active ones.

        Raises
        ------
        ValueError
            If `safe_merge` found some, or a forward pass in training did not call the layer; the weight has not changed
            then.
        TypeError
            If the layer is quantised in a way that cannot be merged, computes its weight, or has a part of it, as in
            FSDP and in ZeRO-3 of DeepSpeed, outside of ``deepspeed.zero.GatheredParameters``.
        """
        self.require_own_weight()
        # In inference mode the merged weight would become a tensor that autograd refuses for good.
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
                    self._set_weight(merged)
                    self._merged.append(kept)
                    self.merged_adapters.append(name)

    def require_own_weight(self) -> None:
        """Refuse to merge where the change would be lost.

        Raises
        ------
        ValueError
            If a forward pass in training did not call the layer, whose weight alone is read then.
        TypeError
            If the weight is computed from others, split among processes by FSDP or ZeRO-3 of DeepSpeed, or not what the
            layer multiplies by.
        """
        base = self.get_base_layer()
        problem = ""
        engine = split_by(base)
        if engine and not is_gathered(base):
            problem = (
                f"the weight is split among processes by {engine}, which keeps its own: save the adapter, and merge it "
                "after loading it into a model that is not split"
            )
        elif isinstance(base, TrainableTokensWrapper):
            problem = "the layer has the trained rows of a tied embedding, by trainable_token_indices; save it unmerged"
        elif self.quantization_backend is not None:
            pass
        elif has_computed_weight(base):
            problem = (
                f"the weight of {type(base).__name__} is no parameter, as after weight_norm or pruning; remove these "
                "from the layer before merging"
            )
        elif not self._kind._multiplies_by_weight(base, (self.in_features, self.out_features)):
            problem = f"the weight of {type(base).__name__} is not what it multiplies by"
        if problem:
            raise ArgumentTypeError("CDDTunerLinear", None, problem)
        if is_never_called(self) and any(adapter.dense().any() for adapter in self.cdd_adapters.values()):
            text = "the layer was never called: its weight alone is read, so that a merged change would be a new one"
            raise ArgumentValueError("CDDTunerLinear", None, text)

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
                weight = self.get_base_weight()
                change = kept.change()
                before = kept.before
                # The old weight comes back bit for bit, unless the merged one is another now: somebody may have loaded
                # or cast it, or merged into it by a layer that shares it. Then the change is subtracted.
                merged = weight if before is None else self._sum(before, change).to(weight)
                if before is not None and torch.allclose(merged, weight, rtol=0, atol=0, equal_nan=True):
                    self.set_base_weight(before.to(weight))
                else:
                    self.set_base_weight(self._sum(weight, -change))
            base = self.get_base_layer()
            for shared in self._shared:  # there is one at most
                if base.weight.dtype == shared.dtype and torch.equal(base.weight, shared.to(base.weight.device)):
                    base.weight = shared
            self._shared.clear()

    def _set_weight(self, merged: Tensor) -> None:
        """Put a merged weight into the base layer.

        Where other modules share the old weight, the layer gets a parameter of its own.
        """
        base = self.get_base_layer()
        if self.quantization_backend is None and self.shares_weight and not self._shared:
            self._shared.append(base.weight)
            base.weight = nn.Parameter(merged, requires_grad=base.weight.requires_grad)
        else:
            self.set_base_weight(merged)

    def _sum(self, weight: Tensor, change: Tensor) -> Tensor:
        """Return a weight in the layout of the base plus a change (out_features, in_features)."""
        return weight_plus(weight, self._kind._laid_out(self.get_base_layer(), change))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return whether `peft.convert_to_lora` works: for linear layers it does.

        Parameters
        ----------
        adapter_name : str, default "default"
            Name of the adapter.

        Returns
        -------
        bool
            True for linear layers.
        """
        return self._kind._is_linear

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
