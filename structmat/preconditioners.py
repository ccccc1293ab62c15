"""Circulant preconditioners for Toeplitz systems, from an operator or from its first column and first row.

Each function returns the circulant that approximates the matrix; its `inv` is the preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structmat._arguments import as_floating
from structmat._array_tools import (
    ArgumentTypeError,
    ArgumentValueError,
    Array,
    ArrayLike,
    DType,
    Namespace,
    along_axes,
    broadcast_shapes,
    cast_back,
    common_dtype,
    device_of,
    in_precision,
    is_complex,
    is_half_precision,
    namespace_of,
    precision_of,
)
from structmat.operators import Circulant, LinearOperator, MultilevelCirculant, MultilevelToeplitz, Toeplitz

__all__ = ["chan", "strang"]


def chan(
    column: ArrayLike | Toeplitz | MultilevelToeplitz, row: ArrayLike | None = None
) -> Circulant | MultilevelCirculant:
    """Return T. Chan's circulant: the one nearest to a Toeplitz matrix in the Frobenius norm.

    Parameters
    ----------
    column : array, shape (..., n), Toeplitz or MultilevelToeplitz
        First column of the Toeplitz matrix T, or T itself, which may be of several levels.
    row : array, shape (..., n), optional
        First row of T; its first entry is ignored, as in `scipy.linalg.toeplitz`. Default: the conjugate of `column`,
        so that T is Hermitian.

    Returns
    -------
    Circulant or MultilevelCirculant
        With ``c[k] = ((n - k) t[k] + k t[k - n]) / n``, on a grid along every axis [2]_. O(n) work.

    Raises
    ------
    ValueError
        If the lengths differ or are zero, or the matrix is not square.
    TypeError
        If a row is given beside an operator, or `column` is an operator of another kind.

    References
    ----------
    .. [1] Chan, T. F., An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9, 1988.
    .. [2] Chan, T. F., Olkin, J. A., Circulant preconditioners for Toeplitz-block matrices, Numer. Algorithms 6, 1994.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.linalg import toeplitz
    >>> import structmat as sm
    >>> t = np.array([2.0, -1.0, 0.0, 0.0])
    >>> bool(np.allclose(sm.preconditioners.chan(t).c, sm.Circulant.nearest(toeplitz(t)).c))
    True
    """
    if isinstance(column, MultilevelToeplitz):
        return _of_levels(column, row, _mean_of_diagonals, "chan")
    lower, wrapped, dtype, xp = _diagonals(column, row, "chan")
    return Circulant(cast_back(_mean_of_diagonals(lower, wrapped, xp), dtype, xp))


def strang(
    column: ArrayLike | Toeplitz | MultilevelToeplitz, row: ArrayLike | None = None
) -> Circulant | MultilevelCirculant:
    """Return Strang's circulant: the central diagonals of a Toeplitz matrix, wrapped around.

    Parameters
    ----------
    column : array, shape (..., n), Toeplitz or MultilevelToeplitz
        First column of the Toeplitz matrix T, or T itself, which may be of several levels.
    row : array, shape (..., n), optional
        First row of T; its first entry is ignored. Default: the conjugate of `column`.

    Returns
    -------
    Circulant or MultilevelCirculant
        With ``c[k] = t[k]`` for k below n / 2, ``t[k - n]`` above, and their mean at k = n / 2, so that a Hermitian T
        gives a Hermitian circulant; on a grid along every axis. O(n) work.

    Raises
    ------
    ValueError
        If the lengths differ or are zero, or the matrix is not square.
    TypeError
        If a row is given beside an operator, or `column` is an operator of another kind.

    References
    ----------
    .. [1] Strang, G., A proposal for Toeplitz matrix calculations, Stud. Appl. Math. 74, 1986.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.preconditioners.strang(np.array([2.0, -1.0, 0.0, 0.0])).c
    array([ 2., -1.,  0., -1.])
    """
    if isinstance(column, MultilevelToeplitz):
        return _of_levels(column, row, _central_diagonals, "strang")
    lower, wrapped, dtype, xp = _diagonals(column, row, "strang")
    return Circulant(cast_back(_central_diagonals(lower, wrapped, xp), dtype, xp))


def _diagonals(column: ArrayLike | Toeplitz, row: ArrayLike | None, name: str) -> tuple[Any, Any, DType, Namespace]:
    """Return the entries t[0], ..., t[n-1] below and t[0], t[1-n], ..., t[-1] above, as a circulant wraps them.

    They are in the precision of computations; the dtype of the result comes third.
    """
    owner = f"preconditioners.{name}"
    if isinstance(column, LinearOperator):
        if not isinstance(column, Toeplitz):
            raise ArgumentTypeError(
                owner, "column", f"must be a Toeplitz operator or its first column, got {type(column).__name__}"
            )
        _refuse_row(row, owner)
        row, column = column.r, column.c
    column = as_floating(column, owner, "column")
    xp = namespace_of(owner, column)
    if row is None:
        row = xp.conj(column) if is_complex(column.dtype, xp) else column
    row = as_floating(row, owner, "row", like=(xp, column.dtype))
    namespace_of(owner, column, row)
    if column.ndim < 1 or row.ndim < 1 or column.shape[-1] != row.shape[-1] or not column.shape[-1]:
        raise ArgumentValueError(
            owner,
            None,
            f"column and row must have one length n >= 1, got {tuple(column.shape)} and {tuple(row.shape)}",
        )
    dtype = common_dtype(xp, column, row)
    batch = broadcast_shapes(owner, tuple(column.shape[:-1]), tuple(row.shape[:-1]))
    working = precision_of(dtype, xp) if is_half_precision(dtype) else dtype
    column, row = (xp.broadcast_to(xp.astype(a, working), (*batch, a.shape[-1])) for a in (column, row))
    return column, xp.concat([column[..., :1], xp.flip(row[..., 1:], axis=-1)], axis=-1), dtype, xp


def _refuse_row(row: Any, owner: str) -> None:
    if row is not None:
        raise ArgumentTypeError(owner, "row", "is for a first column, a Toeplitz operator has its own")


def _of_levels(
    T: MultilevelToeplitz, row: Any, wrap: Callable[[Array, Array, Namespace], Array], name: str
) -> MultilevelCirculant:
    """Return the circulant of the diagonals that `wrap` makes of those of T, along one axis after the other."""
    owner = f"preconditioners.{name}"
    _refuse_row(row, owner)
    if T.row_sizes != T.col_sizes:
        text = f"must have one grid for rows and columns, got {T.row_sizes} and {T.col_sizes}"
        raise ArgumentValueError(owner, "column", text)
    xp = namespace_of(owner, T.t)
    t = in_precision(T.t, precision_of(T.dtype, xp), xp)

    def wrapped(line: Array, _: int) -> Array:
        n = (line.shape[-1] + 1) // 2
        lower = line[..., n - 1 :]
        return wrap(lower, xp.concat([lower[..., :1], line[..., : n - 1]], axis=-1), xp)

    grid = xp.reshape(t, (*t.shape[:-1], *(2 * n - 1 for n in T.row_sizes)))
    c = xp.reshape(along_axes(grid, len(T.row_sizes), wrapped, xp), (*t.shape[:-1], T.shape[0]))
    return MultilevelCirculant(cast_back(c, T.dtype, xp), T.row_sizes)


def _central_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the diagonals near the main one, of those that lie as far from it their mean."""
    n = lower.shape[-1]
    k = xp.arange(n, device=device_of(lower))
    near = xp.where(2 * k < n, lower, wrapped)
    return xp.where(2 * k == n, lower / 2 + wrapped / 2, near)


def _mean_of_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the means of the cyclic diagonals of the Toeplitz matrix."""
    n = lower.shape[-1]
    k = xp.astype(xp.arange(n, device=device_of(lower)), lower.dtype)
    part = 2 ** (n - 1).bit_length()  # a sum of so many parts is in range, as a power of two without rounding
    return ((n - k) * (lower / part) + k * (wrapped / part)) / (n / part)
