"""`CDDModel`: puts adapters into a model and takes them out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _get_submodules, _maybe_include_all_linear_layers
from peft.utils import (
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    get_quantization_kwargs,
    resolve_quantization_backend,
)
from peft.utils.error import NoMatchingPeftModuleError
from peft.utils.integrations import init_empty_weights
from peft.utils.other import AuxiliaryTrainingWrapper, TrainableTokensWrapper
from torch import nn

from structmat._adapter_format import exact_targets
from structmat._errors import ArgumentTypeError, ArgumentValueError, naming, warn_caller
from structmat.peft._config import CDDConfig
from structmat.peft._layers.tuner_layer import CDDTunerLayer, CDDTunerLinear
from structmat.peft._layers.tuner_module import CDDTunerModule
from structmat.peft._layers.tuner_parameters import CDDTunerParameters
from structmat.peft._loading import tensors_for
from structmat.peft._target_parameters import (
    has_forward,
    is_excluded,
    is_router,
    keep_meaning,
    matching,
    own_parameters,
    take_over_parameters,
    without_wrappers,
)
from structmat.torch._calls import leave_fast_paths, reads_weight, return_to_fast_paths, watch_calls
from structmat.torch._distributed import is_tensor_parallel
from structmat.torch._layers import AdaptedLayer, kind_of
from structmat.torch._model.model_state import as_before_on_error
from structmat.torch._model.parameter_names import Place, places_of, unreached_experts
from structmat.torch._model.targets import adaptable_layers, is_left_out, near_names, text_of_adaptable
from structmat.torch._model.wrapping import require_alone

__all__ = ["CDDModel"]

_BASE = "__base__"
"""The name by which a sample of a mixed batch asks for no adapter; PEFT has chosen it."""


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
        If no module matches.
    TypeError
        If a module that was named cannot be adapted.

    Warns
    -----
    RuntimeWarning
        If "all-linear" or names such as "gate_proj" mean parameters of experts that cannot be adapted, such as
        quantised ones: they stay as they are. Names that no module or parameter has, beside others, are told of too.
        Also after the first forward pass in training, if that did not call some adapted layers.

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
    tuner_layer_cls = CDDTunerModule
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    peft_config: dict[str, CDDConfig]

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Add an adapter to all target modules and parameters, or to none of them if an error comes.

        Parameters
        ----------
        model : Module
            Whose modules are replaced.
        adapter_name : str
            Name of the adapter, which has its settings already.
        autocast_adapter_dtype, low_cpu_mem_usage, state_dict : optional
            As for all methods of PEFT.
        """
        config = self.peft_config[adapter_name]
        # With a state dict PEFT takes the targets from its keys.
        places = places_of(model)
        if state_dict is None:
            take_over_parameters(model, config, places)
        _warn_of_unknown(model, config, places)
        try:
            with as_before_on_error(model):
                super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
                keep_meaning(model, config)
                leave_fast_paths(model, CDDTunerModule)
                # `get_peft_model` calls this object in forward passes; after `inject_adapter_in_model` it is gone, and
                # users call the model itself.
                for root in (self, model):
                    watch_calls(root, CDDTunerModule)
        except NoMatchingPeftModuleError as error:
            paths = [path for path in adaptable_layers(model) if not path.endswith(".base_layer")]
            could = text_of_adaptable(paths, config.target_modules or ())
            raise type(error)(f"{error} Could be adapted: {could}") from error

    def _prepare_adapter_config(self, peft_config: CDDConfig, model_config: dict[str, Any]) -> CDDConfig:
        # Configurations of other libraries, as that of diffusers, have no type of model.
        model_type = model_config.get("model_type")
        # Parameters alone may be targets in a model of an architecture that PEFT does not know.
        known = model_type in self.target_module_mapping
        if peft_config.target_modules is None and peft_config.target_parameters and not known:
            return peft_config
        return super()._prepare_adapter_config(peft_config, {**model_config, "model_type": model_type})

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
        if is_router(target.get_base_layer() if isinstance(target, BaseTunerLayer) else target):
            return  # its weight is one of the target parameters
        if reads_weight(parent, target_name):
            owner = current_key.rpartition(".")[0]
            instead = f"name the whole module, {owner}, or name" if kind_of(parent) is not None else "name"
            text = (
                f"match {current_key}, whose weight {type(parent).__name__} reads without calling it; {instead} it in "
                "exclude_modules"
            )
            raise ArgumentTypeError("CDDConfig", "target_modules", text)
        with naming(current_key):
            if isinstance(target, CDDTunerLayer):
                target.update_layer(adapter_name, peft_config)
                return
            quantization = get_quantization_kwargs(self.model)
            kind = _require_adaptable(target, self.model, quantization)
            made = CDDTunerLayer if kind is not None and not kind._is_linear else CDDTunerLinear
            layer = made(target, **quantization).train(target.training)
            layer._active_adapter = adapter_name
            layer.update_layer(adapter_name, peft_config)
        self._put_in_place(parent, target_name, layer, adapter_name)

    def _put_in_place(self, parent: nn.Module, name: str, layer: CDDTunerModule, adapter_name: str) -> None:
        """Replace a module by a layer around it that has its first adapter."""
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(requires_grad=False)
        # `_replace_module` would move the adapter to the device of the weight, which is meta where accelerate keeps it
        # elsewhere; the adapter is already where the base needs it.
        setattr(parent, name, layer)

    def _inject_parameters(
        self, peft_config: CDDConfig, model: nn.Module, adapter_name: str, low_cpu_mem_usage: bool
    ) -> list[str]:
        """Adapt the target parameters; return their paths.

        PEFT would nest one layer for each parameter of a module, and know them by the name of LoRA's class.
        """
        found = []
        for path, module in list(model.named_modules()):
            if ".cdd_adapters." in path:
                continue
            plain, own = without_wrappers(path), own_parameters(path, module)
            meant = matching(peft_config.target_parameters or (), own)
            chosen = [each for each in meant if not is_excluded(peft_config, each)]
            if not chosen:
                continue
            if not path:
                text = f"Targeting an nn.Parameter on the top-level module is not supported (parameter {chosen[0]!r})."
                raise ArgumentValueError("CDDConfig", "target_parameters", text)
            with init_empty_weights() if low_cpu_mem_usage else nullcontext(), naming(plain):
                self._adapt_parameters(peft_config, adapter_name, model, plain, [own[each] for each in chosen])
            found += chosen
        return found

    def _adapt_parameters(
        self, config: CDDConfig, adapter_name: str, model: nn.Module, path: str, names: Sequence[str]
    ) -> None:
        """Add an adapter to some parameters of the module of a path, which a layer may be around already."""
        parent, target, target_name = _get_submodules(model, path)
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        kind = kind_of(base) if list(names) == ["weight"] else None
        is_weight_of_layer = kind is not None and kind._multiplies_by_weight(base, kind._features(base))
        expected = CDDTunerLayer if is_weight_of_layer else CDDTunerParameters
        if isinstance(target, BaseTunerLayer) and (
            not isinstance(target, expected) or adapter_name in target.cdd_adapters
        ):
            text = (
                f"Trying to wrap an `nn.Parameter` of layer {path!r} of type {type(target).__name__}, which is not a "
                "valid target. Make sure that this layer is not also targeted with `target_modules`."
            )
            raise ArgumentValueError("CDDConfig", "target_parameters", text)
        if is_weight_of_layer:  # as by `target_modules`
            self._create_and_replace(config, adapter_name, target, target_name, parent, path)
            return
        if is_tensor_parallel(base, model):
            text = f"name {', '.join(names)}, of which each process holds a piece, by tensor parallelism; FSDP works"
            raise ArgumentTypeError("CDDConfig", "target_parameters", text)
        if not has_forward(base):
            text = (
                f"name {', '.join(names)} of a {type(base).__name__}, which is never called: others read its parameters"
            )
            raise ArgumentTypeError("CDDConfig", "target_parameters", text)
        inside = [f"{path}.{own}" for own, each in base.named_modules() if own and isinstance(each, CDDTunerModule)]
        require_alone([f"{path}.{name}" for name in names], inside, "CDDConfig", "target_parameters")
        if isinstance(target, CDDTunerParameters):
            target.update_layer(adapter_name, config, names)
            return
        layer = CDDTunerParameters(target).train(target.training)
        layer._active_adapter = adapter_name
        layer.update_layer(adapter_name, config, names)
        self._put_in_place(parent, target_name, layer, adapter_name)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT would give the weight of the layer that is unpacked to the one in its place. A base that was merged into
        # has it, or has weights of other names, as modules of experts; a wrapper of tokens computes its weight, and the
        # embedding in it keeps its own.
        if isinstance(child, (CDDTunerModule, TrainableTokensWrapper)):
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        found = re.fullmatch(rf"(.*\.cdd_adapters)\.{re.escape(adapter_name)}((?:\.[^.]+)?\.vectors\.\d+)", key)
        return found[1] + found[2] if found else super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: CDDConfig, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        state_dict = tensors_for(model, adapter_name, state_dict)
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)

    def _check_merge_allowed(self) -> None:
        """Refuse what cannot be merged before the first layer is, and find the weights that have to be untied."""
        super()._check_merge_allowed()
        owners: Counter[Any] = Counter()
        modules = dict(self.model.named_modules())
        for module in modules.values():
            owners.update(module._parameters.values())
        place = ""
        with naming(lambda: place):
            for path, layer in modules.items():
                if isinstance(layer, CDDTunerModule):
                    place = path
                    weights = layer.require_own_weight()
                    shared = set()
                    for name, weight in weights.items():
                        if owners[weight] > 1:
                            shared.add(name)
                    layer.to_merge = weights, shared

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge adapters into the weights of all layers, or of none of them if an error comes.

        Parameters
        ----------
        adapter_names : list of str, optional
            Default: the active ones.
        safe_merge : bool, default False
            Whether to refuse weights that would hold NaN or infinity.

        Raises
        ------
        ValueError, TypeError
            As `CDDTunerLayer.merge` raises them; nothing has changed then.
        """
        with as_before_on_error(self.model):
            super().merge_adapter(adapter_names, safe_merge)

    def unmerge_adapter(self) -> None:
        """Take the changes out of the weights of all layers, or of none of them if an error comes."""
        with as_before_on_error(self.model):
            super().unmerge_adapter()

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        with as_before_on_error(self.model):
            model = super()._unload_and_optionally_merge(*args, **kwargs)
            return_to_fast_paths(model)
        return model

    # ---- mixed batches

    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> AbstractContextManager[None]:
        """Return a context in which all layers get the names of adapters, one for each sample, if there are any."""
        names = kwargs.pop("adapter_names", None)
        return nullcontext() if names is None else self._handing_out(names, kwargs)

    @contextmanager
    def _handing_out(self, names: Any, options: Mapping[str, Any]) -> Iterator[None]:
        """Hand names of adapters to all layers during a forward pass."""
        handles = self._hand_out(names, options)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hand_out(self, names: Any, options: Mapping[str, Any]) -> list[Any]:
        """Let all layers get names of adapters with their inputs; return the handles that end this."""
        # A module may stand in several places: it gets one hook.
        modules = dict.fromkeys(_without_adapters(self))
        layers = [each for each in modules if isinstance(each, (CDDTunerModule, AuxiliaryTrainingWrapper))]
        known = {_BASE}.union(*(layer.cdd_adapters for layer in layers if isinstance(layer, CDDTunerModule)))
        unknown = set(names) - known
        if unknown:
            text = f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}"
            raise ArgumentValueError("CDDModel", None, text)
        beams = options.get("num_beams")
        repeats = beams if isinstance(beams, int) and beams > 1 else 1
        # Beam search repeats each sample, but not in the encoder of an encoder-decoder model, which runs before.
        encoder = self.model.get_encoder() if hasattr(self.model, "get_encoder") else None
        has_encoder = isinstance(encoder, nn.Module) and encoder is not self.model
        inside = set(_without_adapters(encoder)) if has_encoder else set()
        handles = []
        for layer in layers:
            own = [name for name in names for _ in range(1 if layer in inside else repeats)]
            handles.append(layer.register_forward_pre_hook(partial(_with_names, own), with_kwargs=True))
        return handles


def _without_adapters(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and all within it but the adapters of layers, which may be a thousand in each."""
    yield module
    for child in (module.base_layer,) if isinstance(module, CDDTunerModule) else module.children():
        yield from _without_adapters(child)


