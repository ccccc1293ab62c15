"""Which parameters the settings of an adapter mean, by `target_parameters` or by the usual names in `target_modules`.

Mixtures of experts of transformers stack the matrices of experts in one parameter, and routers hold a bare matrix.
Names such as "gate_proj", "w1" or "gate" mean these too, as PEFT has it for LoRA.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer, _ExcludedModule, check_target_module_exists
from peft.utils import INCLUDE_LINEAR_LAYERS_SHORTHAND
from torch import nn

from structmat._adapter_format import exact_targets
from structmat._errors import ArgumentError, warn_caller
from structmat.peft._config import CDDConfig
from structmat.peft._layers.tuner_module import CDDTunerModule
from structmat.torch._distributed import is_tensor_parallel
from structmat.torch._layers.changed_experts import stack_of
from structmat.torch._model.parameter_names import (
    Place,
    parameters_meant,
    places_of,
    text_of_unreached,
    unreached_experts,
)

__all__ = [
    "has_forward",
    "is_excluded",
    "is_router",
    "keep_meaning",
    "matching",
    "own_parameters",
    "take_over_parameters",
    "without_wrappers",
]


def is_router(module: nn.Module) -> bool:
    """Return whether a module is a router that multiplies by a bare matrix, which no layer of a kind holds."""
    weight = module._parameters.get("weight")
    return "Router" in type(module).__name__ and weight is not None and weight.ndim == 2


def without_wrappers(path: str) -> str:
    """Return the path that a module has in the plain model."""
    return path.replace(".base_layer", "")


def matching(names: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Return the paths that are one of some names, or end with one, as PEFT compares them."""
    chosen = set(names)
    ends = tuple([f".{name}" for name in chosen])
    return [path for path in paths if path in chosen or path.endswith(ends)]


def own_parameters(path: str, module: nn.Module) -> dict[str, str]:
    """Return the names of the parameters that a module has itself, by their paths in the plain model."""
    plain = without_wrappers(path)
    names = (*module._parameters, *getattr(module, "parametrizations", ()))
    return {f"{plain}.{name}" if plain else name: name for name in names}


def is_excluded(config: CDDConfig, path: str) -> bool:
    """Return whether settings exclude a parameter, or a module that it is in, by `exclude_modules`.

    PEFT asks this of modules that are targets, which the modules of experts are not.
    """
    parts = path.split(".")
    paths = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return any(isinstance(check_target_module_exists(config, each), _ExcludedModule) for each in paths)


def take_over_parameters(model: nn.Module, config: CDDConfig, places: Mapping[str, Place]) -> None:
    """Add the parameters that `target_modules` mean to `target_parameters`, in place.

    Names that mean nothing else leave `target_modules`. `places` are those of the model.

    Raises
    ------
    ValueError
        If one of two matrices is named that are fused into one.

    Warns
    -----
    RuntimeWarning
        If parameters are meant that cannot be adapted, such as quantised ones.
    """
    meant = _meant_by_modules(model, config, places)
    refused = {path for path in meant if not _is_adaptable(model, path)}
    chosen = [path for path in meant if path not in refused]
    if refused:
        warn_caller(f"{text_of_unreached(sorted(refused))}.", RuntimeWarning, through=("peft",))
    if not chosen:
        return
    parameters = [without_wrappers(path) for path, _ in model.named_parameters()]
    config.target_parameters = sorted({*(config.target_parameters or ()), *_short_names(chosen, parameters)})
    _drop_names_of_parameters(model, config, places)


