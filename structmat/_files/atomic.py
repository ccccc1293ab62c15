"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from structmat._files.folders import files_in
from structmat._files.text import first_bytes

__all__ = ["atomic_write", "check_output", "remove_temporaries", "sync_folder"]

_TEMPORARY = re.compile(r"\.(?P<start>.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)
"""Names of the temporary files of `atomic_write`, which begin as the file does."""
_KEPT = 100
"""Bytes of the name of the file in that of its temporary file, at most."""


def check_output(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Check that a file can be written, before the work for it starts.

    Parameters
    ----------
    path : path-like
        The file.
    force : bool, default False
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file itself, symbolic links followed.

    Raises
    ------
    FileExistsError
        If the file exists and not `force`.
    OSError
        If its folder is missing or read-only, or `path` is not a regular file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from structmat.io import check_output
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_output(f"{folder}/new.npy").name
    'new.npy'
    """
    target = Path(os.path.realpath(path))

    def refuse(number: int, text: str) -> OSError:
        return OSError(number, text, os.fspath(path))

    if not target.parent.is_dir():
        raise refuse(errno.ENOENT, f"its folder {target.parent} does not exist")
    if target.exists():
        if not force:
            raise refuse(errno.EEXIST, "the file exists, and force is not given")
        if not target.is_file():
            raise refuse(errno.EISDIR if target.is_dir() else errno.EINVAL, "not a regular file")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise refuse(errno.EACCES, f"its folder {target.parent} is not writable")
    return target


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears only when it is complete.

    The bytes go to a temporary file in the same folder, are synced to the disk, and the file is renamed. On any
    failure, Ctrl-C included, the temporary file is removed and an existing file at `path` is unchanged.

    Parameters
    ----------
    path : path-like
        The file.
    force : bool, default False
        Whether to replace an existing file.

    Yields
    ------
    binary file
        To write to.

    Raises
    ------
    FileExistsError
        If the file exists and not `force`.
    OSError
        If it cannot be written; the text names `path`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from structmat.io import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     with atomic_write(path) as file:
    ...         _ = file.write(b"n,error")
    ...         path.exists()  # not before it is complete
    ...     path.read_text()
    False
    'n,error'
    """
    target = check_output(path, force=force)
    temporary = target.with_name(f".{first_bytes(target.name, _KEPT)}.{secrets.token_hex(8)}.tmp")
    try:
        # Unlike `tempfile`, this lets the umask decide on the permissions, as for any new file.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:  # noqa: PTH123
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)  # noqa: PTH105  # the name under which tests make it fail
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), os.fspath(path)) from error
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, where the file system can."""
    with contextlib.suppress(OSError):  # what the folder holds is in place
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_temporaries(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove the temporary files that killed processes left, of the files of these names or of all.

    Nobody else may be writing them.
    """
    starts = None if names is None else {first_bytes(name, _KEPT) for name in names}
    for path in files_in(folder, ".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and (starts is None or match["start"] in starts):
            path.unlink(missing_ok=True)
