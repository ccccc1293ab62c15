"""What a sweep has found so far: a table of rows, its means, and the files it is written to."""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple, get_type_hints

from structmat._files.tables import csv_bytes, data_frame, json_bytes, write_table
from structmat._files.text import counted

__all__ = ["Study", "StudyMean", "StudyRow", "to_sqlite"]

_SQL_TYPES = {
    int: "INTEGER NOT NULL",
    int | None: "INTEGER",
    float: "REAL NOT NULL",
    str: "TEXT NOT NULL",
    bool: "INTEGER NOT NULL",
}


def side_of(block_size: int | str, rows: int, cols: int) -> int:
    """Return the side of the blocks that a configuration asks for, of a matrix of this shape."""
    return int({"min": min(rows, cols), "toeplitz": rows + cols - 1}.get(str(block_size), block_size))


class StudyRow(NamedTuple):
    """One approximation of one matrix.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (row,) = sweep(SweepConfig({"one": np.eye(6)}, methods=["cdd"]), folder).rows
    >>> row.layer, row.method, row.n_factors, row.n_parameters, round(row.error, 6)
    ('one', 'cdd', 3, 18, 0.0)
    """

    layer: str
    """Name of the matrix."""
    rows: int
    """Rows of the matrix."""
    cols: int
    """Columns of the matrix."""
    norm: float
    """Frobenius norm of the matrix, a weighted one where the error is."""
    weighted: bool
    """Whether the error is weighted by second moments of the inputs."""
    method: str
    """``"cdd"`` or the name of another family."""
    n_factors: int
    """Number of factors of the CDD product, or of that which sets the budget of another family."""
    block_size: int
    """Side of its circulant blocks."""
    seed: int | None
    """Seed of the fit; None for closed forms."""
    budget: int
    """The most parameters allowed: those of the CDD product."""
    n_parameters: int
    """Parameters used, at most `budget`."""
    error: float
    """Relative error, ``norm(W - P) / norm(W)``."""
    status: str
    """``"completed"``, or ``"time limit"`` where the fit was cut."""
    start: str
    """The starting point that won; empty for closed forms."""
    solver: str
    """What took it to the result."""
    n_iter: int
    """Iterations from it."""
    converged: bool
    """Whether the last one changed nothing that matters, or nothing was left to change, as in closed forms."""
    version: str
    """Version of structmat."""
    seconds: float
    """Time that it took; the only column that differs between equal studies."""

    def has_blocks(self, block_size: int | str) -> bool:
        """Tell whether this is what a block size of a configuration asks for.

        Parameters
        ----------
        block_size : int, "min" or "toeplitz"
            The block size.

        Returns
        -------
        bool
            Whether it stands for that of the row.
        """
        return side_of(block_size, self.rows, self.cols) == self.block_size

    @property
    def share(self) -> float:
        """Parameters as a share of those of the dense matrix."""
        return self.n_parameters / (self.rows * self.cols)


