"""Adapters as state dicts and safetensors files: what was trained, and what is needed to put it back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from structmat._arguments import finite
from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat._files import atomic_write, unwrapped
from structmat.torch._adapter.cdd_adapter import CDDAdapter
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._layers.frozen_base import dtype_and_device
from structmat.torch._model.sharing import check_tied, tie_vectors, tied_keys, vector_key
from structmat.torch._model.targets import adapted_layers
from structmat.torch._model.trained import tensors_beside, train_beside, trained_beside
from structmat.torch._model.wrapping import change_shape, freeze_others, require_no_lazy_parameters, wrap_layers

__all__ = ["adapter_state_dict", "load_adapter", "save_adapter"]

_FORMAT = "structmat adapter 1"
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
_OPTIONS = ("n_factors", "block_size", "alpha", "dropout")


def adapter_state_dict(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """Return the vectors of an adapter, and what is trained beside it, by path, without the name of the adapter.

    Parameters
    ----------
    model : Module
        An adapted model, or one `CDDLinear`.
    name : str, default "default"
        Of the adapter.

    Returns
    -------
    dict of str to Tensor
        Keys such as ``"encoder.0.query.factors.0"``; detached, sharing memory with the model, and with one another
        where layers share a vector, which `save_adapter` writes once and `safetensors` refuses. Then, by keys such as
        ``"head.weight"``: parameters that `adapt` was told to train, or that require gradients now, buffers of their
        modules, and the statistics of batch normalisations, which follow the inputs in training even where all is
        frozen. Sharded tensors (FSDP) are gathered, so every process has to call this.

    Raises
    ------
    ValueError
        If no layer has an adapter of that name.

    See Also
    --------
    save_adapter : Writes them to a file, with the options of each layer.
    load_adapter : Loads such a dict, or a file.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, adapter_state_dict
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"])
    >>> {key: tuple(vector.shape) for key, vector in adapter_state_dict(model).items()}
    {'0.factors.0': (4,), '0.factors.1': (1, 1, 4), '0.factors.2': (4,)}
    """
    vectors = _vectors(_adapters(model, name, "adapter_state_dict"))
    return {key: _whole(tensor.detach()) for key, tensor in (vectors | trained_beside(_bare(model))).items()}


def _bare(model: nn.Module) -> nn.Module:
    """Return what wrappers for several processes, of averaged and of compiled models contain."""
    while isinstance(model, _WRAPPERS) or "_orig_mod" in model._modules:
        model = getattr(model, "module" if isinstance(model, _WRAPPERS) else "_orig_mod")
    return model


def _adapters(model: nn.Module, name: str, caller: str) -> dict[str, CDDAdapter]:
    """Return the adapters of a name by path, without the parts that wrappers of blocks add to it."""
    found = {
        unwrapped(path): layer.adapters[name]
        for path, layer in adapted_layers(_bare(model)).items()
        if name in layer.adapters
    }
    if not found:
        raise ArgumentValueError(caller, "name", f"{name!r} is in no layer")
    return found


def save_adapter(model: nn.Module, path: str | os.PathLike[str], name: str = "default", *, force: bool = False) -> Path:
    """Write the vectors of an adapter and what is trained beside it, such as a head, to a safetensors file.

    Parameters
    ----------
    model : Module
        An adapted model.
    path : path-like
        The file; it appears complete or not at all.
    name : str, default "default"
        Of the adapter.
    force : bool, default False
        Whether to replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If no layer has an adapter of that name, or something holds NaN or infinity or is on the device meta; nothing
        is written then.
    TypeError
        If a trained parameter is of a dtype that such files do not have: complex128.
    FileExistsError
        If the file exists and not `force`.

    See Also
    --------
    load_adapter : Reads the file.
    structmat.peft : Adapters in the format of Hugging Face PEFT, which `load_adapter` does not read.

    Notes
    -----
    The tensors are those of `adapter_state_dict`: loaded into the model as it was before `adapt`, they give the same
    outputs. The metadata hold the format, the version of structmat, and the options of each layer in JSON. A tensor
    that layers share is written once, under its first key; the metadata name the others of a vector.

    If tensors are sharded (FSDP), every process has to call this, and the first one writes. Of a model in
    `torch.nn.parallel.DistributedDataParallel` too the first process writes. Keys are those of the model without the
    wrappers of DDP, `torch.optim.swa_utils.AveragedModel` and `torch.compile`.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from structmat.torch import adapt, load_adapter, save_adapter
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = save_adapter(model, f"{folder}/adapter.safetensors")
    ...     load_adapter(model, file)
    ['0']
    """
    from structmat import __version__  # noqa: PLC0415  # of the package above this one

    adapters = _adapters(model, name, "save_adapter")
    layers = {key: {option: adapter.options()[option] for option in _OPTIONS} for key, adapter in adapters.items()}
    metadata = {"format": _FORMAT, "structmat": __version__, "layers": json.dumps(layers)}
    owners = tied_keys(adapters)
    if owners:
        metadata["shared"] = json.dumps(owners)
    state = adapter_state_dict(model, name)
    tensors = {key: value.contiguous() for key, value in state.items() if key not in owners}
    for key, value in tensors.items():
        if value.is_meta:
            raise ArgumentValueError("save_adapter", "model", f"has {key} on the device meta: save before offloading")
        if value.dtype == torch.complex128:
            raise ArgumentTypeError("save_adapter", "model", f"has {key} in {value.dtype}, not known to safetensors")
    _require_finite(tensors.items(), tensors_beside(_bare(model)), "save_adapter", "model")
    for key, adapter in adapters.items():
        finite(adapter.alpha, "save_adapter", f"the alpha of {key}")
    sharded = any(_is_sharded(tensor) for tensor in _bare(model).parameters())
    replicated = any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules())
    if (sharded or replicated) and torch.distributed.get_rank() != 0:
        return Path(path)
    with atomic_write(path, force=force) as file:
        file.write(_safetensors().torch.save(tensors, metadata))
    return Path(path)


def load_adapter(
    model: nn.Module, source: str | os.PathLike[str] | Mapping[str, Tensor], name: str = "default"
) -> list[str]:
    """Put the vectors of a file, or of a state dict, into a model, and what was trained beside them.

    Parameters
    ----------
    model : Module
        With an adapter of that name, which takes over vectors and `alpha`; for a file, also a model that is not
        adapted yet, whose layers are then wrapped as the file says, `dropout` and shared vectors included, and
        everything else is frozen, as by `adapt`. Vectors have the dtype of the layer then, or that of the file, up to
        float32, if it is the wider one. Other parameters and buffers keep the dtypes of the model; what was trained, a
        head say, is trained from then on.
    source : path-like or dict of str to Tensor
        What `save_adapter` wrote or `adapter_state_dict` gave.
    name : str, default "default"
        Of the adapter in the model.

    Returns
    -------
    list of str
        Paths of the layers.

    Raises
    ------
    ValueError
        If the file is a folder or no complete adapter file, keys, shapes or block sizes differ from those of the model,
        vectors differ that layers of the model share, a tensor holds NaN or infinity, or the model is on the device
        meta or has lazy parameters; it has not changed then.
    FileNotFoundError
        If there is no such file.
    TypeError
        If a state dict contains anything but tensors, or a tensor is of another kind of dtype than that of the model.
    RuntimeError
        If adapters are merged.

    See Also
    --------
    save_adapter : Writes the file.
    adapter_state_dict : Gives the dict.

    Examples
    --------
    The file tells which layers of a fresh model to wrap:

    >>> import tempfile
    >>> import torch
    >>> from structmat.torch import adapt, load_adapter, save_adapter
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> fresh = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"], init="normal")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_adapter(fresh, save_adapter(model, f"{folder}/adapter.safetensors"))
    ['0']
    >>> bool((fresh[0].delta().to_dense() == model[0].delta().to_dense()).all())
    True
    """
    state, written, owners = (dict(source), None, {}) if isinstance(source, Mapping) else _read(source)
    layers = {path: layer for path, layer in adapted_layers(model).items() if name in layer.adapters}
    is_adapted = bool(layers) or written is None
    if is_adapted:
        for layer in layers.values():
            layer._require_unmerged("load_adapter")
        adapters = _adapters(model, name, "load_adapter")
        options = {path: {"dtype": adapter.factors[0].dtype} for path, adapter in adapters.items()}
        if any(factor.is_meta for adapter in adapters.values() for factor in adapter.factors):
            raise ArgumentValueError("load_adapter", "model", "has vectors on the device meta: load before offloading")
    else:
        model = _bare(model)
        require_no_lazy_parameters(model, "load_adapter")
        adapters = _planned(model, written or {})
    beside = tensors_beside(_bare(model))
    _check(adapters, state, written, beside)
    if not is_adapted:
        options = _with_dtypes(model, written or {}, state)
    dtypes = {key: options[path]["dtype"] for path, adapter in adapters.items() for key in _keys(path, adapter)}
    dtypes |= {key: beside[key].dtype for key in state.keys() - dtypes.keys()}
    _require_finite(((key, state[key].to(dtypes[key])) for key in dtypes), beside, "load_adapter", "source")
    if is_adapted:
        check_tied(tied_keys(adapters), state, "load_adapter")
    else:
        wrap_layers(model, options, name)
        adapters = _adapters(model, name, "load_adapter")
        tie_vectors(adapters, owners)
        freeze_others(model, [name])
    vectors = _vectors(adapters)
    places = beside | vectors
    with torch.no_grad():
        for key, value in state.items():
            places[key].copy_(_sharded(value, places[key]))
    for path, adapter in adapters.items():
        if written is not None:
            adapter.alpha = written[path]["alpha"]
    train_beside(_bare(model), state.keys() - vectors.keys())
    return list(adapters)


def _keys(path: str, adapter: CDDAdapter) -> dict[str, Tensor]:
    return {vector_key(path, i): factor for i, factor in enumerate(adapter.factors.forward())}


def _vectors(adapters: Mapping[str, CDDAdapter]) -> dict[str, Tensor]:
    return {key: factor for path, adapter in adapters.items() for key, factor in _keys(path, adapter).items()}


def _is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, whose module need not have been imported."""
    return hasattr(tensor, "full_tensor")


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def _sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor in shards as another one's."""
    if not _is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415  # in reach where there is a shard only

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _planned(model: nn.Module, written: Mapping[str, dict[str, Any]]) -> dict[str, CDDAdapter]:
    """Return the adapters that a file asks for, without memory."""
    planned: dict[str, CDDAdapter] = {}
    for path, options in written.items():
        if not path:
            raise ArgumentValueError(
                "load_adapter", "source", "is the file of a single layer; wrap the model by CDDLinear first"
            )
        try:
            planned[path] = CDDAdapter(*change_shape(model.get_submodule(path)), **options, device="meta")
        except ArgumentValueError as error:
            raise ArgumentValueError("load_adapter", "source", f"does not fit {path}: {error}") from error
        except (AttributeError, TypeError) as error:
            raise ArgumentValueError(
                "load_adapter", "model", f"has no layer {path!r} that can be adapted: {error}"
            ) from error
    return planned


