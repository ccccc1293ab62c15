"""Matrices from ``.npy``, ``.npz``, ``.mat``, ``.csv`` and ``.safetensors`` files, never as Python objects."""

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
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from structmat._errors import ArgumentError, ArgumentValueError
from structmat._files import counted, first_names, one_line, open_safetensors, require_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TREE", "array_specs", "file_kind", "load_matrix"]

TREE = "structmat"
"""A safetensors file with a saved operator has its description in the metadata, under this key."""

_DAMAGE = (
    *(ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, OverflowError, SyntaxError, TypeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, MemoryError),
)
"""What NumPy and `zipfile` raise on files that are not what they claim to be."""

_LONGEST_WORD = 40
"""An error shows so many characters of a word that is no number: with blanks for commas a whole line is one word."""


def load_matrix(path: str | os.PathLike[str], *, key: str | None = None) -> NDArray[Any]:
    """Read a matrix from a ``.npy``, ``.npz``, ``.mat``, ``.csv`` or ``.safetensors`` file.

    Parameters
    ----------
    path : path-like
        The file; the format is detected from its content, not from the suffix, except for text, which must end in
        ``.csv``: rows of numbers that commas separate, without a header. Files of MATLAB are read up to version 7.
    key : str, optional
        Which array, needed where the file holds several.

    Returns
    -------
    numpy.ndarray
        In native byte order; ``bfloat16`` becomes float32, which is exact. Sparse matrices of MATLAB become dense.

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
        if kind in _READERS:
            array = _READERS[kind](file, path, key)
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
    """Return the kind of an opened file, by its first bytes as far as they tell, and leave it at its beginning."""
    start, suffix = file.read(10), Path(path).suffix.lower()
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
    if start == b"MATLAB 7.3":
        raise ValueError(f"{path} is in version 7.3 of MATLAB's files, which is not read: save it with '-v7'")
    if start == b"MATLAB 5.0" or suffix == ".mat":  # files of version 4 have no first bytes of their own
        return "mat"
    if suffix == ".csv":
        return "csv"
    if start[8:9] != b"{":  # the header of a safetensors file, behind its length, is a JSON object
        raise ValueError(f"{path} is no .npy, .npz, .mat, .csv or .safetensors file")
    return "safetensors"


def array_specs(file: BinaryIO, path: str | os.PathLike[str], kind: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of the arrays in an opened file; only those in a text have to be read for it."""
    if kind == "csv":
        table = _csv_array(file, path, None)
        return {"array": (table.shape, str(table.dtype))}
    with _naming_damage(path, kind):
        if kind == "mat":
            return {name: (shape, held) for name, shape, held in _variables(file) if held in _NUMERIC}
        if kind == "npy":
            shape, dtype = _header(file)
            if file.tell() + math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size:
                raise ValueError("it is cut short")
            return {"array": (shape, str(dtype))}
        with np.load(file, allow_pickle=False) as archive:
            headers = {name: _member_header(archive, name) for name in archive.files}
            return {name: (shape, str(dtype)) for name, (shape, dtype) in headers.items()}


def _damage(kind: str) -> tuple[type[Exception], ...]:
    """Return the errors that the reader of a kind raises on files that are not what they claim to be."""
    if kind != "mat":
        return _DAMAGE
    from scipy.io.matlab import MatReadError  # noqa: PLC0415  # for these files only

    return (*_DAMAGE, MatReadError, IndexError, AttributeError, OSError)


def _npy_array(file: BinaryIO, path: str | os.PathLike[str], key: str | None) -> NDArray[Any]:
    with _naming_damage(path, "npy"):
        _chosen(key, ["array"], path)
        return np.lib.format.read_array(file, allow_pickle=False)


def _npz_array(file: BinaryIO, path: str | os.PathLike[str], key: str | None) -> NDArray[Any]:
    with _naming_damage(path, "npz"), np.load(file, allow_pickle=False) as archive:
        name = _chosen(key, archive.files, path)
        if not isinstance(array := archive[name], np.ndarray):
            raise TypeError(f"{name} is no array")
        return array


