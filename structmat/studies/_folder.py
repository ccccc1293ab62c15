"""`WorkFolder`: an output folder whose finished units of work stay, whenever a run is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

import structmat
from structmat._arrays.errors import ArgumentValueError
from structmat._files.atomic import remove_temporaries, sync_folder
from structmat._files.folders import files_in
from structmat._files.text import last_bytes
from structmat.io import atomic_write
from structmat.studies._records import (
    SETTINGS,
    UNITS,
    WORK,
    Record,
    as_json,
    digest,
    read_record,
    read_settings,
    record_bytes,
    stamp_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["UnwrittenError", "WorkFolder"]

_LOCK = "lock"
_SHOWN = 6
"""Of differences between settings, at most."""
_log = logging.getLogger(__name__)


class UnwrittenError(OSError):
    """All work is done and stored, but a final file could not be written.

    Parameters
    ----------
    result : object
        The result of the run.
    error : OSError
        Why it could not be written.

    Attributes
    ----------
    result : object
        As given.

    Examples
    --------
    >>> from structmat.studies import UnwrittenError
    >>> raise UnwrittenError("a table", OSError(28, "No space left on device", "out/study.sqlite"))
    Traceback (most recent call last):
    structmat.studies...UnwrittenError: [Errno 28] No space left on device: 'out/study.sqlite'
    """

    def __init__(self, result: object, error: OSError) -> None:
        super().__init__(error.errno or errno.EIO, error.strerror or str(error), error.filename)
        self.result = result


class WorkFolder:
    """The output folder of a long run: finished work is kept, and the same run can be resumed.

    The subfolder ``work`` has what is needed to resume: ``settings.json``, ``lock``, and in ``units`` one file for each
    finished unit of work. Such a file appears complete, synced to the disk, or not at all; it has a checksum, and that
    of the settings. Final files are written to the folder itself by `write_output`.

    Use `WorkFolder.open` to make one.

    Parameters
    ----------
    path : Path
        The folder.
    outputs : collection of str
        Names of the final files.
    stamp : str
        Of the settings.

    Attributes
    ----------
    done : set of str
        Keys of the units that are finished.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import WorkFolder
    >>> parent = tempfile.TemporaryDirectory()
    >>> settings = {"n_factors": 3}
    >>> with WorkFolder.open(f"{parent.name}/out", settings) as folder:
    ...     folder.write("layer.0", {"error": 0.5}, {"c": np.ones(3)})
    >>> with WorkFolder.open(f"{parent.name}/out", settings) as folder:  # the run goes on
    ...     folder.pending(["layer.0", "layer.1"]), folder.read("layer.0").values
    (['layer.1'], {'error': 0.5})
    >>> with WorkFolder.open(f"{parent.name}/out", {"n_factors": 5}) as folder:
    ...     pass
    Traceback (most recent call last):
    structmat.ArgumentValueError: ... was begun with other settings: n_factors 3 there, 5 now; ...
    >>> parent.cleanup()
    """

    def __init__(self, path: Path, outputs: Collection[str], stamp: str) -> None:
        self.path = path
        self.done: set[str] = set()
        self._outputs = frozenset(outputs)
        self._stamp = stamp
        self._units = path / UNITS

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, path: str | os.PathLike[str], settings: Mapping[str, Any], *, outputs: Collection[str] = ()
    ) -> Iterator[WorkFolder]:
        """Make a folder, or open an existing one, and lock it.

        The lock is one of the operating system and ends with the process. Incomplete files of a killed process are
        removed, and so are records that are damaged or of other settings, with a warning in the log.

        Parameters
        ----------
        path : path-like
            The folder; made where it is missing.
        settings : mapping
            Everything that affects the results, ready for JSON. The version of structmat is added.
        outputs : collection of str
            Names of the final files, which must not be there before the first run.

        Yields
        ------
        WorkFolder
            With the keys of the finished units in ``done``.

        Raises
        ------
        BlockingIOError
            If another run is active in the folder.
        ValueError
            If the folder was begun with other settings; the text says which.
        OSError
            If it cannot be written, or a final file exists that is not from an earlier run.
        """
        folder = Path(path)
        now = as_json({**settings, "structmat": structmat.__version__})
        work = _made(folder, outputs)
        lock = FileLock(work / _LOCK)
        try:
            with _naming(folder):
                lock.acquire(timeout=0)
        except Timeout:
            text = "another run is active in this folder; wait until it ends, or choose another"
            raise BlockingIOError(errno.EWOULDBLOCK, text, str(folder)) from None
        try:
            remove_temporaries(folder, outputs)
            remove_temporaries(work)
            _check_settings(folder, now)
            opened = cls(folder, outputs, stamp_of(now))
            opened._look()
            yield opened
        finally:
            lock.release()

    def pending(self, keys: Iterable[str]) -> list[str]:
        """Return which units are still to be done.

        Parameters
        ----------
        keys : iterable of str
            Of all units.

        Returns
        -------
        list of str
            Those without a record, in the same order.
        """
        return [key for key in keys if key not in self.done]

    def write(self, key: str, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Store the result of a unit of work; once this returns, it survives a crash.

        Parameters
        ----------
        key : str
            Of the unit.
        values : mapping
            Its results, ready for JSON; no NaN or infinity.
        arrays : mapping of str to ndarray, optional
            Real arrays that belong to them.

        Raises
        ------
        OSError
            If it cannot be written; earlier records stay.
        ValueError
            If `values` cannot be kept in JSON.
        """
        content = record_bytes(key, self._stamp, values, arrays or {})
        with atomic_write(self._file(key), force=True) as file:
            file.write(content)
        self.done.add(key)

    def read(self, key: str) -> Record:
        """Return the record of a finished unit.

        Parameters
        ----------
        key : str
            Of the unit.

        Returns
        -------
        Record
            As it was written.

        Raises
        ------
        KeyError
            If the unit is not done.
        ValueError
            If the file has been damaged since the folder was opened.
        """
        if key not in self.done:
            raise KeyError(key)
        return read_record(self._file(key), self._stamp)[1]

    def write_output(self, name: str, content: bytes) -> None:
        """Write a final file, complete or not at all.

        Parameters
        ----------
        name : str
            One of the names that the folder was opened with.
        content : bytes
            Of the file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        if name not in self._outputs:
            text = f"must be one of {sorted(self._outputs)}, got {name!r}"
            raise ArgumentValueError("WorkFolder.write_output", "name", text)
        with atomic_write(self.path / name, force=True) as file:
            file.write(content)

    def _file(self, key: str) -> Path:
        """Return the file of a unit: readable, and different for different keys."""
        readable = last_bytes(re.sub(r"[^\w.-]", "_", key), 80).lstrip(".")
        return self._units / f"{readable}.{digest(key)[:16]}.safetensors"

    def _look(self) -> None:
        """Find the finished units; remove what is half-written, damaged or of other settings."""
        self._units.mkdir(exist_ok=True)
        remove_temporaries(self._units)
        for path in files_in(self._units, "*.safetensors"):
            try:
                key, _ = read_record(path, self._stamp)
            except ValueError as error:
                _log.warning("%s; it is removed and the unit done again", error)
                path.unlink()
                continue
            if path == self._file(key):
                self.done.add(key)


def _made(folder: Path, outputs: Collection[str]) -> Path:
    """Make the folders where they are missing and return the one for the work."""
    work = folder / WORK
    if not work.is_dir():
        for name in outputs:
            if (folder / name).exists():
                text = "the file exists and is not of an earlier run; choose another folder"
                raise FileExistsError(errno.EEXIST, text, str(folder / name))
        with _naming(folder):
            work.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        sync_folder(folder)
    for path in (folder, work):
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "the folder is not writable", str(path))
    return work


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Make errors of the system name the folder."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(folder)) from error


def _check_settings(folder: Path, now: dict[str, Any]) -> None:
    """Compare the settings with those of the units that are finished; where there are none, write them."""
    file = folder / SETTINGS
    there = read_settings(folder) if file.exists() else None
    if files_in(folder / UNITS, "*.safetensors"):
        if there is None:
            raise ValueError(f"{folder} has finished units but lacks {file}, so their settings are unknown")
        if there != now:
            found = [*_differences(there, now)]
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            text = (
                f"{folder} was begun with other settings: {', '.join(found[:_SHOWN])}{more}; "
                "choose another folder, or use the settings of this one"
            )
            raise ArgumentValueError("WorkFolder.open", None, text)
    elif there != now:
        with atomic_write(file, force=True) as opened:
            opened.write(json.dumps(now, indent=2, sort_keys=True).encode())


def _differences(there: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield a text for every setting that differs."""
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted({*there, *now}):
            yield from _differences(there.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif there != now:
        yield f"{name} {json.dumps(there)} there, {json.dumps(now)} now"
