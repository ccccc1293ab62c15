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
from structmat._files import counted, printable

try:
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
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
    "CurveLine",
    "ShownFigure",
    "draw_error_curve",
    "draw_errors_after_iterations",
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


def new_axes(width: str | None = None) -> Axes:
    """Return axes of a new figure that notebooks show, for the screen or as wide as a part of a paper."""
    size, dots = ((7.0, 4.8), 150) if width is None else (_INCHES[width], 300)
    return ShownFigure(figsize=size, dpi=dots, layout="constrained").add_subplot()


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes that a caller gave, or new ones; refuse what is no axes, such as the name of a file."""
    if ax is None:
        return new_axes()
    if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
        text = f"must be axes of Matplotlib, got {ax!r}; to save a figure write plot().figure.savefig(path)"
        raise ArgumentTypeError("plot", "ax", text)
    return ax


class CurveLine(NamedTuple):
    """The points of an error curve."""

    n_factors: NDArray[Any]
    n_parameters: NDArray[Any]
    error: NDArray[Any]
    """Of the best search; NaN for a point that was not made."""
    median: NDArray[Any]
    largest: NDArray[Any]
    n_searches: int
    status: Sequence[str]
    """"completed", "stopped: " and by what, or "not made"."""


_BOUNDS = {"counting": "fewest by counting", "construction": "exact by construction"}
"""What the legend calls the numbers of factors that an exact product takes."""

_STOPPED = {"stopped: iteration limit": "o", "stopped: time limit": "s", "stopped: interrupted": "D"}
"""The hollow markers of points that were stopped, by what has stopped them."""

_NEAR = 1.35
"""A bound is drawn if it is at most so many times as far as the last point: a farther one would squeeze the curve."""

_INCHES = {"column": (3.4, 3.4), "page": (7.0, 4.0)}
"""Sizes of figures in a paper with two columns."""

_POINTS = 8.0
"""The size of letters in such figures; those of marks are smaller by one."""


def draw_error_curve(
    line: CurveLine,
    baselines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    bounds: Mapping[str, tuple[int, int]],
    n_entries: int,
    *,
    x: str,
    width: str | None,
    ax: Axes | None,
) -> Axes:
    """Draw an error curve beside the baselines, with the bounds of exact products.

    Parameters
    ----------
    line : CurveLine
        The points of the curve. Its errors decide on the scale.
    baselines : mapping of str to tuple
        For each family ``(n_parameters, error)`` at each point; NaN where it has no member of that size.
    bounds : mapping of str to tuple
        Numbers of factors and of parameters, by the names of `_BOUNDS`.
    n_entries : int
        Entries of the matrix.
    x : {"share", "parameters", "factors"}
        The horizontal axis.
    width : {"column", "page"} or None
        The size of a new figure.
    ax : matplotlib.axes.Axes or None
        Where to draw; None for axes of a new figure.
    """
    own = new_axes(width) if ax is None else axes_or_new(ax)
    made = np.flatnonzero(np.isfinite(line.error))
    least = float(line.error[made].min())
    shows_factors = x == "factors"
    unit = 100.0 / n_entries if x == "share" else 1.0
    where = line.n_factors * 1.0 if shows_factors else line.n_parameters * unit

    def drawn(errors: NDArray[Any]) -> NDArray[Any]:
        """Return errors as the axis can show them: what is far below the curve is not worth decades."""
        return np.maximum(errors, max(least, ROUNDING)) if least < _SMALL else errors

    style = method_style("cdd")
    mark = style.marker if made.size <= FEW else ""
    own.plot(where[made], drawn(line.error[made]), color=style.color, linewidth=2.4, label=style.label, zorder=3)
    _draw_points(own, line, where, drawn, mark)
    if line.n_searches > 1:
        low, high = drawn(line.error[made]), drawn(line.largest[made])
        band: dict[str, Any] = {
            "color": style.color,
            "alpha": 0.18,
            "linewidth": 0,
            "label": f"range of {line.n_searches} searches",
        }
        own.fill_between(where[made], low, high, **band)
        median = drawn(line.median[made])
        own.plot(where[made], median, color=style.color, linewidth=0.9, linestyle=":", label="their median", zorder=2)
    for name, (used, error) in baselines.items():
        there = np.isfinite(error) & (used > 0)
        # In parameters a member stands once, at its own size; in factors it stands at each point that may have it.
        points = np.flatnonzero(there & (shows_factors | np.append(True, np.diff(used) != 0)))
        if not points.size:
            continue
        rival = method_style(name)
        own.plot(
            where[points] if shows_factors else used[points] * unit,
            drawn(error[points]),
            color=rival.color,
            linestyle=rival.linestyle,
            linewidth=1.6,
            marker=rival.marker if points.size <= FEW else "",
            markersize=5,
            label=rival.label,
            zorder=2,
        )
    right = _draw_bounds(own, bounds, 0 if shows_factors else 1, 1.0 if shows_factors else unit, float(where[-1]))
    if not shows_factors:
        _mark_factors(own, line, where, drawn, small=width is not None)
    every = [line.error[made], line.largest[made], *(error[np.isfinite(error)] for _, error in baselines.values())]
    whole = np.concatenate(every)
    set_error_axis(own, (drawn(whole) if least < _SMALL else np.maximum(whole, _SMALL)).tolist())
    own.set_xlim(left=0.0, right=right)
    own.set_ylabel("relative error")
    if shows_factors:
        set_integer_ticks(own.xaxis, 10)
        own.set_xlabel("factors")
    else:
        own.set_xlabel("parameters, % of dense" if x == "share" else "parameters")
    own.legend(edgecolor="none", framealpha=0.85, fontsize=9)
    if ax is None and width is not None:
        _set_in_print(own, width)
    return own


def _draw_points(
    ax: Axes, line: CurveLine, where: NDArray[Any], drawn: Callable[[NDArray[Any]], NDArray[Any]], marker: str
) -> None:
    """Draw the points of a curve: full ones that were completed, hollow ones with a word that were stopped."""
    color = method_style("cdd").color
    kinds: dict[str, list[int]] = {}
    for k in np.flatnonzero(np.isfinite(line.error)).tolist():
        kinds.setdefault(line.status[k], []).append(k)
    for status, points in kinds.items():
        dots: dict[str, Any] = {"color": color, "linestyle": "", "marker": marker, "markersize": 5, "zorder": 4}
        if status != "completed":
            hollow = _STOPPED.get(status, "v")
            dots |= {"marker": hollow, "markerfacecolor": "white", "markersize": 6, "label": status}
        ax.plot(where[points], drawn(line.error[points]), **dots)


def _draw_bounds(ax: Axes, bounds: Mapping[str, tuple[int, int]], which: int, unit: float, last: float) -> float | None:
    """Draw a vertical line at each bound that is not far beyond the last point; return where the axis is to end."""
    styles = {"counting": (0, (1, 2)), "construction": (0, (5, 3))}
    right = last * 1.04
    for name, sizes in bounds.items():
        at = sizes[which] * unit
        if at <= last * _NEAR:
            label = f"{_BOUNDS[name]}, {sizes[0]}"
            ax.axvline(at, color="0.35", linewidth=1.1, linestyle=styles[name], label=label, zorder=1)
            right = max(right, at * 1.04)
    return right


def _mark_factors(
    ax: Axes, line: CurveLine, where: NDArray[Any], drawn: Callable[[NDArray[Any]], NDArray[Any]], *, small: bool
) -> None:
    """Write the number of factors beside the points; of many points beside every k-th, that no mark covers another."""
    made = np.flatnonzero(np.isfinite(line.error)).tolist()
    most = _MARKS // 2 if small else _MARKS
    for place, k in enumerate(made):
        if place % -(-len(made) // most):
            continue
        text = counted(int(line.n_factors[k]), "factor") if place == 0 else f"{line.n_factors[k]}"
        at = (float(where[k]), float(drawn(line.error)[k]))
        style: dict[str, Any] = {"color": method_style("cdd").color, "fontsize": 9, "ha": "center", "zorder": 5}
        mark = ax.annotate(text, at, (0, -10 if small else -15), textcoords="offset points", **style)
        mark.set_path_effects([withStroke(linewidth=4, foreground="white")])  # Other lines may run below the mark.


def _set_in_print(ax: Axes, width: str) -> None:
    """Make letters and lines as large as in print; the legend stands above the axes, where it covers no line."""
    handles, labels = ax.get_legend_handles_labels()
    style: dict[str, Any] = {"frameon": False, "labelspacing": 0.25, "handlelength": 1.8, "columnspacing": 1.2}
    style["ncols"] = 2 if width == "column" else 3
    legend = ax.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.45, 1.0), **style)
    for text in ax.figure.findobj(Text):
        text.set_fontsize(_POINTS)
    for text in (*ax.texts, *legend.get_texts()):
        text.set_fontsize(_POINTS - 1.0)
    for each in ax.lines:
        each.set_linewidth(0.6 * each.get_linewidth())
        each.set_markersize(0.6 * each.get_markersize())
    ax.tick_params(labelsize=_POINTS)


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
            own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["error"])
            errors = np.maximum([row["error"] for row in own], ROUNDING)
            ax.plot(range(1, len(own) + 1), errors, label=style.label, **line)
            stopped = np.flatnonzero([row["status"] != "completed" for row in own])
            _draw_stopped(ax, stopped + 1, errors[stopped], line)
            continue
        # Of CDD one line for each block size; of other families, which have none, one in all.
        for _, points in of_method.groupby("block_size", sort=False) if method == "cdd" else [("", of_method)]:
            by_size = points.sort_values("share")
            share, error = 100 * by_size["share"], by_size["error"].clip(lower=ROUNDING)
            ax.plot(share, error, label=style.label, **line)
            cut = by_size["stopped"] > 0
            _draw_stopped(ax, share[cut], error[cut], line)
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


def _draw_stopped(ax: Axes, where: Any, errors: Any, line: Mapping[str, Any]) -> None:
    """Draw hollow markers over the points of a line whose fits were stopped, if there are any."""
    if len(where):
        hollow = {"linestyle": "", "markerfacecolor": "white", "zorder": 4, "label": "stopped"}
        ax.plot(where, errors, **{**line, **hollow})


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