_NUMERIC = {"double", "single", "logical", "sparse"}
_NUMERIC |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
"""The classes of MATLAB's variables that hold numbers."""


def _variables(file: BinaryIO) -> list[tuple[str, tuple[int, ...], str]]:
    """Return name, shape and class of the variables in a file of MATLAB."""
    from scipy.io import whosmat  # noqa: PLC0415  # for these files only

    names: Any = whosmat(cast("Any", file))  # the stubs say that it takes paths alone
    return [(name, shape, held) for name, shape, held in names]


def _mat_array(file: BinaryIO, path: str | os.PathLike[str], key: str | None) -> NDArray[Any]:
    from scipy.io import loadmat  # noqa: PLC0415  # for these files only

    with _naming_damage(path, "mat"):
        classes = {name: held for name, _, held in _variables(file)}
        numeric = [name for name, held in classes.items() if held in _NUMERIC]
        if key in classes and key not in numeric:
            raise ArgumentValueError("load_matrix", "key", f"must name numbers, but {key} in {path} is {classes[key]}")
        name = _chosen(key, numeric, path)
        file.seek(0)
        array = loadmat(cast("Any", file), variable_names=[name])[name]
        return array.toarray() if classes[name] == "sparse" else array


def _csv_array(file: BinaryIO, path: str | os.PathLike[str], key: str | None) -> NDArray[Any]:
    _chosen(key, ["array"], path)
    try:
        lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {one_line(error)}") from error
    if not any(map(str.strip, lines)):
        raise ValueError(f"{path} is empty")
    options: dict[str, Any] = {"delimiter": ",", "comments": None, "quotechar": '"', "ndmin": 2}
    try:
        return np.loadtxt(lines, **options)
    except ValueError as error:
        with contextlib.suppress(ValueError):
            return np.loadtxt(lines, dtype=np.complex128, **options)
        raise ValueError(
            f"{path} is no table of numbers with commas between: {_fault(lines) or one_line(error)}"
        ) from error


def _fault(lines: list[str]) -> str:
    """Return what is wrong with the first line of a table that is not like the others."""
    width = 0
    for number, line in enumerate(lines, 1):
        cells = [cell.strip().strip('"') for cell in line.split(",")] if line.strip() else []
        if words := [cell for cell in cells if not _is_number(cell)]:
            word = words[0] if len(words[0]) <= _LONGEST_WORD else words[0][:_LONGEST_WORD] + "..."
            text = f"line {number} holds {word!r}"
            if len(cells) == 1 and any(mark in cells[0] for mark in "; \t"):
                return text
            return f"{text}; remove the line if it is a header" if not width and len(words) == len(cells) else text
        if width and cells and len(cells) != width:
            return f"line {number} holds {counted(len(cells), 'number')}, others {width}"
        width = width or len(cells)
    return ""


def _is_number(text: str) -> bool:
    """Tell whether a cell of a table is a number; Python itself would take 1_000 for one."""
    try:
        complex(text)
    except ValueError:
        return False
    return "_" not in text


_READERS = {"npy": _npy_array, "npz": _npz_array, "mat": _mat_array, "csv": _csv_array}


@contextlib.contextmanager
def _naming_damage(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Let errors of a damaged file name the file."""
    try:
        yield
    except ArgumentError:
        raise
    except _damage(kind) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise ValueError(f"{path} holds Python objects, which are not read: they could run code") from error
        raise ValueError(f"{path} is no complete .{kind} file: {one_line(error)}") from error


def _member(archive: Any, name: str) -> str:
    """Return the name that an array has inside of an ``.npz`` file."""
    return name if name in archive.zip.namelist() else f"{name}.npy"


def _member_header(archive: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of one member of an ``.npz`` file."""
    with archive.zip.open(_member(archive, name)) as file:
        return _header(file)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the dtype that an array in the format of NumPy begins with."""
    if (version := np.lib.format.read_magic(file)) not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"version {version} of the format is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _chosen(key: str | None, names: list[str], path: str | os.PathLike[str]) -> str:
    """Return the name of the array to read. Otherwise the error tells names that are alike, or the first ones."""
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
