"""The two files of an adapter's folder: written, read, and refused where they are no complete adapter."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structmat._adapter_format import CONFIG, FACTOR_KEY, PREFIX, WEIGHTS, require_known_settings
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._files import atomic_write_together
from structmat.torch._adapters.adapter import VECTOR_DTYPES
from structmat.torch._adapters.options import AdapterOptions
from structmat.torch._files.low_bits import packed_state, require_known_bits, unpacked_state

__all__ = ["Stored", "read_folder", "require_finite", "sorted_state", "write_folder"]


def write_folder(
    folder: Path, state: dict[str, Tensor], settings: bytes, owner: str, *, bits: int | None, force: bool
) -> None:
    """Write both files of a folder, or none if one of them is not to be replaced.

    With a number of bits, vectors are rounded to it, and the settings tell the number.
    """
    if bits is not None:
        state = packed_state(state, bits, owner)
        settings = json.dumps({**json.loads(settings), "bits": int(bits)}, indent=2).encode() + b"\n"
    folder.mkdir(parents=True, exist_ok=True)
    weights = _safetensors().torch.save(state, {"format": "pt"})
    # The settings come last: a folder without them is no adapter, so that one half-written is not taken for one.
    atomic_write_together({folder / WEIGHTS: weights, folder / CONFIG: settings}, force=force)


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


def read_folder(
    folder: str | os.PathLike[str], read: Callable[[], tuple[Mapping[str, Any], Mapping[str, Tensor]]] | None = None
) -> Stored:
    """Read a folder, and refuse one that is no complete adapter whatever the model is.

    `read` returns its settings and its tensors, which are those of its two files where nothing else is known of them.
    """
    try:
        settings, state = read() if read else _files_of(Path(folder))
        if settings["peft_type"] != "CDD":
            raise ValueError(f"the method is {settings['peft_type']!r}")  # noqa: TRY301  # the text is completed below
        require_known_settings(settings)
        options = AdapterOptions.checked(settings, CONFIG)
        saved = settings.get("modules_to_save") or []
        if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
            raise ArgumentTypeError(CONFIG, "modules_to_save", f"must be a list of names, got {saved!r}")
        has_biases = settings.get("bias") in {"all", "cdd_only"}
        require_known_bits(settings.get("bits"), CONFIG)
        state = unpacked_state(state, "load_adapter")
        vectors, parameters, beside = sorted_state(state, options.n_factors)
    except _safetensors().SafetensorError as error:
        text = f"{os.fspath(folder)} holds weights that are cut off or damaged: {error}; copy or download them again"
        raise ArgumentValueError("load_adapter", "folder", text) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = f"{os.fspath(folder)} is no complete adapter of this method: {error}"
        raise ArgumentValueError("load_adapter", "folder", text) from error
    require_finite(state, "load_adapter", "folder")
    return Stored(options, saved, has_biases, vectors, parameters, beside)


def _files_of(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Return the settings and the tensors of the two files of a folder."""
    settings = json.loads((folder / CONFIG).read_text("utf-8"))
    return settings, _safetensors().torch.load_file(folder / WEIGHTS)


def sorted_state(
    state: Mapping[str, Tensor], n_factors: int
) -> tuple[dict[str, list[Tensor]], set[str], dict[str, Tensor]]:
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


def _safetensors() -> Any:
    """Return the package safetensors, which files alone need."""
    try:
        import safetensors.torch  # noqa: PLC0415  # it is an extra
    except ModuleNotFoundError as error:
        raise ImportError('adapter files need safetensors: pip install "structmat[torch]"') from error
    return safetensors
