"""`CDDTunerModule`: what all layers share that PEFT has given adapters: merging and scaling."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from structmat._errors import ArgumentValueError
from structmat.peft._config import CDDConfig
from structmat.torch import CDDAdapter
from structmat.torch._layers.base_weight import dtype_and_device, owner_of, stored_as
from structmat.torch._model.model_state import as_before_on_error

__all__ = ["CDDTunerModule", "Merged", "QuantizedWeight"]

_is_meta = attrgetter("is_meta")


class Merged(NamedTuple):
    """A change as it was merged, with copies of the vectors: the adapter may be another one when it is unmerged."""

    vectors: list[Tensor]
    gain: float
    before: Mapping[str, Any]
    """The weights by name, as they were before; those of a quantised layer are not kept."""


class QuantizedWeight:
    """The weight of a quantised layer, whose `data` are computed from what the layer stores; set, they are quantised.

    PEFT knows how.
    """

    is_meta = False

    def __init__(self, layer: CDDTunerModule) -> None:
        self._layer = layer

    @property
    def data(self) -> Tensor:
        """The values."""
        values: Tensor = self._layer.get_base_weight()
        return values

    @data.setter
    def data(self, values: Tensor) -> None:
        self._layer.set_base_weight(values)


class CDDTunerModule(nn.Module, BaseTunerLayer):
    """A module with CDD adapters, whose changes add up; what its kinds share."""

    adapter_layer_names = ("cdd_adapters",)
    other_param_names = ("cdd_alpha",)

    cdd_adapters: nn.ModuleDict
    """The changes by name of the adapter."""
    cdd_alpha: dict[str, float]
    """What they are multiplied by, unless scaled."""
    to_merge: tuple[dict[str, Any], set[str]] | None
    """What `require_own_weight` returns, and the names of those weights that other modules of the model have too.

    The model says so where it merges, and the other modules keep their weights then; None everywhere else.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._merged: list[list[Merged]] = []  # the changes of each of the merged adapters
        self.to_merge = None
        self._shared: dict[str, nn.Parameter] = {}  # while a merged layer has a weight of its own: the shared one
        self.cast_input_dtype_enabled = True
        self.cdd_adapters = nn.ModuleDict()
        self.cdd_alpha = {}

    def _take_in(self, adapter_name: str, adapter: nn.Module, config: CDDConfig) -> None:
        """Add an adapter that was made for this layer."""
        self.cdd_adapters[adapter_name] = adapter.train(self.training)
        self.cdd_alpha[adapter_name] = config.alpha
        # Where accelerate keeps the weights of the base elsewhere, the base is on the device meta now, and its hook
        # tells the device that the adapter has to be on.
        base = self.get_base_layer()
        device = dtype_and_device(base).get("device") if hasattr(base, "_hf_hook") else None
        self._move_adapter_to_device_of_base_layer(adapter_name, device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    # ---- the hooks of a kind

    def changes(self, adapter: str) -> Mapping[str, CDDAdapter]:
        """Return the changes of one adapter, by the name of the weight in the base layer that each belongs to.

        Parameters
        ----------
        adapter : str
            Name of the adapter.

        Returns
        -------
        mapping of str to CDDAdapter
            Empty if the layer has no such adapter.
        """
        raise NotImplementedError

    def require_own_weight(self) -> dict[str, Any]:
        """Return the weights to merge into, by name; refuse where the change would be lost."""
        raise NotImplementedError

    def _summed(self, base: Any, weights: Mapping[str, Tensor], merged: Merged, sign: int = 1) -> dict[str, Tensor]:
        """Return weights that one change belongs to plus it, or minus it, in the layouts of the base layer."""
        raise NotImplementedError

    # ---- merging

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add changes to the base layer's weights, of which the old values are kept unless they are quantised.

        Where the model merges, modules that share a weight keep the old one; unmerging ties them again.

        Parameters
        ----------
        safe_merge : bool, default False
            Whether to check for NaN and infinity before a weight is changed.
        adapter_names : list of str, optional
            Adapters to merge. Default: the active ones.

        Raises
        ------
        ValueError
            If `safe_merge` found some, or a forward pass in training did not call the layer; no weight has changed
            then.
        TypeError
            If the layer is quantised in a way that cannot be merged, computes its weight, or has a part of it, as in
            FSDP and in ZeRO-3 of DeepSpeed, outside of ``deepspeed.zero.GatheredParameters``.
        """
        found, self.to_merge = self.to_merge, None
        weights, shared = found or (self.require_own_weight(), set())
        if any(map(_is_meta, weights.values())):
            weights = self.require_own_weight()  # accelerate may have brought others to the device meanwhile
        # In inference mode the merged weight would become a tensor that autograd refuses for good.
        with torch.inference_mode(mode=False), torch.no_grad():
            active: Any = self._active_adapter  # without properties of PEFT, as in forward passes
            if adapter_names is None:
                adapter_names = [active] if isinstance(active, str) else active
            to_merge = check_adapters_to_merge(self, adapter_names)
            own = list(filter(self.cdd_adapters._modules.__contains__, to_merge))
            # One is merged whole or not at all.
            with as_before_on_error(self) if len(own) > 1 else nullcontext():
                for name in own:
                    self._merge_one(name, weights, shared, safe=safe_merge)

    def _merge_one(self, name: str, weights: dict[str, Any], shared: Collection[str], *, safe: bool) -> None:
        """Merge one adapter: all of its changes, or none if one is refused."""
        if any(map(_is_meta, weights.values())):
            text = "the weight is on the device meta, without values: merge before offloading"
            raise ArgumentValueError(type(self).__name__, None, text)
        base = self.get_base_layer()
        parts: dict[CDDAdapter, dict[str, Tensor]] = {}
        for weight_name, adapter in self.changes(name).items():  # one may be that of several weights
            parts.setdefault(adapter, {})[weight_name] = weights[weight_name].data
        kept: list[Merged] = []
        sums: dict[str, Tensor] = {}
        for adapter, before in parts.items():
            copies = list(map(torch.clone, adapter.vectors.forward()))
            record = Merged(copies, adapter.gain, before)
            for weight_name, merged in self._summed(base, before, record).items():
                sums[weight_name] = stored_as(before[weight_name], merged)
            kept.append(record if self.quantization_backend is None else record._replace(before=dict.fromkeys(before)))
        for merged in sums.values():
            if safe and not torch.isfinite(merged).all():
                raise ValueError(f"NaNs detected in the merged weights. The adapter {name} seems to be broken")
        # Where other modules share an old weight, the layer gets a parameter of its own.
        for weight_name in {*shared} & sums.keys() - self._shared.keys():
            module, own = owner_of(base, weight_name)
            self._shared[weight_name] = old = getattr(module, own)
            weights[weight_name] = nn.Parameter(old.data, requires_grad=old.requires_grad)
            setattr(module, own, weights[weight_name])
        for weight_name, merged in sums.items():
            weights[weight_name].data = merged
        self._merged.append(kept)
        self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take all merged changes out of the weights: bit for bit, if nothing else changed or quantised them.

        These are the changes as they were merged, though scales or vectors may be others now.
        """
        if not self.merged_adapters:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        with torch.inference_mode(mode=False), torch.no_grad():
            base = self.get_base_layer()
            while self.merged_adapters:
                self.merged_adapters.pop()
                for merged in self._merged.pop():
                    self._unmerge_one(base, merged)
            for name, shared in self._shared.items():
                module, own = owner_of(base, name)
                weight = getattr(module, own)
                if weight.dtype == shared.dtype and torch.equal(weight, shared.to(weight.device)):
                    setattr(module, own, shared)
            self._shared.clear()

    def _unmerge_one(self, base: Any, merged: Merged) -> None:
        """Take one change out of the weights."""
        weights: dict[str, Any] = {}
        restored: dict[str, Tensor] = {}
        if self.quantization_backend is not None:
            weights["weight"] = QuantizedWeight(self)
        else:
            # Old weights come back bit for bit, unless a merged one is another now: somebody may have loaded or cast
            # it, or merged into it by a layer that shares it. Then the change is subtracted.
            for name, expected in self._summed(base, merged.before, merged).items():
                module, own = owner_of(base, name)
                weights[name] = getattr(module, own)
                now = weights[name].data
                if torch.allclose(expected.to(now), now, rtol=0, atol=0, equal_nan=True):
                    restored[name] = merged.before[name].to(now)
        if len(restored) < len(weights):
            values = {name: weight.data for name, weight in weights.items()}
            for name, value in self._summed(base, values, merged, sign=-1).items():
                restored.setdefault(name, stored_as(values[name], value))
        for name, value in restored.items():
            weights[name].data = value

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
        for change in self.changes(adapter).values():
            change.alpha = scale * self.cdd_alpha[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the current scale of the active adapters.

        Parameters
        ----------
        scale : float
            Factor.
        """
        for name in self.active_adapters:
            for change in set(self.changes(name).values()):  # one may be of several weights
                change.alpha *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the current scale of the active adapters.

        Parameters
        ----------
        scale : float, optional
            Divisor. Default: back to the configured `alpha`.
        """
        for name in self.active_adapters:
            for change in set(self.changes(name).values()):
                change.alpha = self.cdd_alpha[name] if scale is None else change.alpha / scale

    def __repr__(self) -> str:
        return f"cdd.{super().__repr__()}"
