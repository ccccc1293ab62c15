"""Axes with relative errors, drawn alike in all figures: against the number of parameters, or after each iteration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._files import printable

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, ScalarFormatter
except ModuleNotFoundError as error:
    raise ImportError('structmat.plot needs the extra "plot": pip install "structmat[plot]"') from error

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
    "method_style",
    "new_axes",
    "set_error_axis",
    "set_integer_ticks",
    "short_numbers",
]

FEW = 40
"""Up to so many points of a line get a marker each."""

ROUNDING = 1e-17
"""What is below this error is not worth decades of an axis."""

_SMALL = 1e-2
"""Where errors fall below this one, their axis is logarithmic."""


class _LineStyle(NamedTuple):
    """How a line is drawn."""

    label: str
    color: str
    linestyle: str | tuple[int, tuple[int, ...]]
    marker: str


# Okabe and Ito's colours, told apart in all common kinds of colour blindness; dashes and markers in print.
_METHODS = {
    "cdd": _LineStyle("CDD product", "#0072B2", "-", "o"),
    "truncated-svd": _LineStyle("truncated SVD", "#000000", "--", "s"),
    "cdd-in-blocks": _LineStyle("five factors in blocks", "#56B4E9", (0, (4, 1, 1, 1)), "X"),
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


def draw_errors_of_methods(
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], n_entries: int, ax: Axes | None
) -> Axes:
    """Draw errors against the number of parameters.

    Parameters
    ----------
    lines : mapping of str to tuple
        For each method ``(n_parameters, error)``. The first one decides on the scale of errors.
    n_entries : int
        Entries of the matrix: the number of parameters is drawn as a share of them.
    ax : matplotlib.axes.Axes or None
        Where to draw; None for axes of a new figure.
    """
    ax = ax or new_axes()
    (_, first), *others = lines.values()
    least = float(first.min())

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
    every = np.concatenate([first, *(error[used > 0] for used, error in others)])
    set_error_axis(ax, (drawn(every) if least < _SMALL else np.maximum(every, _SMALL)).tolist())
    ax.set_ylabel("relative error")
    ax.set_xlim(left=0.0)
    ax.set_xlabel("parameters, % of dense")
    ax.legend(frameon=False, fontsize=9)
    return ax


def draw_errors_after_iterations(history: NDArray[Any], ax: Axes | None) -> Axes:
    """Draw the errors of a fit at its start and after each iteration; None stands for axes of a new figure."""
    ax = ax or new_axes()
    errors = np.maximum(history, ROUNDING)
    colour = method_style("cdd").color
    ax.plot(np.arange(len(errors)), errors, color=colour, linewidth=2.0, marker="o" if len(errors) == 1 else "")
    set_error_axis(ax, errors.tolist())
    ax.set_xlabel("iteration")
    ax.set_ylabel("relative error")
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
