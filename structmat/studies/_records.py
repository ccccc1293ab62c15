"""What a work folder holds, and where: the settings of a run, and a record for each finished unit of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from structmat._files.safetensors import SafetensorsFile, Tensor, checksum, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SETTINGS",
    "UNITS",
    "WORK",
    "Record",
    "as_json",
    "digest",
    "read_record",
    "read_settings",
    "record_bytes",
    "stamp_of",
]

WORK = "work"
SETTINGS = Path(WORK, "settings.json")
UNITS = Path(WORK, "units")
"""Paths in a work folder: of all that a run needs to resume, of the settings, and of the records."""
_RECORD, _CHECKSUM = "structmat_unit", "structmat_sha256"


class Record(NamedTuple):
    """The result of one unit of work.

    Examples
    --------
    >>> import tempfile
    >>> from structmat.studies import WorkFolder
    >>> with tempfile.TemporaryDirectory() as path, WorkFolder.open(f"{path}/out", {}) as folder:
    ...     folder.write("unit", {"length": 3})
    ...     folder.read("unit").values
    {'length': 3}
    """

    values: dict[str, Any]
    """Numbers, text and lists of them."""
    arrays: dict[str, NDArray[Any]]
    """Arrays by name."""


def record_bytes(key: str, stamp: str, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the file of a record, with a checksum and the stamp of the settings.

    Raises
    ------
    ValueError
        If `values` cannot be kept in JSON.
    """
    text = json.dumps({"key": key, "stamp": stamp, "values": values}, sort_keys=True, allow_nan=False)
    tensors = {name: Tensor.of(array) for name, array in arrays.items()}
    return to_bytes(tensors, {_RECORD: text, _CHECKSUM: checksum(text, tensors)})


def read_record(path: Path, stamp: str) -> tuple[str, Record]:
    """Return key and record of a file.

    Raises
    ------
    ValueError
        If it is damaged, foreign, or of other settings.
    """
    file = SafetensorsFile.open(path)
    tensors = {name: tensor._replace(data=file.data(name)) for name, tensor in file.tensors.items()}
    text = file.metadata.get(_RECORD, "")
    if not text or file.metadata.get(_CHECKSUM) != checksum(text, tensors):
        raise ValueError(f"{path} is damaged or no record of a unit of work")
    content = json.loads(text)
    if content["stamp"] != stamp:
        raise ValueError(f"{path} was made with other settings")
    return content["key"], Record(content["values"], {n: t.values(f"{path}: {n}") for n, t in tensors.items()})


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a work folder.

    Raises
    ------
    ValueError
        If their file is damaged.
    OSError
        If it cannot be read.
    """
    file = folder / SETTINGS
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, so the settings of {folder} are unknown: {error}") from error
    if not isinstance(settings, dict):
        text = f"{file} is damaged, so the settings of {folder} are unknown: it must hold an object, got {settings!r}"
        raise ValueError(text)  # noqa: TRY004  # the file's fault
    return settings


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, sort_keys=True))
    return plain


def stamp_of(settings: Mapping[str, Any]) -> str:
    """Return what tells these settings from all others."""
    return digest(json.dumps(settings, sort_keys=True))


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
