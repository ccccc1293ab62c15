"""The files of a folder."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["files_in"]


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder whose names match, in order; none where there is no folder.

    A folder that cannot be read is an error; to `Path.glob` it is empty, since Python 3.13.
    """
    with suppress(FileNotFoundError):
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    return []
