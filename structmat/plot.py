"""Figures of fits; the only file that imports matplotlib. No global state: figures, never `pyplot`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import svdvals
from scipy.sparse.linalg import ArpackError, svds

from structmat.fit._numpy_bridge import as_matrix, to_numpy

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter
except ModuleNotFoundError as error:
    raise ImportError('structmat.plot needs the extra "plot": pip install "structmat[plot]"') from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike
    from structmat.fit import ErrorCurve, FitResult

__all__ = ["SUFFIXES", "curve_figure", "draw_curve", "fit_figure"]

SUFFIXES = (".png", ".pdf", ".svg")
"""What the command line accepts as the name of a figure."""

# Okabe and Ito's colours, told apart in all common kinds of colour blindness; dashes tell them apart in print.
_STYLES = {"W": ("#000000", "-", "o"), "fit": ("#0072B2", "--", "s"), "residual": ("#D55E00", "-.", "D")}
_PIXELS = 480  # per side of an image
_ALL_SINGULAR_VALUES = 1500  # up to this smaller side, else the leading ones
_LEADING = 32
_FEW = 40  # points that get a marker each

_CURVES = {
    "cdd": ("CDD product", "#0072B2", "-", "o"),
    "truncated-svd": ("truncated SVD", "#000000", "--", "s"),
    "block-circulant": ("block circulant", "#E69F00", "-.", "^"),
    "sparse-fourier": ("sparse Fourier", "#CC79A7", ":", "D"),
    "monarch": ("Monarch", "#009E73", (0, (6, 2)), "v"),
}
"""Label, colour, dashes and marker of the fit and its rivals."""
_SMALL = 1e-2  # where errors fall below this, their axis is logarithmic
_LINE = 0.055  # height of a label, as a part of the axes


def fit_figure(W: ArrayLike, result: FitResult) -> Figure:
    """Draw a matrix, its fit, the residual, and the singular values of the three.

    Parameters
    ----------
    W : array_like, shape (rows, cols)
        The matrix that was fitted.
    result : FitResult
        Its fit.

    Returns
    -------
    matplotlib.figure.Figure
        Three images of the moduli on one colour scale, large matrices as means over blocks, and below them the singular
        values relative to the largest of `W`; of large matrices the leading ones. Save it by ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        If `W` is no matrix, or has another shape than the fit.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import fit_cdd
    >>> from structmat.plot import fit_figure
    >>> W = np.arange(12.0).reshape(3, 4)
    >>> [axes.get_title() for axes in fit_figure(W, fit_cdd(W)).axes[:3]]
    ['|W|', '|fit|', '|residual|']
    """
    matrix = to_numpy(as_matrix(W, "fit_figure: W"))
    fitted = to_numpy(result.operator.to_dense())
    if matrix.shape != fitted.shape:
        raise ValueError(f"fit_figure: W must have the shape of the fit, {fitted.shape}, got {matrix.shape}")
    # Divided by its largest entry, so that nothing over- or underflows; the colour bar is in the entries' own units.
    unit = float(np.max(np.abs(matrix))) or 1.0
    parts = {"W": matrix / unit, "fit": fitted / unit}
    parts["residual"] = parts["W"] - parts["fit"]

    figure = Figure(figsize=(11.0, 7.4), dpi=150, layout="constrained")
    figure.suptitle(_title(result), fontsize=13)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.25, 1.0))
    images = [figure.add_subplot(grid[0, k]) for k in range(3)]
    _draw_images(figure, images, parts, unit)
    _draw_singular_values(figure.add_subplot(grid[1, :]), parts)
    return figure


def curve_figure(curve: ErrorCurve) -> Figure:
    """Draw an error curve: against the number of factors, and beside its rivals against the number of parameters.

    Parameters
    ----------
    curve : ErrorCurve
        What `structmat.error_curve` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Hollow points are products of fewer factors that no fit with more improved on. Save the figure by
        ``figure.savefig(path)``.

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
    figure = Figure(figsize=(11.0, 4.8), dpi=150, layout="constrained")
    figure.suptitle(
        f"CDD products of a {rows:,} × {cols:,} matrix, blocks of {curve.block_size}, {curve.first} first", fontsize=13
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.0, 1.45))
    label, colour, dashes, marker = _CURVES["cdd"]
    error = _drawable(curve.error, curve)
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
    """Draw the error against the number of parameters, with the rivals, every line labelled at its end.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    curve : ErrorCurve
        What `structmat.error_curve` returned.
    """
    lines = {"cdd": (curve.n_parameters, curve.error), **curve.rivals}
    unit = 100.0 / (curve.shape[0] * curve.shape[1])
    ends = []
    for name, (used, error) in lines.items():
        # A rival with fewer parameters than its smallest member is the zero matrix: no point of its own.
        points = np.unique(np.flatnonzero((used > 0) & np.append(True, np.diff(used) != 0)))
        if not points.size:
            continue
        label, colour, dashes, marker = _CURVES.get(name, (name, "#56B4E9", "-", "P"))
        y = _drawable(error[points], curve)
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
    every = np.concatenate([curve.error, *(error[used > 0] for used, error in curve.rivals.values())])
    least = float(_drawable(every, curve).min())
    if _is_logarithmic(curve):
        ax.set_yscale("log")
        ax.set_ylim(least / 2.0, 1.6)
    else:
        ax.set_ylim(least - 0.08 if least > 0.3 else -0.02, 1.02)
    ax.set_ylabel("weighted relative error" if curve.weighted else "relative error")
    ax.grid(visible=True, color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _is_logarithmic(curve: ErrorCurve) -> bool:
    return bool(curve.error.min() < _SMALL)


def _drawable(error: NDArray[Any], curve: ErrorCurve) -> NDArray[Any]:
    """Return errors as the axis can show them: what is below rounding, or far below the curve, is not worth decades."""
    return np.maximum(error, max(float(curve.error.min()), 1e-17)) if _is_logarithmic(curve) else error


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
            fontweight="bold" if label == _CURVES["cdd"][0] else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1.0, "shrinkB": 4.0},
        )


