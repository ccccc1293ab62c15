"""Warnings that point at the line of the user's program, however deep in the package they arise."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]


def warn_caller(text: str, category: type[Warning], *, through: tuple[str, ...] = ()) -> None:
    """Warn at the line that called structmat, also `through` other packages that call it."""
    packages = {"structmat", "functools", *through}  # as properties that are computed once stand between
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in packages:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
