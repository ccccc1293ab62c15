"""Schur's algorithm for Hermitian block Toeplitz matrices: Cholesky factors in O(p^3 n^2).

With the shift Z down by one block, ``T - Z T Z^H = U U^H - V V^H``. Here U is the first block column times the inverse
adjoint of the Cholesky factor of the corner block, and V the same with a block of zeros in front. Each step shifts U
down by a block. Then A and B, the blocks of U and V in the same place, give ``K = A^-1 B``, and the hyperbolic rotation

    U' = (U - V K^H) S1^-H  with  S1 S1^H = 1 - K K^H,   V' = V S2 - U' S1^H K S2^-H  with  S2 S2^H = 1 - K^H K

makes the block of V zero and leaves ``U U^H - V V^H`` as it is. With triangular S1 the block of U stays triangular, so
that U' is the next block column of the factor. V' is computed by the new U': the rotation of both old ones would not be
stable [1]_.

References
----------
.. [1] Bojanczyk, A. W., Brent, R. P., de Hoog, F. R., Sweet, D. R., On the stability of the Bareiss and related
   Toeplitz factorization algorithms, SIAM J. Matrix Anal. Appl. 16, 1995.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, namespace_of, rules_of
from structmat._arrays.linear_algebra import (
    adjoint,
    cholesky_factors,
    dense_inverses,
    dense_solutions,
    equals_adjoint,
    hermitian_part,
)
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Iterator


def block_cholesky(c: Array, r: Array, xp: Namespace, owner: str) -> Array:
    """Return the Cholesky factor of a matrix with these blocks in its first block column and its first block row.

    A matrix that is not Hermitian, or not positive definite, is an error where values may be read. Elsewhere the
    Hermitian part is taken, and the results are NaN where it is not positive definite.
    """
    with np.errstate(invalid="ignore"):  # of infinity, which is found below
        corner = c[..., :1, :, :] + 0 * r[..., :1, :, :]
    of_row = adjoint(xp.concat([corner, r[..., 1:, :, :]], axis=-3), xp)
    if can_raise_for_values(xp):
        _require_hermitian(c, of_row, xp, owner)
    blocks = c / 2 + of_row / 2
    n, p = blocks.shape[-3:-1]
    column = xp.reshape(blocks, (*blocks.shape[:-3], n * p, p))
    rules = rules_of(xp)
    if rules.compiles:
        return rules.compiled(_in_steps_of_one_size)(column)
    if not is_numpy(xp):
        return _in_any_library(column, xp)
    factor = np.zeros((*column.shape[:-2], n * p, n * p), column.dtype)
    reached = 0
    try:
        with np.errstate(all="ignore"):
            for m, part in enumerate(_steps(column, xp)):
                factor[..., m * p :, m * p : (m + 1) * p] = part
                reached = m + 1
    except np.linalg.LinAlgError as error:
        raise _not_definite(reached + 1, column, owner) from error
    is_finite = np.all(np.isfinite(factor), axis=tuple(range(factor.ndim - 1)))  # a factor of NaN is no error of LAPACK
    if not np.all(is_finite):
        raise _not_definite(int(np.argmin(is_finite)) // p + 1, column, owner)
    return factor


def _not_definite(blocks: int, column: Array, owner: str) -> np.linalg.LinAlgError:
    """Return the error for a matrix of which the leading section of so many blocks is not positive definite."""
    text = f"the matrix is not positive definite: its leading section of {blocks} x {blocks} blocks is not"
    if not np.all(np.isfinite(column)):
        text += ", as it holds NaN or infinity"
    return np.linalg.LinAlgError(f"{owner}: {text}")


def _require_hermitian(c: Array, of_row: Array, xp: Namespace, owner: str) -> None:
    """Raise an error if the first block column is not that of the adjoint, up to rounding."""
    if not bool(xp.all(equals_adjoint(c, of_row, xp, core=3))):
        text = "the matrix must be Hermitian: c[0] is not, or blocks of r[1:] are not the adjoints of those of c[1:]"
        raise ArgumentValueError(owner, None, text)


def _first(column: Array, xp: Namespace) -> Array:
    """Return the first block column of the factor by that of the matrix."""
    p = column.shape[-1]
    corner = column[..., :p, :]
    root = cholesky_factors(hermitian_part(corner, xp), xp)
    below = adjoint(dense_solutions(root, adjoint(column[..., p:, :], xp), xp), xp)
    return xp.concat([root, below], axis=-2)


def _rotation(A: Array, B: Array, xp: Namespace) -> tuple[Array, Array, Array, Array, Array]:
    """Return the corner of the next column, and what U, V and the new U are multiplied by.

    These are ``S1^-H`` and ``K^H S1^-H`` for the new U, ``S2`` and ``S1^H K S2^-H`` for the new V.
    """
    p = A.shape[-1]
    K = dense_solutions(A, B, xp)
    one = xp.eye(p, dtype=A.dtype, device=device_of(A))
    K_h = adjoint(K, xp)
    S1, S2 = (cholesky_factors(one - xp.matmul(*pair), xp) for pair in ((K, K_h), (K_h, K)))
    of_u, inverse = (adjoint(dense_inverses(S, xp), xp) for S in (S1, S2))
    corner = xp.tril(xp.matmul(A, S1))
    return corner, of_u, xp.matmul(K_h, of_u), S2, xp.matmul(xp.matmul(adjoint(S1, xp), K), inverse)


def _steps(column: Array, xp: Namespace) -> Iterator[Array]:
    """Yield the block columns of the factor, from the diagonal on. `_in_steps_of_one_size` has the same steps."""
    p = column.shape[-1]
    u = v = _first(column, xp)
    yield u
    for _ in range(1, column.shape[-2] // p):
        u, v = u[..., :-p, :], v[..., p:, :]
        corner, of_u, of_v, keeps, takes = _rotation(u[..., :p, :], v[..., :p, :], xp)
        below = xp.matmul(u[..., p:, :], of_u) - xp.matmul(v[..., p:, :], of_v)
        u = xp.concat([corner, below], axis=-2)
        v = xp.matmul(v, keeps) - xp.matmul(u, takes)
        yield u


def _in_any_library(column: Array, xp: Namespace) -> Array:
    """Return the factor without writing to arrays, so that torch can differentiate it."""
    columns = []
    for m, part in enumerate(_steps(column, xp)):
        zeros = xp.zeros_like(column[..., : m * column.shape[-1], :])
        columns.append(xp.concat([zeros, part], axis=-2))
    return xp.concat(columns, axis=-1)


def _in_steps_of_one_size(column: Array) -> Array:
    """Return the factor for libraries that compile: with columns of one size, one step is compiled."""
    xp = namespace_of("BlockToeplitz.cholesky", column)
    p = column.shape[-1]
    rows = xp.arange(column.shape[-2], device=device_of(column))
    within = xp.arange(p, device=device_of(column))

    def step(pair: tuple[Array, Array], m: Array) -> tuple[tuple[Array, Array], tuple[Array]]:
        u, v = pair
        u = xp.roll(u, p, axis=-2)
        A, B = (xp.take(w, m * p + within, axis=-2) for w in (u, v))
        corner, of_u, of_v, keeps, takes = _rotation(A, B, xp)
        below = xp.matmul(u, of_u) - xp.matmul(v, of_v)
        placed = xp.take(corner, xp.clip(rows - m * p, 0, p - 1), axis=-2)
        u = xp.where((rows >= (m + 1) * p)[:, None], below, xp.where((rows >= m * p)[:, None], placed, 0))
        v = xp.where((rows >= (m + 1) * p)[:, None], xp.matmul(v, keeps) - xp.matmul(u, takes), 0)
        return (u, v), (u,)

    first = _first(column, xp)
    _, (columns,) = rules_of(xp).scan(step, (first, first), rows[1 : column.shape[-2] // p])
    columns = xp.moveaxis(xp.concat([first[None], columns]), 0, -2)
    return xp.reshape(columns, (*column.shape[:-1], column.shape[-2]))
