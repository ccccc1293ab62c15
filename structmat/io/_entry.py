"""`Entry`: one weight of a checkpoint, read piece by piece from a file that is opened once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._files.safetensors import SafetensorsFile, Tensor, one_line, sound_part
from structmat.io._torch_files import TorchFile, is_torch_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CheckpointError", "Entry", "open_file"]

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_CHUNK_BYTES = 1 << 22
_HEADERS = 16
"""Of files that are read in turn, kept."""
_SMALL, _SMALL_FILES = 1 << 26, 4
"""Bytes of a file of PyTorch that is kept in memory, at most, and how many such files are."""


class CheckpointError(ValueError):
    """A weight that cannot be read or used; the text names file and key.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import structmat.io
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     try:
    ...         structmat.io.Checkpoint(Path(folder))
    ...     except structmat.io.CheckpointError as error:
    ...         print(str(error).removeprefix(f"{folder} "))
    holds no safetensors or PyTorch files of a model
    """


@dataclass(frozen=True)
class Entry:
    """One weight of a checkpoint: where it is, and what its header says.

    Attributes
    ----------
    file : Path
        That holds it.
    key : str
        Its name there.
    dtype : str
        Such as "float32" or "bfloat16".
    shape : tuple of int
        Of the weight.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> import torch
    >>> checkpoint = sm.io.Checkpoint.in_memory({"layer.weight": torch.ones(2, 3)}, "model")
    >>> entry = checkpoint.entry("layer.weight")
    >>> entry.shape, entry.read().sum()
    ((2, 3), np.float32(6.0))
    """

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    _in_memory: TorchFile | None = field(default=None, repr=False, compare=False)
    """What holds the weight in place of a file."""

    def __str__(self) -> str:
        return f"{self.file}: {self.key}"

    def chunks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read the weight, a few rows at a time.

        Yields
        ------
        tuple of slice and ndarray
            Which rows, and their values in float32, or float64 if they are stored so. A weight without axes is one row.

        Raises
        ------
        CheckpointError
            If the weight does not hold floating-point numbers that NumPy knows, or the file has changed.
        """
        self.check_floats()
        wide = np.dtype("float64" if self.dtype == "float64" else "float32")
        for rows, part in self.pieces():
            yield rows, part.values(str(self)).astype(wide, copy=False)

    def check_floats(self) -> None:
        """Refuse what cannot be read as real numbers.

        Raises
        ------
        CheckpointError
            If the weight does not hold floating-point numbers that NumPy knows.
        """
        if self.dtype not in _FLOATS:
            raise CheckpointError(
                f"{self} has dtype {self.dtype}, but only {', '.join(_FLOATS)} can be read: quantised weights must be "
                "dequantised first"
            )

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Read the weight as it is stored, a few rows at a time.

        Yields
        ------
        tuple of slice and Tensor
            Which rows, and their code in safetensors, shape and bytes. A weight without axes is one row.

        Raises
        ------
        CheckpointError
            If the file has changed.
        """
        rows = self.shape[0] if self.shape else 1
        if 0 in self.shape[1:]:  # any number of rows fits into no bytes
            return
        step = max(1, _CHUNK_BYTES // max(1, 4 * math.prod(self.shape[1:])))
        file = self._open()
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            yield part, self._rows(file, part)

    def read(self) -> NDArray[Any]:
        """Read the weight.

        Returns
        -------
        ndarray
            In float32, or float64 if it is stored so.

        Raises
        ------
        CheckpointError
            If the weight does not hold floating-point numbers that NumPy knows, or the file has changed.
        """
        values = np.empty(self.shape, "float64" if self.dtype == "float64" else "float32")
        for rows, part in self.chunks():
            values[rows if self.shape else ...] = part
        return values

    def raw(self) -> Tensor:
        """Read the weight as it is stored.

        Returns
        -------
        Tensor
            Code of the dtype in safetensors, shape and bytes.

        Raises
        ------
        CheckpointError
            If the file has changed.
        """
        return self._rows(self._open(), slice(0, self.shape[0] if self.shape else 1))

    def _open(self) -> SafetensorsFile | TorchFile:
        if self._in_memory is not None:
            return self._in_memory
        try:
            file = open_file(self.file)[0]
        except ValueError as error:
            raise CheckpointError(f"{self}: {one_line(error)}") from error
        stored = file.tensors.get(self.key)
        if stored is None or (stored.dtype, stored.shape) != (self.dtype, self.shape):
            raise CheckpointError(f"{self}: the file has changed meanwhile")
        return file

    def _rows(self, file: SafetensorsFile | TorchFile, rows: slice) -> Tensor:
        try:
            return file.rows(self.key, rows.start, rows.stop)
        except ValueError as error:
            raise CheckpointError(f"{self}: {one_line(error)}") from error


def open_file(file: Path) -> tuple[SafetensorsFile | TorchFile, dict[str, str]]:
    """Return a file of weights, and what is wrong with those it should have but cannot give."""
    now = file.stat()
    stamp = (now.st_ino, now.st_size, now.st_mtime_ns)
    if not is_torch_file(file):
        return _sound_part(file, stamp)
    return _small(file, stamp) if now.st_size <= _SMALL else TorchFile.open(file, mmap=True)


@lru_cache(_HEADERS)
def _sound_part(file: Path, _: tuple[int, int, int]) -> tuple[SafetensorsFile, dict[str, str]]:
    """Return what can be trusted of a file as it is now: its header is not read again for each weight."""
    return sound_part(file)


@lru_cache(_SMALL_FILES)
def _small(file: Path, _: tuple[int, int, int]) -> tuple[TorchFile, dict[str, str]]:
    """Return a whole file of PyTorch as it is now: to unpickle it for each of a thousand weights takes a minute."""
    return TorchFile.open(file, mmap=False)
