"""Axes with relative errors, drawn alike in all figures: of methods, of a study, and after each iteration of a fit.

Who has errors to draw hands plain values to these functions: error curves, studies and fits all do, and none of them is
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._errors import ArgumentTypeError
from structmat._files import printable

try:
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator, ScalarFormatter
except ModuleNotFoundError as error:
    raise ImportError('structmat.plot needs the extra "files": pip install "structmat[files]"') from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from numpy.typing import NDArray

__all__ = [
    "AXES",
    "FEW",
    "ROUNDING",
    "WIDTHS",
    "CurveLine",
    "ShownFigure",
    "draw_error_curves",
    "draw_errors_after_iterations",
    "draw_phases",
    "draw_sorted_errors",
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


def new_axes(size: tuple[float, float] = (7.0, 4.8), in_print: bool = False) -> Axes:
    """Return axes of a new figure of a size in inches, which notebooks show."""
    return ShownFigure(figsize=size, dpi=300 if in_print else 150, layout="constrained").add_subplot()


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes that a caller gave, or new ones; refuse what is no axes, such as the name of a file."""
    if ax is None:
        return new_axes()
    if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
        text = f"must be axes of Matplotlib, got {ax!r}; to save a figure write plot().figure.savefig(path)"
        raise ArgumentTypeError("plot", "ax", text)
    return ax


class CurveLine(NamedTuple):
    """Errors of CDD products against their size: of a curve, or means over the matrices of a study."""

    where: NDArray[Any]
    """The place of each point on the horizontal axis."""
    n_factors: NDArray[Any]
    error: NDArray[Any]
    """Of the best search; NaN for a point that was not made."""
    median: NDArray[Any]
    largest: NDArray[Any]
    n_searches: int
    status: Sequence[str]
    """"completed", "stopped: " and by what, or "not made"."""
    least: NDArray[Any] | None = None
    most: NDArray[Any] | None = None
    """The least and the largest error of a matrix, if the points are means over several."""
    label: str | None = None
    """What the legend calls the line, if there are several."""
    dashes: Any = "solid"
    """How the line is drawn."""


AXES = {"share": "parameters, % of dense", "parameters": "parameters", "factors": "factors"}
"""What the horizontal axis of errors may be, and what is written there."""

WIDTHS = {"column": (3.4, 3.6), "page": (7.0, 4.2)}
"""Sizes of figures in a paper with two columns, in inches."""

_SCREEN = (8.6, 4.8)
"""The size of a figure with a legend beside it, in inches."""

_BOUNDS = {"counting": "fewest by counting", "construction": "exact by construction"}
"""What the legend calls the numbers of factors that an exact product takes."""

_STOPPED = {"stopped: iteration limit": "o", "stopped: time limit": "s", "stopped: interrupted": "D"}
"""The hollow markers of points that were stopped, by what has stopped them."""

_NEAR = 1.35
"""A bound is drawn if it is at most so many times as far as the last point: a farther one would squeeze the curve."""

_POINTS = 8.0
"""The size of letters in such figures; those of marks are smaller by one."""


