"""`run`: units of work in parallel, their results in one file that survives a kill at any moment."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock, Timeout

import structmat
from structmat._arguments import integer
from structmat._errors import ArgumentValueError
from structmat._files import TEMPORARY, counted, one_line
from structmat._parallel import as_ready

__all__ = ["Progress", "read_records", "require_own", "run"]

_TABLE = "results.jsonl"
"""The file with the settings and the results of a run."""

_LOCK = ".results.jsonl.lock"
"""The file that a run locks. The table itself is not locked, so that others can read it meanwhile."""

_FAULTS = (ValueError, ArithmeticError, OSError, MemoryError)
"""By these a unit of work may fail without ending the others; everything else is a fault of the program."""

_SHOWN = 6
"""A message names at most so many settings that differ, so that it can still be read."""


_CHECKSUM = re.compile(r" \([0-9a-f]{16}\)$")
"""What the keys of a sweep end with: it tells units apart, and nobody reads it."""


class _Head(NamedTuple):
    """The first line of a table."""

    settings: dict[str, Any]


class _Result(NamedTuple):
    """Every other line of a table: what one unit of work gave."""

    key: str
    record: Any


class _StoredArray(NamedTuple):
    """An array in a line of a table."""

    dtype: str
    shape: tuple[int, ...]
    base64: str


_Stored = TypeVar("_Stored", _Head, _Result, _StoredArray)

_START = f'{{"{_Head._fields[0]}": '.encode()
"""Every table begins with these bytes. A file that does not is no table, and is left as it is."""


class Progress(NamedTuple):
    """How far a run is, as handed to the `callback` of `sweep`; as a string one line for people.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import sweep
    >>> seen = []
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep({"one": np.eye(4)}, folder, methods=["cdd"], callback=seen.append)
    >>> [(state.n_done, state.n_units) for state in seen]
    [(0, 1), (1, 1)]
    """

    key: str
    """The key of the unit that was just done, or has failed; empty at the start."""
    record: Any
    """The result of that unit; None at the start and where it has failed."""
    n_done: int
    """The number of units that are done, those of earlier runs included."""
    n_units: int
    """The number of all units."""
    elapsed: float
    """The seconds since this run began."""
    remaining: float | None
    """An estimate of the seconds to its end; None before a unit is done."""

    def __str__(self) -> str:
        text = f"{self.n_done} of {self.n_units} ({self.n_done / max(self.n_units, 1):.0%})"
        if self.record and self.record["rows"]:
            row = self.record["rows"][-1]
            text += f", error {row['error']:.4f} by {row['method']}, {counted(row['n_factors'], 'factor')}"
        return f"{text}, {_CHECKSUM.sub('', self.key)}" if self.key else text


def run(
    function: Callable[[Any], Any],
    units: Mapping[str, Any],
    out: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any],
    workers: int | None,
    callback: Callable[[Progress], object] | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run units of work in parallel, and keep each result in a file as soon as it is there.

    `function` stands at the top level of a module and takes one unit, small and picklable, whose attribute ``cost``
    tells how the time goes with it; it returns what JSON can hold, and arrays. Each unit runs with one thread of linear
    algebra: that number affects rounding, so that results are the same, bit for bit, for any number of workers.

    The table ``results.jsonl`` in the folder has the settings, which must be those of an earlier run in it, in its
    first line, and one line for each result, synced to the disk. Units that are there are skipped. Return the results
    by key, in the order of the units, and why others have none, which the next run tries again.
    """
    if workers is not None:
        workers = integer(workers, "run", "workers")
    begun = time.monotonic()
    costs = {key: float(getattr(unit, "cost", 1.0)) for key, unit in units.items()}
    now = json.loads(json.dumps({**settings, "structmat": structmat.__version__}))
    with _opened(Path(out), now) as (file, done):
        left = {key: unit for key, unit in units.items() if key not in done}
        failed: dict[str, str] = {}
        n_done, total, spent = len(units) - len(left), sum(costs[key] for key in left), 0.0

        def tell(key: str, remaining: float | None) -> None:
            if callback is not None:
                callback(Progress(key, done.get(key), n_done, len(units), time.monotonic() - begun, remaining))

        tell("", None)
        for key, record, fault in as_ready(partial(_attempt, function), left.items(), workers):
            if fault:
                failed[key] = fault
            else:
                _append(file, Path(out, _TABLE), _Result(key, record))
                done[key] = record
                n_done += 1
            spent += costs[key]
            tell(key, (time.monotonic() - begun) * (total / max(spent, 1e-300) - 1.0))
    return {key: done[key] for key in units if key in done}, failed


