"""`CDDTunerParameters`: a module of which PEFT gave single parameters adapters, such as stacked experts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentValueError, naming
from structmat.peft._config import CDDConfig
from structmat.peft._layers.tuner_module import CDDTunerModule, Merged
from structmat.torch import CDDAdapter
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._calls import is_never_called
from structmat.torch._changes.dense import weight_plus_change
from structmat.torch._layers.base_weight import own_weight
from structmat.torch._layers.changed_experts import Stack, as_matrices, call_changed, laid_out, stack_of

__all__ = ["CDDTunerParameters"]


class CDDTunerParameters(CDDTunerModule):
    """A module whose parameters have CDD adapters, which add up: it replaces each module with target parameters.

    Parameters
    ----------
    base_layer : Module
        Such as the experts of a block of transformers. A parameter is a stack of matrices (experts, rows, columns),
        each of which gets a change of its own, or one matrix.

    See Also
    --------
    CDDTunerLayer : The same for layers that are called with their inputs.

    Examples
    --------
    >>> import torch
    >>> from peft import get_peft_model
    >>> from structmat.peft import CDDConfig
    >>> class Experts(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.up_proj = torch.nn.Parameter(torch.ones(3, 6, 4))
    ...     def forward(self, x):
    ...         return torch.stack([torch.nn.functional.linear(x, self.up_proj[i]) for i in range(3)])
    >>> config = CDDConfig(target_modules=[], target_parameters=["experts.up_proj"])
    >>> model = get_peft_model(torch.nn.ModuleDict({"experts": Experts()}), config)
    >>> layer = model.base_model.model["experts"]
    >>> type(layer).__name__, {name: change.n_matrices for name, change in layer.changes("default").items()}
    ('CDDTunerParameters', {'up_proj': 3})
    """

    def __getattr__(self, name: str) -> Any:
        # Models ask their modules for such things as the number of experts.
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Before the base is there, looking for it in the base would not end.
            if name.startswith("_") or name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def update_layer(self, adapter_name: str, config: CDDConfig, parameters: Collection[str]) -> None:
        """Add an adapter.

        Parameters
        ----------
        adapter_name : str
            A new name.
        config : CDDConfig
            Its settings.
        parameters : collection of str
            The names, in the base layer, of those parameters that it changes.

        Raises
        ------
        ValueError
            If an option does not suit the size of a parameter, or one has other than two or three axes; nothing has
            changed then.
        TypeError
            If a parameter is quantised or computed from others.
        """
        changes = nn.ModuleDict()
        for name in parameters:
            stack = self._stack(name)
            with naming(name):
                changes[name] = CDDAdapter(
                    stack.in_features,
                    stack.out_features,
                    n_matrices=stack.n_experts,
                    **{option: getattr(config, option) for option in AdapterOptions.names()},
                    init="zero" if config.init_weights else "normal",
                )
        self._take_in(adapter_name, changes, config)

    def _stack(self, name: str) -> Stack:
        """Return how a parameter holds its matrices."""
        return stack_of(self.get_base_layer(), name, "CDDTunerParameters")

    def _get_base_layer_device_and_dtype(self, _: nn.Module) -> tuple[Any, Any]:
        """Return what new vectors get from the base; PEFT knows it of layers with a weight, and takes parts of some."""
        (name, *_) = self._names()
        parameter = self.get_base_layer()._parameters[name]
        return parameter.device, parameter.dtype

    def _names(self) -> list[str]:
        """Return the names of the parameters that some adapter changes."""
        return list(dict.fromkeys(name for adapter in self.cdd_adapters for name in self.changes(adapter)))

    # ---- the forward pass

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the base layer with the changes of the active adapters.

        Parameters
        ----------
        *args, **kwargs
            For the base layer, except ``adapter_names``, one name for each sample.

        Returns
        -------
        Any
            What the base layer returns.

        Raises
        ------
        ValueError
            If one of the names is of an adapter of this layer: its rows are not those of the samples.
        """
        names = kwargs.pop("adapter_names", None)
        if self._disable_adapters and self.merged_adapters:
            self.unmerge()
        if names is not None and not self._disable_adapters:
            self._require_no_mixture(names)
        if names is not None or self._disable_adapters or self.merged_adapters:
            return self.base_layer(*args, **kwargs)
        active: dict[str, list[CDDAdapter]] = {}
        for adapter in self.active_adapters:
            for name, change in self.changes(adapter).items():
                active.setdefault(name, []).append(change)
        return call_changed(self.base_layer, active, *args, **kwargs)

    def _require_no_mixture(self, names: Collection[str]) -> None:
        """Refuse adapters for single samples: a module of experts gets rows of tokens that the router has sorted."""
        own = sorted(set(names) & set(self.cdd_adapters))
        if own:
            text = (
                f"{', '.join(own)} change {', '.join(self._names())}, which mixed batches do not support: run the "
                "samples of each adapter by themselves, after set_adapter"
            )
            raise ArgumentValueError("CDDTunerParameters", "adapter_names", text)
        if self.merged:
            text = "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
            raise ArgumentValueError("CDDTunerParameters", None, text)

    # ---- merging

    def changes(self, adapter: str) -> Mapping[str, CDDAdapter]:
        """Return the changes of one adapter, by name of the parameter.

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
        return {} if found is None else found._modules

    def get_delta_weight(self, adapter: str, parameter: str) -> Tensor:
        """Return a change as a dense stack of matrices.

        Parameters
        ----------
        adapter : str
            Name of the adapter.
        parameter : str
            Name of the parameter in the base layer.

        Returns
        -------
        Tensor
            In the layout of the parameter; `alpha` included.
        """
        return laid_out(self._stack(parameter), self.changes(adapter)[parameter].dense())

    def _summed(self, base: Any, weights: Mapping[str, Tensor], merged: Merged, sign: int = 1) -> dict[str, Tensor]:
        ((name, weight),) = weights.items()
        total = torch.empty_like(weight)
        stack = self._stack(name)
        places = zip(as_matrices(stack, total), as_matrices(stack, weight), strict=True)
        # One expert at a time: sums in float32 would take twice the memory of weights in half precision.
        for expert, (own, matrix) in enumerate(places):
            vectors = [vector[expert] for vector in merged.vectors]
            own.copy_(weight_plus_change(matrix, vectors, sign * merged.gain))
        return {name: total}

    def require_own_weight(self) -> dict[str, Any]:
        """Return the parameters to merge into; refuse where the change would be lost.

        Returns
        -------
        dict of str to Tensor
            By name.

        Raises
        ------
        ValueError
            If a forward pass in training did not call the module.
        TypeError
            If a parameter is quantised, computed from others, or split among processes by FSDP or ZeRO-3 of DeepSpeed.
        """
        base = self.get_base_layer()
        weights = {name: own_weight(base, "CDDTunerParameters", name, overwrite=True) for name in self._names()}
        changes = [change for adapter in self.cdd_adapters for change in self.changes(adapter).values()]
        if is_never_called(self) and any(change.dense().any() for change in changes):
            text = (
                "the module was never called: its parameters alone are read, so that a merged change would be a new one"
            )
            raise ArgumentValueError("CDDTunerParameters", None, text)
        return weights
