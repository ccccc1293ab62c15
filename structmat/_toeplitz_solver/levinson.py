"""Levinson's recursion: O(n^2) time, the fastest of the direct ones, for matrices with well-conditioned sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["levinson", "symmetries"]


def symmetries(c: NDArray[Any], r: NDArray[Any]) -> tuple[bool, bool]:
    """Tell whether the matrix of first column and first row is symmetric, and whether it is Hermitian."""
    return np.array_equal(c[1:], r[1:]), np.array_equal(c, np.append(c[:1], r[1:]).conj())


def levinson(c: NDArray[Any], r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], complex, float]:
    """Return what determines the inverse of a square Toeplitz matrix, and its determinant.

    Parameters
    ----------
    c, r : array, shape (n,)
        First column and first row of T, in double precision; the first entry of `r` is ignored.

    Returns
    -------
    x, y : array, shape (n,)
        ``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])`` with some s; NaN or infinite where a leading section is
        singular, and inaccurate where one is nearly so.
    sign : complex
        The phase of the determinant.
    logabsdet : float
        The logarithm of its absolute value.

    Notes
    -----
    The sections of size m have ``T_m a = rho e_0`` and ``T_m b = rho e_{m-1}`` with ``a[0] = b[m-1] = 1``; the product
    of all rho is the determinant. Of a Hermitian or symmetric matrix b is a in reverse order, conjugated or not.

    References
    ----------
    .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 4.7, 2013.
    """
    n = len(c)
    symmetric, hermitian = symmetries(c, r)
    backwards = np.ascontiguousarray(c[::-1])  # t[n-1], ..., t[0]
    # a grows from the front of its array, b from the end.
    a, b, shifted = (np.zeros(n, c.dtype) for _ in range(3))
    a[0] = b[-1] = 1
    rho = c[0]
    sign, log = np.ones((), c.dtype)[()], 0.0
    with np.errstate(all="ignore"):
        for m in range(1, n + 1):
            size = abs(rho)
            if not 0 < size < np.inf:
                return np.full(n, np.nan), np.full(n, np.nan), 0j, -np.inf
            sign *= rho / size
            log += float(np.log(size))
            if m == n:
                break
            below = (backwards[n - 1 - m : n - 1] @ a[:m]) / rho
            if symmetric or hermitian:
                above = below if symmetric else below.conjugate()
                mirrored = a[m::-1] if symmetric else a[m::-1].conj()  # b moved down by one, with zero in front
                np.multiply(mirrored, below, out=shifted[: m + 1])
                a[: m + 1] -= shifted[: m + 1]
            else:
                above = (r[1 : m + 1] @ b[n - m :]) / rho
                front, back = a[: m + 1], b[n - m - 1 :]
                np.multiply(front, above, out=shifted[: m + 1])
                front -= below * back
                back -= shifted[: m + 1]
            rho *= 1 - below * above
        if symmetric or hermitian:
            b = a[::-1] if symmetric else a[::-1].conj()
        return a / rho, -np.append(np.zeros(1, c.dtype), b[:-1]), complex(sign), log
