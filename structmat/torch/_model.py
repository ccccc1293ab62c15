"""A whole model: its layers adapted, and plain again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from math import log2
from typing import Any, TypeAlias

from torch import nn
from torch.nn.parameter import is_lazy

from structmat._errors import ArgumentTypeError, ArgumentValueError, naming, warn_caller
from structmat._files import counted, first_names
from structmat.operators import CDDLayout
from structmat.torch._adapter import CDDAdapter
from structmat.torch._layers import KINDS, AdaptedLayer, AdaptedModule, CDDExperts, kind_of, kind_to_wrap
from structmat.torch._other_tools import (
    is_tensor_parallel,
    leave_fast_paths,
    reads_weight,
    return_to_fast_paths,
    watch_calls,
    whole_numel,
)
from structmat.torch._parameter_names import (
    Place,
    parameters_meant,
    places_of,
    text_of_unreached,
    unreached_experts,
)

__all__ = [
    "AdapterSummary",
    "adapt",
    "adaptable_layers",
    "adapted_layers",
    "changes_of",
    "is_left_out",
    "near_names",
    "place_of",
    "recorded",
    "remove_adapters",
    "require_alone",
    "require_no_lazy_parameters",
    "text_of_adaptable",
    "train_only",
    "wrap_layers",
]

Targets: TypeAlias = str | Sequence[str]
"""A regular expression for whole paths, or names that are paths or ends of paths."""
_RECORD = "_trained_with_adapter"
"""Attribute of a model that holds the paths of the modules trained with the adapter, even if they are frozen later."""


@dataclass(frozen=True)
class AdapterSummary:
    """What an adapter adds to a model; printed, three lines.

    Attributes
    ----------
    layers : tuple of str
        Paths of the adapted layers, and of the adapted parameters of experts.
    n_parameters : int
        Of the adapter.
    n_trainable : int
        All trainable parameters of the model, those outside the adapter included.
    n_total : int
        All parameters of the model.
    n_bytes : int
        Of the adapter's parameters.
    flops_per_token : int
        Real operations that the changes add to a forward pass, for each token: ``2.5 b log2(b)`` for a real transform
        of length b, 8 for a complex product and addition, 1 for a real product. Of experts one is counted.
    dense_flops_per_token : int
        Operations of the adapted layers themselves, ``2 rows cols`` each.

    See Also
    --------
    adapt : Returns one.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> summary = adapt(torch.nn.Sequential(torch.nn.Linear(8, 8)))
    >>> summary.n_parameters, summary.n_trainable, summary.n_total
    (24, 24, 96)
    """

    layers: tuple[str, ...]
    n_parameters: int
    n_trainable: int
    n_total: int
    n_bytes: int
    flops_per_token: int
    dense_flops_per_token: int

    @classmethod
    def of(cls, model: nn.Module) -> AdapterSummary:
        """Return what the adapter of a model adds to it."""
        adapters = changes_of(model)
        parameters = list(model.parameters())
        layouts = [adapter.layout for adapter in adapters.values()]
        vectors = {vector for adapter in adapters.values() for vector in adapter.parameters()}
        return cls(
            tuple(adapters),
            sum(adapter.n_parameters for adapter in adapters.values()),
            sum(whole_numel(p) for p in parameters if p.requires_grad),
            sum(map(whole_numel, parameters)),
            sum(vector.numel() * vector.element_size() for vector in vectors),
            sum(map(_flops, layouts)),
            sum(2 * adapter.out_features * adapter.in_features for adapter in adapters.values()),
        )

    def __str__(self) -> str:
        share = 100 * self.n_trainable / max(self.n_total, 1)
        added = 100 * self.flops_per_token / max(self.dense_flops_per_token, 1)
        return (
            f"adapter: {counted(len(self.layers), 'layer')}, {self.n_parameters:,} parameters, {self.n_bytes:,} bytes\n"
            f"trainable: {self.n_trainable:,} of {self.n_total:,} parameters ({share:.3g} %)\n"
            f"added operations: {self.flops_per_token:,} per token, {added:.3g} % of the adapted layers' own"
        )


def _flops(layout: CDDLayout) -> int:
    """Return the real operations of one product; `AdapterSummary` says how they are counted."""
    total = 0.0
    for shape in layout.vector_shapes:
        if len(shape) == 1:
            total += shape[0]
        else:
            p, q, b = shape
            total += (p + q) * 2.5 * b * log2(b) + (8 * p * q - 2 * p) * (b // 2 + 1)
    return round(total)


def adapt(
    model: nn.Module,
    targets: Targets = "all-linear",
    *,
    parameters: Targets = (),
    exclude: Targets = (),
    train: Targets = (),
    **options: Any,
) -> AdapterSummary:
    """Freeze a model and add a trainable change to its layers, in place.

    Layers that were adapted by earlier calls stay as they are, and trainable.

    Parameters
    ----------
    model : Module
        The model.
    targets : "all-linear", a regular expression, or names, default "all-linear"
        Names are paths or ends of paths, such as ``["query", "value"]``; any other string is a regular expression for
        whole paths. Linear layers, transformers' ``Conv1D``, convolutions, embeddings and `torch.nn.MultiheadAttention`
        can be adapted; "all-linear" means the first two, except the layer that computes the logits of a language model
        of transformers. May be empty if `parameters` is not.
    parameters : regular expression or names, optional
        Parameters that hold matrices and are no layer's weight, likewise: those of shape (experts, rows, columns), the
        stacked experts of transformers, such as ``["experts.gate_up_proj", "experts.down_proj"]``, get a change for
        each expert. Names in checkpoints mean them too: ``["w1", "w3", "w2"]``, or ``["gate_proj", "up_proj",
        "down_proj"]``; what is fused in one parameter is named as a whole. Names, but no regular expression, also mean
        parameters of two axes.
    exclude : regular expression or names, optional
        Layers to leave out, such as ``["lm_head"]``, and all in modules of such names.
    train : regular expression or names, optional
        Modules that stay trainable, such as ``["classifier"]``; they are not adapted, and `save_adapter` writes them.
        The bases of layers in them that are adapted already stay frozen.
    **options
        Arguments of `CDDAdapter`: `n_factors`, `block_size`, `alpha`, `dropout`, `init`, ...

    Returns
    -------
    AdapterSummary
        Parameters, operations and bytes, as text too.

    Raises
    ------
    ValueError
        If a name matches nothing, a layer that was named is adapted already, an option is wrong, or the model has lazy
        parameters; it has not changed then.
    TypeError
        If a layer that was named cannot be adapted, one is split by tensor parallelism, there is no such option, or an
        argument is of a wrong kind; the model has not changed then.

    Warns
    -----
    RuntimeWarning
        If weights of experts are meant that are stacked in one parameter, as in mixtures of experts of transformers,
        by its name or by those of the matrices in it, such as "gate_proj" or "w1", in `targets`: they stay as they are
        unless `parameters` name them. Also after the first forward pass in training, if that did not call some adapted
        layers.

    See Also
    --------
    save_adapter, load_adapter : Files of what is trained.
    remove_adapters : Makes the model plain again, with or without the changes.
    structmat.peft : The same in Hugging Face PEFT: several adapters, switched or mixed.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> print(adapt(model, exclude=["2"]))
    adapter: 1 layer, 24 parameters, 96 bytes
    trainable: 24 of 114 parameters (21.1 %)
    added operations: 166 per token, 130 % of the adapted layers' own
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("adapt", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    require_no_lazy_parameters(model, "adapt")
    modules = {path: module for path, module in model.named_modules(remove_duplicate=False) if path}
    kept = [path for path in modules if _matches(path, train, "train")]
    _require_matches(train, modules, "train")
    _require_matches(exclude, modules, "exclude")
    left_out = [*kept, *(path for path in modules if _matches(path, exclude, "exclude"))]
    places = places_of(model)
    stacks = _meant(places, parameters, left_out)
    experts = {path: names for path, names in _unreached(places, targets, left_out).items() if path not in stacks}
    found = _targeted(model, modules, targets, left_out, experts, stacks)
    _require_frozen(found, [*kept, *recorded(model)])
    require_alone(stacks, [*found, *adapted_layers(model), *kept, *recorded(model)], "adapt", "parameters")
    if experts:
        warn_caller(f"adapt: {text_of_unreached(experts, argument='parameters')}", RuntimeWarning)
    wrap_layers(model, dict.fromkeys([*found, *stacks], options))
    train_only(model, kept)
    return AdapterSummary.of(model)


def remove_adapters(model: nn.Module, *, merge: bool = False) -> None:
    """Replace adapted layers by their bases, in place: a plain model again.

    Parameters
    ----------
    model : Module
        An adapted model.
    merge : bool, default False
        Whether the weights get the changes. Otherwise they are as before `adapt`, bit for bit. Modules that were
        trained as they are, by ``train=``, stay as they are now.

    Raises
    ------
    ValueError
        If there is no adapted layer, one has no base or is the model, one with a change was never called, or a merged
        weight held NaN or infinity; nothing has changed then.
    TypeError
        If a weight to merge into is quantised, split among processes (FSDP, ZeRO-3 of DeepSpeed) or of another special
        kind, or a layer of its own class multiplies by something else; nothing has changed then.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, remove_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, init="normal")
    >>> trained = model(torch.ones(4))
    >>> remove_adapters(model, merge=True)
    >>> type(model[0]).__name__, torch.allclose(model(torch.ones(4)), trained, atol=1e-5)
    ('Linear', True)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError("remove_adapters", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    layers = adapted_layers(model)
    if not layers:
        raise ArgumentValueError("remove_adapters", "model", "has no adapted layer")
    merged = []
    for path, layer in layers.items():
        if layer is model:
            raise ArgumentValueError("remove_adapters", "model", "is itself the layer; take its base, or to_linear()")
        if layer.base is None:
            text = (
                f"has no base layer to put back at {path}, which is trained from scratch: replace it by its to_linear()"
            )
            raise ArgumentValueError("remove_adapters", "model", text)
        with naming(path):
            merged.append(layer._merged() if merge else {})
    for layer, weights in zip(layers.values(), merged, strict=True):
        layer._set_merged(weights)
        _replace(model, layer, layer.base)
    model.__dict__.pop(_RECORD, None)
    return_to_fast_paths(model)


def adapted_layers(model: nn.Module) -> dict[str, AdaptedModule]:
    """Return the adapted layers and modules of experts of a model by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, AdaptedModule)}


