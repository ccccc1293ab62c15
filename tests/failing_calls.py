"""A system that fails: each call that concerns a folder can be made to fail, one at a time."""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path

ON_PATHS = ("open", "mkdir", "replace", "unlink", "chmod", "scandir", "listdir")


class FailingCalls:
    """Counts the calls of the system that concern a folder, and makes number `failing` fail; 0 for none.

    Calls are those of `os`, the opening of files to read, and every write to a file.
    """

    def __init__(self, folder, monkeypatch, failing=0):
        self.folder, self.failing, self.count = os.path.realpath(folder), failing, 0
        self.failed = ""
        for name in ON_PATHS:
            monkeypatch.setattr(os, name, self._counted(f"os.{name}", getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._counted("os.fsync", os.fsync, always=True))
        monkeypatch.setattr(io, "open", self._counted("io.open", io.open))
        real = builtins.open

        def opened(file, *arguments, **options):
            found = real(file, *arguments, **options)
            return _Written(found, self) if isinstance(file, int) and "w" in found.mode else found

        monkeypatch.setattr(builtins, "open", opened)

    def call(self, name, path):
        self.count += 1
        if self.count == self.failing:
            self.failed = name
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def _counted(self, name, real, *, always=False):
        def counted(path, *arguments, **options):
            concerned = isinstance(path, (str, os.PathLike)) and os.path.realpath(path).startswith(self.folder)
            if always or concerned:
                self.call(name, None if always else os.fspath(path))
            return real(path, *arguments, **options)

        return counted


class _Written:
    """A file to write to, whose every write counts."""

    def __init__(self, file, calls):
        self._file, self._calls = file, calls

    def write(self, data):
        self._calls.call("write", None)
        return self._file.write(data)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *reason):
        return self._file.__exit__(*reason)

    def __getattr__(self, name):
        return getattr(self._file, name)


def files_of(folder):
    """Return the content of every file in a folder and below."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }
