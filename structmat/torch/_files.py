"""Adapters in files: a folder in the format of Hugging Face PEFT, which needs no PEFT here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm

from structmat._adapter_format import CONFIG, FACTOR_KEY, PREFIX, WEIGHTS, config_bytes, exact_targets, factor_key
from structmat._array_tools import ArgumentTypeError, ArgumentValueError, naming
from structmat._files import atomic_write, check_output, unwrapped
from structmat.operators import CDDLayout
from structmat.torch._adapter import VECTOR_DTYPES, CDDAdapter
from structmat.torch._base_weight import dtype_and_device
from structmat.torch._layers import AdaptedLayer, CDDLinear, kind_of
from structmat.torch._model import adapted_layers, recorded, require_no_lazy_parameters, train_only, wrap_layers
from structmat.torch._options import AdapterOptions
from structmat.torch._other_tools import (
    gathered,
    has_pieces,
    is_of_several_processes,
    rewritten_by,
    unwrapped_model,
)

__all__ = ["load_adapter", "save_adapter"]


def save_adapter(model: nn.Module, folder: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write the adapter of a model, and what is trained beside it, such as a head, to a folder.

    Parameters
    ----------
    model : Module
        An adapted model.
    folder : path-like
        Created if necessary; gets ``adapter_config.json`` and ``adapter_model.safetensors``.
    force : bool, default False
        Whether to replace existing files.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If there is no adapted layer, layers have other options than others, a part of a module or of a base is trained
        beside the adapter, something holds NaN or infinity or is on the device meta, or FSDP 1 has left pieces of
        parameters in the model; nothing is written then.
    FileExistsError
        If a file exists and not `force`.

    See Also
    --------
    load_adapter : Reads the folder, as PEFT does: ``peft.PeftModel.from_pretrained``, after ``import structmat.peft``.

    Notes
    -----
    The weights hold the trained vectors, which are those of the factors divided by scales that the settings tell
    (``factor_scale``); then all parameters and buffers of modules that `adapt` was told to train or that are trained
    now, and the statistics of batch normalisations, which follow the inputs in training even where all is frozen.

    If parameters are split among processes (FSDP, ZeRO-3 of DeepSpeed), every process has to call this, which gathers
    what it writes, and the first one writes. Of a model in `torch.nn.parallel.DistributedDataParallel` or an engine of
    DeepSpeed too the first process writes. Keys are those of the model without the wrappers of DDP, FSDP, DeepSpeed,
    Lightning Fabric, `torch.optim.swa_utils.AveragedModel` and `torch.compile`.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from structmat.torch import adapt, load_adapter, save_adapter
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> _ = adapt(model, ["0"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_adapter(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)), save_adapter(model, folder))
    ['0']
    """
    bare = unwrapped_model(model)
    layers = {unwrapped(path): layer for path, layer in adapted_layers(bare).items()}
    if not layers:
        raise ArgumentValueError("save_adapter", "model", "has no adapted layer")
    if "" in layers or any(layer.base is None for layer in layers.values()):
        text = "is or has a layer without a model or a base around; save its state_dict()"
        raise ArgumentValueError("save_adapter", "model", text)
    # First of all: FSDP frees here what a forward pass left whole, and puts shards in the places of parameters.
    vectors, plain = _states(bare)
    beside = dict(_trained_beside(bare))
    _require_frozen_bases(layers, beside)
    state = _whole_state(bare, vectors, plain, beside)
    for key, tensor in state.items():
        if tensor.is_meta:
            raise ArgumentValueError("save_adapter", "model", f"has {key} on the device meta: save before offloading")
    _require_finite(state, "save_adapter", "model")
    others = (unwrapped(path) for path, _ in bare.named_modules())
    settings = config_bytes(
        exact_targets(list(layers), others),
        **asdict(_common_options([layer.adapter for layer in layers.values()])),
        base=getattr(bare, "name_or_path", None),
        modules_to_save=list(beside) or None,
    )
    folder = Path(folder)
    if is_of_several_processes(model) and torch.distributed.get_rank() != 0:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONFIG):
        check_output(folder / name, force=force)
    weights = _safetensors().torch.save(state, {"format": "pt"})
    # The settings come last: a folder without them is no adapter, so that one half-written is not taken for one.
    for name, content in ((WEIGHTS, weights), (CONFIG, settings)):
        with atomic_write(folder / name, force=force) as file:
            file.write(content)
    return folder