def changes_of(model: nn.Module) -> dict[str, CDDAdapter]:
    """Return the changes of a model by the path of the layer, or of the parameter of experts."""
    return {
        f"{path}.{end}".strip(".") if end else path: adapter
        for path, layer in adapted_layers(model).items()
        for end, adapter in layer._changes().items()
    }


def recorded(model: nn.Module) -> list[str]:
    """Return the paths of modules that are trained with the adapter."""
    return list(model.__dict__.get(_RECORD, ()))


def require_no_lazy_parameters(model: nn.Module, caller: str) -> None:
    """Refuse a model with parameters that have no shape yet, which cannot be frozen."""
    for path, parameter in model.named_parameters():
        if is_lazy(parameter):
            text = f"has the lazy parameter {path}: run a batch through the model first"
            raise ArgumentValueError(caller, "model", text)


def _require_frozen(layers: Iterable[str], trained: Sequence[str]) -> None:
    """Refuse to train parts of layers that are adapted: files hold the changes of these alone."""
    for path in layers:
        inside = [other for other in trained if other.startswith(f"{path}.")]
        if inside:
            raise ArgumentValueError("adapt", "train", f"match {inside[0]}, a part of the adapted layer {path}")


def require_alone(parameters: Iterable[str], others: Iterable[str], caller: str, argument: str) -> None:
    """Refuse parameters of modules that hold other adapted or trained ones: wrapping would change the paths of these.

    `parameters` and `others` are paths.
    """
    inside = [other for path in parameters for other in others if other.startswith(f"{path.rpartition('.')[0]}.")]
    if inside:
        names = first_names(list(dict.fromkeys(inside)), 3)
        text = f"mean parameters of a module that holds {names}: leave out either these or the parameters"
        raise ArgumentValueError(caller, argument, text)


