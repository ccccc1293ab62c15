"""What all figures share: the line of every method, colours and markers of further lines, and axes of errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from structmat._files.text import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ROUNDING", "SMALL", "LineStyle", "method_style", "series_style", "set_error_axis"]


class LineStyle(NamedTuple):
    """How a line is drawn.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.plot.method_style("truncated-svd").label
    'truncated SVD'
    """

    label: str
    """Its name."""
    color: str
    """Of the line and its markers."""
    linestyle: str | tuple[int, tuple[int, ...]]
    """Its dashes."""
    marker: str
    """Of its points."""


# Okabe and Ito's colours, told apart in all common kinds of colour blindness; dashes and markers tell lines apart in
# print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_METHODS = {
    "cdd": LineStyle("CDD product", "#0072B2", "-", "o"),
    "truncated-svd": LineStyle("truncated SVD", "#000000", "--", "s"),
    "block-circulant": LineStyle("block circulant", "#E69F00", "-.", "^"),
    "sparse-fourier": LineStyle("sparse Fourier", "#CC79A7", ":", "D"),
    "monarch": LineStyle("Monarch", "#009E73", (0, (6, 2)), "v"),
}
SMALL = 1e-2
"""Where errors fall below this, their axis is logarithmic."""
ROUNDING = 1e-17
"""What is below is not worth decades."""


def method_style(name: str) -> LineStyle:
    """Return how a method is drawn in all figures.

    Parameters
    ----------
    name : str
        ``"cdd"``, or the name of a baseline. Others are drawn under their name, all of them alike.

    Returns
    -------
    LineStyle
        Label, colour, dashes and marker.

    Examples
    --------
    >>> from structmat.plot import method_style
    >>> method_style("truncated-svd").label
    'truncated SVD'
    """
    return _METHODS.get(name, LineStyle(figure_text(name), "#56B4E9", "-", "P"))


def series_style(index: int) -> LineStyle:
    """Return how one of several lines of a kind is drawn.

    Parameters
    ----------
    index : int
        Which line, from 0; seven styles are distinct.

    Returns
    -------
    LineStyle
        Without a label.

    Examples
    --------
    >>> from structmat.plot import series_style
    >>> series_style(0) == series_style(7), series_style(0) == series_style(1)
    (True, False)
    """
    return LineStyle("", _COLOURS[index % len(_COLOURS)], "-", _MARKERS[index % len(_MARKERS)])


def set_error_axis(ax: Axes, errors: Iterable[float]) -> None:
    """Set the vertical scale of axes for relative errors, and draw a grid.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Whose vertical axis shows errors.
    errors : iterable of float
        All errors shown. If some are small, the axis is logarithmic; errors below rounding are drawn at its lower end.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from structmat.plot import set_error_axis
    >>> ax = Figure().subplots()
    >>> set_error_axis(ax, [0.5, 1e-3])
    >>> ax.get_yscale()
    'log'
    """
    least = max(min(errors, default=1.0), ROUNDING)
    if least < SMALL:
        ax.set_yscale("log")
        ax.set_ylim(least / 2.0, 1.6)
    else:
        ax.set_ylim(least - 0.08 if least > 0.3 else -0.02, 1.02)
    ax.grid(visible=True, color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
