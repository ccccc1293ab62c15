"""Adapters of a whole model: merge, remove, disable, choose, train."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError, naming, warn_caller
from structmat.torch._layers.adapted_layer import AdaptedLayer, adapter_names
from structmat.torch._model.targets import Targets, adapted_layers, modules_to_train
from structmat.torch._model.wrapping import freeze_others, replace_layer

__all__ = [
    "adapters_per_sample",
    "disable_adapters",
    "merge_adapters",
    "remove_adapters",
    "set_adapters",
    "train_adapters",
    "unmerge_adapters",
]


_SELECTING = threading.Lock()
"""Held while the choices of a model are looked at and changed."""


def _layers(model: nn.Module, caller: str) -> dict[str, AdaptedLayer]:
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(caller, "model", f"must be a torch.nn.Module, got {type(model).__name__}")
    found = adapted_layers(model)
    if not found:
        raise ArgumentValueError(caller, "model", "has no adapted layer")
    return found


def merge_adapters(model: nn.Module) -> None:
    """Merge the active changes into the weights of all layers, in place; see `AdaptedLayer.merge`.

    Parameters
    ----------
    model : Module
        An adapted model.

    Raises
    ------
    ValueError
        If there is no adapted layer, or a merged weight held NaN or infinity; nothing has changed then.
    TypeError
        If a weight is quantised; nothing has changed then.
    RuntimeError
        If adapters are disabled or chosen for each sample in a ``with`` block now.

    See Also
    --------
    unmerge_adapters : Removes the changes again.
    remove_adapters : With ``merge=True`` leaves a plain model, without the old weights.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, merge_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, init="normal")
    >>> before = model(torch.ones(4))
    >>> merge_adapters(model)
    >>> model[0].is_merged, torch.allclose(model(torch.ones(4)), before, atol=1e-5)
    (True, True)
    """
    merged: list[AdaptedLayer] = []
    try:
        for path, layer in _layers(model, "merge_adapters").items():
            if not layer.is_merged:
                with naming(path):
                    layer.merge()
                merged.append(layer)
    except BaseException:
        for layer in merged:
            layer.unmerge()
        raise


def unmerge_adapters(model: nn.Module) -> None:
    """Restore the weights of all layers, bit for bit.

    Parameters
    ----------
    model : Module
        An adapted model.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, merge_adapters, unmerge_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> weight = model[0].weight.clone()
    >>> _ = adapt(model, init="normal")
    >>> merge_adapters(model)
    >>> unmerge_adapters(model)
    >>> bool((model[0].base.weight == weight).all())
    True
    """
    for layer in _layers(model, "unmerge_adapters").values():
        layer.unmerge()


def remove_adapters(model: nn.Module, names: str | Sequence[str] | None = None, *, merge: bool = False) -> None:
    """Remove adapters, and replace layers without any by their base layers, in place.

    Parameters
    ----------
    model : Module
        An adapted model.
    names : str or sequence of str, optional
        Adapters. Default: all.
    merge : bool, default False
        Whether the weights keep the active changes, of all adapters. Otherwise they are as before `adapt`, bit for bit.
        Modules that were trained as they are, by ``train=``, stay as they are now.

    Raises
    ------
    ValueError
        If there is no adapted layer, no layer has one of the names, one that would have no adapter left has no base or
        is the model, or names are given for `merge`; nothing has changed then.
    RuntimeError
        If adapters are disabled or chosen for each sample in a ``with`` block now, or are merged and names are given.

    See Also
    --------
    merge_adapters : Keeps the adapters, so that merging can be undone.
    disable_adapters : Disables changes within a block.

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
    layers = _layers(model, "remove_adapters")
    if names is not None:
        names = adapter_names(names, "remove_adapters")
        _require_known(list(layers.values()), names, "remove_adapters")
        if merge:
            raise ArgumentValueError("remove_adapters", "merge", "is for all adapters, so without names")
    for layer in layers.values():
        layer._require_no_block("remove_adapters")
        if names is not None:
            layer._require_unmerged("remove_adapters")
    bare = [layer for layer in layers.values() if names is None or layer.adapters.keys() <= set(names)]
    _require_bases(model, bare)
    if merge:
        merge_adapters(model)
    else:
        unmerge_adapters(model)
    for layer in bare:
        replace_layer(model, layer, layer.base)
    for layer in adapted_layers(model).values():
        for name in layer.adapters.keys() & set(names or ()):
            layer.remove_adapter(name)


def _require_bases(model: nn.Module, layers: Iterable[AdaptedLayer]) -> None:
    """Refuse layers without something to put in their place, or without a place."""
    for layer in layers:
        if layer is model:
            raise ArgumentValueError(
                "remove_adapters", "model", "is itself the adapted layer; take its base, or to_linear()"
            )
        if layer.base is None:
            path = next(path for path, module in model.named_modules() if module is layer)
            raise ArgumentValueError("remove_adapters", "model", f"has no base layer to put back at {path}")


@contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """Compute without any change within a ``with`` block: the base model's outputs, bit for bit.

    Parameters
    ----------
    model : Module
        An adapted model; merged changes are removed within the block.

    Yields
    ------
    None
        Adapters are as before when the block ends.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, disable_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> base = model(torch.ones(4))
    >>> _ = adapt(model, init="normal")
    >>> with disable_adapters(model):
    ...     bool((model(torch.ones(4)) == base).all())
    True
    """
    layers = list(_layers(model, "disable_adapters").values())
    with ExitStack() as ends:  # of which each comes about, whatever happens in the others
        for layer in layers:
            if layer.is_merged:
                ends.callback(layer.merge)
                layer.unmerge()
            ends.callback(setattr, layer, "_enabled", layer._enabled)
            layer._enabled = False
        yield


def set_adapters(model: nn.Module, names: str | Sequence[str]) -> None:
    """Choose the active adapters, whose changes add up; this does not affect what is trainable.

    Parameters
    ----------
    model : Module
        An adapted model.
    names : str or sequence of str
        Adapters; layers without one of them leave it out.

    Raises
    ------
    ValueError
        If no layer has one of the names; nothing has changed then.
    RuntimeError
        If adapters are merged.

    See Also
    --------
    adapters_per_sample : Another choice for each sample of a batch.
    train_adapters : What is trained.
    disable_adapters : None of them, within a block.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, set_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"], name="first")
    >>> _ = adapt(model, ["0"], name="second")
    >>> model[0].active_adapters
    ('first', 'second')
    >>> set_adapters(model, "second")
    >>> model[0].active_adapters
    ('second',)
    """
    names = adapter_names(names, "set_adapters")
    layers = list(_layers(model, "set_adapters").values())
    _require_known(layers, names, "set_adapters")
    for layer in layers:
        layer._require_unmerged("set_adapters")
    for layer in layers:
        layer.active_adapters = [name for name in names if name in layer.adapters]


def train_adapters(model: nn.Module, names: str | Sequence[str], *, train: Targets = ()) -> None:
    """Train some adapters and nothing else: earlier ones again, say; this does not affect which are active.

    Parameters
    ----------
    model : Module
        An adapted model.
    names : str or sequence of str
        Adapters to train, in all layers that have them; none freezes all.
    train : regular expression or names, optional
        Modules to train as well, as for `adapt`.

    Raises
    ------
    ValueError
        If no layer has one of the names, or `train` matches no module; nothing has changed then.

    Warns
    -----
    RuntimeWarning
        If one of them is active nowhere, so that it gets no gradient.

    See Also
    --------
    adapt : Adds an adapter, and trains it alone.
    set_adapters : Which adapters are active.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, train_adapters
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"], name="first")
    >>> _ = adapt(model, ["0"], name="second")
    >>> train_adapters(model, "first", train=["1"])
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.ndim < 3]
    ['0.adapters.first.factors.0', '0.adapters.first.factors.2', '1.weight', '1.bias']
    """
    names = adapter_names(names, "train_adapters")
    layers = list(_layers(model, "train_adapters").values())
    _require_known(layers, names, "train_adapters")
    for name in names:
        if not any(name in layer.active_adapters for layer in layers):
            warn_caller(f"train_adapters: {name!r} is active nowhere; see set_adapters", RuntimeWarning)
    freeze_others(model, names, modules_to_train(model, train, "train_adapters"))


@contextmanager
def adapters_per_sample(model: nn.Module, names: Sequence[str | None]) -> Iterator[None]:
    """Choose one adapter for each sample of a batch within a ``with`` block.

    Parameters
    ----------
    model : Module
        An adapted model.
    names : sequence of str or None
        One for each sample, along the first axis of every layer's input; None is the base model.

    Yields
    ------
    None
        The choice ends with the block.

    Raises
    ------
    ValueError
        If no layer has one of the names; in the block, if the batch is of another length.
    RuntimeError
        If adapters are merged, or another thread is in such a block with the same layers; in the block, where another
        thread calls them.

    Notes
    -----
    The choice applies to the thread that made it. Threads that choose at the same time need separate models, which may
    share all parameters.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, adapters_per_sample
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    >>> _ = adapt(model, name="a", init="normal")
    >>> _ = adapt(model, name="b", init="normal")
    >>> with adapters_per_sample(model, ["a", None, "b"]):
    ...     model(torch.ones(3, 4)).shape
    torch.Size([3, 4])
    """
    names = adapter_names(names, "adapters_per_sample", none=True)
    layers = list(_layers(model, "adapters_per_sample").values())
    _require_known(layers, [name for name in names if name is not None], "adapters_per_sample")
    for layer in layers:
        layer._require_unmerged("adapters_per_sample")
    with _SELECTING:
        if any(layer._is_foreign_thread() for layer in layers):
            raise RuntimeError(
                "adapters_per_sample: adapters are chosen in another thread now; use copies of the model"
            )
        before = [(layer, layer._selection, layer._selecting_thread) for layer in layers]
        for layer in layers:
            layer._selection = tuple(name if name in layer.adapters else None for name in names)
            layer._selecting_thread = threading.get_ident()
    try:
        yield
    finally:
        with _SELECTING:
            for layer, selection, thread in before:
                layer._selection, layer._selecting_thread = selection, thread


def _require_known(layers: Sequence[AdaptedLayer], names: Sequence[str], caller: str) -> None:
    known = {name for layer in layers for name in layer.adapters}
    for name in names:
        if name not in known:
            raise ArgumentValueError(caller, "names", f"{name!r} is in no layer, only {sorted(known)}")
