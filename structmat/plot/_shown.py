"""`ShownFigure`: a figure that notebooks show without `pyplot`."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

__all__ = ["ShownFigure"]


class ShownFigure(Figure):
    """A figure of matplotlib that is shown where it is the last value of a cell, with or without ``%matplotlib``."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()
