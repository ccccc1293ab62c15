"""`Study`: the table that a study ends with, one row for each approximation of each matrix."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from structmat._arguments import one_of
from structmat._errors import ArgumentValueError
from structmat._files import atomic_write, counted, data_frame, first_names, latex_table
from structmat.fit import BASELINES, ErrorCurve
from structmat.operators import CDDLayout
from structmat.studies._engine import read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "COMPLETED", "OUTPUTS", "TABLE", "Row", "Study", "load_study", "rows_of"]


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
    search: int | None
    n_parameters: int
    error: float
    product_factors: int | None
    exact: bool
    status: str
    processor_seconds: float
    clock_seconds: float


COLUMNS = tuple(Row.__annotations__)

COMPLETED = "completed"
"""The status of what has come to its end, as in an `ErrorCurve`."""

_TIMES = ("processor_seconds", "clock_seconds")

TABLE = "results.csv"
"""Every study ends with its table in this file."""

OUTPUTS = (TABLE, "results.png", "results.tex")
"""The files that a study ends with; the command writes the last two. A folder where others wrote them is refused."""

_SETTING = ("method", "block_size", "n_factors")
"""The columns that a mean is for."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Study:
    """The results of a sweep, complete or so far.

    Attributes
    ----------
    rows : tuple of dict
        One for each layer, method, setting and search that is done: ``layer`` (its name), ``rows`` and ``cols`` of the
        matrix, ``norm`` (Frobenius norm of the matrix), ``weighted`` (whether norm and error are weighted by second
        moments of the inputs), ``method`` (``"cdd"`` or another family), ``n_factors`` and ``block_size`` of the CDD
        product (which sets the most parameters of another family), ``search`` (which of several independent searches,
        the first is 1; None for families with a closed form), ``n_parameters`` used, ``error`` (relative,
        ``norm(W - P) / norm(W)``), and as in an `ErrorCurve` ``product_factors``, ``exact``, ``status``,
        ``processor_seconds`` and ``clock_seconds``. Points of a search that were not made, and families without a
        member of that size, have no row.
    failed : mapping of str to str
        Why rows could not be computed, by layer or by layer and setting.
    left_out : tuple of str
        What is not part of the study, and never will be: weights that were tuned but are in no adapter, and settings
        that there are not.
    adapters : tuple of str
        The folders of adapters that were written.

    See Also
    --------
    sweep : Returns one.
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
    adapters: tuple[str, ...] = ()

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

        Of several searches of a layer the best counts, as in an `ErrorCurve`, and the others say how far they spread.

        Returns
        -------
        pandas.DataFrame
            With the columns ``method``, ``block_size``, ``n_factors``, ``layers`` (their number), ``n_searches`` (the
            most of a layer), ``n_parameters`` and ``share`` (of those of the dense matrices), ``error``, its standard
            ``deviation`` over the layers (of a sample; NaN for one), ``least`` and ``most`` (of a layer),
            ``median_error`` and ``largest_error`` (over the searches), ``together`` (the norm of all residuals over
            that of all matrices), ``stopped`` (how many fits did not come to their end), and ``processor_seconds`` and
            ``clock_seconds`` (of all searches of a layer).
        """
        table = self.to_pandas()
        # A family without a member of that size leaves the zero matrix, which is no approximation.
        table = table[(table["n_parameters"] > 0) | (table["error"] == 0.0)].copy()
        table["share"] = table["n_parameters"] / (table["rows"] * table["cols"])
        table["stopped"] = table["status"] != COMPLETED
        found = table.groupby([*_SETTING, "layer"], sort=False)
        layers = found[["n_parameters", "share", "norm"]].mean()
        layers[["n_searches", "error"]] = found["error"].agg(["size", "min"])
        layers[["median_error", "largest_error"]] = found["error"].agg(["median", "max"])
        layers[["stopped", *_TIMES]] = found[["stopped", *_TIMES]].sum()
        relative = layers["norm"] / (layers["norm"].max() or 1.0)  # whose squares do not overflow
        layers["square"], layers["residual"] = relative**2, (relative * layers["error"]) ** 2
        of_setting = layers.groupby([*_SETTING], sort=False)
        named = {"layers": ("error", "size"), "n_searches": ("n_searches", "max")}
        named |= {name: (name, "mean") for name in ("n_parameters", "share", "error")}
        named |= {"deviation": ("error", "std"), "least": ("error", "min"), "most": ("error", "max")}
        named |= {name: (name, "mean") for name in ("median_error", "largest_error")}
        named |= {"square": ("square", "sum"), "residual": ("residual", "sum"), "stopped": ("stopped", "sum")}
        named |= {name: (name, "mean") for name in _TIMES}
        means = of_setting.agg(**named).reset_index()
        means.insert(list(means.columns).index("square"), "together", (means["residual"] / means["square"]) ** 0.5)
        return means.drop(columns=["square", "residual"])

    def curve(self, layer: str, block_size: int | str = "min") -> ErrorCurve:
        """Return the error curve of one layer, as `structmat.error_curve` returns it, but without the fits.

        Parameters
        ----------
        layer : str
            The name of the layer.
        block_size : int or "min", default "min"
            The side of the blocks, as it was asked for.

        Returns
        -------
        ErrorCurve
            With the other methods of the study as baselines.

        Raises
        ------
        ValueError
            If the study has no CDD product of such a layer.
        """
        own = [row for row in self.rows if (row["layer"], row["block_size"]) == (layer, block_size)]
        fits = {(row["search"], row["n_factors"]): row for row in own if row["method"] == "cdd"}
        if not fits:
            names = first_names(list(dict.fromkeys(row["layer"] for row in self.rows if row["method"] == "cdd")))
            text = f"must be one with blocks of {block_size}, got {layer!r}; there are {names or 'none'}"
            raise ArgumentValueError("Study.curve", "layer", text)
        numbers = sorted({number for _, number in fits})
        searches = sorted({search for search, _ in fits})
        of_number = [[fits[k, number] for k in searches if (k, number) in fits] for number in numbers]
        best = [min(rows, key=lambda row: row["error"]) for rows in of_number]
        for k in range(1, len(best)):
            # The search that had the best product of fewer factors has not come so far.
            best[k] = min(best[k], best[k - 1], key=lambda row: row["error"])
        stopped = [[row["status"] for row in rows if row["status"] != COMPLETED] for rows in of_number]
        shape = (best[0]["rows"], best[0]["cols"])
        layouts = [CDDLayout(shape, number, block_size) for number in numbers]
        return ErrorCurve(
            n_factors=np.array(numbers),
            n_parameters=np.array([layout.n_parameters for layout in layouts]),
            error=np.array([row["error"] for row in best]),
            status=tuple((each or [COMPLETED])[0] for each in stopped),
            product_factors=np.array([row["product_factors"] for row in best]),
            errors=np.array([[fits[k, n]["error"] if (k, n) in fits else np.nan for n in numbers] for k in searches]),
            processor_seconds=np.array([sum(row["processor_seconds"] for row in rows) for rows in of_number]),
            clock_seconds=np.array([sum(row["clock_seconds"] for row in rows) for rows in of_number]),
            baselines=_baselines(own, numbers),
            exact=np.array([row["exact"] for row in best]),
            shape=shape,
            block_size=layouts[0].block_size,
            weighted=best[0]["weighted"],
        )

    def to_latex(self, *, command: str | None = None) -> str:
        """Return the table of `means` for a paper, with the rules of the package booktabs.

        Parameters
        ----------
        command : str, optional
            What made the study, for the comment at the head; versions stand there too.

        Returns
        -------
        str
            A ``tabular``.
        """
        titles, lines = self._cells()
        return latex_table(titles, lines, [command] if command else [])

    def plot(
        self,
        ax: Axes | None = None,
        *,
        x: Literal["share", "parameters", "factors"] = "share",
        width: Literal["column", "page"] | None = None,
    ) -> Axes:
        """Draw the means over the layers against the size of the product; needs the extra ``files``.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, ``ax.figure``.
        x : {"share", "parameters", "factors"}, default "share"
            The horizontal axis, as that of `ErrorCurve.plot`.
        width : {"column", "page"}, optional
            Make the new figure as wide as a part of a paper, as `ErrorCurve.plot` does.

        Returns
        -------
        matplotlib.axes.Axes
            The mean error of each method; a pale band goes from the least to the largest error of a layer, and a darker
            one from the best of several searches to the worst. Of one setting only, the errors of all layers, sorted.
            Hollow markers, with a word, are fits that were stopped.

        Raises
        ------
        ValueError
            If nothing is done yet, or `x` or `width` is none of these.
        """
        from structmat._drawing import AXES, WIDTHS, draw_error_curves, draw_sorted_errors  # noqa: PLC0415  # matplotlib

        one_of(x, "Study.plot", "x", tuple(AXES))
        if width is not None:
            one_of(width, "Study.plot", "width", tuple(WIDTHS))
        # A matrix of zeros has no relative error, and the zero matrix no place among the members of a family.
        rows = tuple(row for row in self.rows if row["norm"] and row["n_parameters"])
        if not rows:
            raise ArgumentValueError("Study.plot", "study", "must have rows to draw")
        means = Study(rows).means()
        # A mean over a part of the matrices cannot be compared with one over all.
        means = means[means["layers"] == means["layers"].max()]
        if len(means) == means["method"].nunique():
            best: dict[Any, Mapping[str, Any]] = {}
            for row in sorted(rows, key=lambda row: -row["error"]):
                best[row["method"], row["layer"]] = row
            drawn = draw_sorted_errors([best[key] for key in sorted(best, key=_by_method)], width=width, ax=ax)
        else:
            drawn = draw_error_curves(*_lines(means, rows, x), x=x, width=width, ax=ax)
        if rows[0]["weighted"]:
            drawn.set_ylabel("weighted relative error")
        return drawn

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the titles and the cells of the table of means that people read."""
        means = self.means()
        several = means["n_searches"].max() > 1
        error = "weighted error" if any(row["weighted"] for row in self.rows) else "error"
        titles = ["method", "blocks", "factors", "layers", "of dense", error, "deviation"]
        titles += ["median", "largest", "searches"] if several else []
        titles += ["together", "stopped", "processor s", "clock s"]
        lines = [
            [
                mean.method,
                f"{mean.block_size}",
                f"{mean.n_factors}",
                f"{mean.layers:,}",
                f"{mean.share:.1%}",
                *map(_shown, (mean.error, mean.deviation)),
                *([_shown(mean.median_error), _shown(mean.largest_error), f"{mean.n_searches}"] if several else []),
                _shown(mean.together),
                f"{mean.stopped}",
                f"{mean.processor_seconds:.2f}",
                f"{mean.clock_seconds:.2f}",
            ]
            for mean in means.itertuples()
        ]
        return titles, lines

    def __repr__(self) -> str:
        layers = len({row["layer"] for row in self.rows})
        head = f"Study of {counted(layers, 'layer')}, {counted(len(self.rows), 'row')}"
        if not self.rows:
            return head
        titles, lines = self._cells()
        widths = [max(len(line[k]) for line in (titles, *lines)) for k in range(len(titles))]
        text = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (titles, *lines)
        ]
        return "\n".join([head, *text])


def _by_method(key: tuple[str, str]) -> tuple[int, str]:
    """Return a key that puts methods in the order in which they are always named."""
    return ("cdd", *BASELINES).index(key[0]), key[1]


def _baselines(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> dict[str, tuple[Any, Any]]:
    """Return parameters and errors of other families for each number of factors; NaN where one has no member."""
    found = {(row["method"], row["n_factors"]): row for row in rows}
    none = {"n_parameters": 0, "error": np.nan}

    def column(method: str, name: str) -> Any:
        return np.array([found.get((method, number), none)[name] for number in numbers])

    names = [name for name in BASELINES if any(row["method"] == name for row in rows)]
    return {name: (column(name, "n_parameters"), column(name, "error")) for name in names}


def _lines(means: Any, rows: Sequence[Mapping[str, Any]], x: str) -> tuple[list[Any], dict[str, tuple[Any, Any]]]:
    """Return what is drawn of means: a line for each side of the blocks, and the families to compare with."""
    from structmat._drawing import CurveLine  # noqa: PLC0415  # It imports matplotlib.

    column = {"share": "share", "parameters": "n_parameters", "factors": "n_factors"}[x]
    unit = 100.0 if x == "share" else 1.0
    lines: list[CurveLine] = []
    sizes = []
    for block_size, own in means[means["method"] == "cdd"].groupby("block_size", sort=False):
        points = own.sort_values("n_factors")
        said = [
            [row["status"] for row in rows if (row["method"], row["block_size"], row["n_factors"]) == setting]
            for setting in (("cdd", block_size, number) for number in points["n_factors"])
        ]
        arrays = {name: points[name].to_numpy() for name in ("n_factors", "error", "least", "most")}
        line = CurveLine(
            where=points[column].to_numpy() * unit,
            median=points["median_error"].to_numpy(),
            largest=points["largest_error"].to_numpy(),
            n_searches=int(points["n_searches"].max()),
            status=[next((each for each in of_point if each != COMPLETED), COMPLETED) for of_point in said],
            **arrays,
        )
        lines.append(line if int(points["layers"].max()) > 1 else line._replace(least=None, most=None))
        sizes.append(block_size)
    if len(lines) > 1:
        named = zip(lines, sizes, ("solid", (0, (5, 1.5)), (0, (1.5, 1)), "dashdot") * len(lines), strict=False)
        lines = [line._replace(label=f"CDD, blocks of {size}", dashes=dashes) for line, size, dashes in named]
    rivals = {}
    for name, own in means[means["method"] != "cdd"].groupby("method", sort=False):
        points = own.sort_values(column).drop_duplicates(column)
        rivals[str(name)] = points[column].to_numpy() * unit, points["error"].to_numpy()
    return lines, rivals


def _shown(error: float) -> str:
    """Return an error as a text, a dash where there is none."""
    return "-" if math.isnan(error) else f"{error:.4g}"


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
    """Return the rows in the records of a run: each record is the result of one unit, which may have several rows.

    A layer whose matrix has changed since, or a search that was made anew with more numbers of factors, counts once, as
    it was done last.
    """
    found: dict[Any, Mapping[str, Any]] = {}
    for row in (row for record in records for row in record["rows"]):
        if missing := [name for name in COLUMNS if name not in row]:
            text = f"holds rows of another version of structmat, without {', '.join(missing)}: run it anew elsewhere"
            raise ArgumentValueError("load_study", "path", text)
        found[tuple(row[name] for name in ("layer", *_SETTING, "search"))] = row
    return tuple(found.values())
