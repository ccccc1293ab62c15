"""Circulant preconditioners for Toeplitz systems, of one level or several.

Each function returns the circulant that approximates the matrix; its `inv` is the preconditioner.
"""

from __future__ import annotations

from structmat._arrays.dtypes import cast_back, in_precision, precision_of
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._nearest_circulants import Wrap, mean_of_diagonals, wrapped_diagonals
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
    return _circulant(T, mean_of_diagonals, "preconditioners.chan")


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


def _circulant(T: Toeplitz | MultilevelToeplitz, wrap: Wrap, owner: str) -> Circulant | MultilevelCirculant:
    """Return the circulant of the diagonals that `wrap` makes of those of T, along one axis after the other."""
    if not isinstance(T, (Toeplitz, MultilevelToeplitz)):
        raise ArgumentTypeError(owner, "T", f"must be a Toeplitz operator, got {type(T).__name__}")
    rows, cols = (T.row_sizes, T.col_sizes) if isinstance(T, MultilevelToeplitz) else ((n,) for n in T.shape)
    if rows != cols:
        raise ArgumentValueError(owner, "T", f"must have one grid for rows and columns, got {rows} and {cols}")
    xp, dtype = T._own_namespace(), T.dtype
    offsets = T.t if isinstance(T, MultilevelToeplitz) else T._constants(xp)
    c = wrapped_diagonals(in_precision(offsets, precision_of(dtype, xp), xp), rows, wrap, xp)
    c = cast_back(c, dtype, xp)
    return MultilevelCirculant(c, rows) if isinstance(T, MultilevelToeplitz) else Circulant(c)