def load_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> list[str]:
    """Put the adapter of a folder into a model, and what was trained beside it.

    Parameters
    ----------
    model : Module
        With an adapter for the same layers, which takes over vectors and `alpha`; or not adapted yet: then the layers
        are wrapped as the folder says, and everything else is frozen, as by `adapt`. Vectors have the dtype of the
        layer then, or that of the file, up to float32, if it is the wider one. Other parameters and buffers keep the
        dtypes of the model; what was trained, a head say, is trained from then on.
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
    settings, vectors, beside = _read(Path(folder))
    options = AdapterOptions.checked(settings, CONFIG)
    if engine := rewritten_by(model, model.parameters()):
        text = f"has parameters that are written anew from copies: load the adapter before {engine}"
        raise ArgumentValueError("load_adapter", "model", text)
    model = unwrapped_model(model)
    require_no_lazy_parameters(model, "load_adapter")
    adapted = {unwrapped(path): layer for path, layer in adapted_layers(model).items()}
    if adapted and adapted.keys() != vectors.keys():
        differing = sorted(adapted.keys() ^ vectors.keys())
        raise ArgumentValueError("load_adapter", "folder", f"has other layers than the model: {differing[:3]}")
    wrapped = {} if adapted else _planned(model, vectors, options)
    for path, given in vectors.items():
        own = adapted[path].adapter if adapted else CDDAdapter(**{**wrapped[path], "device": "meta"})
        _require_fit(path, given, own, options)
        if adapted and own.vectors[0].is_meta:
            raise ArgumentValueError("load_adapter", "model", "has vectors on the device meta: load before offloading")
    _require_places(model, beside, settings)
    saved = settings["modules_to_save"]
    ends = tuple(f".{name}" for name in saved)  # as PEFT matches names; a frozen module may have such an end too
    paths = [unwrapped(path) for path, _ in model.named_modules()]
    trained = [path for path in paths if path in saved or path.endswith(ends)]
    trained = [path for path in trained if any(key.startswith(f"{path}.") for key in beside)]
    if not adapted:
        names = ("in_features", "out_features")
        wrap_layers(model, {p: {k: v for k, v in own.items() if k not in names} for p, own in wrapped.items()})
        adapted = {unwrapped(path): layer for path, layer in adapted_layers(model).items()}
        train_only(model, trained)
    places = _states(model)[1]
    with torch.no_grad():
        for path, given in vectors.items():
            adapter = adapted[path].adapter
            adapter.alpha = options.alpha
            for vector, value in zip(adapter.vectors, given, strict=True):
                vector.copy_(_sharded(value, vector))
        for key, tensor in beside.items():
            places[key].copy_(_sharded(tensor, places[key]))
    for path in trained:
        model.get_submodule(path).requires_grad_()
    return list(vectors)


# ---- a model's tensors


def _states(model: nn.Module) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Return the vectors of the adapter by layer; and other parameters and persistent buffers, by their plain keys."""
    items = model.state_dict(keep_vars=True).items()
    state = {unwrapped(key): value for key, value in items if isinstance(value, Tensor)}
    vectors = {}
    for path, layer in adapted_layers(model).items():
        name = unwrapped(path)
        own = [state[f"{name}.adapter.vectors.{i}"] for i in range(layer.adapter.n_factors)]
        # Where accelerate keeps vectors elsewhere, their forward pass brings them.
        vectors[name] = layer.adapter.vectors.forward() if own[0].is_meta else own
        for key in [key for key in state if key.startswith(f"{name}.")]:
            tensor, end = state.pop(key), key.removeprefix(f"{name}.")
            if end.startswith("base."):
                state[f"{name}.{end.removeprefix('base.')}"] = tensor
    return vectors, state


def _whole_state(
    model: nn.Module, vectors: Mapping[str, list[Tensor]], plain: Mapping[str, Tensor], beside: Iterable[str]
) -> dict[str, Tensor]:
    """Return copies of what goes to a file, by the keys there: vectors, what is trained beside them, and statistics."""
    kept = {factor_key(path, i): vector for path, own in vectors.items() for i, vector in enumerate(own)}
    collecting = {unwrapped(path) for path, each in model.named_modules() if isinstance(each, batchnorm._NormBase)}
    for key, tensor in plain.items():
        collected = key.rpartition(".")[0] in collecting and not isinstance(tensor, nn.Parameter)
        if collected or any(key.startswith(f"{path}.") for path in beside):
            kept[PREFIX + key] = tensor
    if has_pieces(model, kept.values()):
        text = "holds pieces of its parameters: give the FullyShardedDataParallel around it, or call summon_full_params"
        raise ArgumentValueError("save_adapter", "model", text)
    with gathered(kept.values()):
        return {key: _whole(tensor.detach()).clone().contiguous() for key, tensor in kept.items()}


