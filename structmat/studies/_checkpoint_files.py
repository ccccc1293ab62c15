"""`Checkpoint`: the weights of a model in one file or many, looked up by name and read piece by piece."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._files import DTYPES, one_line, open_safetensors, require_regular, unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Checkpoint", "CheckpointError", "Entry", "JoinedEntry"]

_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt", "*.pth")
"""Of a folder without an index, the files are read that match the first of these patterns which any file matches."""

_NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
"""Training leaves files beside the weights whose names begin with these words."""

_INSIDE = ("state_dict", "model_state_dict", "model", "module")
"""Training scripts save a dictionary with other things in it, and the weights under one of these keys."""

_FLOATS = ("float64", "float32", "float16", "bfloat16")
"""The dtypes that are read as real numbers; weights in fewer bits mean something only together with their scales."""

_CHUNK_BYTES = 1 << 22
"""A weight is read in pieces of about so many bytes, so that two are compared or subtracted in little memory."""

_ZIP = b"PK\x03\x04"
"""A zip archive begins with these bytes, and so do the files of `torch.save`."""

_DAMAGE = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError)
"""What torch raises on files that are not what they claim to be, as damaged ones have shown."""


class CheckpointError(ValueError):
    """A weight that cannot be read or used; the text names file and key."""


@dataclass(frozen=True)
class Entry:
    """One weight of a checkpoint, or one matrix of a stack in it: where it is, and what its header says."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    index: int | None = None
    """Which matrix of the stack; None if the whole weight is meant."""
    count: int = 0
    """How many matrices the stack has."""

    def __str__(self) -> str:
        return f"{self.file}: {self.key}" + ("" if self.index is None else f"[{self.index}]")

    def matrices(self) -> list[Entry]:
        """Return the matrices of a stack, of which each is read alone."""
        count, *shape = self.shape
        return [replace(self, shape=tuple(shape), index=i, count=count) for i in range(count)]

    def check_floats(self) -> None:
        """Refuse what cannot be read as real numbers."""
        if self.dtype not in _FLOATS:
            raise CheckpointError(
                f"{self} has dtype {self.dtype}, but only {', '.join(_FLOATS)} can be read: quantised "
                "weights must be dequantised first"
            )

    def chunks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read the weight in float32, or float64 if it is stored so, a few rows at a time."""
        self.check_floats()
        wide = "float64" if self.dtype == "float64" else "float32"
        for rows, part in self._pieces():
            yield rows, part.astype(wide, copy=False)

    def read(self) -> NDArray[Any]:
        """Read the weight."""
        values = np.empty(self.shape, "float64" if self.dtype == "float64" else "float32")
        for rows, part in self.chunks():
            values[rows if self.shape else ...] = part
        return values

    def equals(self, other: Entry) -> bool:
        """Tell whether another weight is the same, bit for bit; of different dtypes, by their values."""
        if self.shape != other.shape:
            return False
        # Both are read in the same pieces, since these depend on the shape alone.
        if self.dtype == other.dtype:
            pairs = zip(self._pieces(), other._pieces(), strict=True)
            return all(a.tobytes() == b.tobytes() for (_, a), (_, b) in pairs)
        return all(np.array_equal(a, b) for (_, a), (_, b) in zip(self.chunks(), other.chunks(), strict=True))

    def _pieces(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read the weight as it is stored, a few rows at a time."""
        rows = self.shape[0] if self.shape else 1
        if 0 in self.shape:
            return
        step = max(1, _CHUNK_BYTES // max(1, 4 * math.prod(self.shape[1:])))
        parts = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        try:
            if _is_torch_file(self.file):
                held: Any = _torch_content(self.file)[0].get(self.key)
                self._check(None if held is None else _spec(held))
                for part in parts:
                    yield part, _to_numpy(held[self._at(part)] if self.shape else held)
                return
            with open_safetensors(self.file) as file:
                there: Any = file.get_slice(self.key) if self.key in file.keys() else None  # noqa: SIM118  # no mapping
                self._check(there and (DTYPES.get(there.get_dtype(), there.get_dtype()), tuple(there.get_shape())))
                for part in parts:
                    yield part, there[self._at(part)] if self.shape else file.get_tensor(self.key)
        except CheckpointError:
            raise
        except (ValueError, AttributeError, TypeError) as error:
            # The library raises the last two for dtypes that NumPy does not have.
            raise CheckpointError(f"{self}: {one_line(error)}") from error

    def _at(self, rows: slice) -> Any:
        """Return the place of some rows in the weight as it is stored."""
        return rows if self.index is None else (self.index, rows)

    def _check(self, there: tuple[str, tuple[int, ...]] | None) -> None:
        """Refuse a weight whose dtype or shape is no longer what the header said when the checkpoint was opened."""
        stored = self.shape if self.index is None else (self.count, *self.shape)
        if there != (self.dtype, stored):
            raise CheckpointError(f"{self}: the file has changed meanwhile")


@dataclass(frozen=True)
class JoinedEntry:
    """One matrix whose parts are several weights of a checkpoint, which lie side by side or one below the other."""

    entries: tuple[Entry, ...]
    axis: int
    """The axis along which they are joined."""

    def __str__(self) -> str:
        return " and ".join(map(str, self.entries))

    @property
    def dtype(self) -> str:
        return " and ".join(sorted({entry.dtype for entry in self.entries}))

    @property
    def shape(self) -> tuple[int, ...]:
        first = list(self.entries[0].shape)
        if len(first) == 2:
            first[self.axis] = sum(entry.shape[self.axis] for entry in self.entries if len(entry.shape) == 2)
        return tuple(first)

    def check_floats(self) -> None:
        """Refuse what cannot be read as real numbers, or does not fit together."""
        for entry in self.entries:
            entry.check_floats()
        across = {entry.shape[1 - self.axis] if len(entry.shape) == 2 else None for entry in self.entries}
        if len(across) > 1 or None in across:
            shapes = ", ".join(str(entry.shape) for entry in self.entries)
            raise CheckpointError(f"{self}: matrices of shapes {shapes} are no parts of one matrix")

    def chunks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read the matrix in float32, or float64 if a part is stored so, a few rows at a time."""
        if self.axis == 1:
            yield slice(0, self.shape[0]), np.concatenate([entry.read() for entry in self.entries], axis=1)
            return
        start = 0
        for entry in self.entries:
            for rows, part in entry.chunks():
                yield slice(start + rows.start, start + rows.stop), part
            start += entry.shape[0]

    def read(self) -> NDArray[Any]:
        """Read the matrix."""
        return np.concatenate([entry.read() for entry in self.entries], axis=self.axis)


class Checkpoint:
    """Weights of a model by name, in a file or a folder; only headers are read until a weight is asked for.

    The path is a file in the safetensors format or of `torch.save`, which is read with ``weights_only=True`` and so
    runs no code; or a folder with such files, with an index or without. A damaged or missing shard does not prevent
    weights of others from being read: `faults` says what is wrong, by name of the weight or of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.entries: dict[str, Entry] = {}
        self.faults: dict[str, str] = {}
        self._files: list[Path] = []
        if not self.path.is_dir():
            self._add(self.path, None)
            if str(self.path) in self.faults:
                raise CheckpointError(self.faults[str(self.path)])
        elif (index := self._index()) is not None:
            for name, keys in _weight_map(index).items():
                self._add(self.path / name, keys)
            self._files.append(index)
        else:
            for file in _weight_files(self.path):
                self._add(file, None)

    def _index(self) -> Path | None:
        """Return the index of a folder, if it has one."""
        for pattern in ("*.safetensors.index.json", "*.bin.index.json"):
            if len(found := sorted(self.path.glob(pattern))) > 1:
                raise CheckpointError(f"{self.path} has several indices: {', '.join(path.name for path in found)}")
            if found:
                return found[0]
        return None

    def _add(self, file: Path, keys: list[str] | None) -> None:
        """Take in a file: those of its weights that the index names, or all of them if there is no index."""
        self._files.append(file)
        faults: dict[str, str] = {}
        try:
            specs, faults = _listed(file)
        except OSError as error:
            if keys is None:
                raise
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            self.faults |= {key: f"{file}: {key}: the index names this file, which {what}" for key in keys}
            return
        except ValueError as error:
            if keys is None:
                self.faults[str(file)] = one_line(error)
            else:
                self.faults |= {key: f"{file}: {key}: {one_line(error)}" for key in keys}
            return
        for key in [*specs, *faults] if keys is None else keys:
            if key in self.entries:
                other = self.entries[key].file
                raise CheckpointError(f"{file}: {key}: {other} has a weight of this name too")
            if key in specs:
                self.entries[key] = Entry(file, key, *specs[key])
            else:
                text = faults.get(key, "the index names this weight, which the file does not have")
                self.faults[key] = f"{file}: {key}: {text}"

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.entries, *self.faults}))

    def __len__(self) -> int:
        return len({*self.entries, *self.faults})

    def partners(self, names: Iterable[str]) -> dict[str, str]:
        """Return the name in this checkpoint of each of the names that has one, as `partner_names` finds it."""
        return partner_names(names, {**self.entries, **self.faults})

    def entry(self, key: str) -> Entry:
        """Return the weight of that name."""
        if key in self.entries:
            return self.entries[key]
        if key in self.faults:
            raise CheckpointError(self.faults[key])
        broken = "; ".join(text for file, text in self.faults.items() if Path(file) in self._files)
        raise CheckpointError(f"{self.path} has no weight {key}" + (f" ({broken})" if broken else ""))

    def checksum(self) -> str:
        """Return a checksum of the content, independent of path and time."""
        total = hashlib.sha256()
        for path in sorted(self._files):
            if path.exists():
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


