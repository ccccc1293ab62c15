"""`Study`: the table that a study ends with, one row for each approximation of each matrix."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from structmat._errors import ArgumentValueError
from structmat._files import atomic_write, counted, data_frame
from structmat.studies._engine import read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "OUTPUTS", "TABLE", "Row", "Study", "load_study", "rows_of"]


class Row(TypedDict):
    """One row of the table, whose columns are these, in this order; only the times differ between equal studies."""

    layer: str
    rows: int
    cols: int
    norm: float
    weighted: bool
    method: str
    n_factors: int
    block_size: int | str
    seed: int | None
    n_parameters: int
    error: float
    status: str
    processor_seconds: float
    clock_seconds: float


COLUMNS = tuple(Row.__annotations__)

TABLE = "results.csv"
"""Every study ends with its table in this file."""

OUTPUTS = (TABLE, "results.png")
"""The files that a study ends with; the command draws the figure. A folder where others wrote them is refused."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Study:
    """The results of a sweep or of a fit of a checkpoint, complete or so far.

    Attributes
    ----------
    rows : tuple of dict
        One for each layer, method, setting and seed that is done: ``layer`` (its name), ``rows`` and ``cols`` of the
        matrix, ``norm`` (Frobenius norm of the matrix), ``weighted`` (whether norm and error are weighted by second
        moments of the inputs), ``method`` (``"cdd"`` or another family), ``n_factors`` and ``block_size`` of the CDD
        product (which sets the most parameters of another family), ``seed``, ``n_parameters`` used, ``error``
        (relative, ``norm(W - P) / norm(W)``), ``status`` (``"completed"`` or ``"time limit"``), ``processor_seconds``
        and ``clock_seconds``. A family without a member of that size has no row.
    failed : mapping of str to str
        Why rows could not be computed, by layer or by layer and setting.
    left_out : tuple of str
        What is not part of the study, and never will be: weights that were tuned but cannot be part of an adapter,
        and settings that there are not.

    See Also
    --------
    sweep, fit_checkpoint : Return one.
    load_study : Reads one.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import sweep
    >>> W = np.random.default_rng(0).standard_normal((8, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep({"W": W}, folder, n_factors=[3, 5], methods=["cdd", "truncated-svd"])
    >>> study.to_pandas()[["method", "n_factors", "n_parameters"]].values.tolist()
    [['cdd', 3, 24], ['cdd', 5, 40], ['truncated-svd', 3, 16], ['truncated-svd', 5, 32]]
    """

    rows: tuple[Mapping[str, Any], ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def to_pandas(self) -> Any:
        """Return the table.

        Returns
        -------
        pandas.DataFrame
            One line for each row, with the columns of `rows`.
        """
        return data_frame("Study.to_pandas", [*COLUMNS], ([row[name] for name in COLUMNS] for row in self.rows))

    def to_csv(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the table to a CSV file.

        Parameters
        ----------
        path : path-like
            The file; it appears complete or not at all.
        force : bool, default False
            Whether to replace an existing file.

        Raises
        ------
        FileExistsError
            If the file exists and not `force`.
        OSError
            If the file cannot be written.
        """
        with atomic_write(path, force=force) as file:
            self.to_pandas().to_csv(file, mode="wb", index=False, errors="backslashreplace")

    def means(self) -> Any:
        """Return the means over the layers, for every method and setting.

        Returns
        -------
        pandas.DataFrame
            With the columns ``method``, ``block_size``, ``n_factors``, ``layers`` (their number), ``share`` (parameters
            as a part of those of the dense matrices), ``error``, its standard ``deviation`` over the layers (of a
            sample; NaN for one), ``least`` and ``most`` (of a layer), ``stopped`` (how many fits did not come to
            their end), and ``processor_seconds`` and ``clock_seconds`` for one fit. Fits with several seeds are
            averaged first.
        """
        table = self.to_pandas()
        # A family without a member of that size leaves the zero matrix, which is no approximation.
        table = table[(table["n_parameters"] > 0) | (table["error"] == 0.0)].copy()
        table["share"] = table["n_parameters"] / (table["rows"] * table["cols"])
        keys = ["method", "block_size", "n_factors"]
        table["stopped"] = table["status"] != "completed"
        times = ("processor_seconds", "clock_seconds")
        by_layer = table.groupby([*keys, "layer"], sort=False)
        layers = by_layer[["share", "error", *times]].mean()
        layers["stopped"] = by_layer["stopped"].sum()
        found = layers.groupby(keys, sort=False)
        named = {"layers": ("error", "size"), "share": ("share", "mean"), "error": ("error", "mean")}
        named |= {"deviation": ("error", "std"), "least": ("error", "min"), "most": ("error", "max")}
        named |= {"stopped": ("stopped", "sum")} | {name: (name, "mean") for name in times}
        return found.agg(**named).reset_index()

    def total_error(self, method: str = "cdd") -> float:
        """Return the relative error of all layers together, by one method.

        Parameters
        ----------
        method : str, default "cdd"
            The method.

        Returns
        -------
        float
            The norm of all residuals over that of all matrices.
        """
        rows = [row for row in self.rows if row["method"] == method]
        whole = math.hypot(*(row["norm"] for row in rows))
        return math.hypot(*(row["error"] * row["norm"] for row in rows)) / whole if whole else 0.0

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the table; needs the extra ``files``.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, ``ax.figure``.

        Returns
        -------
        matplotlib.axes.Axes
            The mean error of each method against the number of parameters; of one setting only, the errors of all
            layers, sorted. The band of the CDD products goes from the least to the largest error of a layer, and
            means of fits that were stopped have hollow markers.
        """
        from structmat._drawing import draw_errors_of_study  # noqa: PLC0415  # matplotlib is slow to import

        # A matrix of zeros has no relative error, and the zero matrix no place among the members of a family.
        rows = tuple(row for row in self.rows if row["norm"] and row["n_parameters"])
        if not rows:
            raise ArgumentValueError("draw_study", "study", "must have rows to draw")
        return draw_errors_of_study(rows, Study(rows).means(), ax)

    def __repr__(self) -> str:
        layers = len({row["layer"] for row in self.rows})
        head = f"Study of {counted(layers, 'layer')}, {counted(len(self.rows), 'row')}"
        if not self.rows:
            return head
        return f"{head}\n{self.means().to_string(index=False, na_rep='-', float_format='{:.4g}'.format)}"


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read the results of a study.

    Parameters
    ----------
    path : path-like
        The folder of a study, which is only read and may be in use.

    Returns
    -------
    Study
        The rows that are there, in the order in which they were done.

    Raises
    ------
    ValueError
        If it is none, or damaged.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import load_study, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep({"identity": np.eye(4)}, folder)
    ...     load_study(folder).rows == study.rows
    True
    """
    _, records = read_records(path)
    return Study(rows_of(records.values()))


def rows_of(records: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the rows in the records of a run: each record is the result of one unit, which may have several rows."""
    return tuple(row for record in records for row in record["rows"])
