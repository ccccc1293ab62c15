"""Axes with relative errors, drawn alike in all figures: of methods, of a study, and after each iteration of a fit.

Who has errors to draw hands plain values to these functions: error curves, studies and fits all do, and none of them is
known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._errors import ArgumentTypeError
from structmat._files import printable

try:
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator, ScalarFormatter
except ModuleNotFoundError as error:
    raise ImportError('structmat.plot needs the extra "files": pip install "structmat[files]"') from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from numpy.typing import NDArray

__all__ = [
    "FEW",
    "ROUNDING",
    "ShownFigure",
    "draw_errors_after_iterations",
    "draw_errors_of_methods",
    "draw_errors_of_study",
    "draw_phases",
    "method_style",
    "new_axes",
    "set_error_axis",
    "set_integer_ticks",
    "short_numbers",
]

FEW = 40
"""A line of up to so many points has a marker at each; those of more points would cover it."""

_MARKS = 12
"""So many marks of points fit side by side into a figure."""

ROUNDING = 1e-17
"""Errors below this one are drawn as if they were equal to it: rounding is not worth decades of an axis."""

_SMALL = 1e-2
"""An axis of errors is logarithmic if some of them are smaller than this: a linear one shows them all as zero."""


class _LineStyle(NamedTuple):
    """How the line of a method is drawn, and what the legend calls it."""

    label: str
    color: str
    linestyle: str | tuple[int, tuple[int, ...]]
    marker: str


# The colours are those of Okabe and Ito, which can be told apart in all common kinds of colour blindness. Dashes and
# markers tell the lines apart where they are printed in black.
_METHODS = {
    "cdd": _LineStyle("CDD product", "#0072B2", "-", "o"),
    "truncated-svd": _LineStyle("truncated SVD", "#000000", "--", "s"),
    "cdd-in-blocks": _LineStyle("CDD in blocks", "#56B4E9", (0, (4, 1, 1, 1)), "X"),
    "block-circulant": _LineStyle("block circulant", "#E69F00", "-.", "^"),
    "sparse-fourier": _LineStyle("sparse Fourier", "#CC79A7", ":", "D"),
    "monarch": _LineStyle("Monarch", "#009E73", (0, (6, 2)), "v"),
}


class ShownFigure(Figure):
    """A figure of matplotlib that notebooks show where it is the last value of a cell."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()