def draw_error_curves(
    lines: Sequence[CurveLine],
    rivals: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    x: str,
    width: str | None,
    ax: Axes | None,
    bounds: Mapping[str, tuple[int, float]] | None = None,
) -> Axes:
    """Draw errors of CDD products beside those of other families, with the bounds of exact products.

    Parameters
    ----------
    lines : sequence of CurveLine
        One, or one for each side of the blocks. Their errors decide on the scale.
    rivals : mapping of str to tuple
        For each other family the places of its members on the horizontal axis, and their errors; NaN where it has none.
    x : str
        The horizontal axis, of `AXES`.
    width : {"column", "page"} or None
        The size of a new figure.
    ax : matplotlib.axes.Axes or None
        Where to draw; None for axes of a new figure.
    bounds : mapping of str to tuple, optional
        Numbers of factors and their places, by the names of `_BOUNDS`.
    """
    own = new_axes(_SCREEN if width is None else WIDTHS[width], width is not None) if ax is None else axes_or_new(ax)
    least = min(float(np.nanmin(line.error)) for line in lines) if lines else 1.0

    def drawn(errors: NDArray[Any]) -> NDArray[Any]:
        """Return errors as the axis can show them: what is far below the curve is not worth decades."""
        return np.maximum(errors, max(least, ROUNDING)) if least < _SMALL else errors

    for line in lines:
        _draw_line(own, line, drawn)
    for name, (where, error) in rivals.items():
        there = np.isfinite(error)
        if not there.any():
            continue
        rival = method_style(name)
        style: dict[str, Any] = {
            "color": rival.color,
            "linestyle": rival.linestyle,
            "linewidth": 1.6,
            "markersize": 5,
            "zorder": 2,
        }
        own.plot(
            where[there],
            drawn(error[there]),
            marker=rival.marker if there.sum() <= FEW else "",
            label=rival.label,
            **style,
        )
    last = max(float(np.max(where)) for where in (*(line.where for line in lines), *(at for at, _ in rivals.values())))
    right = _draw_bounds(own, bounds or {}, last)
    if x == "factors":
        set_integer_ticks(own.xaxis, 10)
    elif lines:
        _name_factors(own, lines[0], small=width is not None)
    bands = [band for line in lines for band in (line.least, line.most) if band is not None]
    every = [each for line in lines for each in (line.error, line.largest)]
    whole = np.concatenate([*every, *bands, *(error for _, error in rivals.values())])
    whole = whole[np.isfinite(whole)]
    set_error_axis(own, (drawn(whole) if least < _SMALL else np.maximum(whole, _SMALL)).tolist())
    own.set_xlim(left=0.0, right=right)
    own.set_ylabel("relative error")
    own.set_xlabel(AXES[x])
    _set_legend(own, beside=ax is None)
    if ax is None and width is not None:
        _set_in_print(own, width)
    return own


