"""Which layers of a model names mean, and what errors of names that mean none say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any, TypeAlias

from torch import nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._files import first_names
from structmat.torch._calls import reads_weight
from structmat.torch._layers import KINDS, AdaptedLayer, kind_of
from structmat.torch._model.parameter_names import Place, parameters_meant, text_of_unreached, unreached_experts
from structmat.torch._model.wrapping import adapted_layers

__all__ = [
    "Targets",
    "adaptable_layers",
    "is_left_out",
    "matches",
    "meant",
    "near_names",
    "require_matches",
    "targeted",
    "text_of_adaptable",
    "unreached",
]

Targets: TypeAlias = str | Sequence[str]
"""A regular expression for whole paths, or names that are paths or ends of paths."""


def matches(path: str, names: Targets, argument: str) -> bool:
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


def require_matches(names: Targets, paths: Collection[str], argument: str) -> None:
    """Refuse names if one of them matches no path, and a regular expression that matches none."""
    for each in [names] if isinstance(names, str) else [[name] for name in names]:
        if not any(matches(path, each, argument) for path in paths):
            raise ArgumentValueError("adapt", argument, f"{each!r} matches no module{near_names(each, paths)}")


def meant(places: Mapping[str, Place], names: Targets, out: Collection[str]) -> list[str]:
    """Return the paths of the parameters to adapt, of those that are not in the modules to leave out."""
    if not names:
        return []
    is_pattern = isinstance(names, str)
    found = parameters_meant(
        places, lambda path: matches(path, names, "parameters"), "adapt", "parameters", stacked=is_pattern
    )
    for each in [names] if isinstance(names, str) else [[name] for name in names]:
        if not any(matches(path, each, "parameters") for place in places.values() for path in place.paths):
            text = f"{each!r} matches no parameter; could be adapted: {first_names(list(places)) or 'none'}"
            raise ArgumentValueError("adapt", "parameters", text)
    found = [path for path in found if not any(path.startswith(f"{other}.") for other in out)]
    adapted = [path for path in found if places[path].is_adapted]
    if adapted:
        raise ArgumentValueError("adapt", "parameters", f"match {adapted[0]}, which is adapted already")
    return found


def unreached(places: Mapping[str, Place], targets: Targets, out: Collection[str]) -> dict[str, list[str]]:
    """Return those of the `unreached_experts` that the targets mean and that are not in the modules to leave out."""
    return {
        path: names
        for path, names in unreached_experts(places).items()
        if (targets == "all-linear" or any(matches(name, targets, "targets") for name in names))
        and not any(path.startswith(f"{other}.") for other in out)
    }


def targeted(
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
        # A name that means an adapted layer is refused below; "all-linear" passes over it.
        taken |= {id(inner) for inner in layer.modules() if inner is not layer or targets == "all-linear"}
    could = adaptable_layers(model)
    if targets == "all-linear":
        # PEFT leaves the layer of the logits out of "all-linear", too.
        head = getattr(model, "get_output_embeddings", lambda: None)()
        chosen = [path for path, kind in could.items() if kind._is_linear and modules[path] is not head]
    else:
        chosen = [path for path in modules if matches(path, targets, "targets") and id(modules[path]) not in taken]
        if chosen and not isinstance(targets, str):
            require_matches(targets, [*modules, *chain.from_iterable(experts.values())], "targets")
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
