"""Adapters in files: a folder in the format of Hugging Face PEFT, which needs no PEFT here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm

from structmat._adapter_format import CONFIG, FACTOR_KEY, PREFIX, WEIGHTS, config_bytes, exact_targets, factor_key
from structmat._errors import ArgumentTypeError, ArgumentValueError, as_own, naming
from structmat._files import atomic_write, check_output, unwrapped
from structmat.operators import CDDLayout
from structmat.torch._adapter import VECTOR_DTYPES, CDDAdapter
from structmat.torch._base_weight import dtype_and_device
from structmat.torch._experts import stack_of
from structmat.torch._former_parts import chosen_parts, whole_change
from structmat.torch._layers import AdaptedModule, kind_to_wrap
from structmat.torch._model import (
    adapted_layers,
    changes_of,
    near_names,
    recorded,
    require_alone,
    require_no_lazy_parameters,
    train_only,
    wrap_layers,
)
from structmat.torch._options import AdapterOptions
from structmat.torch._other_tools import (
    gathered,
    has_pieces,
    is_of_several_processes,
    rewritten_by,
    unwrapped_model,
)
from structmat.torch._stacked_adapter import StackedCDDAdapter

__all__ = [
    "Stored",
    "load_adapter",
    "naming_damage",
    "read_folder",
    "require_finite",
    "require_shapes",
    "save_adapter",
    "settings_of",
    "using_adapter",
    "write_folder",
]


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
    collected = _collect(unwrapped_model(model))
    _require_writable(collected)
    settings = settings_of(unwrapped_model(model), collected.beside)
    folder = Path(folder)
    if not (is_of_several_processes(model) and torch.distributed.get_rank() != 0):
        write_folder(folder, collected.state, settings, force=force)
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
    stored = read_folder(Path(folder))
    inside = _taking_values(model)
    plan = _plan(inside, stored)
    _apply(inside, stored, plan)
    return list(stored.vectors)


@contextmanager
def using_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> Iterator[list[str]]:
    """Serve another folder's adapter, and what was trained beside it, inside a ``with`` block.

    At its end, also after an error, the model is as before, bit for bit.

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
        stored = read_folder(Path(folder))
        inside = _taking_values(model)
        changes = _changes(inside)
        if not changes:
            raise ArgumentValueError("load_adapter", "model", "has no adapter that could give way: call load_adapter")
        plan = _plan(inside, stored)
    _, places = _states(inside)
    adapters = [changes[path] for path in stored.vectors]
    tensors = [*(vector for adapter in adapters for vector in adapter.vectors), *(places[key] for key in stored.beside)]
    alphas = [adapter.alpha for adapter in adapters]
    values = [tensor.detach().clone() for tensor in tensors]
    trainable = {parameter: parameter.requires_grad for parameter in inside.parameters()}
    try:
        _apply(inside, stored, plan)
        for parameter, before in trainable.items():  # compiled code depends on it, and nothing is trained here
            parameter.requires_grad_(before)
        yield list(stored.vectors)
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for adapter, alpha in zip(adapters, alphas, strict=True):
            adapter.alpha = alpha
        for parameter, before in trainable.items():
            parameter.requires_grad_(before)


def _taking_values(model: nn.Module) -> nn.Module:
    """Return the model inside of wrappers; refuse one in which an engine would write over what is loaded."""
    engine = rewritten_by(model, model.parameters())
    if engine:
        text = f"has parameters that are written anew from copies: load the adapter before {engine}"
        raise ArgumentValueError("load_adapter", "model", text)
    return unwrapped_model(model)


# ---- the tensors of a model


def _layers(model: nn.Module) -> dict[str, AdaptedModule]:
    """Return the adapted layers and modules of a model by path, without the names that wrappers add to paths."""
    return {unwrapped(path): layer for path, layer in adapted_layers(model).items()}


def _changes(model: nn.Module) -> dict[str, CDDAdapter]:
    """Return the changes of a model by the path of the layer or parameter, without the names that wrappers add."""
    return {unwrapped(path): adapter for path, adapter in changes_of(model).items()}


def _key(path: str, index: int, *, of_parameter: bool) -> str:
    """Return the key of the vector of a factor: of a layer with a path, or of a parameter with it."""
    module, _, name = path.rpartition(".")
    return factor_key(module, index, name) if of_parameter else factor_key(path, index)