def wrap_layers(model: nn.Module, options: dict[str, dict[str, Any]]) -> None:
    """Wrap the layers of some paths, with options for each: all of them, or none if one fails.

    A layer that stands in several places of the model is wrapped once, and replaced in all of them.
    """
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    new: dict[nn.Module, AdaptedModule] = {}
    stacks: dict[nn.Module, dict[str, dict[str, Any]]] = {}
    try:
        for path, own in options.items():
            module, name = place_of(model, path)
            with naming(path):
                if is_tensor_parallel(module, model):
                    text = "has a piece of a weight in each process, by tensor parallelism: FSDP works"
                    raise ArgumentTypeError("adapt", "model", text)  # noqa: TRY301  # handled below like all others
                if not name and module not in new:
                    new[module] = kind_to_wrap(module)._wrapped(module, **own)
                elif name and module is model:
                    text = f"has {name} itself: nothing could stand in its place; adapt a module around it"
                    raise ArgumentValueError("adapt", "model", text)  # noqa: TRY301
                elif name:
                    stacks.setdefault(module, {})[name] = own
        new |= {module: CDDExperts._of(module, own) for module, own in stacks.items()}
    except BaseException:
        for parameter, before in trainable.items():
            parameter.requires_grad_(before)
        raise
    for base, layer in new.items():
        _replace(model, base, layer)
    leave_fast_paths(model, AdaptedModule)
    watch_calls(model, AdaptedModule)