def _with_dtypes(
    model: nn.Module, written: Mapping[str, dict[str, Any]], state: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """Return the options of layers with a dtype: that of the base, or of the file, up to float32, if it is wider."""
    options: dict[str, dict[str, Any]] = {}
    for path, own in written.items():
        module = model.get_submodule(path)
        like = module._like_base() if isinstance(module, AdaptedLayer) else dtype_and_device(module)
        if like.get("device", torch.device("cpu")).type == "meta":  # what fills the weights would lose the vectors
            raise ArgumentValueError("load_adapter", "model", f"has {path} on the device meta: load its weights first")
        stored = state[vector_key(path, 0)].dtype
        stored = torch.float32 if stored.itemsize > 4 else stored
        dtype = torch.promote_types(like.get("dtype", stored), stored)
        options[path] = {**own, "dtype": dtype}
    return options


def _check(
    adapters: Mapping[str, CDDAdapter],
    state: Mapping[str, Tensor],
    written: Mapping[str, dict[str, Any]] | None,
    beside: Mapping[str, Tensor],
) -> None:
    """Refuse what would not fit, before anything is copied."""
    if written is not None and written.keys() != adapters.keys():
        differing = sorted(written.keys() ^ adapters.keys())
        raise ArgumentValueError("load_adapter", None, f"layers differ between the file and the model: {differing[:3]}")
    for path, adapter in adapters.items():
        for option in ("n_factors", "block_size") if written and path in written else ():
            if written[path][option] != adapter.options()[option]:  # type: ignore[index]
                raise ArgumentValueError(
                    "load_adapter",
                    None,
                    f"{path} has {option}={adapter.options()[option]}, the file {written[path][option]}",  # type: ignore[index]
                )
    _check_tensors(_vectors(adapters), state, beside)


def _check_tensors(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], beside: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys() - beside.keys())
    if missing or unknown:
        raise ArgumentValueError(
            "load_adapter",
            "source",
            f"has other keys than the model; missing: {missing[:3] or 'none'}, unknown: {unknown[:3] or 'none'}",
        )
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(
                "load_adapter", "source", f"holds {key} of kind {type(value).__name__}, not a torch.Tensor"
            )
        place = expected[key] if key in expected else beside[key]
        if value.shape != place.shape:
            raise ArgumentValueError(
                "load_adapter",
                "source",
                f"holds {key} of shape {tuple(value.shape)}, the model expects {tuple(place.shape)}: "
                "made for another model, or with other settings",
            )
        if key in expected and not value.is_floating_point():
            text = f"holds {key} in {value.dtype}, where vectors are of a floating dtype"
            raise ArgumentTypeError("load_adapter", "source", text)
        if not torch.can_cast(value.dtype, place.dtype):
            text = f"holds {key} in {value.dtype}, the model has it in {place.dtype}"
            raise ArgumentTypeError("load_adapter", "source", text)
        if key not in expected and place.is_meta:
            raise ArgumentValueError("load_adapter", "model", f"has {key} on the device meta: load its weights first")


