"""Whittle's recursion for block Toeplitz matrices: the inverse and the determinant in O(p^3 n^2) operations.

Let ``R[k]`` be the p x p block of offset k, and T_m the leading section of m x m blocks. The recursion [1]_ [2]_ keeps
the forward and backward predictors of T_m, columns F and B of m blocks with

    T_m F = (Pf, 0, ..., 0),  F[0] = 1,   and   T_m B = (0, ..., 0, Pb),  B[m - 1] = 1.

Extended by a zero they leave one block of error at the other end,

    T_{m+1} (F, 0) = (Pf, 0, ..., 0, Df)  with  Df = R[m] F[0] + ... + R[1] F[m - 1],
    T_{m+1} (0, B) = (Db, 0, ..., 0, Pb)  with  Db = R[-1] B[0] + ... + R[-m] B[m - 1],

which the other predictor takes away: ``F' = (F, 0) - (0, B) Pb^-1 Df`` and ``B' = (0, B) - (F, 0) Pf^-1 Db``, with the
pivots ``Pf' = Pf - Db Pb^-1 Df`` and ``Pb' = Pb - Df Pf^-1 Db``. The determinant is the product of those of all Pb. The
predictors that are rows, ``G T_m = (Pf, 0, ..., 0)`` and ``H T_m = (0, ..., 0, Pb)``, have the same pivots and the same
errors: ``G' = (G, 0) - Db Pb^-1 (0, H)`` and ``H' = (0, H) - Df Pf^-1 (G, 0)``. Of a Hermitian matrix they are the
adjoints of the columns, and Db is the adjoint of Df.

All pivots are regular if and only if all leading sections are; they are positive definite if and only if T is.

References
----------
.. [1] Whittle, P., On the fitting of multivariate autoregressions, and the approximate canonical factorization of a
   spectral density matrix, Biometrika 50, 1963.
.. [2] Akaike, H., Block Toeplitz matrix inversion, SIAM J. Appl. Math. 24, 1973.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat._toeplitz_systems.blocks.inverse import InverseBlocks

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BlockRecursion(NamedTuple):
    """What the recursion finds."""

    inverse: InverseBlocks
    sign: Any
    """The phase of the determinant."""
    log: float
    """The logarithm of its modulus."""
    is_definite: bool
    """Whether the matrix is Hermitian and all pivots are positive definite."""


def whittle(offsets: NDArray[Any], *, hermitian: bool) -> BlockRecursion | None:
    """Return what determines the inverse, and the determinant, or None if a leading section is singular.

    `offsets` holds the blocks at the offsets from ``1 - n`` to ``n - 1``, shape ``(2 n - 1, p, p)``.
    """
    n = (len(offsets) + 1) // 2
    p = offsets.shape[-1]
    dtype = offsets.dtype
    # Side by side, so that an error is one product of matrices: R[n - 1], ..., R[1], and R[-1], ..., R[1 - n].
    below = np.ascontiguousarray(offsets[: n - 1 : -1].transpose(1, 0, 2).reshape(p, (n - 1) * p))
    above = np.ascontiguousarray(offsets[n - 2 :: -1][: n - 1].transpose(1, 0, 2).reshape(p, (n - 1) * p))
    # Columns are stored as they are and rows by their transposes. F and G grow from the top, B and H from the bottom.
    columns = 1 if hermitian else 2
    front = np.zeros((n * p, columns * p), dtype)
    rear = np.zeros((n * p, columns * p), dtype)
    unit = np.eye(p, dtype=dtype)
    front[:p] = rear[-p:] = np.tile(unit, columns)
    pf = offsets[n - 1].copy()
    pb = pf.copy()
    pivots = np.empty((n, p, p), dtype)
    pivots[0] = pb
    try:
        for m in range(1, n):
            first = front[: (m + 1) * p]
            last = rear[(n - m - 1) * p :]
            df = below[:, (n - 1 - m) * p :] @ first[: m * p, :p]
            db = df.conj().T if hermitian else above[:, : m * p] @ last[p:, :p]
            forward, backward = np.linalg.solve(pb, df), np.linalg.solve(pf, db)
            if hermitian:
                moved = first @ backward
                first -= last @ forward
                last -= moved
            else:
                of_rows = (db @ np.linalg.inv(pb)).T, (df @ np.linalg.inv(pf)).T
                moved = np.concatenate([first[:, :p] @ backward, first[:, p:] @ of_rows[1]], axis=1)
                first[:, :p] -= last[:, :p] @ forward
                first[:, p:] -= last[:, p:] @ of_rows[0]
                last -= moved
            pf = pf - db @ forward
            pb = pb - df @ backward
            pivots[m] = pb
        signs, logs = np.linalg.slogdet(pivots)
        F, B = front[:, :p].reshape(n, p, p), rear[:, :p].reshape(n, p, p)
        if hermitian:
            G, H = (v.conj().swapaxes(-2, -1) for v in (F, B))
        else:
            G, H = (v[:, p:].reshape(n, p, p).swapaxes(-2, -1) for v in (front, rear))
        inverse = InverseBlocks.of_predictors(F @ np.linalg.inv(pf), B, np.linalg.inv(pb) @ H, G)
    except np.linalg.LinAlgError:
        return None
    if not np.all(np.isfinite(logs)):
        return None
    is_definite = hermitian and bool(np.all(np.linalg.eigvalsh(pivots)[:, 0] > 0))
    return BlockRecursion(inverse, np.prod(signs), float(np.sum(logs)), is_definite)