def _states(model: nn.Module) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Return the vectors of the adapter by layer, and all other parameters and persistent buffers by their keys.

    The keys are those of the plain model, without the names of wrappers and adapted layers.
    """
    items = model.state_dict(keep_vars=True).items()
    state = {unwrapped(key): value for key, value in items if isinstance(value, Tensor)}
    vectors = {}
    for name, layer in _layers(model).items():
        for end, adapter in layer._changes().items():
            own = [state[f"{name}.{layer._prefix(end)}.vectors.{i}"] for i in range(adapter.n_factors)]
            # Where accelerate keeps vectors elsewhere, a call of this method brings them.
            vectors[f"{name}.{end}" if end else name] = adapter.vectors.forward() if own[0].is_meta else own
        for key in [key for key in state if key.startswith(f"{name}.")]:
            tensor = state.pop(key)
            end = key.removeprefix(f"{name}.")
            if end.startswith("base."):
                state[f"{name}.{end.removeprefix('base.')}"] = tensor
    return vectors, state


# ---- collecting what belongs in a folder, checking it, and writing it


class _Collected(NamedTuple):
    """What of a model belongs in a folder."""

    layers: dict[str, AdaptedModule]
    """The adapted layers by path."""
    beside: dict[str, nn.Module]
    """The modules that are trained as a whole beside them, by path."""
    state: dict[str, Tensor]
    """Copies of all tensors by their keys in the file."""


def _collect(model: nn.Module) -> _Collected:
    """Collect what belongs in a folder; where parameters are split among processes, all of them have to take part."""
    layers = _layers(model)
    if not layers and hasattr(model, "peft_config"):
        raise ArgumentValueError("save_adapter", "model", "is a model of PEFT: call its save_pretrained(folder)")
    if not layers:
        raise ArgumentValueError("save_adapter", "model", "has no adapted layer: call adapt first")
    if "" in layers or any(layer.base is None for layer in layers.values()):
        text = "is or has a layer without a model or a base around; save its state_dict()"
        raise ArgumentValueError("save_adapter", "model", text)
    # This comes first: FSDP frees here what a forward pass left whole, and puts shards in the places of parameters.
    vectors, plain = _states(model)
    beside = dict(_trained_beside(model))
    return _Collected(layers, beside, _whole_state(model, vectors, plain, beside))


def _whole_state(
    model: nn.Module, vectors: Mapping[str, list[Tensor]], plain: Mapping[str, Tensor], beside: Iterable[str]
) -> dict[str, Tensor]:
    """Return copies of the tensors of a file by their keys in it.

    These are the vectors, what is trained beside them, and the statistics of batch normalisations.
    """
    stacked = {path for path, adapter in _changes(model).items() if isinstance(adapter, StackedCDDAdapter)}
    kept = {
        _key(path, i, of_parameter=path in stacked): vector
        for path, own in vectors.items()
        for i, vector in enumerate(own)
    }
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
    """Yield the modules without adapted layers that training changes as a whole, with their paths.

    Refuse a model of which a part of a module is trained beside the adapter.
    """
    module = model if module is None else module
    name = unwrapped(path)
    parameters = list(module.parameters())
    if not any(isinstance(inner, AdaptedModule) for inner in module.modules()):
        trained = parameters and all(p.requires_grad for p in parameters)
        if path and (trained or any(f"{name}.".startswith(f"{kept}.") for kept in recorded(model))):
            yield name, module
            return
    for own, value in module.named_parameters(recurse=False):
        if value.requires_grad and not isinstance(module, AdaptedModule):
            text = f"trains {name}.{own} beside the adapter, but not the whole module: name the module in train"
            raise ArgumentValueError("save_adapter", "model", text)
    if not isinstance(module, AdaptedModule):
        for child, inner in module.named_children():
            yield from _trained_beside(model, inner, f"{path}.{child}" if path else child)


def _require_writable(collected: _Collected) -> None:
    """Refuse a model whose file would not hold all that was trained, or would hold tensors without values."""
    # A base may be trained if it shares its weights with a module that is in the file.
    written = {id(parameter) for module in collected.beside.values() for parameter in module.parameters()}
    for path, layer in collected.layers.items():
        for own, value in layer.base.named_parameters():
            if value.requires_grad and id(value) not in written:
                text = (
                    f"trains {path}.{own}, of which an adapter holds the change alone: freeze it, or train the layer "
                    "as it is"
                )
                raise ArgumentValueError("save_adapter", "model", text)
    for key, tensor in collected.state.items():
        if tensor.is_meta:
            raise ArgumentValueError("save_adapter", "model", f"has {key} on the device meta: save before offloading")
    require_finite(collected.state, "save_adapter", "model")


def settings_of(model: nn.Module, beside: Iterable[str] = ()) -> bytes:
    """Return the content of the file of settings, with the paths of modules that are trained beside the adapter."""
    others = (unwrapped(path) for path, _ in model.named_modules())
    changes = _changes(model)
    parameters = [path for path, adapter in changes.items() if isinstance(adapter, StackedCDDAdapter)]
    layers = [path for path in changes if path not in parameters]
    more: dict[str, Any] = {"target_parameters": parameters} if parameters else {}
    return config_bytes(
        exact_targets(layers, others),
        **asdict(_common_options(list(changes.values()))),
        base=getattr(model, "name_or_path", None),
        modules_to_save=list(beside) or None,
        **more,
    )


def _common_options(adapters: list[CDDAdapter]) -> AdapterOptions:
    """Return the options of all layers, which must have the same: the format of PEFT has one value of each option.

    Sides of circulants may differ if all of them are what "min", or what "toeplitz", means for their layer.
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