def require_own(out: str | os.PathLike[str], *names: str) -> None:
    """Refuse a folder that has files of these names, but not the table of the run that wrote them."""
    if Path(out, _TABLE).exists():
        return
    for name in names:
        if (path := Path(out, name)).exists():
            text = f"the file exists, and no {_TABLE} says that a run wrote it; choose another folder"
            raise FileExistsError(errno.EEXIST, text, os.fspath(path))


def read_records(out: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings and the results of a run, which may still be at work; nothing is changed."""
    if not Path(out, _TABLE).is_file():
        text = f"must be the folder of a study, got {os.fspath(out)}, which has no {_TABLE}"
        raise ArgumentValueError("load_study", "path", text)
    settings, records, _ = _read(Path(out, _TABLE))
    return settings or {}, records


@contextlib.contextmanager
def _opened(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """Lock a folder, and open its table for further results; give those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        text = "another run is active in this folder; wait until it ends, or choose another"
        raise BlockingIOError(11, text, str(folder)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    try:
        for killed in folder.glob(TEMPORARY):
            killed.unlink()
        path = folder / _TABLE
        there, records, size = _read(path) if path.exists() else (None, {}, 0)
        if records and there != settings:
            found = [*_differences(there, settings)]
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            text = f"{folder} was begun with other settings: {', '.join(found[:_SHOWN])}{more}"
            text += "; choose another folder, or use the settings of this one"
            raise ArgumentValueError("run", None, text)
        with path.open("ab") as file:
            file.truncate(size if records else 0)  # removes a line that a kill cut short
            if not records:
                _append(file, path, _Head(settings))
            yield file, records
    finally:
        lock.release()


def _append(file: BinaryIO, path: Path, line: _Head | _Result) -> None:
    """Add a line, and sync it to the disk."""
    content = json.dumps(line._asdict(), default=_as_json, allow_nan=False).encode() + b"\n"
    try:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any], int]:
    """Return the settings and the results of a table, and how many of its bytes are complete lines."""
    content = path.read_bytes()
    if content[: len(_START)] != _START[: len(content)]:
        raise ValueError(f"{path} is no table of a study")
    settings, records, size = None, {}, 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last end of a line was cut short
        try:
            entry = json.loads(line, object_hook=_from_json)
            if number == 1:
                settings = dict(_fields(_Head, entry).settings)
            else:
                result = _fields(_Result, entry)
                records[result.key] = result.record
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines) - 1:  # a loss of power may damage the last line, whose unit is then done again
                break
            text = f"line {number} is damaged ({one_line(error)})"
            raise ValueError(f"{path}: {text}; delete the line, and the unit is done again") from error
        size += len(line) + 1
    return settings, records, size


def _fields(kind: type[_Stored], entry: Mapping[str, Any]) -> _Stored:
    """Return what the decoded JSON of a line, or of an array in it, holds under the names of the fields of its kind."""
    return kind(*(entry[name] for name in kind._fields))


def _as_json(value: Any) -> Any:
    """Return an array or a number of NumPy as JSON can hold it."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).data).decode()
        return _StoredArray(value.dtype.str, value.shape, data)._asdict()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be kept in a table of results")


def _from_json(node: dict[str, Any]) -> Any:
    """Undo `_as_json` for a decoded object that is an array; others are returned as they are."""
    if node.keys() != {*_StoredArray._fields}:
        return node
    stored = _fields(_StoredArray, node)
    return np.frombuffer(base64.b64decode(stored.base64), stored.dtype).reshape(stored.shape)


def _differences(there: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield a text for every setting that differs."""
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted({*there, *now}):
            yield from _differences(there.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif there != now:
        yield f"{name} {json.dumps(there)} there, {json.dumps(now)} now"


def _attempt(function: Callable[[Any], Any], named: tuple[str, Any]) -> tuple[str, Any, str]:
    """Run a unit; return its key, its result, and the text of what went wrong."""
    key, unit = named
    try:
        return key, function(unit), ""
    except _FAULTS as error:
        return key, None, one_line(error)