def new_axes() -> Axes:
    """Return axes of a new figure that notebooks show."""
    return ShownFigure(figsize=(7.0, 4.8), dpi=150, layout="constrained").add_subplot()


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes that a caller gave, or new ones; refuse what is no axes, such as the name of a file."""
    if ax is None:
        return new_axes()
    if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
        text = f"must be axes of Matplotlib, got {ax!r}; to save a figure write plot().figure.savefig(path)"
        raise ArgumentTypeError("plot", "ax", text)
    return ax


def draw_errors_of_methods(
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    n_entries: int,
    marks: Sequence[str],
    ax: Axes | None,
    *,
    stopped: NDArray[np.bool_] | None = None,
) -> Axes:
    """Draw errors against the number of parameters; points whose error is NaN are left out.

    Parameters
    ----------
    lines : mapping of str to tuple
        For each method ``(n_parameters, error)``. The first one decides on the scale of errors.
    n_entries : int
        Entries of the matrix: the number of parameters is drawn as a share of them.
    marks : sequence of str
        What stands beside the points of the first method.
    ax : matplotlib.axes.Axes or None
        Where to draw; None for axes of a new figure.
    stopped : ndarray of bool, optional
        Which points of the first method are of fits that were stopped early: their markers are hollow.
    """
    ax = axes_or_new(ax)
    (sizes, first), *others = lines.values()
    least = float(np.nanmin(first))

    def drawn(errors: NDArray[Any]) -> NDArray[Any]:
        """Return errors as the axis can show them: what is far below the first line is not worth decades."""
        return np.maximum(errors, max(least, ROUNDING)) if least < _SMALL else errors

    for name, (used, error) in lines.items():
        # A baseline with fewer parameters than its smallest member is the zero matrix: no point of its own.
        points = np.unique(np.flatnonzero((used > 0) & np.append(True, np.diff(used) != 0)))
        if not points.size:
            continue
        label, colour, dashes, marker = method_style(name)
        ax.plot(
            100.0 / n_entries * used[points],
            drawn(error[points]),
            color=colour,
            linestyle=dashes,
            linewidth=2.4 if name == "cdd" else 1.6,
            marker=marker if points.size <= FEW else "",
            markersize=5,
            label=label,
            zorder=3 if name == "cdd" else 2,
        )
    if stopped is not None and stopped.any():
        ax.plot(
            100.0 / n_entries * sizes[stopped],
            drawn(first[stopped]),
            color=method_style("cdd").color,
            linestyle="",
            marker="o",
            markersize=5,
            markerfacecolor="white",
            label="stopped",
            zorder=3.5,
        )
    # Of many points every k-th is marked, for all marks together would cover one another.
    for k in range(0, len(marks), -(-len(marks) // _MARKS)):
        if np.isnan(first[k]):
            continue
        where = (100.0 / n_entries * sizes[k], drawn(first)[k])
        style: dict[str, Any] = {"color": method_style("cdd").color, "fontsize": 9, "ha": "center", "zorder": 4}
        mark = ax.annotate(marks[k], where, (0, -15), textcoords="offset points", **style)
        mark.set_path_effects([withStroke(linewidth=4, foreground="white")])  # Other lines may run below the mark.
    every = np.concatenate([first[~np.isnan(first)], *(error[used > 0] for used, error in others)])
    set_error_axis(ax, (drawn(every) if least < _SMALL else np.maximum(every, _SMALL)).tolist())
    ax.set_ylabel("relative error")
    ax.set_xlim(left=0.0)
    ax.set_xlabel("parameters, % of dense")
    ax.legend(frameon=False, fontsize=9)
    return ax


def draw_errors_of_study(rows: Sequence[Mapping[str, Any]], means: Any, ax: Axes | None) -> Axes:
    """Draw the errors of many matrices by several methods.

    Parameters
    ----------
    rows : sequence of mappings
        The rows of a study, one for each matrix, method and setting; none of a zero matrix or without parameters.
    means : pandas.DataFrame
        The means of these rows over the matrices, as `Study.means` returns them.
    ax : matplotlib.axes.Axes or None
        Where to draw; None for axes of a new figure.
    """
    ax = axes_or_new(ax)
    # A mean over a part of the matrices cannot be compared with one over all.
    table = means[means["layers"] == means["layers"].max()]
    is_one_setting = len(table) == table["method"].nunique()
    for method, of_method in table.groupby("method", sort=False):
        style = method_style(str(method))
        line: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        line |= {"markersize": 5, "linewidth": 2.2 if method == "cdd" else 1.5, "zorder": 3 if method == "cdd" else 2}
        if is_one_setting:
            errors = sorted(max(row["error"], ROUNDING) for row in rows if row["method"] == method)
            ax.plot(range(1, len(errors) + 1), errors, label=style.label, **line)
            continue
        # Of CDD one line for each block size; of other families, which have none, one in all.
        for _, points in of_method.groupby("block_size", sort=False) if method == "cdd" else [("", of_method)]:
            by_size = points.sort_values("share")
            share, error = 100 * by_size["share"], by_size["error"].clip(lower=ROUNDING)
            ax.plot(share, error, label=style.label, **line)
            if method == "cdd":
                low, high = (by_size[name].clip(lower=ROUNDING) for name in ("least", "most"))
                ax.fill_between(share, low, high, color=style.color, alpha=0.12, linewidth=0)
    if is_one_setting:
        ax.set_xlabel("layers, sorted by error")
        set_integer_ticks(ax.xaxis, 10)
    else:
        ax.set_xlabel("parameters, % of dense")
        ax.set_xlim(left=0)
    ax.set_ylabel("weighted relative error" if rows[0]["weighted"] else "relative error")
    set_error_axis(ax, table["least"])
    labels = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))  # each label once
    ax.legend(labels.values(), labels, frameon=False, fontsize=9)
    return ax


def draw_errors_after_iterations(history: NDArray[Any], start: str, ax: Axes | None) -> Axes:
    """Draw the errors of a fit from a start and after each iteration; None stands for axes of a new figure."""
    ax = axes_or_new(ax)
    errors = np.maximum(history, ROUNDING)
    colour = method_style("cdd").color
    ax.plot(np.arange(len(errors)), errors, color=colour, linewidth=2.0, marker="o" if len(errors) == 1 else "")
    set_error_axis(ax, errors.tolist())
    ax.set_xlabel(f'iteration from the start "{start}"')
    ax.set_ylabel("relative error")
    return ax


def draw_phases(phases: NDArray[Any], ax: Axes | None) -> Axes:
    """Draw angles in radians as an image, a row for each mask, in colours that close the circle."""
    ax = axes_or_new(ax)
    aspect: Any = "equal" if 1 / 3 < phases.shape[0] / phases.shape[1] < 3 else "auto"
    image = ax.imshow(np.mod(phases, 2.0 * np.pi), cmap="twilight", vmin=0.0, vmax=2.0 * np.pi, aspect=aspect)
    for axis in (ax.xaxis, ax.yaxis):
        set_integer_ticks(axis, 5)
    ax.set_xlabel("port")
    ax.set_ylabel("mask")
    bar = ax.figure.colorbar(image, ax=ax, ticks=[0.0, np.pi, 2.0 * np.pi])
    bar.set_ticklabels(["0", "\N{GREEK SMALL LETTER PI}", "2\N{GREEK SMALL LETTER PI}"])
    bar.set_label("phase")
    return ax


def method_style(name: str) -> _LineStyle:
    """Return how a method is drawn in all figures; others are drawn under their name, all of them alike."""
    text = printable(name).replace("$", r"\$")  # as it is, not as mathematics
    return _METHODS.get(name, _LineStyle(f" {text}" if text.startswith("_") else text, "#D55E00", "-", "P"))


def set_error_axis(ax: Axes, errors: Iterable[float]) -> None:
    """Set the vertical scale for relative errors: logarithmic where some are small, rounding at its lower end."""
    least = max(min(errors, default=1.0), ROUNDING)
    if least < _SMALL:
        ax.set_yscale("log")
        ax.set_ylim(least / 2.0, 1.6)
    else:
        ax.set_ylim(least - 0.08 if least > 0.3 else -0.02, 1.02)
    ax.grid(visible=True, color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def set_integer_ticks(axis: Axis, most: int) -> None:
    """Put up to so many ticks at integers on an axis."""
    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def short_numbers() -> ScalarFormatter:
    """Return a format of numbers that takes powers of ten out of small and large ones."""
    formatter = ScalarFormatter()
    formatter.set_powerlimits((-2, 4))
    return formatter
