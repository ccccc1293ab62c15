"""`CDDModel`: puts adapters into a model and takes them out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from peft.utils import (
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    get_quantization_kwargs,
)
from peft.utils.other import TrainableTokensWrapper, get_pattern_key
from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError, naming, warn_caller
from structmat._layer_fits import exact_targets
from structmat.peft._bases import is_left_out, require_adaptable
from structmat.peft._config import CDDConfig
from structmat.peft._loading import Snapshot, misfits
from structmat.peft._mixed_batches import names_per_sample
from structmat.peft._sharing import keep_shared, require_shared_values, share
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.peft._weighted_sums import combined, copy_wrapped, wrappers
from structmat.torch import reads_weight, unreached_experts

__all__ = ["CDDModel"]


class CDDModel(BaseTuner):
    """A model with CDD adapters in it; `peft.get_peft_model` makes one, as ``base_model`` of what it returns.

    Parameters
    ----------
    model : Module
        Any; it is changed in place.
    peft_config : CDDConfig or dict
        Settings, or settings by name of the adapter.
    adapter_name : str
        Name of the first adapter.
    low_cpu_mem_usage : bool, default False
        Whether vectors are made without values, which is faster if a file is loaded next.
    state_dict : dict, optional
        Weights whose keys tell which modules to adapt.

    Raises
    ------
    ValueError
        If no module matches; the model has not changed then.
    TypeError
        If a module that was named cannot be adapted; the model has not changed then.

    Examples
    --------
    >>> import torch
    >>> from peft import get_peft_model
    >>> from structmat.peft import CDDConfig
    >>> model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(6, 4)), CDDConfig(target_modules=["0"]))
    >>> type(model.base_model).__name__
    'CDDModel'
    """

    prefix: str = "cdd_"
    tuner_layer_cls = CDDTunerLinear
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    peft_config: dict[str, CDDConfig]
    targeted_module_names: list[str]
    _until_loaded: tuple[str, Snapshot] | None = None
    """An adapter whose weights PEFT is about to load, and the model without it."""

    def __init__(
        self,
        model: nn.Module,
        peft_config: CDDConfig | dict[str, CDDConfig],
        adapter_name: str,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(model, peft_config, adapter_name, low_cpu_mem_usage, state_dict)
        self.register_load_state_dict_pre_hook(_check_state)
        # Of the model itself: that is all that is left of an adapter that was injected.
        self._keep_shared = keep_shared(model)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Add an adapter to all target modules, or to none if one fails.

        Parameters
        ----------
        model : Module
            Whose modules are replaced.
        adapter_name : str
            Name of the adapter, which has its settings already.
        *args, **kwargs
            As for all methods of PEFT.
        """
        config = self.peft_config[adapter_name]
        asked = config.target_modules
        before = Snapshot(model)
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
            if config.share_circulants and share(model, adapter_name) == 0:
                text = "finds no two modules of one kind: of equal paths but for numbers, sizes, options, dtypes and"
                raise ArgumentValueError("CDDConfig", "share_circulants", f"{text} devices")  # noqa: TRY301  # rolled back
        except BaseException:
            self._take_back(adapter_name, before)
            raise
        self._until_loaded = (adapter_name, before) if config._is_loading else None
        config._is_loading = False
        _warn_of_unmatched(config, self.targeted_module_names)
        _warn_of_experts(model, asked or config.target_modules or ())
        if config.init_weights == "gradient":
            for parameter in model.parameters():
                if not parameter.requires_grad:
                    parameter.grad = None

    def _prepare_model(self, peft_config: CDDConfig, model: nn.Module) -> None:
        """Leave out of "all-linear" the layers that `structmat.torch.adapt` leaves out."""
        asked = peft_config.target_modules
        if isinstance(asked, str) and asked.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
            names: set[str] = _maybe_include_all_linear_layers(peft_config, model).target_modules
            chosen = sorted(path for path in names if not is_left_out(model, path))
            if names and not chosen:
                text = f"{asked!r} leaves nothing: {', '.join(sorted(names))} are complex, or read without a call"
                raise ArgumentValueError("CDDConfig", "target_modules", text)
            if len(chosen) < len(names):
                peft_config.target_modules = exact_targets(chosen, [path for path, _ in model.named_modules()])

    def _check_merge_allowed(self) -> None:
        """Refuse before the first layer is merged."""
        super()._check_merge_allowed()
        for path, layer in self.model.named_modules():
            if isinstance(layer, CDDTunerLinear):
                with naming(path):
                    layer._require_own_weight()

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        model = super()._unload_and_optionally_merge(*args, **kwargs)
        self._remove_hooks()
        return model

    def _remove_hooks(self) -> None:
        for handle in self._keep_shared:
            handle.remove()

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if self.peft_config[adapter_name].share_circulants:
            share(self.model, adapter_name)  # they have new parameters now, if they were of lower precision

    def _take_back(self, adapter_name: str, before: Snapshot) -> None:
        before.restore(self.model, adapter_name)
        adapted = {path for path, module in self.model.named_modules() if isinstance(module, CDDTunerLinear)}
        self.targeted_module_names = [path for path in self.targeted_module_names if path in adapted]
        if vars(self.model).get("peft_config") is self.peft_config:
            del self.peft_config[adapter_name]
            if before.plain:
                del self.model.peft_config
                self._remove_hooks()

    def _create_and_replace(
        self,
        peft_config: CDDConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if reads_weight(parent, target_name):
            raise ArgumentTypeError(
                "CDDConfig",
                "target_modules",
                f"match {current_key}, whose weight {type(parent).__name__} reads without calling it; name it in "
                "exclude_modules",
            )
        options = {
            **peft_config.layer_options(current_key),
            "dropout": peft_config.dropout,
            "mode": peft_config.mode,
            "init_weights": peft_config.init_weights,
            "inference_mode": peft_config.inference_mode,
        }
        if isinstance(target, CDDTunerLinear):
            with naming(current_key):
                target.update_layer(adapter_name, **options)
            return
        kwargs = get_quantization_kwargs(self.model)
        require_adaptable(target, self.model, kwargs)
        layer = CDDTunerLinear(target, **kwargs).train(target.training)
        layer._active_adapter = adapter_name
        with naming(current_key):
            layer.update_layer(adapter_name, **options)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(requires_grad=False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(child, TrainableTokensWrapper):  # whose weight is computed: the embedding has its own
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        found = re.fullmatch(rf"(.*\.cdd_adapters)\.{re.escape(adapter_name)}(\.factors\.\d+)", key)
        return found[1] + found[2] if found else super()._remove_adapter_name_from_key(key, adapter_name)

    # ---- mixed batches

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        names = kwargs.pop("adapter_names", None)
        with nullcontext() if names is None else names_per_sample(self, names, kwargs):
            yield

    # ---- weighted sums

    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str = "exact"
    ) -> None:
        """Add an adapter whose change is a weighted sum of the changes of others.

        A sum of products is not a product of the same length, unless they differ in one factor only; then that factor
        is summed. So "exact" scales or negates one adapter, and adds adapters that share the other factors. Of one
        adapter the modules of `modules_to_save` and the trained tokens are copied as they are; of several they have no
        sum.

        Parameters
        ----------
        adapters : sequence of str
            Names of adapters.
        weights : sequence of float
            One for each.
        adapter_name : str
            A new name.
        combination_type : {"exact", "fit"}, default "exact"
            "fit" fits the sum by `structmat.fit_cdd`; the relative error is in
            ``layer.cdd_adapters[adapter_name].fit.error`` of each layer.

        Raises
        ------
        ValueError
            If names or weights are wrong, one of several adapters has modules or tokens of its own, adapters are of
            other numbers of factors or block sizes, or the sum is no product; nothing has changed then. Adapters that
            are active together add up exactly.
        RuntimeError
            If adapters are merged.

        Examples
        --------
        >>> import torch
        >>> from peft import get_peft_model
        >>> from structmat.peft import CDDConfig
        >>> config = CDDConfig(target_modules=["0"], init_weights="normal")
        >>> model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), config)
        >>> model.add_weighted_adapter(["default"], [-1.0], "negated")
        >>> model.base_model.set_adapter(["default", "negated"])
        >>> x = torch.ones(1, 4)
        >>> with model.disable_adapter():
        ...     base = model(x)
        >>> torch.allclose(model(x), base, atol=1e-6)
        True
        """
        _require_summable(self, adapters, weights, adapter_name, combination_type)
        layers = {
            path: layer
            for path, layer in self.model.named_modules()
            if isinstance(layer, CDDTunerLinear) and any(name in layer.cdd_adapters for name in adapters)
        }
        if any(layer.merged for layer in layers.values()):
            raise RuntimeError("add_weighted_adapter: adapters are merged here; call unmerge_adapter() first")
        sums = {
            path: combined(
                [
                    (weight, layer.cdd_adapters[name])
                    for name, weight in zip(adapters, weights, strict=True)
                    if name in layer.cdd_adapters
                ],
                path,
                fit=combination_type == "fit",
            )
            for path, layer in layers.items()
        }
        self.peft_config[adapter_name] = replace(
            self.peft_config[adapters[0]],
            target_modules=exact_targets(layers, (path for path, _ in self.model.named_modules())),
            block_size="min",
            alpha=1.0,
            alpha_pattern={},
            n_factors_pattern={f"^{re.escape(path)}": total.n_factors for path, total in sums.items()},
            block_size_pattern={f"^{re.escape(path)}": total.block_size for path, total in sums.items()},
            init_weights=True,
            exclude_modules=None,
            layers_to_transform=None,
            layers_pattern=None,
            share_circulants=False,
        )
        try:
            self.inject_adapter(self.model, adapter_name)
        except BaseException:
            self.peft_config.pop(adapter_name, None)
            raise
        for path, total in sums.items():
            adapter = layers[path].cdd_adapters[adapter_name].to(total.factors[0].dtype)
            adapter.fit = total.fit
            with torch.no_grad():
                for factor, value in zip(adapter.factors, total.factors, strict=True):
                    factor.copy_(value)
        copy_wrapped(self.model, adapters[0], adapter_name)


def _require_summable(
    tuner: CDDModel, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str
) -> None:
    if adapter_name in tuner.peft_config:
        raise ArgumentValueError("add_weighted_adapter", "adapter_name", f"{adapter_name!r} already exists")
    if len(adapters) != len(weights) or not adapters or len(set(adapters)) != len(adapters):
        raise ArgumentValueError(
            "add_weighted_adapter", "weights", f"must be one for each of {list(adapters)}, got {len(weights)}"
        )
    for name in adapters:
        if name not in tuner.peft_config:
            raise ArgumentValueError("add_weighted_adapter", "adapters", f"{name!r} does not exist")
    if combination_type not in {"exact", "fit"}:
        raise ArgumentValueError(
            "add_weighted_adapter", "combination_type", f'must be "exact" or "fit", got {combination_type!r}'
        )
    if len(adapters) > 1 and (found := [name for name in adapters if wrappers(tuner.model, name)]):
        text = f"include {', '.join(found)}, whose modules_to_save or trained tokens have no sum; scale one alone"
        raise ArgumentValueError("add_weighted_adapter", "adapters", text)


def _check_state(tuner: CDDModel, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse weights that do not fit, before any is loaded, and take back the adapter that they were for."""
    expecting, tuner._until_loaded = tuner._until_loaded, None
    own = tuner.state_dict(prefix=prefix) if expecting else {}
    if expecting is None or own.keys() <= state.keys():  # no file of an adapter, but the state of a whole model
        return
    try:
        _require_fit(state, own, expecting[0], f"{prefix}model.")
        require_shared_values(tuner.model, state, f"{prefix}model.")
    except ArgumentValueError:
        tuner._take_back(*expecting)
        raise


def _require_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], adapter_name: str, prefix: str) -> None:
    if problems := misfits(state, own, adapter_name, prefix):
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        text = f"the adapter was made for another architecture or with other settings: {'; '.join(problems[:3])}{more}"
        raise ArgumentValueError("CDDModel", None, text)


def _warn_of_experts(model: nn.Module, targets: Any) -> None:
    if names := unreached_experts(model, targets if isinstance(targets, str) else list(targets)):
        warn_caller(
            f"The weights of experts that are stacked in one parameter are not adapted: {', '.join(names)}.",
            RuntimeWarning,
            through=("peft",),
        )


def _warn_of_unmatched(config: CDDConfig, names: Sequence[str]) -> None:
    """Warn of keys of patterns that decide no module; of those of alpha that match nothing PEFT itself does."""
    for option, pattern in config.patterns().items():
        unmatched = [key for key in pattern if not any(re.match(rf"(.*\.)?({key})$", name) for name in names)]
        deciding = {get_pattern_key(pattern.keys(), name) for name in names}
        if shadowed := [key for key in pattern if key not in deciding and key not in unmatched]:
            warn_caller(
                f"The following {option}_pattern keys were ignored, since earlier keys match their modules: "
                f"{shadowed}.",
                RuntimeWarning,
                through=("peft",),
            )
        if unmatched and option != "alpha":
            warn_caller(
                f"The following {option}_pattern keys did not match any targeted module and were ignored: {unmatched}.",
                RuntimeWarning,
                through=("peft",),
            )
