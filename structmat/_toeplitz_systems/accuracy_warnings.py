"""Warnings that a result may be inaccurate, with one text for single matrices, stacks and matrices of blocks."""

from __future__ import annotations

import scipy  # its `linalg` is imported on first use

from structmat._errors import warn_caller


def warn_of_condition(condition: float, owner: str) -> None:
    """Warn of a condition number above the inverse of the machine epsilon, on behalf of a method."""
    text = f"{owner}: the matrix is ill-conditioned (about {condition:.1g}); the result may be inaccurate"
    warn_caller(text, scipy.linalg.LinAlgWarning)


def warn_of_lost_digits(lost: float, owner: str) -> None:
    """Warn of an inverse whose products are far less accurate than solutions, on behalf of a method."""
    text = f"products with this inverse have relative errors of about {lost:.1g}; `solve` is more accurate"
    warn_caller(f"{owner}: {text}", scipy.linalg.LinAlgWarning)