def place_of(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the layer of a path and no name; or, if it is the path of a parameter, its module and its name."""
    try:
        return model.get_submodule(path), ""
    except AttributeError:
        parent, _, name = path.rpartition(".")
        return model.get_submodule(parent), name


def train_only(model: nn.Module, kept: Iterable[str]) -> None:
    """Make the adapter trainable, the modules of some paths and those of earlier calls, and freeze everything else."""
    paths = model.__dict__[_RECORD] = list(dict.fromkeys([*recorded(model), *kept]))
    trained = {id(p) for path in paths for p in _own_parameters(model.get_submodule(path))}
    for layer in adapted_layers(model).values():
        trained |= {id(p) for p in _own_parameters(layer)}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained and (parameter.is_floating_point() or parameter.is_complex()))
        if not parameter.requires_grad:
            parameter.grad = None


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module without those of the bases of adapted layers, which stay frozen."""
    yield from module.parameters(recurse=False)
    for name, child in module.named_children():
        if not (isinstance(module, AdaptedModule) and name == "base"):
            yield from _own_parameters(child)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module into all places of a model where another one stands."""
    places = [(owner, name) for owner in model.modules() for name, child in owner._modules.items() if child is old]
    for owner, name in places:
        if owner is not new:
            setattr(owner, name, new)


# ---- targets


def _matches(path: str, names: Targets, argument: str) -> bool:
    """Return whether a path is one of the names or ends with one.

    If `names` is a string, the path has to match this regular expression as a whole.
    """
    if isinstance(names, str):
        try:
            return re.fullmatch(names, path) is not None
        except re.error as error:
            raise ArgumentValueError("adapt", argument, f"{names!r} is no regular expression: {error}") from error
    several: Any = names
    if not isinstance(several, Collection) or not all(isinstance(name, str) for name in several):
        raise ArgumentTypeError("adapt", argument, f"must be a regular expression or a list of names, got {names!r}")
    return any(path == name or path.endswith(f".{name}") for name in names)


def _require_matches(names: Targets, paths: Collection[str], argument: str) -> None:
    """Refuse names if one of them matches no path, and a regular expression that matches none."""
    for each in [names] if isinstance(names, str) else [[name] for name in names]:
        if not any(_matches(path, each, argument) for path in paths):
            raise ArgumentValueError("adapt", argument, f"{each!r} matches no module{near_names(each, paths)}")


def _meant(places: Mapping[str, Place], names: Targets, out: Collection[str]) -> list[str]:
    """Return the paths of the parameters to adapt, of those that are not in the modules to leave out."""
    if not names:
        return []
    is_pattern = isinstance(names, str)
    found = parameters_meant(
        places, lambda path: _matches(path, names, "parameters"), "adapt", "parameters", stacked=is_pattern
    )
    for each in [names] if isinstance(names, str) else [[name] for name in names]:
        if not any(_matches(path, each, "parameters") for place in places.values() for path in place.paths):
            text = f"{each!r} matches no parameter; could be adapted: {first_names(list(places)) or 'none'}"
            raise ArgumentValueError("adapt", "parameters", text)
    found = [path for path in found if not any(path.startswith(f"{other}.") for other in out)]
    adapted = [path for path in found if places[path].is_adapted]
    if adapted:
        raise ArgumentValueError("adapt", "parameters", f"match {adapted[0]}, which is adapted already")
    return found


def _unreached(places: Mapping[str, Place], targets: Targets, out: Collection[str]) -> dict[str, list[str]]:
    """Return those of the `unreached_experts` that the targets mean and that are not in the modules to leave out."""
    return {
        path: names
        for path, names in unreached_experts(places).items()
        if (targets == "all-linear" or any(_matches(name, targets, "targets") for name in names))
        and not any(path.startswith(f"{other}.") for other in out)
    }


def _targeted(
    model: nn.Module,
    modules: dict[str, nn.Module],
    targets: Targets,
    left_out: Collection[str],
    experts: Mapping[str, Sequence[str]],
    stacks: Collection[str],
) -> list[str]:
    """Return the paths of the layers to adapt; a layer with several paths is named by one of them.

    Targets may also mean weights of experts, by one of several names; such targets are no error. There need be no layer
    if there are stacks of experts to adapt.
    """
    already = adapted_layers(model)
    taken = {id(inner) for path in left_out for inner in modules[path].modules()}
    for layer in already.values():
        taken |= {id(inner) for inner in layer.modules() if inner is not layer or targets == "all-linear"}
    could = adaptable_layers(model)
    if targets == "all-linear":
        head = getattr(model, "get_output_embeddings", lambda: None)()
        chosen = [path for path, kind in could.items() if kind._is_linear and modules[path] is not head]
    else:
        chosen = [path for path in modules if _matches(path, targets, "targets") and id(modules[path]) not in taken]
        if chosen and not isinstance(targets, str):
            _require_matches(targets, [*modules, *chain.from_iterable(experts.values())], "targets")
        for path in chosen:
            _require_adaptable(model, path, modules[path])
    found = []
    for path in chosen:
        if id(modules[path]) not in taken:
            taken.add(id(modules[path]))
            found.append(path)
    if not found and not (stacks and targets in ("all-linear", (), [])):
        free = [path for path in could if id(modules[path]) not in taken]
        text = f"{targets!r} match no layer; could be adapted: {text_of_adaptable(free, targets)}"
        if already:
            text = f"{text}; adapted already: {first_names(list(already), _FEW)}"
        if experts:
            text = f"{text}; {text_of_unreached(experts, argument='parameters')}"
        raise ArgumentValueError("adapt", "targets", text)
    return found


def adaptable_layers(model: nn.Module) -> dict[str, type[AdaptedLayer]]:
    """Return the kinds of all layers of a model that can be adapted and whose changes would take part, by path."""
    kinds = {path: kind_of(module) for path, module in model.named_modules(remove_duplicate=False) if path}
    return {path: kind for path, kind in kinds.items() if kind is not None and not is_left_out(model, path)}


def text_of_adaptable(paths: Sequence[str], targets: Targets = ()) -> str:
    """Return the layers that could be adapted, for errors of targets that match none, and names that may be meant.

    Few layers are named by their paths, many by the ends of these: ``query (12), value (12), dense (24)``.
    """
    ends = Counter(map(_end, paths))
    few = len(paths) <= _FEW
    shown = first_names(list(paths) if few else [f"{end} ({count})" for end, count in ends.items()], 2 * _FEW)
    return f"{shown or 'none'}{near_names(targets, paths)}"


_FEW = 8
"""So many paths of layers are named one by one in an error."""


def _end(path: str) -> str:
    """Return the name of a layer as in all blocks of a model: ``to_out.0`` of ``blocks.3.attention.to_out.0``."""
    parts = path.split(".")
    named = [i for i, part in enumerate(parts) if not part.isdecimal()]
    return ".".join(parts[named[-1] if named else 0 :])


def near_names(names: Targets, paths: Collection[str]) -> str:
    """Return a question whether ends of some paths were meant by names that match none; nothing if none is similar."""
    if isinstance(names, str):
        is_end = any(path.endswith(f".{names}") for path in paths)
        text = f"; a string is a regular expression for whole paths, write [{names!r}] for ends of them"
        return text if is_end else ""
    known = list(dict.fromkeys([*map(_end, paths), *paths]))
    unknown = [name for name in names if not any(f".{path}".endswith(f".{name}") for path in paths)]
    found = [repr(similar) for name in unknown for similar in get_close_matches(name, known, 1)]
    return f"; did you mean {', '.join(found)}?" if found else ""


def is_left_out(model: nn.Module, path: str) -> bool:
    """Return whether "all-linear" leaves a layer out: its weight is read without a call, or is complex."""
    parent, _, name = path.rpartition(".")
    module = model.get_submodule(path)
    return reads_weight(model.get_submodule(parent), name) or any(p.is_complex() for p in module.parameters())


def _require_adaptable(model: nn.Module, path: str, module: nn.Module) -> None:
    """Refuse a module that was named as a target and cannot be adapted."""
    parent, _, name = path.rpartition(".")
    if isinstance(module, AdaptedLayer):
        raise ArgumentValueError("adapt", "targets", f"match {path}, which is adapted already")
    if kind_of(module) is None:
        *others, last = (kind._plural for kind in KINDS)
        text = f"match {path}, a {type(module).__name__}; {', '.join(others)} and {last} can be adapted"
        raise ArgumentTypeError("adapt", "targets", text)
    owner = model.get_submodule(parent)
    if reads_weight(owner, name):
        text = f"match {path}, whose weight {type(owner).__name__} reads without calling it"
        if kind_of(owner) is not None:
            text = f"{text}: name the whole module, {parent or 'the model'}, instead"
        raise ArgumentTypeError("adapt", "targets", text)