def _draw_line(ax: Axes, line: CurveLine, drawn: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Draw the errors of CDD products, and how far they spread over searches and over matrices."""
    made = np.flatnonzero(np.isfinite(line.error))
    where, style = line.where[made], method_style("cdd")
    mark = style.marker if made.size <= FEW else ""
    label = line.label or style.label
    ax.plot(
        where, drawn(line.error[made]), color=style.color, linestyle=line.dashes, linewidth=2.4, label=label, zorder=3
    )
    _draw_points(ax, line, drawn, mark)
    if line.least is not None and line.most is not None:
        low, high = drawn(line.least[made]), drawn(line.most[made])
        band: dict[str, Any] = {"color": style.color, "alpha": 0.10, "linewidth": 0, "label": "range over matrices"}
        ax.fill_between(where, low, high, **band)
    if line.n_searches > 1:
        low, high = drawn(line.error[made]), drawn(line.largest[made])
        band = {"color": style.color, "alpha": 0.22, "linewidth": 0, "label": f"range of {line.n_searches} searches"}
        ax.fill_between(where, low, high, **band)
        median = drawn(line.median[made])
        ax.plot(where, median, color=style.color, linewidth=0.9, linestyle=":", label="their median", zorder=2)


def _draw_points(ax: Axes, line: CurveLine, drawn: Callable[[NDArray[Any]], NDArray[Any]], marker: str) -> None:
    """Draw the points of a line: full ones that were completed, hollow ones with a word that were stopped."""
    color = method_style("cdd").color
    kinds: dict[str, list[int]] = {}
    for k in np.flatnonzero(np.isfinite(line.error)).tolist():
        kinds.setdefault(line.status[k], []).append(k)
    for status, points in kinds.items():
        dots: dict[str, Any] = {"color": color, "linestyle": "", "marker": marker, "markersize": 5, "zorder": 4}
        if status != "completed":
            hollow = _STOPPED.get(status, "v")
            dots |= {"marker": hollow, "markerfacecolor": "white", "markersize": 6, "label": status}
        ax.plot(line.where[points], drawn(line.error[points]), **dots)


def _draw_bounds(ax: Axes, bounds: Mapping[str, tuple[int, float]], last: float) -> float:
    """Draw a vertical line at each bound that is not far beyond the last point; return where the axis is to end."""
    styles = {"counting": (0, (1, 2)), "construction": (0, (5, 3))}
    right = last * 1.04 or 1.0
    for name, (number, at) in bounds.items():
        if at <= last * _NEAR:
            label = f"{_BOUNDS[name]}, {number}"
            ax.axvline(at, color="0.35", linewidth=1.1, linestyle=styles[name], label=label, zorder=1)
            right = max(right, at * 1.04)
    return right


def _name_factors(ax: Axes, line: CurveLine, *, small: bool) -> None:
    """Name the numbers of factors above the axes, where they cover no line; of many points every k-th."""
    made = np.flatnonzero(np.isfinite(line.error))
    named = made[:: -(-len(made) // (_MARKS // 2 if small else _MARKS))]
    top = ax.secondary_xaxis("top")
    top.set_xticks(line.where[named].tolist(), [f"{number}" for number in line.n_factors[named]])
    top.set_xlabel("factors of the CDD product", fontsize=9)
    top.tick_params(labelsize=9, length=3, colors=method_style("cdd").color)
    top.spines["top"].set_visible(False)


def _set_legend(ax: Axes, *, beside: bool) -> None:
    """Name each line once: beside the axes of a new figure, where the legend covers none."""
    names = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if beside else {}
    ax.legend(names.values(), names, edgecolor="none", framealpha=0.85, fontsize=9, **place)


def _set_in_print(ax: Axes, width: str) -> None:
    """Make letters and lines as large as in print; the legend stands below the axes, where it covers no line."""
    handles, labels = ax.get_legend_handles_labels()
    names = dict(zip(labels, handles, strict=True))
    style: dict[str, Any] = {"frameon": False, "labelspacing": 0.25, "handlelength": 1.8, "columnspacing": 1.2}
    style["ncols"] = 2 if width == "column" else 3
    below = -0.16 if width == "column" else -0.13
    legend = ax.legend(names.values(), names, loc="upper center", bbox_to_anchor=(0.45, below), **style)
    for text in ax.figure.findobj(Text):
        text.set_fontsize(_POINTS)
    for text in legend.get_texts():
        text.set_fontsize(_POINTS - 1.0)
    for each in ax.lines:
        each.set_linewidth(0.6 * each.get_linewidth())
        each.set_markersize(0.6 * each.get_markersize())
    for axes in (ax, *ax.child_axes):
        axes.tick_params(labelsize=_POINTS)


def draw_sorted_errors(rows: Sequence[Mapping[str, Any]], *, width: str | None, ax: Axes | None) -> Axes:
    """Draw the errors of many matrices by several methods of one setting, each method's sorted.

    Parameters
    ----------
    rows : sequence of mappings
        One for each matrix and method, with ``method``, ``error`` and ``status``.
    width : {"column", "page"} or None
        The size of a new figure.
    ax : matplotlib.axes.Axes or None
        Where to draw; None for axes of a new figure.
    """
    own = new_axes(_SCREEN if width is None else WIDTHS[width], width is not None) if ax is None else axes_or_new(ax)
    for method in dict.fromkeys(row["method"] for row in rows):
        style = method_style(str(method))
        line: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        line |= {"markersize": 5, "linewidth": 2.2 if method == "cdd" else 1.5, "zorder": 3 if method == "cdd" else 2}
        ordered = sorted((row for row in rows if row["method"] == method), key=lambda row: row["error"])
        errors = np.maximum([row["error"] for row in ordered], ROUNDING)
        own.plot(range(1, len(ordered) + 1), errors, label=style.label, **line)
        for status in dict.fromkeys(row["status"] for row in ordered):
            if status == "completed":
                continue
            stopped = np.flatnonzero([row["status"] == status for row in ordered])
            hollow = {"linestyle": "", "markerfacecolor": "white", "zorder": 4, "label": status}
            own.plot(stopped + 1, errors[stopped], **{**line, **hollow})
    own.set_xlabel("matrices, sorted by error")
    set_integer_ticks(own.xaxis, 10)
    own.set_ylabel("relative error")
    set_error_axis(own, [row["error"] for row in rows])
    _set_legend(own, beside=ax is None)
    if ax is None and width is not None:
        _set_in_print(own, width)
    return own


def draw_errors_after_iterations(history: NDArray[Any], start: str, ax: Axes | None) -> Axes:
    """Draw the errors of a fit from a start and after each iteration; None stands for axes of a new figure."""
    ax = axes_or_new(ax)
    errors = np.maximum(history, ROUNDING)
    colour = method_style("cdd").color
    ax.plot(np.arange(len(errors)), errors, color=colour, linewidth=2.0, marker="o" if len(errors) == 1 else "")
    set_error_axis(ax, errors.tolist())
    ax.set_xlabel(f'iteration\nfrom the start "{start}"')
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
