"""Which kind of file a path leads to."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

from structmat._arrays.errors import ArgumentTypeError

__all__ = ["file_kind", "is_of_numpy", "is_there", "require_path", "require_regular"]


def require_path(path: Any, owner: str) -> None:
    """Raise where `path` is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentTypeError(owner, "path", f"must be a path, got {path!r}")


def is_there(path: Path) -> bool:
    """Tell whether a path leads to something; one that the system refuses, such as a name too long, does not."""
    try:
        return path.exists()
    except OSError:
        return False


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise where `path` leads to a pipe or a device, which could only be read once, or would be waited for."""
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder is told when it is opened
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def file_kind(path: str | os.PathLike[str]) -> str:
    """Return the kind of a file by its first bytes."""
    require_regular(path)
    with Path(path).open("rb") as file:
        start = file.read(9)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if _is_of_torch(path):
            text = "was written by torch.save: only checkpoints are read from such files; save the array by numpy.save"
            raise ValueError(f"{path} {text}")
        return "npz"
    if not start:
        raise ValueError(f"{path} is empty")
    if start[8:] != b"{":  # of the header, after its length
        raise ValueError(f"{path} is no .npy, .npz or .safetensors file")
    return "safetensors"


def is_of_numpy(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file was written by `numpy.save` or `numpy.savez`."""
    require_regular(path)
    with Path(path).open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return True
    if not start.startswith(b"PK"):
        return False
    with contextlib.suppress(zipfile.BadZipFile, ValueError), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        return bool(names) and all(name.endswith(".npy") for name in names)
    return False


def _is_of_torch(path: str | os.PathLike[str]) -> bool:
    """Tell whether a zip archive is one of `torch.save`."""
    with contextlib.suppress(zipfile.BadZipFile, ValueError), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())
    return False
