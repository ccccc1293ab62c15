"""Which layers of a model are adapted."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, TypeAlias

from torch import nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat._files import first_names
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.frozen_base import has_complex_parameters, is_linear, reads_weight
from structmat.torch._layers.kinds import KINDS, layer_kind
from structmat.torch._layers.linear import CDDLinear
from structmat.torch._layers.tensor_parallel import is_tensor_parallel

__all__ = ["Targets", "adapted_layers", "modules_to_train", "targeted", "unreached_experts"]

Targets: TypeAlias = str | Sequence[str]


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLayer]:
    """Return the adapted layers of a model by path."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLayer)}


def _adaptable(module: nn.Module) -> bool:
    return isinstance(module, AdaptedLayer) or layer_kind(module) is not None


def _bypassed(model: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return reads_weight(model.get_submodule(parent), name)


def _head(model: nn.Module) -> nn.Module | None:
    """Return the layer that gives the logits of a language model of transformers, which PEFT leaves out too."""
    find = getattr(model, "get_output_embeddings", None)
    return find() if callable(find) else None


def _parent_name(model: nn.Module, path: str) -> str:
    return type(model.get_submodule(path.rpartition(".")[0])).__name__


def matches(path: str, names: Targets, argument: str, owner: str = "adapt") -> bool:
    """Whether a path is one of the names, ends with one, or, if `names` is a string, matches it whole as a regex.

    Raises
    ------
    ValueError
        If `names` is no valid regex.
    TypeError
        If `names` is neither a str nor several.
    """
    if isinstance(names, str):
        try:
            return re.fullmatch(names, path) is not None
        except re.error as error:
            raise ArgumentValueError(owner, argument, f"{names!r} is no regular expression: {error}") from error
    several: Any = names
    if not isinstance(several, Collection) or not all(isinstance(name, str) for name in several):
        raise ArgumentTypeError(owner, argument, f"must be a regular expression or a list of names, got {names!r}")
    return any(path == name or path.endswith(f".{name}") for name in names)


def require_matches(names: Targets, paths: Collection[str], argument: str, owner: str = "adapt") -> None:
    """Refuse names of which one matches no path, or a regular expression that matches none."""
    for each in [names] if isinstance(names, str) else [[name] for name in names]:
        if not any(matches(path, each, argument, owner) for path in paths):
            raise ArgumentValueError(owner, argument, f"{each!r} matches no module")


def modules_to_train(model: nn.Module, train: Targets, owner: str) -> list[nn.Module]:
    """Return the modules that are trained as they are, by regular expression or names."""
    modules = {path: module for path, module in model.named_modules(remove_duplicate=False) if path}
    chosen = [module for path, module in modules.items() if matches(path, train, "train", owner)]
    require_matches(train, modules, "train", owner)
    return chosen


def unreached_experts(model: nn.Module, targets: Targets) -> list[str]:
    """Return the weights of experts that targets mean but no adapter reaches; for methods of one's own.

    Parameters
    ----------
    model : Module
        Any. Mixtures of experts of transformers keep the matrices of all experts of a block in one parameter, of shape
        (experts, rows, columns), and call no layer.
    targets : "all-linear", a regular expression, or names
        As for `adapt`.

    Returns
    -------
    list of str
        Paths of such parameters, if `targets` are "all-linear" or match them.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import unreached_experts
    >>> model = torch.nn.Module()
    >>> model.experts = torch.nn.ParameterDict({"down_proj": torch.ones(4, 2, 3)})
    >>> unreached_experts(model, ["down_proj"]), unreached_experts(model, ["q_proj"])
    (['experts.down_proj'], [])
    """
    stacked = [
        path for path, value in model.named_parameters() if value.ndim == 3 and "experts" in path.split(".")[:-1]
    ]
    return [path for path in stacked if targets == "all-linear" or matches(path, targets, "targets")]


def _is_refused(model: nn.Module, module: nn.Module, name: str) -> bool:
    """Whether a layer cannot get an adapter of a name, though it is of a kind that can be adapted."""
    if isinstance(module, AdaptedLayer):
        return name in module.adapters
    rewrites = getattr(module, "max_norm", None) is not None
    return rewrites or has_complex_parameters(module) or is_tensor_parallel(module, model)


def targeted(
    model: nn.Module, targets: Targets, exclude: Targets, name: str, trained: Collection[int]
) -> dict[str, nn.Module]:
    """Return the layers to adapt by path; a layer that is shared under several paths once.

    If there is none, the text names layers that could get an adapter of that name; `trained` has the ids of modules
    that are to stay trainable.

    Raises
    ------
    ValueError
        If nothing matches, or a regex is not valid.
    TypeError
        If a layer that was named cannot be adapted.
    """
    inner = {f"{path}." if path else "" for path in adapted_layers(model)}
    modules = {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if path and not any(path.startswith(prefix) for prefix in inner)
    }
    adaptable = [path for path, module in modules.items() if _adaptable(module)]
    if targets == "all-linear":
        chosen = [
            path
            for path in adaptable
            if (is_linear(modules[path]) or isinstance(modules[path], CDDLinear))
            and not (_bypassed(model, path) or has_complex_parameters(modules[path]))
            and modules[path] is not _head(model)
        ]
    else:
        chosen = [path for path in modules if matches(path, targets, "targets")]
        given = [] if isinstance(targets, str) else targets
        unmatched = [name for name in given if not any(matches(path, [name], "targets") for path in chosen)]
        if chosen and unmatched:
            raise ArgumentValueError("adapt", "targets", f"{unmatched} match no layer, the others do")
        for path in chosen:
            if path not in adaptable:
                *first, last = (kind.described for kind in KINDS)
                kinds = f"{', '.join(first)}, and {last}"
                text = f"match {path}, a {type(modules[path]).__name__}; {kinds} can be adapted"
                raise ArgumentTypeError("adapt", "targets", text)
            if _bypassed(model, path):
                raise ArgumentTypeError(
                    "adapt",
                    "targets",
                    f"match {path}, whose weight {_parent_name(model, path)} reads without calling it",
                )
    left_out = [module for path, module in modules.items() if matches(path, exclude, "exclude")]
    taken = {id(inner) for module in left_out for inner in module.modules()}
    require_matches(exclude, modules, "exclude")
    found: dict[str, nn.Module] = {}
    for path in chosen:
        if id(modules[path]) not in taken:
            taken.add(id(modules[path]))
            found[path] = modules[path]
    if not found:
        if _adaptable(model):
            text = "is a layer itself, with none inside to be adapted: see CDDLinear.from_linear, add_adapter"
            raise ArgumentValueError("adapt", "model", text)
        refused = {
            path
            for path, module in modules.items()
            if path not in adaptable
            or id(module) in taken
            or id(module) in trained
            or _bypassed(model, path)
            or _is_refused(model, module, name)
        }
        # A name means all paths that end with it too.
        accepted = (path for path in adaptable if not any(matches(each, [path], "targets") for each in refused))
        shown = first_names(list(islice(accepted, 9)), 8)
        raise ArgumentValueError("adapt", "targets", f"{targets!r} match no layer; could be adapted: {shown or 'none'}")
    return found
