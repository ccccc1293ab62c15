"""Matrices from ``.npy``, ``.npz`` and ``.safetensors`` files."""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.errors import ArgumentError, ArgumentValueError
from structmat._files.kinds import file_kind, require_path
from structmat._files.safetensors import SafetensorsFile, one_line
from structmat.io._tree import TREE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["load_matrix", "numpy_specs"]

_DAMAGE = (
    *(ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, OverflowError, SyntaxError, TypeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What NumPy and `zipfile` raise on files that are not what they claim to be."""


def load_matrix(path: str | os.PathLike[str], *, key: str | None = None) -> NDArray[Any]:
    """Read a matrix from a ``.npy``, ``.npz`` or ``.safetensors`` file.

    Parameters
    ----------
    path : path-like
        The file; the format is detected from its content, not from the suffix.
    key : str, optional
        Which array, needed where the file holds several.

    Returns
    -------
    numpy.ndarray
        In native byte order; ``bfloat16`` becomes float32, which is exact.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is not a path.
    ValueError
        If the file is damaged, of another kind or a saved operator, `key` is missing or unknown, or the array does not
        hold numbers.

    See Also
    --------
    load : Reads saved operators.
    describe : Lists the arrays in a file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.io import load_matrix
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/w.npz", query=np.eye(2), value=np.ones((2, 3)))
    ...     load_matrix(f"{folder}/w.npz", key="value")
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """
    require_path(path, "load_matrix")
    kind = file_kind(path)
    if kind == "safetensors":
        file = SafetensorsFile.open(path)
        if TREE in file.metadata:
            raise ValueError(
                f"{path} holds a structmat operator, no plain matrix; read it by structmat.io.load(path).to_dense()"
            )
        name = _chosen(key, list(file.tensors), path)
        return file.tensors[name]._replace(data=file.data(name)).values(f"{path}: {name}")
    try:
        if kind == "npy":
            _chosen(key, ["array"], path)
            array = np.array(_mapped(path))
        else:
            # Opened here, because NumPy leaves the file open when it finds it damaged.
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                name = _chosen(key, archive.files, path)
                _refuse_lies(archive, name)
                array = archive[name]
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name} is no array")
    except ArgumentError:
        raise
    except _DAMAGE as error:
        raise ValueError(_numpy_message(path, kind, error)) from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{path} holds no numbers but dtype {array.dtype}")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="))


def numpy_specs(path: str | os.PathLike[str], kind: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of the arrays of a ``.npy`` or ``.npz`` file."""
    try:
        if kind == "npy":
            array = _mapped(path)
            return {"array": (array.shape, array.dtype)}
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return {name: _numpy_header(archive, name) for name in archive.files}
    except _DAMAGE as error:
        raise ValueError(_numpy_message(path, kind, error)) from error


def _mapped(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, not yet read; a size beyond the end of the file is an error."""
    with Path(path).open("rb") as file:
        shape, dtype = _header(file)
        _refuse_more("the array", shape, dtype, os.fstat(file.fileno()).st_size)
    found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _refuse_lies(archive: Any, name: str) -> None:
    """Refuse an array of an ``.npz`` file that claims more bytes than are packed there, before they are allocated."""
    member = _member(archive, name)
    with archive.zip.open(member) as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            return  # no array
    _refuse_more(name, *_numpy_header(archive, name), archive.zip.getinfo(member).file_size)


def _refuse_more(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], packed: int) -> None:
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > packed and not dtype.hasobject:
        raise ValueError(f"{name} is to have shape {shape} of {dtype}, {claimed} bytes, but there are {packed}")


def _member(archive: Any, name: str) -> str:
    return name if name in archive.zip.namelist() else f"{name}.npy"


def _numpy_header(archive: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of one member of an ``.npz`` file."""
    with archive.zip.open(_member(archive, name)) as file:
        return _header(file)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype that stand at the beginning of an array in the format of NumPy."""
    if (version := np.lib.format.read_magic(file)) not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"version {version} of the format is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _numpy_message(path: str | os.PathLike[str], kind: str, error: Exception) -> str:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return f"{path} holds Python objects, which are not read: they could run code"
    return f"{path} is no complete .{kind} file: {one_line(error)}"


def _chosen(key: str | None, names: list[str], path: str | os.PathLike[str]) -> str:
    """Return the name of the array to read."""
    if not names:
        raise ArgumentValueError("load_matrix", "path", f"must lead to an array, but {path} holds none")
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        text = f"must be one of {', '.join(names)} in {path}, got {key!r}"
        raise ArgumentValueError("load_matrix", "key", text)
    return key