def _with_names(names: Sequence[str], _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Add names of adapters to the arguments of a forward pass, as a hook."""
    return args, {**kwargs, "adapter_names": names}


def _warn_of_unknown(model: nn.Module, config: CDDConfig, places: Mapping[str, Place]) -> None:
    """Warn of names of targets that nothing has beside others that something has, for layers that are trained."""
    if config.inference_mode:
        return
    modules = dict(model.named_modules())
    experts = unreached_experts(places)
    for argument, targets, kind in (
        ("target_modules", config.target_modules, "module"),
        ("target_parameters", config.target_parameters, "parameter"),
    ):
        if not targets or isinstance(targets, str):
            continue
        if kind == "module":
            paths = [*modules, *chain.from_iterable(experts.values())]
        else:
            paths = list(chain.from_iterable(own_parameters(path, each) for path, each in modules.items()))
        unknown = sorted([name for name in targets if not matching([name], paths)])
        # Where nothing has any of the names, PEFT tells of it.
        if 0 < len(unknown) < len(targets):
            text = f"{argument}: no {kind} has the names {', '.join(unknown)}{near_names(unknown, paths)}"
            warn_caller(text, RuntimeWarning, through=("peft",))


def _require_adaptable(target: nn.Module, model: nn.Module, quantization: dict[str, Any]) -> type[AdaptedLayer] | None:
    """Return the kind of a layer of a model, None of a quantised linear one; refuse one that cannot be adapted.

    PEFT knows how the model is quantised.
    """
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    try:
        backend = resolve_quantization_backend(base, **quantization)
        linear = backend is not None and backend.layer_type == "linear"
    except ValueError:  # torchao, where PEFT cannot quantise a merged weight again: all but merging works
        linear = True
    problem = ""
    kind = kind_of(base)
    if not (linear or kind):
        problem = (
            "is not supported. Currently, only the following modules are supported: "
            "`torch.nn.Linear`, `transformers.pytorch_utils.Conv1D`, quantized linear layers, `torch.nn.Embedding`, "
            "`torch.nn.MultiheadAttention`, and `torch.nn.Conv1d`, `torch.nn.Conv2d` and `torch.nn.Conv3d`, without a "
            "forward pass of their own."
        )
    elif [parameter for parameter in base.parameters() if parameter.is_complex()]:
        problem = "has complex weights; the vectors of an adapter are real."
    elif is_tensor_parallel(base, model):
        problem = (
            "holds a piece of its weight in each process, by tensor parallelism; vectors of a piece are not those of "
            "the whole weight. Load the model without `tp_plan`; FSDP works."
        )
    if problem:
        raise ArgumentTypeError("CDDConfig", None, f"Target module {target} {problem}")
    return kind
