"""Matrices from ``.npy``, ``.npz`` and ``.safetensors`` files, each opened once, and never as Python objects."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from structmat._array_tools import ArgumentError, ArgumentValueError
from structmat._files import first_names, one_line, open_safetensors, require_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TREE", "array_specs", "file_kind", "load_matrix"]

TREE = "structmat"
"""The key of the metadata of a safetensors file that holds the description of an operator."""
_DAMAGE = (
    *(ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, OverflowError, SyntaxError, TypeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, MemoryError),
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
    require_regular(path, "load_matrix")
    with Path(path).open("rb") as file:
        kind = file_kind(file, path)
        if kind != "safetensors":
            array = _numpy_array(file, path, kind, key)
    if kind == "safetensors":
        with open_safetensors(path) as tensors:
            if TREE in (tensors.metadata() or {}):
                text = "holds a structmat operator, no plain matrix; read it by structmat.io.load(path).to_dense()"
                raise ValueError(f"{path} {text}")
            name = _chosen(key, sorted(tensors.keys()), path)
            try:
                array = tensors.get_tensor(name)
            except (AttributeError, TypeError) as error:
                code = tensors.get_slice(name).get_dtype()
                raise ValueError(f"{path}: {name} has dtype {code}, which NumPy cannot hold") from error
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{path} holds no numbers but dtype {array.dtype}")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="))


def file_kind(file: BinaryIO, path: str | os.PathLike[str]) -> str:
    """Return the kind of an opened file by its first bytes, and leave it at its beginning."""
    start = file.read(9)
    file.seek(0)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members: list[str] = []
        with contextlib.suppress(zipfile.BadZipFile, ValueError), zipfile.ZipFile(file) as archive:
            members = archive.namelist()
        if any(name.endswith("/data.pkl") for name in members):
            text = "was written by torch.save: only checkpoints are read from such files"
            raise ArgumentValueError("load_matrix", "path", f"must lead to an array, but {path} {text}")
        file.seek(0)
        return "npz"
    if not start:
        raise ValueError(f"{path} is empty")
    if start[8:] != b"{":  # of the header, after its length
        raise ValueError(f"{path} is no .npy, .npz or .safetensors file")
    return "safetensors"


def array_specs(file: BinaryIO, path: str | os.PathLike[str], kind: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of the arrays of an opened ``.npy`` or ``.npz`` file, without reading them."""
    with _naming_damage(path, kind):
        if kind == "npy":
            shape, dtype = _header(file)
            if file.tell() + math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size:
                raise ValueError("it is cut short")
            return {"array": (shape, str(dtype))}
        with np.load(file, allow_pickle=False) as archive:
            headers = {name: _member_header(archive, name) for name in archive.files}
            return {name: (shape, str(dtype)) for name, (shape, dtype) in headers.items()}


def _numpy_array(file: BinaryIO, path: str | os.PathLike[str], kind: str, key: str | None) -> NDArray[Any]:
    with _naming_damage(path, kind):
        if kind == "npy":
            _chosen(key, ["array"], path)
            return np.lib.format.read_array(file, allow_pickle=False)
        with np.load(file, allow_pickle=False) as archive:
            name = _chosen(key, archive.files, path)
            if not isinstance(array := archive[name], np.ndarray):
                raise TypeError(f"{name} is no array")
            return array


@contextlib.contextmanager
def _naming_damage(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    try:
        yield
    except ArgumentError:
        raise
    except _DAMAGE as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise ValueError(f"{path} holds Python objects, which are not read: they could run code") from error
        raise ValueError(f"{path} is no complete .{kind} file: {one_line(error)}") from error


def _member(archive: Any, name: str) -> str:
    return name if name in archive.zip.namelist() else f"{name}.npy"


def _member_header(archive: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
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


def _chosen(key: str | None, names: list[str], path: str | os.PathLike[str]) -> str:
    """Return the name of the array to read; of many names a message has those that are alike, or the first."""
    if not names:
        raise ArgumentValueError("load_matrix", "path", f"must lead to an array, but {path} holds none")
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        alike = difflib.get_close_matches(key or "", names, 8, 0.3)
        alike = alike or [name for name in names if key and key in name] or names
        text = f"must name one of {len(names):,} arrays in {path}, such as {first_names(alike)}; got {key!r}"
        raise ArgumentValueError("load_matrix", "key", text)
    return key
