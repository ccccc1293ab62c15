"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write", "check_output"]


def check_output(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Check that a file can be written, before the work whose result it is to hold.

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
        If its folder is missing or read-only, or `path` is no regular file.
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
    """Open a binary file to be written, which takes its place only when complete.

    The bytes go to a temporary file in the same folder, are synced to the disk, and the file is renamed. On any
    failure, Ctrl-C included, the temporary file goes and what was at `path` stays as it was.

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
    """
    target = check_output(path, force=force)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
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
    with contextlib.suppress(OSError):  # the file is in place; some file systems cannot sync a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
