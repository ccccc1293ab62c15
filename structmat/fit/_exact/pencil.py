"""Any square matrix as a product of ``2n + 1`` diagonals and circulants, by one eigenvalue problem.

A matrix is a polynomial in the cyclic shift P, ``(P u)[i] = u[i - 1]``, of degree n - 1 with diagonal coefficients. On
sequences with ``u[i - n] = z * u[i]`` it acts on n entries as ``tril(W) + z * triu(W, 1)``. On periodic ones ``P^n -
I`` is zero, so that ``lead * (P^n - I)`` may be added: the degree is n then, the leading coefficient a scalar, and all
multipliers z of null sequences are of moderate size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._exact.deflation import deflate
from structmat.fit._exact.real_deflation import factor_real_sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SHIFT",
    "eigen_sequences",
    "factor_matrix",
    "factor_polynomial",
    "factor_real_matrix",
    "null_sequences",
    "periodic_parts",
]

# The leading coefficient in units of the root mean square norm of a row. Half of it brings multipliers that range over
# ten digits, ten times as much twice the error; the phase only keeps away from real numbers.
_LEAD = 0.4 * np.exp(0.6j)
# For real factors, one after the other until no multiplier is negative: large ones bring all multipliers near one, but
# errors grow with them.
_REAL_LEADS = (0.4, 0.6, 0.9, 1.3, 2.0, 3.0)
# The multiplier around which the pencil becomes an ordinary eigenvalue problem, and a real one.
SHIFT, _REAL_SHIFT = -np.exp(0.35j), -1.0
# Multipliers within this factor of one, and vectors with a ratio of mean and least square below this multiple of n**2,
# are those of a matrix without structure, with a wide margin. Others do not lead to accurate factors.
_LARGEST_MULTIPLIER, _ROUGHEST = 1e3, 1e5


def factor_matrix(W: NDArray[Any], *, extended: bool) -> list[NDArray[np.complex128]] | None:
    """Return ``2n + 1`` diagonals and first columns, or nothing where structure of `W` would spoil their accuracy."""
    n = len(W)
    lead = _LEAD * np.linalg.norm(W) / np.sqrt(n)
    below, above = np.tril(W) - lead * np.eye(n), np.triu(W, 1) + lead * np.eye(n)
    return _factor(below, above, lead, extended=extended)


def factor_real_matrix(W: NDArray[np.float64], *, extended: bool) -> list[NDArray[np.float64]] | None:
    """Return at most ``3n + 1`` real diagonals and first columns, or nothing where structure of `W` is in the way."""
    n = len(W)
    for share in _REAL_LEADS:
        lead = float(share * np.linalg.norm(W) / np.sqrt(n))
        below, above = np.tril(W) - lead * np.eye(n), np.triu(W, 1) + lead * np.eye(n)
        if (vectors := _factor_real(below, above, lead, extended=extended)) is not None:
            return vectors
    return None


def factor_polynomial(coefficients: NDArray[np.complex128], *, extended: bool) -> list[NDArray[np.complex128]] | None:
    """Return ``2k + 1`` diagonals and first columns of ``sum over m of diag(coefficients[m]) P^m``.

    `coefficients` has the shape (k + 1, n) with k below n; the last one must be a constant vector.
    """
    return _factor(*_pencil_of(coefficients), complex(coefficients[-1, 0]), extended=extended)


def factor_real_polynomial(coefficients: NDArray[np.float64], *, extended: bool) -> list[NDArray[np.float64]] | None:
    """Return at most ``3k + 1`` real diagonals and first columns of a real polynomial."""
    return _factor_real(*_pencil_of(coefficients), float(coefficients[-1, 0]), extended=extended)


def _pencil_of(coefficients: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the two matrices of the pencil of a polynomial."""
    n = coefficients.shape[1]
    below, above = np.zeros((2, n, n), dtype=coefficients.dtype)
    i = np.arange(n)
    for m, coefficient in enumerate(coefficients):
        below[i[m:], i[: n - m]] = coefficient[m:]
        above[i[:m], i[n - m :]] = coefficient[:m]
    return below, above


def _factor(
    below: NDArray[np.complex128], above: NDArray[np.complex128], lead: complex, *, extended: bool
) -> list[NDArray[np.complex128]] | None:
    sequences = null_sequences(below, above)
    if sequences is None:
        return None
    with np.errstate(all="ignore"):  # what becomes of zeros is for the caller to see
        w, log_nu = periodic_parts(*sequences)
        return deflate(w, np.exp(log_nu), extended=extended).vectors(lead)


def _factor_real(
    below: NDArray[np.float64], above: NDArray[np.float64], lead: float, *, extended: bool
) -> list[NDArray[np.float64]] | None:
    sequences = null_sequences(below, above, _REAL_SHIFT)
    if sequences is None:
        return None
    with np.errstate(all="ignore"):  # what becomes of zeros is for the caller to see
        w, log_nu = periodic_parts(*sequences)
        vectors = factor_real_sequences(w, np.exp(log_nu), extended=extended)
    return None if vectors is None else [lead * vectors[0], *vectors[1:]]


def periodic_parts(
    u: NDArray[np.complex128], z: NDArray[np.complex128]
) -> tuple[NDArray[np.clongdouble], NDArray[np.clongdouble]]:
    """Return w and the logarithms of nu, with ``u[i] = w[i] * nu**-i`` and w periodic."""
    n = u.shape[1]
    log_nu = np.log(z.astype(np.clongdouble)) / n
    return u * np.exp(log_nu[:, None] * np.arange(n)), log_nu


def eigen_sequences(
    corner: NDArray[Any], inverse: NDArray[Any], shift: complex = SHIFT
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return u, as rows, and z with ``(below + z * above) u = 0``.

    `corner` holds the rows of `above` that are not zero, `inverse` those columns of ``(below + shift * above)^-1``.
    """
    theta, x = np.linalg.eig(corner @ inverse)
    with np.errstate(all="ignore"):  # a multiplier of no accuracy may be zero or infinite
        z = np.asarray(shift - 1 / theta, dtype=np.complex128)
    return np.asarray((inverse @ x).T, dtype=np.complex128), z


def null_sequences(
    below: NDArray[Any], above: NDArray[Any], shift: complex = SHIFT
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]] | None:
    """Return all u and z with ``(below + z * above) u = 0``, u as rows, or nothing where these are of no use."""
    rows = np.flatnonzero(above.any(axis=1))
    pencil = below + shift * above
    unit = np.eye(len(above), dtype=pencil.dtype)[:, rows]
    try:
        u, z = eigen_sequences(above[rows], np.linalg.solve(pencil, unit), shift)
    except np.linalg.LinAlgError:
        return None
    with np.errstate(all="ignore"):
        sizes, squares = np.abs(z), np.abs(u) ** 2
        spread = np.max(squares.mean(axis=1) / squares.min(axis=1))
        useful = spread <= _ROUGHEST * len(above) ** 2 and max(sizes.max(), 1 / sizes.min()) <= _LARGEST_MULTIPLIER
    return (u, z) if useful else None
