"""Circulant preconditioners for Toeplitz systems, from a `Toeplitz` or from its first column and first row.

Each function returns the circulant that approximates the matrix; its `inv` is the preconditioner.
"""

from __future__ import annotations

from typing import Any

from structmat._arrays import (
    as_floating,
    broadcast_shapes,
    common_dtype,
    device_of,
    is_complex,
    is_half_precision,
    namespace_of,
    precision_of,
    restored,
)
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._engine import fast_length, from_spectrum, spectrum
from structmat.operators import Circulant, LinearOperator, Toeplitz

__all__ = ["chan", "strang", "tyrtyshnikov"]


def chan(column: ArrayLike | Toeplitz, row: ArrayLike | None = None) -> Circulant:
    """Return T. Chan's circulant: the one nearest to a Toeplitz matrix in the Frobenius norm.

    Parameters
    ----------
    column : array, shape (..., n), or Toeplitz
        First column of the Toeplitz matrix T, or T itself.
    row : array, shape (..., n), optional
        First row of T; its first entry is ignored, as in `scipy.linalg.toeplitz`. Default: the conjugate of `column`,
        so that T is Hermitian.

    Returns
    -------
    Circulant
        With ``c[k] = ((n - k) t[k] + k t[k - n]) / n``, O(n) work.

    Raises
    ------
    ValueError
        If the lengths differ or are zero.
    TypeError
        If a row is given beside an operator, or `column` is an operator of another kind.

    References
    ----------
    .. [1] Chan, T. F., An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9, 1988.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.linalg import toeplitz
    >>> import structmat as sm
    >>> t = np.array([2.0, -1.0, 0.0, 0.0])
    >>> bool(np.allclose(sm.preconditioners.chan(t).c, sm.Circulant.nearest(toeplitz(t)).c))
    True
    """
    lower, wrapped, dtype, xp = _diagonals(column, row, "chan")
    return Circulant(restored(_mean_of_diagonals(lower, wrapped, xp), dtype, xp))


def strang(column: ArrayLike | Toeplitz, row: ArrayLike | None = None) -> Circulant:
    """Return Strang's circulant: the central diagonals of a Toeplitz matrix, wrapped around.

    Parameters
    ----------
    column : array, shape (..., n), or Toeplitz
        First column of the Toeplitz matrix T, or T itself.
    row : array, shape (..., n), optional
        First row of T; its first entry is ignored. Default: the conjugate of `column`.

    Returns
    -------
    Circulant
        With ``c[k] = t[k]`` for k below n / 2, ``t[k - n]`` above, and their mean at k = n / 2, so that a Hermitian T
        gives a Hermitian circulant. O(n) work.

    Raises
    ------
    ValueError
        If the lengths differ or are zero.
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
    lower, wrapped, dtype, xp = _diagonals(column, row, "strang")
    n = lower.shape[-1]
    k = xp.arange(n, device=device_of(lower))
    near = xp.where(2 * k < n, lower, wrapped)
    return Circulant(restored(xp.where(2 * k == n, (lower + wrapped) / 2, near), dtype, xp))


def tyrtyshnikov(column: ArrayLike | Toeplitz, row: ArrayLike | None = None) -> Circulant:
    """Return Tyrtyshnikov's circulant C: the one that minimises ``norm(I - C^-1 T)`` in the Frobenius norm.

    Parameters
    ----------
    column : array, shape (..., n), or Toeplitz
        First column of the Toeplitz matrix T, or T itself.
    row : array, shape (..., n), optional
        First row of T; its first entry is ignored. Default: the conjugate of `column`.

    Returns
    -------
    Circulant
        With eigenvalues ``eig(chan(T T^H)) / conj(eig(chan(T)))``, O(n log n) work.

    Raises
    ------
    ValueError
        If the lengths differ or are zero.
    TypeError
        If a row is given beside an operator, or `column` is an operator of another kind.

    Notes
    -----
    T T^H is not Toeplitz, but its neighbouring entries along a diagonal differ by two products of entries of T, so that
    the sums of its cyclic diagonals are two correlations and one product with T.

    References
    ----------
    .. [1] Tyrtyshnikov, E. E., Optimal and superoptimal circulant preconditioners, SIAM J. Matrix Anal. Appl. 13, 1992.
    .. [2] Chan, R. H., Jin, X.-Q., Yeung, M.-C., The circulant operator in the Banach algebra of matrices, Linear
       Algebra Appl. 149, 1991.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> c = np.array([4.0, 1.0, 0.0, 1.0])  # a circulant is its own best approximation
    >>> sm.preconditioners.tyrtyshnikov(c, c[[0, 3, 2, 1]]).c.round(12) + 0.0
    array([4., 1., 0., 1.])
    """
    lower, wrapped, dtype, xp = _diagonals(column, row, "tyrtyshnikov")
    n = lower.shape[-1]
    real = not is_complex(lower.dtype, xp)
    k = xp.arange(n, device=device_of(lower))

    # Diagonal s of G = T T^H sums to (n - s) G[s, 0] + sum over l of (n - s - l) (t[s+l] t[l]* - t[s+l-n] t[l-n]*).
    weights = xp.astype(n - k, lower.dtype)
    inner = xp.astype(k > 0, lower.dtype)
    # G[:, 0] is T times the conjugate of its first row.
    zero = xp.zeros_like(lower[..., :1])
    first_row = xp.concat([lower[..., :1], xp.flip(wrapped[..., 1:], axis=-1)], axis=-1)
    first = Toeplitz(lower, first_row).matvec(first_row if real else xp.conj(first_row))
    sums = (
        weights * first
        + _correlation(weights * lower, inner * lower, xp, real=real)
        - _correlation(weights * wrapped * inner, inner * wrapped, xp, real=real)
    )
    mirrored = xp.concat([zero, xp.flip(sums[..., 1:], axis=-1)], axis=-1)
    squared = (sums + (mirrored if real else xp.conj(mirrored))) / n
    plain = _mean_of_diagonals(lower, wrapped, xp)
    ratio = spectrum(squared, xp, real=real) / xp.conj(spectrum(plain, xp, real=real))
    return Circulant(restored(from_spectrum(ratio, n, xp, real=real), dtype, xp))


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
        if row is not None:
            raise ArgumentTypeError(owner, "row", "is for a first column, a Toeplitz operator has its own")
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
    dtype = common_dtype(xp, column.dtype, row.dtype)
    batch = broadcast_shapes(owner, tuple(column.shape[:-1]), tuple(row.shape[:-1]))
    working = precision_of(dtype, xp) if is_half_precision(dtype) else dtype
    column, row = (xp.broadcast_to(xp.astype(a, working), (*batch, a.shape[-1])) for a in (column, row))
    return column, xp.concat([column[..., :1], xp.flip(row[..., 1:], axis=-1)], axis=-1), dtype, xp


def _mean_of_diagonals(lower: Array, wrapped: Array, xp: Namespace) -> Array:
    """Return the means of the cyclic diagonals of the Toeplitz matrix."""
    n = lower.shape[-1]
    k = xp.astype(xp.arange(n, device=device_of(lower)), lower.dtype)
    return ((n - k) * lower + k * wrapped) / n


def _correlation(u: Array, v: Array, xp: Namespace, *, real: bool) -> Array:
    """Return ``sum over l of u[s + l] conj(v[l])`` for s = 0 ... n - 1, without wrapping around."""
    length = fast_length(2 * u.shape[-1])
    U, V = (spectrum(a, xp, real=real, n=length) for a in (u, v))
    return from_spectrum(U * xp.conj(V), length, xp, real=real)[..., : u.shape[-1]]
