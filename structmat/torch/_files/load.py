"""`load_adapter` and `using_adapter`: a folder checked against a model, and put into it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm

from structmat._errors import ArgumentValueError, as_own, naming
from structmat._files import unwrapped
from structmat.operators import CDDLayout
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._files.folder import Stored, read_folder
from structmat.torch._files.replacement import Replacement, taking_values
from structmat.torch._files.tensors import changes_by_path, tensors_of
from structmat.torch._layers import kind_to_wrap
from structmat.torch._layers.base_weight import dtype_and_device
from structmat.torch._layers.changed_experts import stack_of
from structmat.torch._model.model_state import as_before_at_the_end, as_before_on_error
from structmat.torch._model.targets import near_names
from structmat.torch._model.wrapping import (
    require_alone,
    require_no_lazy_parameters,
    train_modules,
    train_only,
    wrap_layers,
)

__all__ = ["load_adapter", "plan_vectors", "require_alike", "using_adapter"]


def load_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> list[str]:
    """Put the adapter of a folder into a model, and what was trained beside it.

    Parameters
    ----------
    model : Module
        With an adapter for the same layers, which takes over vectors and `alpha`; or not adapted yet: then the layers
        are wrapped as the folder says, and everything else is frozen, as by `adapt`. Vectors have the dtype of
        the layer then, and float32 in one of half precision. Other parameters and buffers keep the dtypes of the
        model; what was trained, a head say, is trained from then on.
    folder : path-like
        What `save_adapter` wrote, or ``save_pretrained`` of a model of PEFT with an adapter of this method.

    Returns
    -------
    list of str
        Paths of the layers.

    Raises
    ------
    ValueError
        If this is no complete adapter, keys, shapes, dtypes or options differ from those of the model, a tensor holds
        NaN or infinity or would replace a frozen weight, or the model is on the device meta, has lazy parameters, or is
        in the hands of DeepSpeed or FSDP 1, which would write their own copies over what is loaded; it has not changed
        then.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    save_adapter : Writes the folder.

    Examples
    --------
    The folder tells which layers of a fresh model to wrap:

    >>> import tempfile
    >>> import torch
    >>> from structmat.torch import adapt, load_adapter, save_adapter
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> fresh = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"], init="normal")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_adapter(fresh, save_adapter(model, folder))
    ['0']
    >>> bool((fresh[0].delta().to_dense() == model[0].delta().to_dense()).all())
    True
    """
    stored = read_folder(folder)
    inside = taking_values(model, "load_adapter")
    layers, replacement = _plan(inside, stored)
    trained = _trained(inside, stored)
    with as_before_on_error(inside) as before:
        if layers:
            wrap_layers(inside, layers)
            train_only(inside, trained)
            _plan_changes(replacement, changes_by_path(inside), stored)
        replacement.write(before)
        train_modules(inside, trained)
    return list(stored.vectors)


@contextmanager
def using_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> Iterator[list[str]]:
    """Serve another folder's adapter, and what was trained beside it, inside a ``with`` block.

    At its end, also after an error, the model is as before, bit for bit: it has its former modules, parameters and
    persistent buffers, whatever was merged, removed, cast or assigned inside, and those that the folder holds have
    their former values. Blocks may end in any order.

    Parameters
    ----------
    model : Module
        With an adapter for the same layers, which `adapt` or `load_adapter` has put there.
    folder : path-like
        As for `load_adapter`. What it does not hold stays as it is.

    Yields
    ------
    list of str
        Paths of the layers.

    Raises
    ------
    ValueError
        If the model is not adapted, or as from `load_adapter`; it has not changed then.
    FileNotFoundError
        If there is no such file.
    RuntimeError
        At the end of the block, if a parameter that the folder does not hold was written in place inside, as by
        ``load_state_dict`` or a step of an optimiser: its former values are lost.

    See Also
    --------
    load_adapter : Puts the adapter of a folder into a model to stay.
    structmat.peft.hotswap_adapter : The same in a model of PEFT, for good.

    Notes
    -----
    Vectors are copied in place, so that a compiled model is not compiled again, unless the folder has another `alpha`.
    Do not train inside: what was trained would be lost.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from structmat.torch import adapt, save_adapter, using_adapter
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    >>> _ = adapt(model, init="normal")
    >>> x = torch.ones(4)
    >>> before = model(x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_adapter(model, folder)
    ...     model[0].adapter.reset_parameters("normal")
    ...     with using_adapter(model, folder):
    ...         torch.equal(model(x), before)
    True
    >>> torch.equal(model(x), before)
    False
    """
    with as_own("using_adapter", "load_adapter"):
        stored = read_folder(folder)
        inside = taking_values(model, "load_adapter")
        if not changes_by_path(inside):
            raise ArgumentValueError("load_adapter", "model", "has no adapter that could give way: call load_adapter")
        _, replacement = _plan(inside, stored)
    with as_before_at_the_end(inside, "using_adapter") as before:
        # Nothing is trained here: which parameters require gradients stays as it is, on which compiled code depends.
        replacement.write(before)
        yield list(stored.vectors)


def _plan(model: nn.Module, stored: Stored) -> tuple[dict[str, dict[str, Any]], Replacement]:
    """Return the options of the layers to wrap, by path, and what is replaced; refuse a folder that does not fit.

    Nothing is to be wrapped in a model that is adapted already. In any other one the vectors are planned when it is.
    """
    require_no_lazy_parameters(model, "load_adapter")
    replacement = Replacement("load_adapter")
    changes = changes_by_path(model)
    layers: dict[str, dict[str, Any]] = {}
    if changes:
        require_alike(changes, stored)
        for path, own in changes.items():
            _require_fit(path, stored, own.layout.shape, own.lead)
        _plan_changes(replacement, changes, stored)
    else:
        for path, base in _bases(model, stored).items():
            _require_fit(path, stored, *_size(base, path, stored))
            layers[path] = asdict(stored.options)
        others = [*(path for path in layers if path not in stored.parameters), *_trained(model, stored)]
        require_alone(stored.parameters, others, "load_adapter", "folder")
    # These tensors are the same ones after layers around them are wrapped.
    places = tensors_of(model)[1]
    replacement.plan(places, stored.beside)
    _require_no_frozen(model, places, stored)
    return layers, replacement


def _plan_changes(replacement: Replacement, changes: Mapping[str, CDDAdapter], stored: Stored) -> None:
    """Plan the vectors and the alpha of all changes."""
    for path, adapter in changes.items():
        plan_vectors(replacement, path, adapter, stored)
        replacement.plan_alpha(adapter, stored.options.alpha)


def plan_vectors(replacement: Replacement, path: str, adapter: CDDAdapter, stored: Stored) -> None:
    """Plan the vectors of the change of a path."""
    keys = [f"{path}.vectors.{i}" for i in range(adapter.n_factors)]
    places = dict(zip(keys, adapter.vectors, strict=True))
    replacement.plan(places, dict(zip(keys, stored.vectors[path], strict=True)))


def require_alike(changes: Mapping[str, CDDAdapter], stored: Stored) -> None:
    """Refuse a folder of other layers than those of an adapted model, or of vectors of other shapes or scales."""
    if changes.keys() != stored.vectors.keys():
        differing = sorted(changes.keys() ^ stored.vectors.keys())
        raise ArgumentValueError("load_adapter", "folder", f"has other layers than the model: {differing[:3]}")
    for path, own in changes.items():
        _require_shapes(path, stored, own.vector_shapes)
        if own.factor_scale != stored.options.factor_scale:
            text = f"has factor_scale={stored.options.factor_scale}, the model {own.factor_scale}"
            raise ArgumentValueError("load_adapter", "folder", text)


def _size(base: nn.Module, path: str, stored: Stored) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return the shape of a layer's change, and no axes before it; or of a parameter's changes, and that of experts."""
    if path in stored.parameters:
        stack = stack_of(base, path.rpartition(".")[2], "load_adapter")
        return (stack.out_features, stack.in_features), (stack.n_experts,)
    columns, rows = kind_to_wrap(base)._features(base)
    return (rows, columns), ()


def _bases(model: nn.Module, stored: Stored) -> dict[str, nn.Module]:
    """Return the modules of a plain model that the folder adapts, by their paths, or those of their parameters."""
    modules = {unwrapped(path): module for path, module in model.named_modules(remove_duplicate=False)}
    found = {}
    for path in stored.vectors:
        owner = path.rpartition(".")[0] if path in stored.parameters else path
        if owner not in modules:
            text = (
                f"has no module {owner!r}, which the folder adapts{near_names([owner], modules)}; the folder is of "
                "another model, or of a module in this one or around it"
            )
            raise ArgumentValueError("load_adapter", "model", text)
        module = found[path] = modules[owner]
        try:
            _size(module, path, stored)
        except (TypeError, ArgumentValueError) as error:
            text = f"has no layer {path!r} that can be adapted: {error}"
            raise ArgumentValueError("load_adapter", "model", text) from error
        device = dtype_and_device(module).get("device", torch.device("cpu"))
        if device.type == "meta":  # materialising its weights later would lose the vectors
            raise ArgumentValueError("load_adapter", "model", f"has {path} on the device meta: load its weights first")
    return found


def _require_fit(path: str, stored: Stored, shape: tuple[int, int], lead: tuple[int, ...]) -> None:
    """Refuse vectors that are not those which the settings tell for a change of a shape, or for a stack of these."""
    with naming(path):
        told = CDDLayout(shape, stored.options.n_factors, stored.options.block_size, owner="load_adapter")
    _require_shapes(path, stored, tuple((*lead, *each) for each in told.vector_shapes))


def _require_shapes(path: str, stored: Stored, wanted: tuple[tuple[int, ...], ...]) -> None:
    """Refuse the vectors of a layer if they have other shapes."""
    shapes = tuple(tuple(vector.shape) for vector in stored.vectors[path])
    if shapes != wanted:
        text = (
            f"holds vectors {shapes} for {path}, the model has {wanted}: made for another model, or with other settings"
        )
        raise ArgumentValueError("load_adapter", "folder", text)


def _require_no_frozen(model: nn.Module, places: Mapping[str, Tensor], stored: Stored) -> None:
    """Refuse tensors of which no setting says that they were trained: a frozen weight is not to be replaced."""
    modules = {unwrapped(path): module for path, module in model.named_modules(remove_duplicate=False)}
    for key in stored.beside:
        path, _, name = key.rpartition(".")
        saved = any(f".{each}." in f".{path}." for each in stored.saved)
        bias = name == "bias" and stored.has_biases
        collected = isinstance(modules[path], batchnorm._NormBase) and not isinstance(places[key], nn.Parameter)
        if not (saved or bias or collected or _is_embedding(model, modules[path])):
            text = f"holds {key}, which is frozen: its settings name it neither in modules_to_save nor in bias"
            raise ArgumentValueError("load_adapter", "folder", text)


def _is_embedding(model: nn.Module, module: nn.Module) -> bool:
    """Return whether a module is an input or output embedding of transformers, which PEFT may write as a whole."""
    for name in ("get_input_embeddings", "get_output_embeddings"):
        with suppress(NotImplementedError):  # some models have none, and say so by this error
            if getattr(model, name, lambda: None)() is module:
                return True
    return False


def _trained(model: nn.Module, stored: Stored) -> list[str]:
    """Return the paths of the modules that were trained as they are."""
    ends = tuple(f".{name}" for name in stored.saved)
    paths = [unwrapped(path) for path, _ in model.named_modules()]
    # PEFT matches ends of names too; a frozen module may have such an end, and has no tensor in the file.
    named = [path for path in paths if path in stored.saved or path.endswith(ends)]
    return [path for path in named if any(key.startswith(f"{path}.") for key in stored.beside)]