def partner_names(names: Iterable[str], stored: Iterable[str]) -> dict[str, str]:
    """Return the stored name that means the same weight as a name, for each name that has one.

    A name and its partner are equal, or equal without what wrapping classes add, or one of them is the end of the
    other, in whole parts. No stored name is the partner of two, and a name for which several are possible has none.
    """
    wanted, keys = list(dict.fromkeys(names)), list(dict.fromkeys(stored))
    found = {name: name for name in wanted if name in keys}
    for fits in (_equal, _ends_alike):
        taken = set(found.values())
        fitting = fits([name for name in wanted if name not in found], [key for key in keys if key not in taken])
        pairs = {name: each for name, each in fitting.items() if each}
        claims = Counter(key for each in pairs.values() for key in each)
        found |= {name: key for name, (key, *others) in pairs.items() if not others and claims[key] == 1}
    return found


def _weight_map(index: Path) -> dict[str, list[str]]:
    """Return which names an index expects in each file."""
    try:
        items = json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of a checkpoint: {one_line(error)}") from error
    found: dict[str, list[str]] = {}
    for key, name in sorted(items):
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: {key}: {name!r} is no name of a file beside the index")
        found.setdefault(name, []).append(key)
    return found


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a folder without an index."""
    for pattern in _PATTERNS:
        if found := [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(_NOT_WEIGHTS)]:
            return found
    raise CheckpointError(f"{folder} holds no safetensors or PyTorch files of a model")


def _listed(file: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]:
    """Return dtype and shape of the weights of a file by name, and what is wrong with those that cannot be read."""
    if _is_torch_file(file):
        tensors, faults = _torch_content(file)
        return {name: _spec(tensor) for name, tensor in sorted(tensors.items())}, faults
    with open_safetensors(file) as opened:
        specs = {}
        for name in sorted(opened.keys()):
            part = opened.get_slice(name)
            specs[name] = DTYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape())
        return specs, {}


def _is_torch_file(path: Path) -> bool:
    """Tell whether a file is meant to be one of `torch.save`: a zip archive, or by its suffix."""
    require_regular(path, "Checkpoint")
    with path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY" or (start[:4] == _ZIP and path.suffix == ".npz"):
        raise ValueError(f"{path} has arrays of NumPy: save them by safetensors.numpy.save_file")
    return start[:4] == _ZIP or path.suffix in {".bin", ".pt", ".pth"}


def _torch_content(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors of a file of `torch.save`, which are mapped into memory, and what is wrong with others."""
    now = path.stat()
    return _loaded(path, (now.st_ino, now.st_size, now.st_mtime_ns))