def write_folder(folder: Path, state: dict[str, Tensor], settings: bytes, *, force: bool) -> None:
    """Write both files of a folder, or none if one of them is not to be replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONFIG):
        check_output(folder / name, force=force)
    weights = _safetensors().torch.save(state, {"format": "pt"})
    # The settings come last: a folder without them is no adapter, so that one half-written is not taken for one.
    for name, content in ((WEIGHTS, weights), (CONFIG, settings)):
        with atomic_write(folder / name, force=force) as file:
            file.write(content)


# ---- reading a folder, checking that it fits a model, and applying it


class Stored(NamedTuple):
    """What a folder holds."""

    options: AdapterOptions
    """The options of all layers."""
    saved: list[str]
    """Names, or ends of names, of modules that were trained as they are."""
    has_biases: bool
    """Whether biases were trained too, of any module."""
    vectors: dict[str, list[Tensor]]
    """The vectors of each layer, by its path, and of each parameter of experts."""
    parameters: set[str]
    """Those of the paths that are parameters."""
    beside: dict[str, Tensor]
    """All other tensors, by their keys in the plain model."""


def read_folder(folder: Path) -> Stored:
    """Read a folder, and refuse one that is no complete adapter whatever the model is."""
    with naming_damage(folder / WEIGHTS, "load_adapter"):
        return _complete(folder)


def _complete(folder: Path) -> Stored:
    """Read a folder whose files are whole."""
    safetensors = _safetensors()
    try:
        settings = json.loads((folder / CONFIG).read_text("utf-8"))
        if settings["peft_type"] != "CDD":
            raise ValueError(f"the method is {settings['peft_type']!r}")  # noqa: TRY301  # the text is completed below
        if settings.get("terms"):
            raise ValueError("it is a sum of adapters, which structmat.peft alone loads")  # noqa: TRY301  # as above
        options = AdapterOptions.checked(settings, CONFIG)
        saved = settings.get("modules_to_save") or []
        if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
            raise ArgumentTypeError(CONFIG, "modules_to_save", f"must be a list of names, got {saved!r}")
        has_biases = settings.get("bias") in {"all", "cdd_only"}
        state = safetensors.torch.load_file(folder / WEIGHTS)
        stored, parameters, beside = _sorted(state, options.n_factors)
        parts = settings.get("parts")
        vectors = {path: whole_change(own, chosen_parts(parts, path), "load_adapter") for path, own in stored.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = f"{folder} is no complete adapter of this method: {error}"
        raise ArgumentValueError("load_adapter", "folder", text) from error
    require_finite(state, "load_adapter", "folder")
    return Stored(options, saved, has_biases, vectors, parameters, beside)


def _sorted(state: Mapping[str, Tensor], n_factors: int) -> tuple[dict[str, list[Tensor]], set[str], dict[str, Tensor]]:
    """Return the vectors of a file by layer or parameter, which of these are parameters, and its other tensors.

    The latter have their keys in the plain model.
    """
    parameters: set[str] = set()
    parts: dict[str, dict[int, Tensor]] = {}
    beside: dict[str, Tensor] = {}
    for key, tensor in state.items():
        # PEFT writes biases of such modules twice, under these names and under plain ones.
        if re.search(r"\.(original_module|modules_to_save)\.", key):
            continue
        match = FACTOR_KEY.match(key)
        if match and tensor.dtype not in VECTOR_DTYPES:
            raise ValueError(f"{key} has dtype {tensor.dtype}, and vectors {', '.join(map(str, VECTOR_DTYPES))}")
        path = ""
        if match:
            path = f"{match['path']}.{match['parameter']}" if match["parameter"] else match["path"]
            parameters |= {path} if match["parameter"] else set()
        place: dict[Any, Tensor] = parts.setdefault(path, {}) if match else beside
        name = int(match["index"]) if match else key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if name in place:
            raise ValueError(f"it holds {key} twice, under two names")
        place[name] = tensor
    for path, own in parts.items():
        if own.keys() != set(range(n_factors)):
            raise ValueError(f"it lacks vectors: those of {path} are {sorted(own)}, for n_factors={n_factors}")
    if not parts:
        raise ValueError("it lacks vectors")
    return {path: [own[i] for i in range(n_factors)] for path, own in parts.items()}, parameters, beside


def _plan(model: nn.Module, stored: Stored) -> dict[str, dict[str, Any]]:
    """Return the options of the layers to wrap, by path; refuse a folder that does not fit the model.

    Nothing is to be wrapped in a model that is adapted already.
    """
    require_no_lazy_parameters(model, "load_adapter")
    changes = _changes(model)
    plan: dict[str, dict[str, Any]] = {}
    if changes:
        _require_alike(changes, stored)
    else:
        for path, base in _bases(model, stored).items():
            _require_fit(path, stored, *_size(base, path, stored))
            plan[path] = {**asdict(stored.options), "dtype": _dtype(base, stored.vectors[path][0].dtype)}
        others = [*(path for path in plan if path not in stored.parameters), *_trained(model, stored)]
        require_alone(stored.parameters, others, "load_adapter", "folder")
    _require_places(model, stored)
    return plan


def _size(base: nn.Module, path: str, stored: Stored) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return the shape of a layer's change, and no axes before it; or of a parameter's changes, and that of experts."""
    if path in stored.parameters:
        stack = stack_of(base, path.rpartition(".")[2], "load_adapter")
        return (stack.out_features, stack.in_features), (stack.n_experts,)
    columns, rows = kind_to_wrap(base)._features(base)
    return (rows, columns), ()


