"""`CDDTunerLayer`: what all layers share that PEFT has given adapters: merging and scaling."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from structmat._errors import ArgumentValueError
from structmat.peft._config import CDDConfig
from structmat.torch import CDDAdapter
from structmat.torch._for_peft import as_before_on_error, dense_change, dtype_and_device, owner_of, wide_dtype

__all__ = ["CDDTunerLayer", "Merged"]


class Merged(NamedTuple):
    """A change as it was merged, with copies of the vectors: the adapter may be another one when it is unmerged."""

    shape: tuple[int, int]
    """Of the change."""
    vectors: list[Tensor]
    gain: float
    before: Tensor | None
    """The weight before, unless the layer is quantised."""

    @classmethod
    def of(cls, adapter: CDDAdapter, before: Tensor | None) -> Merged:
        """Keep the change that an adapter makes now."""
        copies = [vector.detach().clone() for vector in adapter.vectors.forward()]
        return cls(adapter.layout.shape, copies, adapter.gain, before)

    def change(self, expert: int | None = None) -> Tensor:
        """Return the change as a dense matrix; of vectors of several experts that of one, or all of them stacked."""
        own = self.vectors if expert is None else [vector[expert] for vector in self.vectors]
        return dense_change(self.shape, own, self.gain, wide_dtype(*own))


class CDDTunerLayer(nn.Module, BaseTunerLayer):
    """A module with CDD adapters, whose changes add up; what its kinds share."""

    adapter_layer_names = ("cdd_adapters",)
    other_param_names = ("cdd_alpha",)

    cdd_adapters: nn.ModuleDict
    """The changes by name of the adapter."""
    cdd_alpha: dict[str, float]
    """What they are multiplied by, unless scaled."""
    shared_weights: set[str]
    """The names of the weights that other modules of the model have too: they keep them when this is merged."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._merged: list[dict[str, Merged]] = []  # by name of the weight, for each of the merged adapters
        self.shared_weights = set()
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

    def require_own_weight(self) -> None:
        """Refuse to merge where the change would be lost."""
        raise NotImplementedError

    def _weight_of(self, name: str) -> Tensor:
        """Return a weight of the base layer; of a quantised one, its values."""
        module, own = owner_of(self.get_base_layer(), name)
        weight: Tensor = getattr(module, own).data
        return weight

    def _assign_weight(self, name: str, value: Tensor) -> None:
        """Set the values of a weight of the base layer, which stays the same parameter."""
        module, own = owner_of(self.get_base_layer(), name)
        getattr(module, own).data = value

    def _plus(self, name: str, weight: Tensor, merged: Merged, sign: int = 1) -> Tensor:
        """Return a weight plus a change, or minus it, in the layout of the base layer."""
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
        self.require_own_weight()
        # In inference mode the merged weight would become a tensor that autograd refuses for good.
        with torch.inference_mode(mode=False), torch.no_grad():
            own = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.cdd_adapters]
            # One is merged whole or not at all.
            with as_before_on_error(self) if len(own) > 1 else nullcontext():
                for name in own:
                    self._merge_one(name, safe=safe_merge)

    def _merge_one(self, name: str, *, safe: bool) -> None:
        """Merge one adapter: all of its changes, or none if one is refused."""
        kept, sums = {}, {}
        for weight_name, adapter in self.changes(name).items():
            weight = self._weight_of(weight_name)
            if weight.is_meta:
                text = "the weight is on the device meta, without values: merge before offloading"
                raise ArgumentValueError(type(self).__name__, None, text)
            record = Merged.of(adapter, weight if self.quantization_backend is None else None)
            merged = self._plus(weight_name, weight, record)
            if safe and not torch.isfinite(merged).all():
                raise ValueError(f"NaNs detected in the merged weights. The adapter {name} seems to be broken")
            kept[weight_name], sums[weight_name] = record, merged
        for weight_name, merged in sums.items():
            self._set_weight(weight_name, merged)
        self._merged.append(kept)
        self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take all merged changes out of the weights: bit for bit, if nothing else changed or quantised them.

        These are the changes as they were merged, though scales or vectors may be others now.
        """
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        with torch.inference_mode(mode=False), torch.no_grad():
            while self.merged_adapters:
                self.merged_adapters.pop()
                for name, merged in self._merged.pop().items():
                    self._unmerge_one(name, merged)
            base = self.get_base_layer()
            for name, shared in self._shared.items():
                module, own = owner_of(base, name)
                weight = getattr(module, own)
                if weight.dtype == shared.dtype and torch.equal(weight, shared.to(weight.device)):
                    setattr(module, own, shared)
            self._shared.clear()

    def _unmerge_one(self, name: str, merged: Merged) -> None:
        """Take one change out of a weight."""
        weight, before = self._weight_of(name), merged.before
        # The old weight comes back bit for bit, unless the merged one is another now: somebody may have loaded or
        # cast it, or merged into it by a layer that shares it. Then the change is subtracted.
        expected = weight if before is None else self._plus(name, before, merged).to(weight)
        if before is not None and torch.allclose(expected, weight, rtol=0, atol=0, equal_nan=True):
            self._assign_weight(name, before.to(weight))
        else:
            self._assign_weight(name, self._plus(name, weight, merged, sign=-1))

    def _set_weight(self, name: str, merged: Tensor) -> None:
        """Put a merged weight into the base layer.

        Where other modules share the old weight, the layer gets a parameter of its own.
        """
        if self.quantization_backend is None and name in self.shared_weights and name not in self._shared:
            module, own = owner_of(self.get_base_layer(), name)
            self._shared[name] = old = getattr(module, own)
            setattr(module, own, nn.Parameter(merged, requires_grad=old.requires_grad))
        else:
            self._assign_weight(name, merged)

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
