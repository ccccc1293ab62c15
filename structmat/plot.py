"""Figures of matrices, fits, error curves and studies.

They are figures of matplotlib without `pyplot`, so that nothing global changes, such as the current figure of a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import svdvals
from scipy.sparse.linalg import svds

from structmat._arguments import as_matrix
from structmat._arrays.conversion import to_numpy
from structmat._drawing import FEW, ShownFigure, set_integer_ticks, short_numbers
from structmat._errors import ArgumentValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike
    from structmat.fit import ErrorCurve, FitResult
    from structmat.studies import Study

__all__ = ["draw_curve", "draw_history", "draw_study", "fit_figure"]

# Colour, dashes and marker of the singular values of each matrix in `fit_figure`.
_STYLES = {"W": ("#000000", "-", "o"), "fit": ("#0072B2", "--", "s"), "residual": ("#D55E00", "-.", "D")}
_ALL_SINGULAR_VALUES = 1500
"""All singular values are drawn if the smaller side has up to so many entries; for more they take too long."""

_LEADING = 32
"""So many singular values are drawn of a larger matrix, the largest ones."""


def draw_curve(curve: ErrorCurve, ax: Axes | None = None) -> Axes:
    """Draw the error against the number of parameters, with the baselines.

    Parameters
    ----------
    curve : ErrorCurve
        What `structmat.error_curve` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, drawn on.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from structmat.plot import draw_curve
    >>> ax = draw_curve(sm.error_curve(np.eye(4) + np.ones((4, 4)), n_factors=3, rng=0))
    >>> len(ax.lines) > 1
    True
    """
    return curve.plot(ax)


def draw_history(result: FitResult, ax: Axes | None = None) -> Axes:
    """Draw the error of a fit after each iteration from its best starting point.

    Parameters
    ----------
    result : FitResult
        What `structmat.fit_cdd` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, drawn on.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from structmat.plot import draw_history
    >>> draw_history(sm.fit_cdd(np.arange(16.0).reshape(4, 4), rng=0)).get_ylabel()
    'relative error'
    """
    return result.plot(ax)


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
        Three images of the moduli, those of matrix and fit on one colour scale and the residual on its own, and below
        them the singular values relative to the largest of `W`, for large matrices the leading ones. Missing entries
        are blank, and for the singular values zero in all three. Notebooks show it; save it by
        ``figure.savefig(path)``.

    Raises
    ------
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
    matrix = to_numpy(as_matrix(W, "fit_figure", "W"))
    fitted = to_numpy(result.operator.to_dense())
    if matrix.shape != fitted.shape:
        text = f"must have the shape of the fit, {fitted.shape}, got {matrix.shape}"
        raise ArgumentValueError("fit_figure", "W", text)
    if np.isinf(matrix).any():
        raise ArgumentValueError("fit_figure", "W", "must be finite, or NaN where an entry is missing, got infinity")
    missing = np.isnan(matrix)
    matrix = np.where(missing, 0.0, matrix)
    # Everything is divided by the largest entry of `W`, so that nothing overflows or underflows. The colour bar shows
    # the entries in their own units again.
    unit = float(np.max(np.abs(matrix))) or 1.0
    parts = {"W": matrix / unit, "fit": fitted / unit}
    given = {"W": parts["W"], "fit": np.where(missing, 0.0, parts["fit"])}
    given["residual"] = parts["residual"] = given["W"] - given["fit"]

    figure = ShownFigure(figsize=(11.0, 7.4), dpi=150, layout="constrained")
    figure.suptitle(_title(result, int(missing.sum())), fontsize=13)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.4, 1.0))
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
    moduli = {name: np.abs(part) * unit for name, part in parts.items()}
    tops = {"W": _top(moduli["W"])}
    tops |= {"fit": tops["W"], "residual": _top(moduli["residual"]) if moduli["residual"].any() else tops["W"]}
    rows, cols = parts["W"].shape
    for ax, (name, modulus) in zip(axes, moduli.items(), strict=True):
        ax.set_facecolor("0.85")
        shown = np.ma.array(modulus, mask=missing if name != "fit" else False)
        aspect: Any = "equal" if 1 / 3 < rows / cols < 3 else "auto"
        ax.imshow(shown, cmap="viridis", vmin=0.0, vmax=tops[name], aspect=aspect)
        ax.set_title(f"|{name}|")
        ax.set_xlabel("column")
        for axis in (ax.xaxis, ax.yaxis):
            set_integer_ticks(axis, 5)
    axes[0].set_ylabel("row")
    for names, of in ((("W", "fit"), axes[:2]), (("residual",), axes[2:])):
        beyond = max(float(moduli[name].max()) for name in names) > tops[names[0]]
        extend = "max" if beyond else "neither"
        bar = figure.colorbar(of[0].images[0], ax=of, location="bottom", extend=extend, aspect=25 * len(of))
        bar.formatter = short_numbers()
        bar.set_label("modulus", loc="left")


def _top(modulus: NDArray[Any]) -> float:
    """Return where a colour scale ends: at a quantile, as a few large entries would leave all others in the dark.

    Where some are above it, an arrow at the end of the colour bar says so.
    """
    positive = modulus[modulus > 0]
    return float(np.quantile(positive, 0.998, method="higher")) if positive.size else 1.0


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
            marker=marker if shown <= FEW else "",
            markersize=4,
            label=name if values[name].any() else f"{name} (zero)",
        )
    ax.set_yscale("log")
    floor = min((float(np.min(v[v > 0])) / largest for v in values.values() if (v > 0).any()), default=1e-3)
    ceiling = max(1.0, max(float(v[0]) for v in values.values()) / largest)
    # Singular values that are nothing but rounding errors are not worth decades of the axis.
    ax.set_ylim(max(floor, 1e-17) / 1.6, ceiling * 1.6)
    ax.set_xlim(0.5, shown + 0.5) if shown <= FEW else ax.set_xlim(0, shown + 1)
    set_integer_ticks(ax.xaxis, 10)
    ax.set_xlabel("index of the singular value" if shown == side else f"index: the leading {shown} of {side:,}")
    ax.set_ylabel("singular value / largest of W")
    ax.grid(visible=True, color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=3, loc="upper right")


def _singular_values(part: NDArray[Any]) -> NDArray[Any]:
    """Return the singular values, largest first; of a large matrix the leading ones."""
    if min(part.shape) <= _ALL_SINGULAR_VALUES or not part.any():
        values: NDArray[Any] = svdvals(part, check_finite=False)
        return values
    start = np.random.default_rng(0).standard_normal(min(part.shape)).astype(part.dtype)
    return np.sort(svds(part, k=_LEADING, tol=1e-3, v0=start, return_singular_vectors=False))[::-1]


def draw_study(study: Study, ax: Axes | None = None) -> Axes:
    """Draw the errors of a study.

    Parameters
    ----------
    study : Study
        What `structmat.studies.sweep` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default axes of a new figure, ``ax.figure``.

    Returns
    -------
    matplotlib.axes.Axes
        The mean error of each method over the layers against the number of parameters, where it has members of that
        size for all of them; for CDD with a band from the best layer to the worst. Of one setting, all errors, sorted.

    Raises
    ------
    ValueError
        If nothing is done yet.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.plot import draw_study
    >>> from structmat.studies import sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ax = draw_study(sweep({"W": np.eye(4) + np.ones((4, 4))}, folder, n_factors=[3, 5]))
    >>> ax.get_xlabel()
    'parameters, % of dense'
    """
    return study.plot(ax)