@lru_cache(4)
def _loaded(path: Path, _: tuple[int, int, int]) -> tuple[dict[str, Any], dict[str, str]]:
    """Do what `_torch_content` says, and keep the result while inode, size and time of the file stay the same.

    To unpickle a file anew for each of its many weights would take minutes.
    """
    try:
        import torch  # noqa: PLC0415  # an extra, needed for such files only
    except ModuleNotFoundError as error:
        raise ImportError(f'reading {path} needs the extra "torch": pip install "structmat[torch]"') from error
    with path.open("rb") as file:
        if file.read(4) != _ZIP:
            raise ValueError(f"{path} is no file of torch.save since torch 1.6; load it and save it again")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
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
    return sound, faults


def _fault(tensor: Any) -> str:
    """Return why the values of a tensor of torch cannot be read; an empty text if they can."""
    if tensor.is_meta:
        return "was saved without values, on the device meta"
    layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    return "" if layout == "strided" else f"is stored as {layout}, but only dense tensors can be read"


def _spec(tensor: Any) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape of a tensor of torch, the dtype by the name that NumPy gives it."""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def _to_numpy(part: Any) -> NDArray[Any]:
    """Return a part of a tensor of torch as an array. NumPy has no bfloat16, which float32 holds exactly."""
    part = part.detach().cpu()
    return (part.float() if _spec(part)[0] == "bfloat16" else part).numpy()


def _equal(names: list[str], stored: list[str]) -> dict[str, list[str]]:
    """Return the stored names that are equal to each name without what wrapping classes add."""
    plain = _by_plain_name(stored)
    return {name: plain.get(unwrapped(name), []) for name in names}


def _ends_alike(names: list[str], stored: list[str]) -> dict[str, list[str]]:
    """Return for each name the stored ones that end with it, and the longest that it ends with, in whole parts."""
    by_end: dict[str, list[str]] = {}
    for key in stored:
        for end in _endings(key):
            by_end.setdefault(end, []).append(key)
    whole = _by_plain_name(stored)
    longest = {name: next((whole[end] for end in _endings(name) if end in whole), []) for name in names}
    return {name: [*by_end.get(unwrapped(name), []), *longest[name]] for name in names}


def _by_plain_name(stored: list[str]) -> dict[str, list[str]]:
    """Return the stored names by what is left of them without the parts of wrapping classes."""
    plain: dict[str, list[str]] = {}
    for key in stored:
        plain.setdefault(unwrapped(key), []).append(key)
    return plain


def _endings(name: str) -> list[str]:
    """Return what is left of a name without its first part, without its first two parts, and so on."""
    parts = unwrapped(name).split(".")
    return [".".join(parts[k:]) for k in range(1, len(parts))]
