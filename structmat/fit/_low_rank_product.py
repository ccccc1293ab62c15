"""Every matrix of rank two as a product of five factors, in closed form.

Let the middle one of D C D C D be zero except for two neighbouring entries, at 0 and 1. Then C D C has rank two: its
columns are combinations of the column `c` of the left circulant and of `c` shifted by one, its rows likewise. So ``W =
x x'^T + y y'^T`` asks for ``a_i c_i = x_i`` and ``a_i c_(i-1) = s y_i``: a recursion ``c_(i-1) / c_i = s y_i / x_i``
along the cycle. It closes if the product of all ratios is one, which settles `s`. On the right it is the same with `x'`
and `y'`.

The basis `x`, `y` of the column space is free. In one of two nearly parallel vectors ``x = A (t - e p)`` and ``y = A (t
+ e p)`` all ratios are near one, so the circulants have entries of one size. How near `x` and `y` must be depends on
the row of ``W = A B^T`` that is most nearly orthogonal to `t`, so `t` is taken in the middle of the widest gap between
the directions that are bad for a row of `A` or of `B`. The condition, the sum of the norms of ``x x'^T`` and ``y
y'^T`` over that of `W`, is about the number of rows over three for random matrices.

With several blocks to the smaller side nothing needs to be shifted: the two entries, or as many as there are blocks,
are the first of each block, and their columns are independent of one another. Then the rank is the number of blocks. If
only the larger side has several blocks, the recursion runs inside each of them with a common `s`; where it does not
close, one row of the block, that of the smallest norm, is left to least squares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._matrices import transposed_circulants, transposed_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["low_rank_product"]

_SPREAD = 0.35
"""Half of the distance between x and y, as a share of that distance at which a ratio becomes infinite. The condition is
inversely proportional to it; but the larger it is, the more do the entries of the circulants differ."""

_DIRECTIONS = 512
"""So many directions of the complex plane are tried for `t`."""


def low_rank_product(A: NDArray[Any], B: NDArray[Any], block_size: int) -> list[NDArray[Any]]:
    """Return vectors of five diagonals and block circulants whose product is ``A @ B.T``, except for some rows.

    The factors have the shapes of `CDDLayout`. The product is exact if the smaller side has several blocks, or the
    larger one no more than one whole block.

    Parameters
    ----------
    A, B : (rows, r) and (cols, r) ndarray
        Of two columns if there is one block to the smaller side, otherwise of at most as many as there are blocks.
    block_size : int
        From two on if there is one block to the smaller side.
    """
    if len(A) < len(B):
        return transposed_vectors(low_rank_product(B, A, block_size))
    m = block_size
    blocks = -(-len(B) // m)
    d = np.zeros(len(B), dtype=A.dtype)
    if blocks > 1:
        rank = A.shape[1]
        c = np.zeros((-(-len(A) // m), blocks, m), dtype=A.dtype)
        e = np.zeros((blocks, blocks, m), dtype=A.dtype)
        c[:, :rank] = _in_blocks(A, m).swapaxes(1, 2)
        e[:rank] = transposed_circulants(_in_blocks(B, m).transpose(2, 0, 1))
        d[: rank * m : m] = 1.0
        return [np.ones(len(A), dtype=A.dtype), c, d, e, np.ones(len(B), dtype=A.dtype)]
    # Numbers below the smallest normal one are taken for zero: they have no reciprocal.
    A, B = (np.where(np.abs(X) < np.finfo(X.dtype).tiny, X.dtype.type(0), X) for X in (A, B))
    M = _basis(A, B)
    # The two columns on the right nearly cancel. With the sign of one of them changed, the ratios are near one again.
    signs = np.array([1.0, -1.0], dtype=A.real.dtype)
    X, Y = A @ M, B @ np.linalg.inv(M).T * signs
    a, c, s = _side(X, Y * signs, m)
    b, e, t = _side(Y, X * signs, m)
    d[0] = 1.0
    d[1:2] = -1.0 / (s * t)
    return [a, c[:, None], d, transposed_circulants(e[:, None]), b]


def _side(X: NDArray[Any], other: NDArray[Any], m: int) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Return `a`, columns `c` (blocks, m) and `s` with ``a_i c_i = x_i`` and ``a_i c_(i-1) = s y_i`` in all blocks.

    The columns of `X` are `x` and `y`, those of `other` what they are multiplied with.
    """
    blocks = _in_blocks(X, m)
    used = blocks.any(axis=2)
    logs = np.zeros(used.shape, dtype=X.dtype)
    logs[used] = np.log(blocks[used][:, 1] / blocks[used][:, 0])
    whole = len(X) // m
    # Only whole blocks close the cycle, and a single one does so exactly.
    log_s = -logs[:whole].mean() if whole else -logs.reshape(-1)[: len(X)].mean()
    c = np.zeros(used.shape, dtype=X.dtype)
    a = np.zeros(used.shape, dtype=X.dtype)
    s = np.exp(log_s)
    for k, (pairs, log) in enumerate(zip(blocks, logs, strict=True)):
        count = min(m, len(X) - k * m)
        if count == m:
            # The recursion begins behind the row that it may not meet, that of the smallest norm.
            last = int(np.linalg.norm(pairs, axis=1).argmin()) if whole > 1 else 0
            steps = np.roll(-(log + log_s), -last)
            steps[0] = 0.0
            c[k] = np.roll(_scaled_exponentials(np.cumsum(steps)), last)
        else:
            # The column of a block that is cropped has room for the entry in front of the first one.
            logs_c = _scaled_exponentials(np.cumsum(np.append(0.0, -(log[:count] + log_s))))
            c[k, :count], c[k, -1] = logs_c[1:], logs_c[0]
        a[k, :count] = pairs[:count, 0] / c[k, :count]
        if count == m:
            a[k, last] = _least_squares(np.array([c[k, last], c[k, last - 1] / s]), pairs[last], other)
    return a.reshape(-1)[: len(X)], c, s