class StudyMean(NamedTuple):
    """Mean over the layers, of one method with one setting.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, sweep
    >>> layers = {"one": np.eye(6), "two": np.diag(np.arange(6.0))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (mean,) = sweep(SweepConfig(layers, methods=["cdd"]), folder).means()
    >>> mean.method, mean.n_layers, round(mean.error, 6)
    ('cdd', 2, 0.0)
    """

    method: str
    """Name of the method."""
    n_factors: int
    """Number of factors."""
    block: int | str
    """Block size as it was asked for; ``"min"`` is the smaller side of each matrix."""
    n_layers: int
    """How many layers there are in the mean."""
    share: float
    """Parameters as a part of those of the dense matrices."""
    error: float
    """Relative error."""
    least: float
    """Smallest error of a layer."""
    most: float
    """Largest error of a layer."""
    seconds: float
    """Time for one layer."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Study:
    """The results of a sweep, complete or so far.

    Attributes
    ----------
    rows : tuple of StudyRow
        One row for each layer, setting, method and seed that is done, sorted.
    n_planned : int
        How many rows there will be.
    failed : mapping of str to str
        Why rows could not be computed, by row.
    left_out : mapping of str to int
        The number of combinations that are not planned, by reason.
    block_sizes : tuple of int, "min" or "toeplitz"
        The block sizes that were asked for.

    See Also
    --------
    sweep : Makes it.
    load_study : Reads it from its folder.
    study_figure : Draws it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, sweep
    >>> W = np.random.default_rng(0).standard_normal((8, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep(SweepConfig({"W": W}, n_factors=[3, 5]), folder)
    >>> study.complete, len(study.rows)
    (True, 10)
    >>> all(row.n_parameters <= row.budget for row in study.rows)
    True
    """

    rows: tuple[StudyRow, ...]
    n_planned: int
    failed: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    block_sizes: tuple[int | str, ...] = ("min",)

    @property
    def complete(self) -> bool:
        """Whether all that was planned is done."""
        return len(self.rows) >= self.n_planned

    def layers(self) -> list[str]:
        """Return the names of the layers.

        Returns
        -------
        list of str
            In the order of the rows.
        """
        return list(dict.fromkeys(row.layer for row in self.rows))

    def means(self) -> list[StudyMean]:
        """Return means over the layers, for every method and setting.

        Returns
        -------
        list of StudyMean
            Sorted by method, block size and number of factors. Fits with several seeds are averaged first. A row counts
            for every block size that asks for it.
        """
        groups: dict[tuple[str, int | str, int], dict[str, list[StudyRow]]] = defaultdict(lambda: defaultdict(list))
        for block in self.block_sizes:
            for row in self.rows:
                if row.has_blocks(block):
                    groups[row.method, block, row.n_factors][row.layer].append(row)
        methods = list(dict.fromkeys(row.method for row in self.rows))
        result = []
        for (method, block, n_factors), by_layer in sorted(
            groups.items(), key=lambda group: methods.index(group[0][0])
        ):
            errors = [fmean(row.error for row in rows) for rows in by_layer.values()]
            result.append(
                StudyMean(
                    method=method,
                    n_factors=n_factors,
                    block=block,
                    n_layers=len(errors),
                    share=fmean(rows[0].share for rows in by_layer.values()),
                    error=fmean(errors),
                    least=min(errors),
                    most=max(errors),
                    seconds=fmean(row.seconds for rows in by_layer.values() for row in rows),
                )
            )
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON.

        Returns
        -------
        dict
            Strings, numbers and lists only.
        """
        return {
            "complete": self.complete,
            "n_rows": len(self.rows),
            "n_planned": self.n_planned,
            "failed": dict(self.failed),
            "left_out": dict(self.left_out),
            "means": [mean._asdict() for mean in self.means()],
            "rows": [row._asdict() for row in self.rows],
        }

    def to_dataframe(self) -> Any:
        """Return the table; needs pandas.

        Returns
        -------
        pandas.DataFrame
            One line for each row, with the fields of `StudyRow`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return data_frame("Study.to_dataframe", StudyRow._fields, self.rows)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the table to a file.

        Parameters
        ----------
        path : path-like
            The file, its suffix ``.csv``; ``.json``, with means and what is missing as well; or ``.sqlite`` for a
            database with one table, ``results``. It appears complete or not at all.
        force : bool, default False
            Whether to replace an existing file.

        Raises
        ------
        ValueError
            If the suffix is none of these.
        FileExistsError
            If the file exists and not `force`.
        OSError
            If the file cannot be written.
        """
        contents = {
            ".csv": lambda: csv_bytes(StudyRow._fields, self.rows),
            ".json": lambda: json_bytes(self.to_dict()),
            ".sqlite": lambda: to_sqlite(self.rows),
        }
        write_table("Study.save", path, contents, force=force)

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.rows)} of {self.n_planned} rows"
        missing = sum(self.left_out.values())
        head = f"Study of {counted(len(self.layers()), 'layer')}, {state}"
        head += f"; {counted(missing, 'combination')} not available" if missing else ""
        titles = ["method", "factors", "block", "layers", "of dense", "error", "least", "most"]
        lines = [titles] + [
            [m.method, str(m.n_factors), str(m.block), str(m.n_layers), f"{m.share:.2%}"]
            + [f"{value:.4g}" for value in (m.error, m.least, m.most)]
            for m in self.means()
        ]
        widths = [max(len(line[k]) for line in lines) for k in range(len(titles))]
        table = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([head, *table])


def to_sqlite(rows: Iterable[StudyRow]) -> bytes:
    """Return a database file: the same bytes for the same rows."""
    columns = [f"{name} {_SQL_TYPES[kind]}" for name, kind in get_type_hints(StudyRow).items()]
    connection = sqlite3.connect(":memory:")
    try:
        with connection:
            connection.execute(f"CREATE TABLE results ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO results VALUES ({marks})", rows)  # noqa: S608  # question marks only
        return connection.serialize()
    finally:
        connection.close()
