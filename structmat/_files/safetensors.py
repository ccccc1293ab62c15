"""The safetensors format: named tensors and metadata of text, as NumPy arrays."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._files.kinds import require_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CODES", "SafetensorsFile", "Tensor", "checksum", "one_line", "sound_part", "to_bytes"]

CODES = {
    **{f"float{bits}": f"F{bits}" for bits in (64, 32, 16)},
    **{f"int{bits}": f"I{bits}" for bits in (64, 32, 16, 8)},
    **{f"uint{bits}": f"U{bits}" for bits in (64, 32, 16, 8)},
    "bfloat16": "BF16",
    "bool": "BOOL",
    "complex64": "C64",
}
"""Names of dtypes and their codes in the format."""
_NAMES = {code: name for name, code in CODES.items()}


class Tensor(NamedTuple):
    """One entry of a safetensors file."""

    code: str
    shape: tuple[int, ...]
    data: bytes = b""
    start: int = 0
    stop: int = 0

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        """Return an array of NumPy as an entry."""
        code = CODES[array.dtype.name]
        return cls(code, array.shape, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())

    @property
    def dtype(self) -> str:
        return _NAMES.get(self.code, self.code)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Of the values in NumPy, which has no bfloat16."""
        return np.dtype("float32" if self.code == "BF16" else self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return 2 if self.code == "BF16" else self.numpy_dtype.itemsize

    def values(self, owner: str = "") -> NDArray[Any]:
        """Return the values as a new, writeable array."""
        if self.code not in _NAMES:
            raise ValueError(f"{owner} has dtype {self.code}, which NumPy cannot hold")
        if self.code == "BF16":
            bits = np.frombuffer(self.data, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(self.shape)
        stored = self.numpy_dtype.newbyteorder("<")
        return np.frombuffer(self.data, stored).astype(self.numpy_dtype).reshape(self.shape)


class SafetensorsFile(NamedTuple):
    """A safetensors file whose header has been checked."""

    path: str | os.PathLike[str]
    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    offset: int
    """Where the data begin."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SafetensorsFile:
        try:
            from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # an extra, needed here only
        except ModuleNotFoundError as error:
            raise ImportError('reading safetensors files needs the extra "io": pip install "structmat[io]"') from error
        require_regular(path)
        with Path(path).open("rb") as file:
            try:
                with safe_open(path, framework="np") as checked:
                    metadata = dict(checked.metadata() or {})
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
                header.pop("__metadata__", None)
                tensors = {
                    name: Tensor(item["dtype"], tuple(item["shape"]), b"", *item["data_offsets"])
                    for name, item in header.items()
                }
            except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path} is no complete safetensors file: {one_line(error)}") from error
        return cls(path, metadata, dict(sorted(tensors.items())), 8 + size)

    def data(self, name: str) -> bytes:
        return self._bytes(self.tensors[name].start, self.tensors[name].stop)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor, and read nothing else; a tensor without axes counts as one row."""
        tensor = self.tensors[name]
        row = (tensor.stop - tensor.start) // max(1, math.prod(tensor.shape[:1]))
        data = self._bytes(tensor.start + start * row, tensor.start + stop * row)
        if len(data) < (stop - start) * row:
            raise ValueError(f"{self.path} has been cut short")
        return Tensor(tensor.code, (stop - start, *tensor.shape[1:]) if tensor.shape else (), data)

    def _bytes(self, start: int, stop: int) -> bytes:
        with Path(self.path).open("rb") as file:
            file.seek(self.offset + start)
            return file.read(stop - start)


def sound_part(path: str | os.PathLike[str]) -> tuple[SafetensorsFile, dict[str, str]]:
    """Return what can be trusted of a safetensors file, and what is wrong with each other tensor.

    Raises
    ------
    ValueError
        If nothing can.
    """
    try:
        return SafetensorsFile.open(path), {}
    except ValueError as error:
        refusal = error
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size - 8 - length
        if size < 0:
            raise refusal
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            faults = {name: _fault(item, size) for name, item in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise refusal from None
    if not any(faults.values()):  # each is right by itself, but not all together
        raise refusal
    good = {
        name: Tensor(item["dtype"], tuple(item["shape"]), b"", *item["data_offsets"])
        for name, item in sorted(header.items())
        if not faults[name]
    }
    return SafetensorsFile(path, {}, good, 8 + length), {name: text for name, text in faults.items() if text}


def _fault(item: Any, size: int) -> str:
    """Return what is wrong with one entry of a header, before `size` bytes of data."""
    code, shape, (start, stop) = item["dtype"], item["shape"], item["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, stop)) or start > stop:
        return f"the header gives impossible sizes: shape {shape}, bytes {start} to {stop}"
    if code in _NAMES and stop - start != math.prod(shape) * Tensor(code, ()).itemsize:
        return f"the header gives shape {shape} of {code}, but {stop - start} bytes"
    return f"the file is cut short: the data end at byte {stop} of {size}" if stop > size else ""


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file: length of the header, header in JSON, data.

    Not by the library's own writer, which cannot write bfloat16 without a further package, and puts the metadata in
    random order: here equal operators give equal files. Wide numbers come first, so that all of them are aligned.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data: list[bytes] = []
    stop = 0
    for name, tensor in sorted(tensors.items(), key=_position):
        start, stop = stop, stop + len(tensor.data)
        header[name] = {"dtype": tensor.code, "shape": tensor.shape, "data_offsets": (start, stop)}
        data.append(tensor.data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a text and of every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, tensor.code, tensor.shape]).encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def _position(item: tuple[str, Tensor]) -> tuple[int, str]:
    return -item[1].itemsize, item[0]


def one_line(error: Exception) -> str:
    """Return the text of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