def _trained_beside(
    model: nn.Module, module: nn.Module | None = None, path: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules without adapted layers that training changes as a whole, with their paths."""
    module = model if module is None else module
    name, parameters = unwrapped(path), list(module.parameters())
    if not any(isinstance(inner, AdaptedLayer) for inner in module.modules()):
        trained = parameters and all(p.requires_grad for p in parameters)
        if path and (trained or any(f"{name}.".startswith(f"{kept}.") for kept in recorded(model))):
            yield name, module
            return
    for own, value in module.named_parameters(recurse=False):
        if value.requires_grad and not isinstance(module, AdaptedLayer):
            text = f"trains {name}.{own} beside the adapter, but not the whole module: name the module in train"
            raise ArgumentValueError("save_adapter", "model", text)
    if not isinstance(module, AdaptedLayer):
        for child, inner in module.named_children():
            yield from _trained_beside(model, inner, f"{path}.{child}" if path else child)


def _require_frozen_bases(layers: Mapping[str, AdaptedLayer], beside: Mapping[str, nn.Module]) -> None:
    """Refuse to leave out of a file what was trained of a base; weights that a trained module shares are in it."""
    written = {id(parameter) for module in beside.values() for parameter in module.parameters()}
    for path, layer in layers.items():
        for own, value in layer.base.named_parameters():
            if value.requires_grad and id(value) not in written:
                text = f"trains {path}.{own}, of which an adapter holds the change alone: freeze it, or train the layer"
                raise ArgumentValueError("save_adapter", "model", f"{text} as it is")


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor in shards as another one's."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415  # in reach where there is a shard only

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


# ---- settings


def _common_options(adapters: list[CDDAdapter]) -> AdapterOptions:
    """Return the options of all layers, which must be the same, as the format of PEFT has one value of each.

    Sides of circulants may differ where a word tells all of them.
    """
    options = [adapter.options() for adapter in adapters]
    for word in ("min", "toeplitz"):
        if all(adapter.block_size == CDDLayout(adapter.layout.shape, 3, word).block_size for adapter in adapters):
            options = [own | {"block_size": word} for own in options]
            break
    for name in AdapterOptions.names():
        if any(own[name] != options[0][name] for own in options):
            raise ArgumentValueError("save_adapter", "model", f"has layers with other values of {name} than others")
    return AdapterOptions.checked(options[0], "save_adapter")


def _planned(
    model: nn.Module, vectors: Mapping[str, list[Tensor]], options: AdapterOptions
) -> dict[str, dict[str, Any]]:
    """Return the options of the layers to wrap, with dtypes: of the base, or of the file, up to float32, if wider."""
    planned: dict[str, dict[str, Any]] = {}
    modules = {unwrapped(path): module for path, module in model.named_modules(remove_duplicate=False)}
    for path, given in vectors.items():
        try:
            module = modules[path]
            columns, rows = (kind_of(module) or CDDLinear)._features(module)
        except (KeyError, TypeError) as error:
            text = f"has no layer {path!r} that can be adapted: {error}"
            raise ArgumentValueError("load_adapter", "model", text) from error
        like = dtype_and_device(module)
        if like.get("device", torch.device("cpu")).type == "meta":  # what fills the weights would lose the vectors
            raise ArgumentValueError("load_adapter", "model", f"has {path} on the device meta: load its weights first")
        stored = torch.float32 if given[0].dtype.itemsize > 4 else given[0].dtype
        dtype = torch.promote_types(like["dtype"], stored)
        planned[path] = {"in_features": columns, "out_features": rows, **asdict(options), "dtype": dtype}
    return planned


def _require_fit(path: str, given: list[Tensor], own: CDDAdapter, options: AdapterOptions) -> None:
    shapes = tuple(tuple(vector.shape) for vector in given)
    with naming(path):
        told = CDDLayout(own.layout.shape, options.n_factors, options.block_size, owner="load_adapter")
    for wanted in (told.vector_shapes, own.layout.vector_shapes):
        if shapes != wanted:
            text = f"holds vectors {shapes} for {path}, the model has {wanted}: made for another model, "
            raise ArgumentValueError("load_adapter", "folder", text + "or with other settings")
    if own.factor_scale != options.factor_scale:
        text = f"has factor_scale={options.factor_scale}, the model {own.factor_scale}"
        raise ArgumentValueError("load_adapter", "folder", text)


def _require_places(model: nn.Module, beside: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Refuse tensors for which the model has no place, and those of which no setting says that they were trained."""
    places = _states(model)[1]
    modules = {unwrapped(path): module for path, module in model.named_modules(remove_duplicate=False)}
    for key, tensor in beside.items():
        place, (path, _, name) = places.get(key), key.rpartition(".")
        if place is None or place.shape != tensor.shape or place.is_meta:
            text = f"holds {key} of shape {tuple(tensor.shape)}, of which the model has none"
            raise ArgumentValueError("load_adapter", "folder", text)
        alike = place.dtype == tensor.dtype or (place.is_floating_point() and tensor.is_floating_point())
        if not alike:
            text = f"holds {key} of dtype {tensor.dtype}, the model has {place.dtype}"
            raise ArgumentValueError("load_adapter", "folder", text)
        saved = any(f".{each}." in f".{path}." for each in settings["modules_to_save"])
        bias = name == "bias" and settings.get("bias") in {"all", "cdd_only"}
        collected = isinstance(modules[path], batchnorm._NormBase) and not isinstance(place, nn.Parameter)
        if not (saved or bias or collected or _is_embedding(model, modules[path])):
            text = f"holds {key}, which is frozen: its settings name it neither in modules_to_save nor in bias"
            raise ArgumentValueError("load_adapter", "folder", text)


def _is_embedding(model: nn.Module, module: nn.Module) -> bool:
    """Whether a module is the input or output embedding of a model of transformers, which PEFT may write as a whole."""
    for name in ("get_input_embeddings", "get_output_embeddings"):
        with suppress(NotImplementedError):  # by models that have none
            if getattr(model, name, lambda: None)() is module:
                return True
    return False


def _require_finite(state: Mapping[str, Tensor], caller: str, argument: str) -> None:
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        wide = tensor if tensor.itemsize > 1 else tensor.float()  # those of 8 bits have no such functions
        if torch.isnan(wide).any():
            raise ArgumentValueError(caller, argument, f"holds NaN in {key}")
        if FACTOR_KEY.match(key) and not torch.isfinite(wide).all():  # buffers may be infinite, as masks are
            raise ArgumentValueError(caller, argument, f"holds infinity in {key}")


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, list[Tensor]], dict[str, Tensor]]:
    """Return the settings of a folder, the vectors of its layers, and other tensors by their keys in the model."""
    safetensors = _safetensors()
    try:
        settings = _checked(json.loads((folder / CONFIG).read_text("utf-8")))
        state = safetensors.torch.load_file(folder / WEIGHTS)
        vectors, beside = _sorted(state, settings["n_factors"])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = f"{folder} is no complete adapter of this method: {error}"
        raise ArgumentValueError("load_adapter", "folder", text) from error
    _require_finite(state, "load_adapter", "folder")
    return settings, vectors, beside


