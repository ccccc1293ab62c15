"""Which parameters of a model names mean: stacked matrices of experts, by their own names and those in checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from torch import nn

from structmat._errors import ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._layers import AdaptedModule, kind_of

__all__ = ["Place", "parameters_meant", "places_of", "text_of_unreached", "unreached_experts"]

_FUSED: dict[str, tuple[tuple[str, ...], ...]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3"), ("input_linear",)),
    "down_proj": (("w2",), ("output_linear",)),
}
"""By the name of a parameter that stacks matrices of experts, the names that checkpoints and models of other versions
give to these matrices: each group is all of one parameter."""


class Place(NamedTuple):
    """A parameter of a module that is no layer, and where it stands."""

    module: nn.Module
    name: str
    is_adapted: bool
    groups: list[list[list[str]]]
    """Paths by which targets may mean it. Those of a list are alternatives, and all lists of a group are one whole."""

    @property
    def paths(self) -> list[str]:
        """All of these paths."""
        return list(chain.from_iterable(chain.from_iterable(self.groups)))

    @property
    def is_stacked(self) -> bool:
        """Whether it has an axis of experts, or is a part of a module of experts."""
        parameter = self.module._parameters[self.name]
        return len(getattr(parameter, "ds_shape", getattr(parameter, "shape", ()))) == 3


def places_of(model: nn.Module) -> dict[str, Place]:
    """Return the parameters that can be adapted without being a layer's weight, by their paths in the plain model.

    These are parameters with three axes, the stacked matrices of experts, and single matrices with two, of modules that
    are no layers.
    """
    found: dict[str, Place] = {}
    for path, module, adapted in _plain_modules(model):
        names = [
            name
            for name, parameter in module.named_parameters(recurse=False)
            if len(getattr(parameter, "ds_shape", parameter.shape)) in {2, 3} and not name.endswith("bias")
        ]
        # Layers are adapted as such; a router is one too, whose class has a name of its own.
        if not names or hasattr(module, "in_features") or kind_of(module) is not None:
            continue
        for name in names:
            own = f"{path}.{name}" if path else name
            before, dot, last = own.removesuffix(".weight").rpartition(".")
            groups = [
                [[f"{before}{dot}{part}{each}" for part in ("", "0.")] for each in group]
                for group in ((last,), *_FUSED.get(last, ()))
            ]
            groups[0][0].insert(0, own)
            found.setdefault(own, Place(module, name, name in adapted, groups))
    return found


def _plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, set[str]]]:
    """Yield the modules of the plain model with their paths in it, and which parameters of each are adapted."""
    following: list[tuple[str, nn.Module]] = [("", model)]
    while following:
        path, module = following.pop()
        adapted: set[str] = set()
        if isinstance(module, AdaptedModule):
            adapted = set(module._changes())
            module = module.base
        if module is None or isinstance(module, CDDAdapter):
            continue
        yield path, module, adapted
        # The layers of PEFT have their bases under this name.
        children = [
            (f"{path}.{name}".strip(".") if name != "base_layer" else path, child)
            for name, child in module.named_children()
        ]
        following += reversed(children)


def parameters_meant(
    places: Mapping[str, Place], is_meant: Callable[[str], bool], owner: str, argument: str, *, stacked: bool = False
) -> list[str]:
    """Return the paths of the parameters that names mean, in the order of the model.

    Parameters
    ----------
    places : mapping
        The parameters of a model, from `places_of`.
    is_meant : callable
        Whether a path is meant. A parameter is meant by its own path, or by those of all matrices that are fused in it:
        ``experts.gate_up_proj`` by ``experts.gate_proj`` and ``experts.up_proj``, or by ``experts.w1`` and
        ``experts.w3``, each also with the number of the first expert, as ``experts.0.w1``.
    owner, argument : str
        Who was given the names, and in which argument, for errors.
    stacked : bool, default False
        Whether only parameters with an axis of experts are asked for.

    Raises
    ------
    ValueError
        If a part of what is fused in a parameter is meant, and the rest is not.
    """
    found = []
    for path, place in places.items():
        if stacked and not place.is_stacked:
            continue
        present = [[any(map(is_meant, paths)) for paths in group] for group in place.groups]
        if any(map(all, present)):
            found.append(path)
            continue
        for group, meant in zip(place.groups, present, strict=True):
            if any(meant):
                named = [paths[0] for paths, each in zip(group, meant, strict=True) if each]
                others = [paths[0] for paths, each in zip(group, meant, strict=True) if not each]
                text = f"mean {', '.join(named)}, fused with {', '.join(others)} in {path}: name all of these, or that"
                raise ArgumentValueError(owner, argument, text)
    return found


def unreached_experts(places: Mapping[str, Place]) -> dict[str, list[str]]:
    """Return the weights of experts that no adapter reaches, each with the paths by which targets may mean it.

    Mixtures of experts of transformers keep the matrices of all experts of a block in one parameter, of shape (experts,
    rows, columns), and call no layer. Targets may mean it by its own name, or by the name of a matrix alone:
    ``experts.gate_up_proj`` holds what checkpoints call ``experts.0.gate_proj`` or ``experts.0.w1``.
    """
    return {
        path: place.paths
        for path, place in places.items()
        if not place.is_adapted and ("experts" in path.split(".") or "Experts" in type(place.module).__name__)
    }


def text_of_unreached(experts: Iterable[str], names: Iterable[str] = (), *, argument: str = "") -> str:
    """Return the text of a warning: which weights of experts are not adapted, and which names match nothing at all.

    `argument` is the one that would adapt them, if there is one.
    """
    paths = list(experts)
    text = f"weights of experts that are stacked in one parameter are not adapted: {', '.join(paths)}"
    unknown = sorted(names)
    if unknown:
        text = f"{text}; and no module has the names {', '.join(unknown)}"
    if argument:
        ends = dict.fromkeys(".".join(path.removesuffix(".weight").split(".")[-2:]) for path in paths)
        text = f"{text}; {argument}={list(ends)} would adapt them"
    return text
