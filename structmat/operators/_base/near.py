"""What is near a matrix, or another form of it, by which systems with it are solved faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from structmat._arrays.typing import Array

Eigenvectors: TypeAlias = tuple[Array, Any, bool]
"""Eigenvalues, the unitary operator of eigenvectors, and whether the matrix is real."""


class NearCirculant(NamedTuple):
    """A circulant near a square matrix."""

    c: Array
    """The first column."""
    sizes: tuple[int, ...] | None
    """The sizes of the grid on which it is cyclic; None where it is on every grid, as a multiple of the identity is."""


def _unknown() -> None:
    """Return None, since nothing is known."""


class Near(NamedTuple):
    """What is near a matrix, or another form of it. Functions return None where nothing is known.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> near = sm.Toeplitz(np.array([2.0, 1.0, 0.0]))._near(np.ones(3), np)
    >>> near.circulant().c.round(2)
    array([2.  , 0.67, 0.67])
    """

    whole: Any
    """The matrix itself, or one of which it is a principal submatrix. What follows is said of this one."""
    chosen: Any = None
    """The `Indices` of the rows and columns of the submatrix; None for all."""
    circulant: Callable[[], NearCirculant | None] = _unknown
    """Returns a circulant near it."""
    eigenvectors: Callable[[], Eigenvectors | None] = _unknown
    """Returns those of a matrix near it."""
    noisy_toeplitz: Callable[[], tuple[Any, Array | None] | None] = _unknown
    """Returns a (block) Toeplitz operator and a diagonal, each None where there is none, whose sum it is exactly."""


def on_one_grid(parts: Sequence[Near]) -> tuple[list[Array], tuple[int, ...] | None] | None:
    """Return the first columns of circulants near several matrices and the sizes of their common grid; else None."""
    found = [part.circulant() for part in parts]
    known = [circulant for circulant in found if circulant is not None]
    grids = {circulant.sizes for circulant in known if circulant.sizes is not None}
    if len(known) < len(found) or len(grids) > 1:
        return None
    return [circulant.c for circulant in known], next(iter(grids), None)
