"""A file of results to which runs are added one by one, and which holds what a killed run had written."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn_from(*paths: Path) -> str:
    """Return what a plot carries as its comment: the files it shows, and a digest of their rows."""
    digest = hashlib.sha256(repr([list(row.items()) for path in paths for row in read(path)]).encode())
    return f"{', '.join(path.name for path in paths)}: {digest.hexdigest()}"


class Table:
    """The file, which grows by whole lines; `key` names the columns that say what was run, `values` the others.

    One process at a time may have it open.
    """

    def __init__(self, path: Path, key: tuple[str, ...], values: tuple[str, ...]) -> None:
        self.key, self.columns = key, key + values
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+", newline="", encoding="utf-8")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{path} is being written by another process")
        self.file.seek(0)
        text = self.file.read()
        whole = text[: text.rfind("\n") + 1]
        lines = csv.DictReader(whole.splitlines())
        if whole and tuple(lines.fieldnames or ()) != self.columns:
            sys.exit(f"{path} has other columns than {', '.join(self.columns)}")
        self.rows = {self.place(row): row for row in lines}
        if whole != text:  # killed in the middle of a line
            self.file.truncate(len(whole.encode()))
        if not whole:
            self._write(self.columns)

    def place(self, row: Mapping[str, object]) -> tuple[str, ...]:
        """Return what says which run a row is of."""
        return tuple(_text(row.get(name)) for name in self.key)

    def append(self, row: Mapping[str, object]) -> None:
        texts = {name: _text(row.get(name)) for name in self.columns}
        self.rows[self.place(texts)] = texts
        self._write(texts.values())

    def _write(self, cells: Iterable[str]) -> None:
        csv.writer(self.file, lineterminator="\n").writerow(cells)
        self.file.flush()
        os.fsync(self.file.fileno())


def _text(value: object) -> str:
    return "" if value is None else str(value)
