"""Figures of matrices, fits and error curves. No global state: figures of matplotlib, never `pyplot`.

- `_fit_figure`: `fit_figure`, a matrix, its fit, and their singular values
- `_curve_figure`: `curve_figure` and `draw_curve`, error against number of factors and of parameters
- `_shown`: figures that notebooks show
- `_styles`: what all figures of the package share: colours, lines, axes of errors
"""

from __future__ import annotations

try:
    from structmat.plot._curve_figure import curve_figure, draw_curve
    from structmat.plot._fit_figure import fit_figure
    from structmat.plot._styles import LineStyle, method_style, series_style, set_error_axis
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "structmat":
        raise
    raise ImportError('structmat.plot needs the extra "plot": pip install "structmat[plot]"') from error

__all__ = [
    "LineStyle",
    "curve_figure",
    "draw_curve",
    "fit_figure",
    "method_style",
    "series_style",
    "set_error_axis",
]
