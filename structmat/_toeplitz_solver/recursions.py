"""Direct recursions for Toeplitz matrices: what determines inverse and determinant, in O(n^2) time and O(n) memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `linalg` is imported on first use
from array_api_compat import numpy as numpy_namespace

from structmat._engine import fft, ifft

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["levinson", "schur"]


def levinson(c: NDArray[Any], r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], complex, float]:
    """Return what determines inverse and determinant by Levinson's recursion, for well-conditioned leading sections.

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
    symmetric, hermitian = _symmetries(c, r)
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


def schur(  # noqa: PLR0915  # one elimination, step by step
    c: NDArray[Any], r: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], complex, float]:
    """Return what determines inverse and determinant by elimination with pivoting, for any leading sections.

    Parameters
    ----------
    c, r : array, shape (n,)
        First column and first row of T, in double precision; the first entry of `r` is ignored.

    Returns
    -------
    x, y : array, shape (n,)
        ``T x = e_0`` and ``T y = (0, t[1 - n], ..., t[-1])``, complex; NaN where T is exactly singular.
    sign : complex
        The phase of the determinant, zero where T is exactly singular.
    logabsdet : float
        The logarithm of its absolute value.

    Notes
    -----
    With the cyclic shift Z and the one of opposite sign at the end, S, the matrix ``Z T - T S`` has rank two; Fourier
    transforms make both shifts diagonal and T a matrix ``C[i, j] = G[i] . B[j] / (row[i] - col[j])`` [1]_. Eliminations
    keep this form, so that pairs of numbers in place of rows and columns are updated, with partial pivoting. They go
    on below C through the rows of -I, where they end with the solutions ``C^-1 G`` [2]_: these are x and y again.

    References
    ----------
    .. [1] Gohberg, I., Kailath, T., Olshevsky, V., Fast Gaussian elimination with partial pivoting for matrices with
       displacement structure, Math. Comp. 64, 1995.
    .. [2] Aricò, A., Rodriguez, G., A fast solver for linear systems with displacement structure, Numer. Algorithms
       55, 2010.
    """
    n = len(c)
    k = np.arange(n)
    above = np.append(0, r[:0:-1])  # t[-n], which is free, t[1 - n], ..., t[-1]
    first = np.zeros(n, complex)
    first[0] = scale = np.linalg.norm(c + above) or 1.0
    last = np.zeros(n, complex)
    last[-1] = 1
    turns = np.exp(1j * np.pi * k / n)
    G = np.asarray(fft(np.array([first, c + above]), numpy_namespace, norm="ortho"))
    B = np.asarray(ifft(np.array([(c - above)[::-1] / scale, last]) * turns, numpy_namespace, norm="ortho"))
    # One over the difference of two nodes exp(-iπa/n) and exp(-iπb/n) is i half(a) half(b) / (2 sin(π(a - b) / 2n)).
    half = np.exp(0.5j * np.pi * np.arange(2 * n) / n)
    d = np.arange(1, 2 * n)
    sines = 0.5 / np.sin(np.pi * np.minimum(d, 2 * n - d) / (2 * n))
    table = np.concatenate([-sines[::-1], [0.0], sines]) + 0j  # at a - b + 2 n - 1; complex products are faster
    even, odd = table[1::2].copy(), table[::2].copy()  # at (a - b) / 2 + n - 1 and at (a - b - 1) / 2 + n
    row_of = k.copy()  # the rows of C; those before the current pivot have made room for rows of -I
    phase, factor = half[::2].copy(), 1j * half[1::2]
    sign, log = np.exp(-0.5j * np.pi * (n - 1)), 0.0
    column = np.empty(n, complex)
    add: Any = scipy.linalg.blas.zaxpy  # which adds to the second argument
    largest: Any = scipy.linalg.blas.izamax
    for step in range(n):
        s, t = B[:, step] * factor[step]
        np.multiply(G[0], s, out=column)
        add(G[1], column, a=t)
        column *= phase
        column[:step] *= even[n - 1 - step : n - 1]
        column[step:] *= odd[n - 1 - step :].take(row_of[step:])
        pivot = step + int(largest(column[step:]))
        value = column[pivot]
        size = abs(value)
        if not 0 < size < np.inf:
            return np.full(n, np.nan + 0j), np.full(n, np.nan + 0j), 0j, -np.inf
        sign *= value / size
        log += float(np.log(size))
        row, row_number = G[:, pivot].copy(), int(row_of[pivot])
        if pivot != step:
            sign = -sign
            for array in (row_of, phase, column, G[0], G[1]):
                array[pivot] = array[step]
        if (rest := n - step - 1) > 0:  # the entries of the pivot's row, by which the columns left are updated
            later = B[:, step + 1 :]
            entries = later[0] * row[0]
            add(later[1], entries, a=row[1])
            begin = row_number - step + n - 2
            entries *= odd[begin - rest + 1 : begin + 1][::-1]
            entries *= factor[step + 1 :]
            entries *= half[2 * row_number] / value
            add(entries, later[0], a=-B[0, step])
            add(entries, later[1], a=-B[1, step])
        column /= value
        add(column, G[0], a=-row[0])
        add(column, G[1], a=-row[1])
        # The pivot's place goes to a row of -I, which was untouched until now.
        phase[step] = half[2 * step + 1]
        G[:, step] = row / value
    solutions = np.asarray(ifft(G, numpy_namespace, norm="ortho")) * turns
    x = solutions[0] / scale
    y = solutions[1]
    y[0] -= 1
    return x, y, sign, log


def _symmetries(c: NDArray[Any], r: NDArray[Any]) -> tuple[bool, bool]:
    """Tell whether the matrix of first column and first row is symmetric, and whether it is Hermitian."""
    return np.array_equal(c[1:], r[1:]), np.array_equal(c, np.append(c[:1], r[1:]).conj())
