"""`read_records`: the finished units of a work folder, without a lock."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from structmat._arrays.errors import ArgumentValueError
from structmat._files.folders import files_in
from structmat.studies._folder import _SETTINGS, _UNITS, _WORK, Record, _read, _stamp

__all__ = ["read_records"]


def read_records(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Record]]:
    """Return settings and finished units of a `WorkFolder`, whose run may still be at work; nothing is changed.

    Raises
    ------
    ValueError
        If it is no such folder. Records that are damaged or of other settings are left out: the run does them again.
    OSError
        If it cannot be read.
    """
    file = Path(path) / _WORK / _SETTINGS
    if not file.is_file():
        text = f"must be the folder of a study, got {os.fspath(path)}, which has no {_WORK}/{_SETTINGS}"
        raise ArgumentValueError("load_study", "path", text)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} is damaged: it must hold an object, got {settings!r}")  # noqa: TRY004  # the file's fault
    stamp = _stamp(settings)
    records = {}
    for unit in files_in(Path(path) / _WORK / _UNITS, "*.safetensors"):
        try:
            key, record = _read(unit, stamp)
        except ValueError:
            continue
        records[key] = record
    return settings, records
