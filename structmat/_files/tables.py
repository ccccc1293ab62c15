"""Tables of results: as CSV, as JSON, as a data frame of pandas, and in a file by its suffix."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from structmat._arrays.errors import ArgumentValueError
from structmat._files.atomic import atomic_write

__all__ = ["checked_suffix", "csv_bytes", "data_frame", "json_bytes", "write_table"]


def csv_bytes(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Return a line of names and one for each row, numbers with all their digits, booleans as 0 and 1."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([int(value) if isinstance(value, bool) else value for value in row] for row in rows)
    return stream.getvalue().encode()


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return one JSON object; NaN and infinity, which JSON lacks, are refused."""
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"


def data_frame(owner: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Return a table of pandas, which is no dependency of structmat; `owner` names the caller where it is missing."""
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise ImportError(f"{owner} needs pandas: pip install pandas") from error
    return pandas.DataFrame(list(rows), columns=list(columns))


def checked_suffix(owner: str, path: str | os.PathLike[str], suffixes: Iterable[str]) -> str:
    """Return the suffix of a file, in lower case, if it is one of some."""
    known = list(suffixes)
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ArgumentValueError(owner, "path", f"must end in {' or '.join(known)}, got {os.fspath(path)}")
    return suffix


def write_table(
    owner: str, path: str | os.PathLike[str], contents: Mapping[str, Callable[[], bytes]], *, force: bool
) -> None:
    """Write a file, complete or not at all, in the format that its suffix names among those of `contents`."""
    content = contents[checked_suffix(owner, path, contents)]()
    with atomic_write(path, force=force) as file:
        file.write(content)