def _checked(settings: Any) -> dict[str, Any]:
    """Return the settings of a file; those of the adapter, and `modules_to_save` as a list, are what they must be."""
    if settings["peft_type"] != "CDD":
        raise ValueError(f"the method is {settings['peft_type']!r}")
    options = asdict(AdapterOptions.checked(settings, CONFIG))
    saved = settings.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise ArgumentTypeError(CONFIG, "modules_to_save", f"must be a list of names, got {saved!r}")
    return {**settings, **options, "modules_to_save": saved}


def _sorted(state: Mapping[str, Tensor], n_factors: int) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Return the vectors of a file by layer, and its other tensors by their keys in the plain model."""
    parts: dict[str, dict[int, Tensor]] = {}
    beside: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if re.search(r"\.(original_module|modules_to_save)\.", key):  # biases that stand there twice
            continue
        match = FACTOR_KEY.match(key)
        if match and tensor.dtype not in VECTOR_DTYPES:
            raise ValueError(f"{key} has dtype {tensor.dtype}, and vectors {', '.join(map(str, VECTOR_DTYPES))}")
        place: dict[Any, Tensor] = parts.setdefault(match["path"], {}) if match else beside
        name = int(match["index"]) if match else key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if name in place:
            raise ValueError(f"it holds {key} twice, under two names")
        place[name] = tensor
    for path, own in parts.items():
        if own.keys() != set(range(n_factors)):
            raise ValueError(f"it lacks vectors: those of {path} are {sorted(own)}, for n_factors={n_factors}")
    if not parts:
        raise ValueError("it lacks vectors")
    return {path: [own[i] for i in range(n_factors)] for path, own in parts.items()}, beside


def _safetensors() -> Any:
    try:
        import safetensors.torch  # noqa: PLC0415  # an extra, needed here only
    except ModuleNotFoundError as error:
        raise ImportError('adapter files need safetensors: pip install "structmat[torch]"') from error
    return safetensors
