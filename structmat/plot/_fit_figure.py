"""`fit_figure`: a matrix, its fit, the residual, and the singular values of the three."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from scipy.linalg import svdvals
from scipy.sparse.linalg import ArpackError, svds

from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.numpy_bridge import as_matrix, to_numpy
from structmat.plot._shown import ShownFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike
    from structmat.fit import FitResult

__all__ = ["fit_figure"]

# Colours of Okabe and Ito, as everywhere; dashes tell the lines apart in print.
_STYLES = {"W": ("#000000", "-", "o"), "fit": ("#0072B2", "--", "s"), "residual": ("#D55E00", "-.", "D")}
_PIXELS = 480  # per side of an image
_ALL_SINGULAR_VALUES = 1500  # up to this smaller side, else the leading ones
_LEADING = 32
_FEW = 40  # points that get a marker each


def fit_figure(W: ArrayLike, result: FitResult) -> Figure:
    """Draw a matrix, its fit, the residual, and the singular values of the three.

    Parameters
    ----------
    W : array_like, shape (rows, cols)
        The matrix that was fitted; NaN where an entry is missing.
    result : FitResult
        Its fit.

    Returns
    -------
    matplotlib.figure.Figure
        Three images of the moduli on one colour scale, for large matrices means over blocks, and below them the
        singular values relative to the largest of `W`, for large matrices the leading ones. Missing entries are blank,
        and for the singular values zero in all three. Notebooks show it; save it by ``figure.savefig(path)``.

    Raises
    ------
    TypeError
        If `result` is no `FitResult`.
    ValueError
        If `W` is not a matrix, has another shape than the fit, or an entry is infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import fit_cdd
    >>> from structmat.plot import fit_figure
    >>> W = np.arange(12.0).reshape(3, 4)
    >>> [axes.get_title() for axes in fit_figure(W, fit_cdd(W)).axes[:3]]
    ['|W|', '|fit|', '|residual|']
    """
    if not hasattr(result, "operator"):
        text = f"must be what a fit returned, a FitResult, got {type(result).__name__}"
        raise ArgumentTypeError("fit_figure", "result", text)
    matrix = to_numpy(as_matrix(W, "fit_figure", "W"))
    fitted = to_numpy(result.operator.to_dense())
    if matrix.shape != fitted.shape:
        text = f"must have the shape of the fit, {fitted.shape}, got {matrix.shape}"
        raise ArgumentValueError("fit_figure", "W", text)
    if np.isinf(matrix).any():
        raise ArgumentValueError("fit_figure", "W", "must be finite, or NaN where an entry is missing, got infinity")
    missing = np.isnan(matrix)
    matrix = np.where(missing, 0.0, matrix)
    # Divided by its largest entry, so that nothing over- or underflows; the colour bar is in the entries' own units.
    unit = float(np.max(np.abs(matrix))) or 1.0
    parts = {"W": matrix / unit, "fit": fitted / unit}
    given = {"W": parts["W"], "fit": np.where(missing, 0.0, parts["fit"])}
    given["residual"] = parts["residual"] = given["W"] - given["fit"]

    figure = ShownFigure(figsize=(11.0, 7.4), dpi=150, layout="constrained")
    figure.suptitle(_title(result, int(missing.sum())), fontsize=13)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.25, 1.0))
    images = [figure.add_subplot(grid[0, k]) for k in range(3)]
    _draw_images(figure, images, parts, missing, unit)
    _draw_singular_values(figure.add_subplot(grid[1, :]), given)
    return figure


def _title(result: FitResult, n_missing: int) -> str:
    rows, cols = result.operator.shape
    factors = " · ".join(type(factor).__name__ for factor in result.operator.factors)
    return (
        f"{factors} fit of a {rows:,} × {cols:,} matrix\n"
        f"relative error {result.error:.4g} ({result.explained:.2%} of the energy explained), "
        f"{result.n_parameters:,} parameters ({result.n_parameters / (rows * cols):.2%} of dense)"
        f"{f', {n_missing:,} entries missing' if n_missing else ''}"
    )


def _draw_images(
    figure: Figure, axes: list[Axes], parts: dict[str, NDArray[Any]], missing: NDArray[np.bool_], unit: float
) -> None:
    rows, cols = parts["W"].shape
    moduli = {name: _block_means(np.abs(part)) * unit for name, part in parts.items()}
    # A few large entries must not leave the rest in the dark; what is above the scale is marked at its end.
    largest = max(float(modulus.max()) for modulus in moduli.values())
    positive = moduli["W"][moduli["W"] > 0]
    top = float(np.quantile(positive, 0.998, method="higher")) if positive.size else 1.0
    averaged = moduli["W"].shape != (rows, cols)
    for ax, (name, modulus) in zip(axes, moduli.items(), strict=True):
        blank = missing if name != "fit" and not averaged else False
        ax.set_facecolor("0.85")
        ax.imshow(
            np.ma.array(modulus, mask=blank),
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