def _apart(heights: list[float], gap: float) -> list[float]:
    """Move numbers as little as it takes for neighbours to be `gap` apart, and all of them inside the axes."""
    order = np.argsort(heights, kind="stable")
    moved = np.array(heights, dtype=float)[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    top = 1.0
    for i in range(len(moved) - 1, -1, -1):
        moved[i] = top = min(moved[i], top)
        top -= gap
    result = np.empty_like(moved)
    result[order] = moved
    return list(result)


def _title(result: FitResult) -> str:
    rows, cols = result.operator.shape
    factors = " · ".join(type(factor).__name__ for factor in result.operator.factors)
    return (
        f"{factors} fit of a {rows:,} × {cols:,} matrix\n"
        f"relative error {result.error:.4g} ({result.explained:.2%} of the energy explained), "
        f"{result.n_parameters:,} parameters ({result.n_parameters / (rows * cols):.2%} of dense)"
    )


def _draw_images(figure: Figure, axes: list[Axes], parts: dict[str, NDArray[Any]], unit: float) -> None:
    rows, cols = parts["W"].shape
    moduli = {name: _block_means(np.abs(part)) * unit for name, part in parts.items()}
    # A few large entries must not leave the rest in the dark; what is above the scale is marked at its end.
    largest = max(float(modulus.max()) for modulus in moduli.values())
    positive = moduli["W"][moduli["W"] > 0]
    top = float(np.quantile(positive, 0.998, method="higher")) if positive.size else 1.0
    for ax, (name, modulus) in zip(axes, moduli.items(), strict=True):
        ax.imshow(
            modulus,
            cmap="viridis",
            vmin=0.0,
            vmax=top,
            extent=(-0.5, cols - 0.5, rows - 0.5, -0.5),
            interpolation="nearest",
            aspect="equal" if 1 / 3 < rows / cols < 3 else "auto",
        )
        ax.set_title(f"|{name}|")
        ax.set_xlabel("column")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes[0].set_ylabel("row")
    averaged = moduli["W"].shape != (rows, cols)
    bar = figure.colorbar(axes[0].images[0], ax=axes, extend="max" if largest > top else "neither", pad=0.01, aspect=25)
    bar.formatter = ScalarFormatter()
    bar.formatter.set_powerlimits((-2, 4))
    bar.set_label("mean modulus over blocks of entries" if averaged else "modulus of the entries")


def _draw_singular_values(ax: Axes, parts: dict[str, NDArray[Any]]) -> None:
    values = {name: _singular_values(part) for name, part in parts.items()}
    largest, side = float(values["W"][0]) or 1.0, min(parts["W"].shape)
    shown = len(values["W"])
    for name, (colour, dashes, marker) in _STYLES.items():
        relative = np.where(values[name] > 0, values[name] / largest, np.nan)
        ax.plot(
            np.arange(1, shown + 1),
            relative,
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            marker=marker if shown <= _FEW else "",
            markersize=4,
            label=name if values[name].any() else f"{name} (zero)",
        )
    ax.set_yscale("log")
    floor = min((float(np.min(v[v > 0])) / largest for v in values.values() if (v > 0).any()), default=1e-3)
    ceiling = max(1.0, max(float(v[0]) for v in values.values()) / largest)
    # Rounding errors are not worth a decade each.
    ax.set_ylim(max(floor, 1e-17) / 1.6, ceiling * 1.6)
    ax.set_xlim(0.5, shown + 0.5) if shown <= _FEW else ax.set_xlim(0, shown + 1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    ax.set_xlabel("index of the singular value" if shown == side else f"index: the leading {shown} of {side:,}")
    ax.set_ylabel("singular value / largest of W")
    ax.grid(visible=True, color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=3, loc="upper right")


def _block_means(modulus: NDArray[Any]) -> NDArray[Any]:
    """Return means over blocks, at most `_PIXELS` a side; blocks at the ends may be smaller."""
    for axis in (0, 1):
        step = -(-modulus.shape[axis] // _PIXELS)
        if step > 1:
            starts = np.arange(0, modulus.shape[axis], step)
            sizes = np.diff(np.append(starts, modulus.shape[axis]))
            modulus = np.add.reduceat(modulus, starts, axis=axis) / np.expand_dims(sizes, 1 - axis)
    return modulus


def _singular_values(part: NDArray[Any]) -> NDArray[Any]:
    """Return the singular values, largest first; of a large matrix the leading ones."""
    if min(part.shape) > _ALL_SINGULAR_VALUES and part.any():
        start = np.random.default_rng(0).standard_normal(min(part.shape)).astype(part.dtype)
        try:
            leading = svds(part, k=_LEADING, tol=1e-3, v0=start, return_singular_vectors=False)
        except ArpackError:
            pass
        else:
            return np.sort(leading)[::-1]
    values: NDArray[Any] = svdvals(part, check_finite=False)
    return values