def _require_finite(
    tensors: Iterable[tuple[str, Tensor]], beside: Mapping[str, Tensor], caller: str, argument: str
) -> None:
    """Refuse values that are not finite; buffers may be infinite, as masks are."""
    for key, tensor in tensors:
        is_buffer = key in beside and not isinstance(beside[key], nn.Parameter)
        if (torch.isnan(tensor) if is_buffer else ~torch.isfinite(tensor)).any():
            raise ArgumentValueError(caller, argument, f"holds NaN or infinity in {key}, as {tensor.dtype}")


def _read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]], dict[str, str]]:
    """Return the vectors of a file, the options of its layers, and the first keys of vectors that layers share."""
    safetensors = _safetensors()
    if Path(path).is_dir():
        raise ArgumentValueError("load_adapter", "source", f"{path} is a folder, not a file of save_adapter")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {_FORMAT!r}")  # noqa: TRY301
        written = {
            str(layer): {**{option: options[option] for option in _OPTIONS}, "alpha": float(options["alpha"])}
            for layer, options in json.loads(metadata["layers"]).items()
        }
        owners = {str(key): str(owner) for key, owner in json.loads(metadata.get("shared", "{}")).items()}
        if not owners.keys().isdisjoint(state):
            raise ValueError("a shared vector is written twice")  # noqa: TRY301
        state |= {key: state[owner] for key, owner in owners.items()}
        for layer, options in written.items():
            # Before adapters are planned: one of 10^9 factors would take all memory.
            if options["n_factors"] > len(state):
                raise ValueError(f"{layer} has n_factors={options['n_factors']}, more than vectors")  # noqa: TRY301
            if not (math.isfinite(options["alpha"]) and 0 <= options["dropout"] < 1):
                raise ValueError(f"the alpha or dropout of {layer} is out of range")  # noqa: TRY301
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentValueError("load_adapter", "source", f"{path} is no complete adapter file: {error}") from error
    return state, written, owners


def _safetensors() -> Any:
    try:
        import safetensors.torch  # noqa: PLC0415  # an extra, needed here only
    except ModuleNotFoundError as error:
        raise ImportError('adapter files need the extra "io": pip install "structmat[io]"') from error
    return safetensors