def keep_meaning(model: nn.Module, config: CDDConfig) -> None:
    """Let `target_modules` mean no more parameters than `target_parameters` have, in place.

    PEFT shortens long lists of names to ends that tell modules apart. Such ends may be names of parameters too, which
    would then be adapted where the settings are read again: whole paths are put in their place.
    """
    if config.target_modules is None:
        return
    known = unreached_experts(places_of(model))
    asked = _asked(config)
    meant = [path for path, names in known.items() if any(check_target_module_exists(asked, name) for name in names)]
    if len(matching(config.target_parameters or (), meant)) == len(meant):
        return
    others = [without_wrappers(path) for path, _ in model.named_modules()]
    layers = (path for path, each in model.named_modules() if isinstance(each, CDDTunerModule))
    found = [path for path in map(without_wrappers, layers) if check_target_module_exists(config, path)]
    config.target_modules = exact_targets(found, [*others, *chain.from_iterable(known.values())])
    # The paths are those that these settings had left; beside a pattern PEFT refuses the latter two.
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None


def _asked(config: CDDConfig) -> CDDConfig:
    """Return settings whose `target_modules` say by a pattern what "all-linear" means among parameters."""
    targets = config.target_modules
    if isinstance(targets, str) and targets.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        return replace(config, target_modules=".*")
    return config


def _meant_by_modules(model: nn.Module, config: CDDConfig, places: Mapping[str, Place]) -> list[str]:
    """Return the paths, in the plain model, of the parameters that `target_modules` mean."""
    if config.target_modules is None:  # then the targets are those that PEFT knows for the architecture
        return []
    asked = _asked(config)

    def means(name: str) -> bool:
        return bool(check_target_module_exists(asked, name))

    def excludes(name: str) -> bool:
        return isinstance(check_target_module_exists(asked, name), _ExcludedModule)

    known = {
        path
        for path, names in unreached_experts(places).items()
        if not (any(map(excludes, names)) or is_excluded(asked, path))
    }
    meant = parameters_meant(places, means, "CDDConfig", "target_modules", stacked=True)
    routers = [f"{path}.weight" for path in _router_paths(model) if means(path) and not is_excluded(asked, path)]
    return [*(path for path in meant if path in known), *routers]


def _is_adaptable(model: nn.Module, path: str) -> bool:
    """Return whether a parameter can be adapted, as quantised ones cannot."""
    parent, _, name = path.rpartition(".")
    module = model.get_submodule(parent)
    base: Any = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    try:
        stack_of(base, name, "CDDConfig")
    except ArgumentError:
        return False
    return not is_tensor_parallel(base, model) and has_forward(base)


def has_forward(module: nn.Module) -> bool:
    """Return whether a module can be called; others, such as `torch.nn.ParameterDict`, are read from outside."""
    return type(module).forward is not nn.Module.forward


def _short_names(chosen: Collection[str], paths: Iterable[str]) -> list[str]:
    """Return the last two parts of some paths, if no other path ends with them, else the whole paths."""
    ends = {".".join(path.rsplit(".", 2)[-2:]) for path in chosen}
    return sorted(ends if set(matching(ends, paths)) == set(chosen) else chosen)


def _router_paths(model: nn.Module) -> list[str]:
    """Return the paths, in the plain model, of the modules that are routers."""
    return [without_wrappers(path) for path, each in model.named_modules() if is_router(each)]


def _module_paths(model: nn.Module) -> list[str]:
    """Return the paths, in the plain model, of the modules that names may mean as such."""
    return [without_wrappers(path) for path, each in model.named_modules() if path and not is_router(each)]


def _drop_names_of_parameters(model: nn.Module, config: CDDConfig, places: Mapping[str, Place]) -> None:
    """Take names that no module has, but parameters that are adapted, out of `target_modules`."""
    paths = _module_paths(model)
    plain = [*chain.from_iterable(unreached_experts(places).values()), *_router_paths(model)]
    targets = config.target_modules
    if isinstance(targets, str):
        if targets.lower() != INCLUDE_LINEAR_LAYERS_SHORTHAND:
            # PEFT refuses a pattern that means parameters alone, for which it finds no module.
            some = any(check_target_module_exists(config, path) for path in paths)
            config.target_modules = targets if some else []
    else:
        kept = {name for name in targets or () if matching([name], paths) or not matching([name], plain)}
        config.target_modules = kept  # type: ignore[assignment]