def _scaled_exponentials(logs: NDArray[Any]) -> NDArray[Any]:
    """Return exponentials of a geometric mean of modulus one."""
    return np.exp(logs - logs.real.mean())


def _least_squares(given: NDArray[Any], wanted: NDArray[Any], other: NDArray[Any]) -> Any:
    """Return the factor that takes the row ``given @ other.T`` nearest to ``wanted @ other.T``."""
    row, target = other @ given, other @ wanted
    norm2 = np.vdot(row, row).real
    return np.vdot(row, target) / norm2 if norm2 > 0.0 else 0.0


def _basis(A: NDArray[Any], B: NDArray[Any]) -> NDArray[Any]:
    """Return the matrix [t - e p, t + e p] of unit vectors `t` and `p` that are orthogonal to one another."""
    left, right = _unit_rows(A), _unit_rows(B)
    # A row of B is bad where it is multiplied with zero, which is so for t itself turned by a right angle.
    rows = np.concatenate([left, right @ np.array([[0.0, -1.0], [1.0, 0.0]], dtype=A.dtype)])
    t = _farthest_direction(rows) if np.iscomplexobj(A) else _widest_gap(rows)
    p = np.array([-t[1], t[0]]).conj()
    along, across = np.abs(rows @ t), np.abs(rows @ p)
    e = _SPREAD * np.min(along / np.maximum(across, along))
    return np.stack([t - e * p, t + e * p], axis=1).astype(A.dtype)


def _unit_rows(X: NDArray[Any]) -> NDArray[Any]:
    """Return the rows that are not zero, of norm one; divided by their largest entries, whose squares may vanish."""
    rows = X[X.any(axis=1)]
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _widest_gap(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the real direction farthest from being orthogonal to one of the rows."""
    angles = np.sort((np.arctan2(rows[:, 1], rows[:, 0]) + np.pi / 2) % np.pi)
    angles = np.append(angles, angles[0] + np.pi)
    k = int(np.diff(angles).argmax())
    middle = (angles[k] + angles[k + 1]) / 2
    return np.array([np.cos(middle), np.sin(middle)])


def _farthest_direction(rows: NDArray[Any]) -> NDArray[Any]:
    """Return, of many complex directions, spread evenly, the one farthest from being orthogonal to one of the rows."""
    k = np.arange(_DIRECTIONS) + 0.5
    tilt, turn = np.arccos(1.0 - 2.0 * k / _DIRECTIONS) / 2, np.pi * (1.0 + np.sqrt(5.0)) * k
    directions = np.stack([np.cos(tilt), np.sin(tilt) * np.exp(1j * turn)])
    best: NDArray[Any] = directions[:, np.abs(rows @ directions).min(axis=0).argmax()]
    return best


def _in_blocks(X: NDArray[Any], m: int) -> NDArray[Any]:
    """Return rows (blocks, m, r), those beyond the last one zero."""
    padded = np.zeros((-(-len(X) // m) * m, X.shape[1]), dtype=X.dtype)
    padded[: len(X)] = X
    return padded.reshape(-1, m, X.shape[1])
