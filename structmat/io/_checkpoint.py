"""`Checkpoint`: the weights of a model in one file or many, looked up by name and read piece by piece."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from structmat._files.folders import files_in
from structmat._files.kinds import is_of_numpy
from structmat._files.safetensors import one_line
from structmat.io._entry import CheckpointError, Entry, open_file
from structmat.io._names import fitting_name, pair_names
from structmat.io._torch_files import TorchFile

__all__ = ["Checkpoint"]

_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt", "*.pth")
"""Files of a folder without an index: the first pattern that any matches."""
_NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
"""How the names of files begin that training leaves beside the weights."""


class Checkpoint:
    """Weights of a model by name, in a file or a folder; only headers are read until a weight is asked for.

    Parameters
    ----------
    path : path-like
        A file in the safetensors format or of `torch.save`, which is read with ``weights_only=True`` and so runs no
        code; or a folder with such files, with an index (``*.index.json``) or without.

    Attributes
    ----------
    path : Path
        As given.
    entries : dict of Entry
        The weights that can be read, by name.
    faults : dict of str
        What is wrong with other weights, by name.
    broken : dict of str
        What is wrong with files whose weights cannot even be listed, by file.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    CheckpointError
        If it is not a checkpoint.

    Notes
    -----
    Damaged or missing files, and headers with wrong sizes, do not prevent other weights from being read: see `faults`
    and `entry`. Reading a weight takes the memory of its values, and 4 MiB; files of PyTorch of
    at most 64 MiB are read as a whole, and the last four of them stay in memory.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.io import Checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"layer.weight": np.ones((2, 3), "float16")}, f"{folder}/model.safetensors")
    ...     checkpoint = Checkpoint(folder)
    ...     weight = checkpoint.entry("layer.weight")
    ...     weight.dtype, weight.shape, weight.read().sum()
    ('float16', (2, 3), np.float32(6.0))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.entries: dict[str, Entry] = {}
        self.faults: dict[str, str] = {}
        self.broken: dict[Path, str] = {}
        self._files: list[Path] = []
        if not self.path.is_dir():
            self._add(self.path, None)
            if self.broken:
                raise CheckpointError(self.broken[self.path])
            return
        if (index := self._index()) is not None:
            for name, keys in _weight_map(index).items():
                self._add(self.path / name, keys)
            self._files.append(index)
            return
        for file in _weight_files(self.path):
            self._add(file, None)

    @classmethod
    def in_memory(cls, tensors: Mapping[str, Any], name: str) -> Checkpoint:
        """Return a checkpoint of weights that are in memory.

        Parameters
        ----------
        tensors : mapping of str to torch.Tensor or ndarray
            Such as the `state_dict` of a module.
        name : str
            What errors call them.

        Returns
        -------
        Checkpoint
            A checkpoint that reads from these tensors, without copies.

        Examples
        --------
        >>> import torch
        >>> from structmat.io import Checkpoint
        >>> Checkpoint.in_memory({"layer.weight": torch.ones(2, 3)}, "model").entry("layer.weight").shape
        (2, 3)
        """
        checkpoint = cls.__new__(cls)
        checkpoint.path, checkpoint.faults, checkpoint.broken, checkpoint._files = Path(name), {}, {}, []
        file = TorchFile.of(checkpoint.path, dict(tensors))
        checkpoint.entries = {
            key: Entry(file.path, key, tensor.dtype, tensor.shape, file) for key, tensor in file.tensors.items()
        }
        return checkpoint

    def _index(self) -> Path | None:
        for pattern in ("*.safetensors.index.json", "*.bin.index.json"):
            if len(found := files_in(self.path, pattern)) > 1:
                raise CheckpointError(f"{self.path} has several indices: {', '.join(path.name for path in found)}")
            if found:
                return found[0]
        return None

    def _add(self, file: Path, keys: list[str] | None) -> None:
        """Take in a file: the weights that the index expects there, or all."""
        self._files.append(file)
        try:
            if is_of_numpy(file):
                raise ValueError(f"{file} has arrays of NumPy: save them by safetensors.numpy.save_file")  # noqa: TRY301
            opened, faults = open_file(file)
        except OSError as error:
            if keys is None:
                raise
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            self.faults |= {key: f"{file}: {key}: the index names this file, which {what}" for key in keys}
            return
        except ValueError as error:
            self.faults |= {key: f"{file}: {key}: {one_line(error)}" for key in keys or ()}
            if keys is None:
                self.broken[file] = str(error)
            return
        for key in opened.tensors if keys is None else keys:
            if key in faults:
                continue
            if key in self.entries:
                other = self.entries[key].file
                raise CheckpointError(f"{file}: {key}: {other} has a weight of this name too")
            if (tensor := opened.tensors.get(key)) is None:
                self.faults[key] = f"{file}: {key}: the index names this weight, which the file does not have"
            else:
                self.entries[key] = Entry(file, key, tensor.dtype, tensor.shape)
        self.faults |= {key: f"{file}: {key}: {text}" for key, text in faults.items() if keys is None or key in keys}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.entries, *self.faults}))

    def __len__(self) -> int:
        return len({*self.entries, *self.faults})

    def find(self, name: str) -> str | None:
        """Return the stored name that matches a name, if there is one.

        Parameters
        ----------
        name : str
            It may lack leading parts that wrapping classes add, or have additional ones.

        Returns
        -------
        str or None
            A name of this checkpoint; None if none or several match.
        """
        return fitting_name(name, {**self.entries, **self.faults})

    def partners(self, names: Iterable[str]) -> dict[str, str]:
        """Return the stored names that match several names, such as those of another checkpoint.

        Parameters
        ----------
        names : iterable of str
            As for `find`.

        Returns
        -------
        dict of str
            The stored name for each name that has one. No stored name is used twice: a stored name that is among the
            names matches only itself, and if two names match the same stored name, neither gets it.
        """
        return pair_names(names, {**self.entries, **self.faults})

    def entry(self, name: str, *, exact: bool = False) -> Entry:
        """Return a weight.

        Parameters
        ----------
        name : str
            As for `find`.
        exact : bool, default False
            Take no other name, though it may end alike.

        Returns
        -------
        Entry
            The weight; call `read` or `chunks`.

        Raises
        ------
        CheckpointError
            If there is no such weight, or something is wrong with it.
        """
        key = name if exact else self.find(name)
        if key in self.entries:
            return self.entries[key]
        if key in self.faults:
            raise CheckpointError(self.faults[key])
        broken = "; ".join(self.broken.values())
        raise CheckpointError(f"{self.path} has no weight {name}" + (f" ({broken})" if broken else ""))

    def checksum(self) -> str:
        """Return a checksum of the content, independent of path and time.

        Returns
        -------
        str
            The SHA-256 of the content of all files, which are read completely.
        """
        total = hashlib.sha256()
        for path in sorted(self._files):
            if path.exists():
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


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
    for pattern in _PATTERNS:
        found = [path for path in files_in(folder, pattern) if not path.name.startswith(_NOT_WEIGHTS)]
        if found:
            return found
    raise CheckpointError(f"{folder} holds no safetensors or PyTorch files of a model")
