"""Circulant preconditioners for Toeplitz systems, of one level or several.

Each function returns the circulant that approximates the matrix; its `inv` is the preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable

from structmat._arrays.dtypes import cast_back, in_precision, precision_of
from structmat._arrays.libraries import device_of
from structmat._arrays.shapes import along_axes, concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._toeplitz_systems import central_diagonals
from structmat.operators import Circulant, MultilevelCirculant, MultilevelToeplitz, Toeplitz

__all__ = ["chan", "strang"]


def chan(T: Toeplitz | MultilevelToeplitz) -> Circulant | MultilevelCirculant:
    """Return T. Chan's circulant: the one nearest to a Toeplitz matrix in the Frobenius norm.

    Parameters
    ----------
    T : Toeplitz or MultilevelToeplitz
        A square matrix, or a stack.

    Returns
    -------
    Circulant or MultilevelCirculant
        With ``c[k] = ((n - k) t[k] + k t[k - n]) / n`` [1]_, on a grid along every axis [2]_. O(n) work.

    Raises
    ------
    ValueError
        If the matrix is not square, or its rows and columns have different grids.
    TypeError
        If T is of another kind.

    References
    ----------
    .. [1] Chan, T. F., An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9, 1988.
    .. [2] Chan, T. F., Olkin, J. A., Circulant preconditioners for Toeplitz-block matrices, Numer. Algorithms 6, 1994.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> T = sm.Toeplitz(np.array([2.0, -1.0, 0.0, 0.0]))
    >>> bool(np.allclose(sm.preconditioners.chan(T).c, sm.Circulant.nearest(T.to_dense()).c))
    True
    """
    return _circulant(T, _mean_of_diagonals, "preconditioners.chan")


def strang(T: Toeplitz | MultilevelToeplitz) -> Circulant | MultilevelCirculant:
    """Return Strang's circulant: the central diagonals of a Toeplitz matrix, wrapped around.

    Parameters
    ----------
    T : Toeplitz or MultilevelToeplitz
        A square matrix, or a stack.

    Returns
    -------
    Circulant or MultilevelCirculant
        With ``c[k] = t[k]`` for k below n / 2, ``t[k - n]`` above, and their mean at k = n / 2, so that a Hermitian T
        gives a Hermitian circulant [1]_; on a grid along every axis. O(n) work.

    Raises
    ------
    ValueError
        If the matrix is not square, or its rows and columns have different grids.
    TypeError
        If T is of another kind.

    References
    ----------
    .. [1] Strang, G., A proposal for Toeplitz matrix calculations, Stud. Appl. Math. 74, 1986.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.preconditioners.strang(sm.Toeplitz(np.array([2.0, -1.0, 0.0, 0.0]))).c
    array([ 2., -1.,  0., -1.])
    """
    return _circulant(T, central_diagonals, "preconditioners.strang")


def _circulant(
    T: Toeplitz | MultilevelToeplitz, wrap: Callable[[Array, Array, Namespace], Array], owner: str
) -> Circulant | MultilevelCirculant:
    """Return the circulant of the diagonals that `wrap` makes of those of T, along one axis after the other."""
    if not isinstance(T, (Toeplitz, MultilevelToeplitz)):
        raise ArgumentTypeError(owner, "T", f"must be a Toeplitz operator, got {type(T).__name__}")
    rows, cols = (T.row_sizes, T.col_sizes) if isinstance(T, MultilevelToeplitz) else ((n,) for n in T.shape)
    if rows != cols:
        raise ArgumentValueError(owner, "T", f"must have one grid for rows and columns, got {rows} and {cols}")
    xp, dtype = T._own_namespace(), T.dtype
    t = in_precision(T.t if isinstance(T, MultilevelToeplitz) else T._constants(xp), precision_of(dtype, xp), xp)

    def wrapped(line: Array, _: int) -> Array:
        n = (line.shape[-1] + 1) // 2
        lower = line[..., n - 1 :]
        return wrap(lower, concat_last([lower[..., :1], line[..., : n - 1]], xp), xp)

    grid = xp.reshape(t, (*t.shape[:-1], *(2 * n - 1 for n in rows)))
    c = xp.reshape(along_axes(grid, len(rows), wrapped, xp), (*t.shape[:-1], T.shape[0]))
    c = cast_back(c, dtype, xp)
    return MultilevelCirculant(c, rows) if isinstance(T, MultilevelToeplitz) else Circulant(c)


def _mean_of_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the means of the cyclic diagonals of the Toeplitz matrix."""
    n = lower.shape[-1]
    k = xp.astype(xp.arange(n, device=device_of(lower)), lower.dtype)
    part = 2 ** (n - 1).bit_length()  # a sum of so many parts is in range, as a power of two without rounding
    return ((n - k) * (lower / part) + k * (wrapped / part)) / (n / part)
