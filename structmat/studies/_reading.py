"""`read_records`: the finished units of a work folder, without a lock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from structmat._arrays.errors import ArgumentValueError
from structmat._files.folders import files_in
from structmat.studies._records import SETTINGS, UNITS, Record, read_record, read_settings, stamp_of

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
    if not (Path(path) / SETTINGS).is_file():
        text = f"must be the folder of a study, got {os.fspath(path)}, which has no {SETTINGS.as_posix()}"
        raise ArgumentValueError("load_study", "path", text)
    settings = read_settings(Path(path))
    stamp = stamp_of(settings)
    records = {}
    for unit in files_in(Path(path) / UNITS, "*.safetensors"):
        try:
            key, record = read_record(unit, stamp)
        except ValueError:
            continue
        records[key] = record
    return settings, records
