"""`CDDTunerLayer`: a layer of any kind, quantised or not, with the adapters that PEFT gave it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import _get_in_out_features
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from peft.utils.other import TrainableTokensWrapper
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.peft._config import CDDConfig
from structmat.peft._layers.mixture import mixture_of
from structmat.peft._layers.tuner_module import CDDTunerModule, Merged, QuantizedWeight
from structmat.torch import CDDAdapter, CDDLinear
from structmat.torch._adapters.adapter import Init
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._adapters.recomputation import is_computed_again
from structmat.torch._calls import is_never_called
from structmat.torch._changes.dense import weight_plus_change
from structmat.torch._layers import KINDS, AdaptedLayer, Change, kind_of
from structmat.torch._layers.adapted_layer import bound
from structmat.torch._layers.base_weight import own_weight, require_whole

__all__ = ["CDDTunerLayer", "CDDTunerLinear"]


class CDDTunerLayer(CDDTunerModule):
    """A layer with CDD adapters, whose changes add up: it replaces each target module.

    Parameters
    ----------
    base_layer : Module
        `torch.nn.Linear`, transformers' ``Conv1D``, a quantised linear layer, a base of `structmat.torch.CDDConv`,
        `structmat.torch.CDDEmbedding` or `structmat.torch.CDDMultiheadAttention`, or another tuner's layer around one
        of the first three.
    get_apply_tensor_subclass : callable, optional
        How torchao quantises, for merging; known by PEFT for models of transformers.

    Raises
    ------
    TypeError
        If the layer has no features, or an adapter of another tuner that it would not call.

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

    _kind: type[AdaptedLayer]
    """The kind of layer in `structmat.torch`, whose hooks say how changes meet the base layer."""

    def __init__(self, base_layer: nn.Module, *, get_apply_tensor_subclass: Callable[[], Any] | None = None) -> None:
        super().__init__(base_layer)
        inner = self.get_base_layer()
        try:
            backend = resolve_quantization_backend(inner, get_apply_tensor_subclass=get_apply_tensor_subclass)
        except ValueError:  # torchao, where PEFT does not know how to quantise a merged weight again
            backend = ForwardOnlyQuantizationBackend("torchao")
        self.quantization_backend = backend
        kind = kind_of(inner)
        # Some quantised linear layers have other names for their numbers of features, which PEFT knows.
        features = _get_in_out_features(inner) if kind is None else kind._features(inner)
        if None in features:
            text = f"must have features, as a linear layer has, got {type(inner).__name__}"
            raise ArgumentTypeError("CDDTunerLayer", "base_layer", text)
        self.in_features, self.out_features = map(int, features)
        self._kind = kind or CDDLinear
        self._weight_names = self._kind._weight_names(inner)
        self._had_names = False
        if base_layer is not inner and not self._kind._calls_base:
            text = (
                f"has an adapter of {type(base_layer).__module__}, which {self._kind.__name__} would not call: merge "
                "or unload it first"
            )
            raise ArgumentTypeError("CDDTunerLayer", "base_layer", text)

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
        init: Init = "zero" if config.init_weights else "normal"
        options = {name: getattr(config, name) for name in AdapterOptions.names()}
        adapter = CDDAdapter(self.in_features, self.out_features, **options, init=init)
        self._kind._prepare(base, adapter)
        self._take_in(adapter_name, adapter, config)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[Any, Any]:
        """Return what new vectors get from the base; torch.ao's quantised layers have a method as their weight."""
        weight = getattr(base_layer, "weight", None)
        if inspect.ismethod(weight):
            return weight().device, None
        found: tuple[Any, Any] = super()._get_base_layer_device_and_dtype(base_layer)
        return found

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
        if self._disable_adapters and self.merged_adapters:
            self.unmerge()
        # Read without properties of PEFT and methods of torch, which take time in each layer for each token.
        modules: Any = self._modules
        changes: list[Change] = []
        at_once = None
        is_mixture = names is not None
        if is_mixture:
            self._require_samples(x, names)
            is_stackable = self._kind is CDDLinear and not x.is_nested
            at_once = mixture_of(names, modules["cdd_adapters"]._modules) if is_stackable else None
            changes = self._changes_of_samples(x, names) if at_once is None else []
        elif self._had_names and is_computed_again():
            text = (
                "gradient checkpointing computes layers again when the names are gone: turn it off, or train by "
                "structmat.torch.AdapterBank"
            )
            raise ArgumentValueError("CDDTunerLayer", "adapter_names", text)
        elif not self.merged_adapters:
            adapters: Any = modules["cdd_adapters"]._modules
            active: Any = self._active_adapter
            for name in (active,) if isinstance(active, str) else active:
                if name in adapters:
                    changes.append((adapters[name], None))
        if self._disable_adapters:
            changes, at_once = [], None
        if not torch.compiler.is_compiling():
            self._had_names = is_mixture
        call: Any = modules["base_layer"]
        if at_once is not None:
            adapter, mixture = at_once
            return adapter.add_to_outputs_of(bound(call, args, kwargs), x, mixture)
        base = self.get_base_layer() if "base_layer" in call._modules else call
        return self._kind._with_changes(base, changes, call, x, *args, **kwargs)

    def _require_samples(self, x: Tensor, names: Sequence[str]) -> None:
        """Refuse a mixed batch of another number of samples, and one while adapters are merged."""
        samples = x.size(self._kind._batch_axis(self.get_base_layer()))
        if samples != len(names):
            text = (
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(names)} and {samples} respectively."
            )
            raise ArgumentValueError("CDDTunerLayer", None, text)
        if self.merged:
            text = "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
            raise ArgumentValueError("CDDTunerLayer", None, text)

    def _changes_of_samples(self, x: Tensor, names: Sequence[str]) -> list[Change]:
        """Return the changes of a mixed batch, each with the samples that it is for."""
        adapters: Any = self.cdd_adapters._modules
        changes: list[Change] = []
        for name in sorted(set(names) & set(adapters)):
            samples_of_it = torch.tensor([i for i, each in enumerate(names) if each == name], device=x.device)
            changes.append((adapters[name], samples_of_it))
        return changes

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

    def require_own_weight(self) -> dict[str, Any]:
        """Return the weights to merge into; refuse where the change would be lost.

        Returns
        -------
        dict of str to Tensor
            By name; for a quantised layer `QuantizedWeight`.

        Raises
        ------
        ValueError
            If a forward pass in training did not call the layer, whose weight alone is read then.
        TypeError
            If the weight is quantised and PEFT cannot quantise it again, computed from others, split among processes by
            FSDP or ZeRO-3 of DeepSpeed, or not what the layer multiplies by.
        """
        base = self.get_base_layer()
        backend = self.quantization_backend
        weights: dict[str, Any] = {}
        problem = ""
        if isinstance(base, TrainableTokensWrapper):
            problem = "the layer has the trained rows of a tied embedding, by trainable_token_indices; save it unmerged"
        elif backend is None:
            for name in self._weight_names:
                weights[name] = own_weight(base, "CDDTunerLayer", name, overwrite=True)
            if not self._kind._multiplies_by_weight(base, (self.in_features, self.out_features)):
                problem = f"the weight of {type(base).__name__} is not what it multiplies by"
        else:
            require_whole(base, "CDDTunerLayer", overwrite=True)
            if not backend.supports_merge:
                problem = f"PEFT cannot merge into weights that {backend.backend_name} quantised; keep the adapter"
            weights["weight"] = QuantizedWeight(self)
        if problem:
            raise ArgumentTypeError("CDDTunerLayer", None, problem)
        if is_never_called(self) and any(adapter.dense().any() for adapter in self.cdd_adapters.values()):
            text = "the layer was never called: its weight alone is read, so that a merged change would be a new one"
            raise ArgumentValueError("CDDTunerLayer", None, text)
        return weights

    def changes(self, adapter: str) -> Mapping[str, CDDAdapter]:
        """Return the change of one adapter, by the names of the base layer's weights that it is a change of.

        Parameters
        ----------
        adapter : str
            Name of the adapter.

        Returns
        -------
        mapping of str to CDDAdapter
            Empty if the layer has no such adapter.
        """
        found: Any = self.cdd_adapters._modules.get(adapter)
        return {} if found is None else dict.fromkeys(self._weight_names, found)

    def _summed(self, base: Any, weights: Mapping[str, Tensor], merged: Merged, sign: int = 1) -> dict[str, Tensor]:
        plus = partial(weight_plus_change, vectors=merged.vectors, gain=sign * merged.gain)
        return self._kind._summed(base, weights, plus)

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

    def extra_repr(self) -> str:
        """Return additional information for torch's `repr`.

        Returns
        -------
        str
            Such as ``quantization_backend='torchao'``.
        """
        return quantization_extra_repr(self)


class CDDTunerLinear(CDDTunerLayer):
    """A linear layer with CDD adapters, whose changes add up.

    PEFT knows layers that are adapted already, and that the targets "all-linear" of another adapter mean too, by the
    word "Linear" in the names of their classes.

    Parameters
    ----------
    base_layer : Module
        `torch.nn.Linear`, transformers' ``Conv1D``, a quantised linear layer, or another tuner's layer around one.
    get_apply_tensor_subclass : callable, optional
        As for `CDDTunerLayer`.

    See Also
    --------
    CDDTunerLayer : The same for layers of any kind.
    """


def _shown(name: str) -> property:
    """Return an attribute that modules around read from the layer in the place of a base of some kinds."""

    def read(layer: CDDTunerLayer) -> Any:
        if name not in layer._kind._shown:
            raise AttributeError(name)
        return getattr(layer.get_base_layer(), name)

    return property(read, doc="That of the base layer.")


# A method __getattr__ would be called for each module that a forward pass reads.
for _kind in KINDS:
    for _name in _kind._shown:
        if not hasattr(CDDTunerLayer, _name):
            setattr(CDDTunerLayer, _name, _shown(_name))
