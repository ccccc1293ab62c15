"""`curve_figure` and `draw_curve`: errors against the number of factors, and of parameters beside other families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from structmat.plot._shown import ShownFigure
from structmat.plot._styles import ROUNDING, SMALL, method_style, set_error_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat.fit import ErrorCurve

__all__ = ["curve_figure", "draw_curve"]

_FEW = 40  # points that get a marker each
_LINE = 0.055  # height of a label, as a part of the axes


def curve_figure(curve: ErrorCurve) -> Figure:
    """Draw an error curve against the number of factors and, with its baselines, against the number of parameters.

    Parameters
    ----------
    curve : ErrorCurve
        What `structmat.error_curve` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Hollow points are products of fewer factors that fits with more factors did not improve. Save the figure by
        ``figure.savefig(path)``; notebooks show it.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import error_curve
    >>> from structmat.plot import curve_figure
    >>> curve = error_curve(np.arange(16.0).reshape(4, 4), n_factors=[3], rng=0)
    >>> [axes.get_xlabel() for axes in curve_figure(curve).axes]
    ['number of factors', 'parameters, % of dense']
    """
    rows, cols = curve.shape
    figure = ShownFigure(figsize=(11.0, 4.8), dpi=150, layout="constrained")
    figure.suptitle(
        f"CDD products of a {rows:,} × {cols:,} matrix, blocks of {curve.block_size}, {curve.first} first", fontsize=13
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.0, 1.45))
    label, colour, dashes, marker = method_style("cdd")
    error = _drawn(curve.error, curve)
    left.plot(curve.n_factors, error, color=colour, linestyle=dashes, linewidth=2.2, label=label)
    new = np.append(True, np.diff(curve.error) < 0)
    for shown, face in ((new, colour), (~new, "white")):
        left.plot(
            curve.n_factors[shown],
            error[shown],
            color=colour,
            linestyle="",
            marker=marker,
            markersize=6,
            markerfacecolor=face,
        )
    draw_curve(right, curve)
    right.set_ylabel("")
    _dress(left, curve)
    left.set_xlabel("number of factors")
    few = len(curve.n_factors) <= 12
    left.xaxis.set_major_locator(
        FixedLocator(curve.n_factors.tolist()) if few else MaxNLocator(nbins=9, integer=True, min_n_ticks=1)
    )
    return figure


def draw_curve(ax: Axes, curve: ErrorCurve) -> None:
    """Draw the error against the number of parameters, with the baselines, every line labelled at its end.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    curve : ErrorCurve
        What `structmat.error_curve` returned.

    See Also
    --------
    curve_figure : A figure of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> import structmat as sm
    >>> from structmat.plot import draw_curve
    >>> ax = Figure().add_subplot()
    >>> draw_curve(ax, sm.error_curve(np.eye(4) + np.ones((4, 4)), max_factors=3, rng=0))
    >>> len(ax.lines) > 1
    True
    """
    lines = {"cdd": (curve.n_parameters, curve.error), **curve.baselines}
    unit = 100.0 / (curve.shape[0] * curve.shape[1])
    ends = []
    for name, (used, error) in lines.items():
        # A baseline with fewer parameters than its smallest member is the zero matrix: no point of its own.
        points = np.unique(np.flatnonzero((used > 0) & np.append(True, np.diff(used) != 0)))
        if not points.size:
            continue
        label, colour, dashes, marker = method_style(name)
        y = _drawn(error[points], curve)
        ax.plot(
            unit * used[points],
            y,
            color=colour,
            linestyle=dashes,
            linewidth=2.4 if name == "cdd" else 1.6,
            marker=marker if points.size <= _FEW else "",
            markersize=5,
            label=label,
            zorder=3 if name == "cdd" else 2,
        )
        ends.append((label, colour, float(unit * used[points[-1]]), float(y[-1])))
    _dress(ax, curve)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("parameters, % of dense")
    _label_ends(ax, ends)


def _dress(ax: Axes, curve: ErrorCurve) -> None:
    """Set what both axes of a curve have in common."""
    every = np.concatenate([curve.error, *(error[used > 0] for used, error in curve.baselines.values())])
    # The curve decides on the scale, not the other families.
    set_error_axis(ax, (_drawn(every, curve) if _is_small(curve) else np.maximum(every, SMALL)).tolist())
    ax.set_ylabel("weighted relative error" if curve.weighted else "relative error")


def _is_small(curve: ErrorCurve) -> bool:
    return bool(curve.error.min() < SMALL)


def _drawn(errors: NDArray[Any], curve: ErrorCurve) -> NDArray[Any]:
    """Return errors as the axis can show them: what is below rounding, or far below the curve, is not worth decades."""
    return np.maximum(errors, max(float(curve.error.min()), ROUNDING)) if _is_small(curve) else errors


def _label_ends(ax: Axes, ends: list[tuple[str, str, float, float]]) -> None:
    """Write every label beside the axes, at the height of the end of its line, apart from one another."""
    axes_from_data = ax.transScale + ax.transLimits
    heights = _apart([float(axes_from_data.transform((x, y))[1]) for _, _, x, y in ends], _LINE)
    for (label, colour, x, y), height in zip(ends, heights, strict=True):
        ax.annotate(
            label,
            xy=(x, y),
            # In data coordinates, so that labels follow when the limits change.
            xytext=(1.03, float(axes_from_data.inverted().transform((0.0, height))[1])),
            textcoords=ax.get_yaxis_transform(),
            color=colour,
            va="center",
            fontweight="bold" if label == method_style("cdd").label else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1.0, "shrinkB": 4.0},
        )


def _apart(heights: list[float], gap: float) -> list[float]:
    """Move numbers as little as it takes for neighbours to be `gap` apart, and all of them inside the axes.

    Where there are too many for that gap, they share the axes evenly.
    """
    order = np.argsort(heights, kind="stable")
    moved = np.clip(np.array(heights, dtype=float)[order], 0.0, 1.0)
    gap = min(gap, 1.0 / max(len(moved) - 1, 1))
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    top = 1.0
    for i in range(len(moved) - 1, -1, -1):
        moved[i] = top = min(moved[i], top)
        top -= gap
    result = np.empty_like(moved)
    result[order] = moved
    return list(result)
