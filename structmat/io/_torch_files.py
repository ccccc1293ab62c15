"""Files that `torch.save` wrote, read without running what they hold; the only file of `io` that imports torch."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._files.kinds import require_regular
from structmat._files.safetensors import CODES, Tensor, one_line

if TYPE_CHECKING:
    from structmat._arrays.typing import Array

__all__ = ["TorchFile", "is_torch_file"]

_ZIP = b"PK\x03\x04"
_INSIDE = ("state_dict", "model_state_dict", "model", "module")
"""Where training scripts put the weights."""
_DAMAGE = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError)
"""What torch raises on files that are not what they claim to be."""


def is_torch_file(path: Path) -> bool:
    """Tell whether a file is meant to be one of `torch.save`: a zip archive, or by its suffix."""
    require_regular(path)
    with path.open("rb") as file:
        return file.read(4) == _ZIP or path.suffix in {".bin", ".pt", ".pth"}


class TorchFile(NamedTuple):
    """A file of `torch.save`, in memory, or mapped for as long as this lives, so that its pages can go afterwards.

    Or tensors that are in memory anyway.
    """

    path: Path
    tensors: dict[str, Tensor]
    """Name, dtype and shape; no data."""
    content: dict[str, Any]
    """The tensors of torch themselves."""

    @classmethod
    def open(cls, path: Path, *, mmap: bool) -> tuple[TorchFile, dict[str, str]]:
        """Open a file, and return also what is wrong with tensors that cannot be read."""
        try:
            import torch  # noqa: PLC0415  # an extra, needed for such files only
        except ModuleNotFoundError as error:
            raise ImportError(f'reading {path} needs the extra "torch": pip install "structmat[torch]"') from error
        with path.open("rb") as file:
            if file.read(4) != _ZIP:
                raise ValueError(f"{path} is no file of torch.save since torch 1.6; load it and save it again")
        try:
            content = torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
        except UnpicklingError as error:
            raise ValueError(f"{path} holds more than tensors, and is not read: it could run code") from error
        except _DAMAGE as error:
            raise ValueError(f"{path} is no complete file of torch.save: {one_line(error)[:200]}") from error
        if isinstance(content, Mapping):
            content = next((content[name] for name in _INSIDE if isinstance(content.get(name), Mapping)), content)
        named = content.items() if isinstance(content, Mapping) else ()
        found = {str(name): value for name, value in named if isinstance(value, torch.Tensor)}
        if not found:
            raise ValueError(f"{path} holds no tensors by name")
        faults = {name: text for name, tensor in found.items() if (text := _fault(tensor))}
        sound = {name: tensor for name, tensor in found.items() if name not in faults}
        if _storage_sizes(sound) - _record_sizes(path):  # torch 2.6 would read what lies behind
            raise ValueError(f"{path} is no complete file of torch.save: it holds fewer bytes than its tensors have")
        return cls.of(path, sound), faults

    @classmethod
    def of(cls, path: Path, content: dict[str, Any]) -> TorchFile:
        """Return tensors of torch, or arrays of NumPy, as if a file held them."""
        return cls(path, {name: _spec(tensor) for name, tensor in sorted(content.items())}, content)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor, and read nothing else; a tensor without axes counts as one row."""
        import torch  # noqa: PLC0415  # an extra, needed for such files only

        whole = self.content[name]
        part = whole[start:stop] if whole.ndim else whole
        # a copy, as torch warns of arrays that must not be written
        part = part.detach().cpu() if isinstance(part, torch.Tensor) else torch.as_tensor(np.array(part))
        data = part.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if part.numel() else b""
        return _spec(part)._replace(data=data)


def _storage_sizes(tensors: Mapping[str, Any]) -> Counter[int]:
    """Return how many storages of each number of bytes tensors have."""
    storages = (tensor.untyped_storage() for tensor in tensors.values())
    return Counter({storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}.values())


def _record_sizes(path: Path) -> Counter[int]:
    """Return how many storages of each number of bytes a file has."""
    with zipfile.ZipFile(path) as archive:
        return Counter(record.file_size for record in archive.infolist() if "/data/" in record.filename)


def _fault(tensor: Any) -> str:
    """Return what is wrong with a tensor of torch that has no plain values."""
    if tensor.is_meta:
        return "was saved without values, on the device meta"
    layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    return "" if layout == "strided" else f"is stored as {layout}, but only dense tensors can be read"


def _spec(tensor: Array) -> Tensor:
    name = str(tensor.dtype).removeprefix("torch.")
    return Tensor(CODES.get(name, name), tuple(tensor.shape))
