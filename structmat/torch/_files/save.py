"""`save_adapter`: what of a model belongs in a folder, collected, checked and written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm

from structmat._adapter_format import PREFIX, config_bytes, exact_targets, factor_key
from structmat._errors import ArgumentValueError
from structmat._files import unwrapped
from structmat.operators import CDDLayout
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._distributed import gathered, has_pieces, is_of_several_processes, unwrapped_model
from structmat.torch._files.folder import require_finite, write_folder
from structmat.torch._files.low_bits import require_known_bits
from structmat.torch._files.tensors import changes_by_path, layers_by_path, tensors_of
from structmat.torch._layers import AdaptedModule
from structmat.torch._model.wrapping import recorded

__all__ = ["save_adapter", "settings_of"]


def save_adapter(
    model: nn.Module, folder: str | os.PathLike[str], *, bits: int | None = None, force: bool = False
) -> Path:
    """Write the adapter of a model, and what is trained beside it, such as a head, to a folder.

    Parameters
    ----------
    model : Module
        An adapted model.
    folder : path-like
        Created if necessary; gets ``adapter_config.json`` and ``adapter_model.safetensors``.
    bits : int, optional
        4 or 8: vectors of the adapter are rounded to so many bits a number, with one scale for each diagonal and each
        circulant. Default: they are written as they are.
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
        beside the adapter, something holds NaN or infinity or is on the device meta, FSDP 1 has left pieces of
        parameters in the model, or `bits` is another number; nothing is written then.
    TypeError
        If `bits` is no integer.
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

    `bits` leaves what is trained beside the adapter as it is. The scale of a vector is that of the least squared error,
    among numbers of bfloat16. Rounded numbers are exact in float32, and with four bits in bfloat16 too: every model
    gets the same ones, and to save them again with the same `bits` gives the same file. ``load_adapter`` of a model of
    transformers refuses such a folder.

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

    With few bits a number the file is small:

    >>> model = torch.nn.Sequential(torch.nn.Linear(768, 768))
    >>> _ = adapt(model, init="normal")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for bits in (None, 8, 4):
    ...         file = save_adapter(model, folder, bits=bits, force=True) / "adapter_model.safetensors"
    ...         print(file.stat().st_size)
    9560
    2654
    1502
    """
    require_known_bits(bits, "save_adapter")
    collected = _collect(unwrapped_model(model))
    _require_writable(collected)
    settings = settings_of(unwrapped_model(model), collected.beside)
    folder = Path(folder)
    if not (is_of_several_processes(model) and torch.distributed.get_rank() != 0):
        write_folder(folder, collected.state, settings, "save_adapter", bits=bits, force=force)
    return folder


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
    layers = layers_by_path(model)
    if not layers and hasattr(model, "peft_config"):
        raise ArgumentValueError("save_adapter", "model", "is a model of PEFT: call its save_pretrained(folder)")
    if not layers:
        raise ArgumentValueError("save_adapter", "model", "has no adapted layer: call adapt first")
    if "" in layers or any(layer.base is None for layer in layers.values()):
        text = "is or has a layer without a model or a base around; save its state_dict()"
        raise ArgumentValueError("save_adapter", "model", text)
    # This comes first: FSDP frees here what a forward pass left whole, and puts shards in the places of parameters.
    vectors, plain = tensors_of(model)
    beside = dict(_trained_beside(model))
    return _Collected(layers, beside, _whole_state(model, vectors, plain, beside))


def _whole_state(
    model: nn.Module, vectors: Mapping[str, list[Tensor]], plain: Mapping[str, Tensor], beside: Iterable[str]
) -> dict[str, Tensor]:
    """Return copies of the tensors of a file by their keys in it.

    These are the vectors, what is trained beside them, and the statistics of batch normalisations.
    """
    stacked = {path for path, adapter in changes_by_path(model).items() if adapter.n_matrices is not None}
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


def _key(path: str, index: int, *, of_parameter: bool) -> str:
    """Return the key of the vector of a factor: of a layer with a path, or of a parameter with it."""
    module, _, name = path.rpartition(".")
    return factor_key(module, index, name) if of_parameter else factor_key(path, index)


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
    changes = changes_by_path(model)
    parameters = [path for path, adapter in changes.items() if adapter.n_matrices is not None]
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


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole that may be a shard in this process."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