def _require_alike(changes: Mapping[str, CDDAdapter], stored: Stored) -> None:
    """Refuse a folder of other layers than those of an adapted model, or with other settings."""
    if changes.keys() != stored.vectors.keys():
        differing = sorted(changes.keys() ^ stored.vectors.keys())
        raise ArgumentValueError("load_adapter", "folder", f"has other layers than the model: {differing[:3]}")
    for path, own in changes.items():
        batch = (own.n_experts,) if isinstance(own, StackedCDDAdapter) else ()
        _require_fit(path, stored, own.layout.shape, batch)
        require_shapes(path, stored, own.vector_shapes)
        if own.factor_scale != stored.options.factor_scale:
            text = f"has factor_scale={stored.options.factor_scale}, the model {own.factor_scale}"
            raise ArgumentValueError("load_adapter", "folder", text)
        if own.vectors[0].is_meta:
            raise ArgumentValueError("load_adapter", "model", "has vectors on the device meta: load before offloading")


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


def _dtype(base: nn.Module, stored: torch.dtype) -> torch.dtype:
    """Return the dtype of new vectors: that of the base, or that of the file, up to float32, if it is the wider one."""
    dtype: torch.dtype = dtype_and_device(base)["dtype"]
    return torch.promote_types(dtype, torch.float32 if stored.itemsize > 4 else stored)


def _require_fit(path: str, stored: Stored, shape: tuple[int, int], batch: tuple[int, ...]) -> None:
    """Refuse vectors that are not those which the settings tell for a change of a shape, or for a stack of these."""
    with naming(path):
        told = CDDLayout(shape, stored.options.n_factors, stored.options.block_size, owner="load_adapter")
    require_shapes(path, stored, tuple((*batch, *each) for each in told.vector_shapes))


def require_shapes(path: str, stored: Stored, wanted: tuple[tuple[int, ...], ...]) -> None:
    """Refuse the vectors of a layer if they have other shapes."""
    shapes = tuple(tuple(vector.shape) for vector in stored.vectors[path])
    if shapes != wanted:
        text = (
            f"holds vectors {shapes} for {path}, the model has {wanted}: made for another model, or with other settings"
        )
        raise ArgumentValueError("load_adapter", "folder", text)


def _require_places(model: nn.Module, stored: Stored) -> None:
    """Refuse tensors for which the model has no place, and those of which no setting says that they were trained."""
    places = _states(model)[1]
    modules = {unwrapped(path): module for path, module in model.named_modules(remove_duplicate=False)}
    for key, tensor in stored.beside.items():
        place = places.get(key)
        path, _, name = key.rpartition(".")
        if place is None or place.shape != tensor.shape or place.is_meta:
            text = f"holds {key} of shape {tuple(tensor.shape)}, of which the model has none"
            raise ArgumentValueError("load_adapter", "folder", text)
        alike = place.dtype == tensor.dtype or (place.is_floating_point() and tensor.is_floating_point())
        if not alike:
            text = f"holds {key} of dtype {tensor.dtype}, the model has {place.dtype}"
            raise ArgumentValueError("load_adapter", "folder", text)
        saved = any(f".{each}." in f".{path}." for each in stored.saved)
        bias = name == "bias" and stored.has_biases
        collected = isinstance(modules[path], batchnorm._NormBase) and not isinstance(place, nn.Parameter)
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


def _apply(model: nn.Module, stored: Stored, plan: dict[str, dict[str, Any]]) -> None:
    """Wrap the layers of the plan, copy all tensors into the model, and train what was trained."""
    trained = _trained(model, stored)
    if plan:
        wrap_layers(model, plan)
        train_only(model, trained)
    changes = _changes(model)
    _, places = _states(model)
    with torch.no_grad():
        for path, given in stored.vectors.items():
            adapter = changes[path]
            adapter.alpha = stored.options.alpha
            for vector, value in zip(adapter.vectors, given, strict=True):
                vector.copy_(_sharded(value, vector))
        for key, tensor in stored.beside.items():
            places[key].copy_(_sharded(tensor, places[key]))
    for path in trained:
        model.get_submodule(path).requires_grad_()


def _trained(model: nn.Module, stored: Stored) -> list[str]:
    """Return the paths of the modules that were trained as they are."""
    ends = tuple(f".{name}" for name in stored.saved)
    paths = [unwrapped(path) for path, _ in model.named_modules()]
    # PEFT matches ends of names too; a frozen module may have such an end, and has no tensor in the file.
    named = [path for path in paths if path in stored.saved or path.endswith(ends)]
    return [path for path in named if any(key.startswith(f"{path}.") for key in stored.beside)]


# ---- both ways


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole that may be a shard in this process."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor, split among processes as another one is if that is split."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415  # not every build of torch has it

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def require_finite(state: Mapping[str, Tensor], caller: str, argument: str) -> None:
    """Refuse tensors with NaN, and vectors with infinity; buffers may be infinite, as masks are."""
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        # Torch has no such functions for floating dtypes of 8 bits.
        wide = tensor if tensor.itemsize > 1 else tensor.float()
        if torch.isnan(wide).any():
            raise ArgumentValueError(caller, argument, f"holds NaN in {key}")
        if FACTOR_KEY.match(key) and not torch.isfinite(wide).all():
            raise ArgumentValueError(caller, argument, f"holds infinity in {key}")


@contextmanager
def naming_damage(place: str | os.PathLike[str], owner: str) -> Iterator[None]:
    """Let errors of safetensors say in which file or folder the weights are cut off or damaged."""
    safetensors = _safetensors()
    try:
        yield
    except safetensors.SafetensorError as error:
        text = f"{os.fspath(place)} holds weights that are cut off or damaged: {error}; copy or download them again"
        raise ArgumentValueError(owner, "folder", text) from error


def _safetensors() -> Any:
    """Return the package safetensors, which files alone need."""
    try:
        import safetensors.torch  # noqa: PLC0415  # it is an extra
    except ModuleNotFoundError as error:
        raise ImportError('adapter files need safetensors: pip install "structmat[torch]"') from error
    return safetensors
