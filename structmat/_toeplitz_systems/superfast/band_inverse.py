"""Sums along the diagonals of the inverse of a banded matrix, by its Cholesky factor.

The factor L of all rows, those of the identity included, is cut into blocks of a size that is no less than the width
of the band, so that it has the blocks D_i on the diagonal and E_i below them, and no others. With ``G_i = -E_i D_i^-1``
the inverse ``Z = L^-H L^-1`` has the blocks [1]_

    Z_ii = D_i^-H D_i^-1 + G_i^H Z_(i+1)(i+1) G_i,          Z_ji = Z_jj G_(j-1) ... G_i  for j > i.

Neighbours are joined two by two, level by level, into nodes of blocks. Between two nodes, of which the second begins
with block c, the inverse is ``R P`` with ``R_j = Z_jc`` and ``P_i = G_(c-1) ... G_i``: of the rank of a block, so that
the sums along the diagonals of all such products on a level are correlations, in O(n w log n). Where P and R have
decayed within one node, which they do sooner the larger the noise is, all levels above take no more of them.

References
----------
.. [1] Takahashi, K., Fagan, J., Chen, M.-S., Formation of a sparse bus impedance matrix and its application to short
   circuit study, Proc. 8th PICA Conference, 1973.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.batches import adjoint, inverse_of_lower, parts_of
from structmat._toeplitz_systems.superfast.diagonal_sums import placed, sums_between, sums_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[Any]


def band_inverse_sums(lower: Numbers, places: Numbers, n: int, channels: int, lag: int) -> tuple[Numbers, Numbers]:
    """Return the sums along the diagonals of ``M Z M``, ``sum(i, Z[i, i + k])`` for each k, and its main diagonal.

    `lower` is the factor of the rows at `places`, ``L[j + k, j]`` at ``[j, k]``, and the band of all n rows ends at a
    lag. With several channels the blocks ``Z[i, i + k]^T`` are summed.
    """
    xp = numpy_namespace
    size = max(lag, thresholds.BAND_BLOCK)
    size += -size % channels
    count = -(-n // size)
    there = np.zeros(count * size)
    there[places] = 1.0
    Z, G = _blocks_of_inverse(*_blocks_of_factor(lower, places, lag, count, size))
    own = np.einsum("kii->ki", Z)  # a view
    own *= there.reshape(count, size)  # without the identity in the rows that are missing
    diagonal = own.real.reshape(-1)[:n]
    numbers, of_block = count * size * channels, channels**2
    total = placed(sums_of(np.sum(Z, axis=0), channels, xp)[size * channels - of_block :], 0, numbers, xp)
    P, R = G, Z  # R stands for its adjoint, so that points are along the last axis of both
    largest = np.max(np.abs(diagonal), initial=0.0)
    has_decayed = False
    while len(G) > 1:
        if len(G) % 2:
            P, R, G = (np.concatenate([each, np.zeros_like(each[:1])]) for each in (P, R, G))
        sums = sums_between(P[::2], R[1::2], None, channels, xp)[: numbers - of_block]
        total[of_block : len(sums) + of_block] += sums
        left, right = G[::2], G[1::2]
        if not has_decayed:
            far_P, far_R = right @ P[::2], adjoint(left, xp) @ R[1::2]
            least_P, least_R = thresholds.DECAYED, thresholds.DECAYED * largest
            has_decayed = bool(np.max(np.abs(far_P)) <= least_P and np.max(np.abs(far_R)) <= least_R)
        P, R = P[1::2], R[::2]
        if not has_decayed:
            P, R = np.concatenate([far_P, P], axis=2), np.concatenate([R, far_R], axis=2)
        G = right @ left
    return total[: n * channels], diagonal


def _blocks_of_factor(lower: Numbers, places: Numbers, lag: int, count: int, size: int) -> tuple[Numbers, Numbers]:
    """Return the blocks of the factor of all rows on the diagonal, and those below them."""
    flat = np.zeros(2 * count * size**2 + 1, lower.dtype)  # the last one takes what lies outside of the band
    blocks = flat[:-1].reshape(count, 2 * size, size)
    every = np.arange(size)
    blocks[:, every, every] = 1.0  # of rows that are missing
    start = places // size * size  # of the block
    first = start * (size - 1) + places  # where row 0 of the matrix would lie in the columns of the block
    outside = np.full(lower.shape[1] - 1, places[-1] + lag + 1)
    rows = np.lib.stride_tricks.sliding_window_view(np.concatenate([places, outside]), lower.shape[1])
    step = max(1, thresholds.CHUNK // lower.shape[1])
    for begin in range(0, len(places), step):
        some = slice(begin, begin + step)
        index = np.where(rows[some] - places[some, None] <= lag, rows[some] * size + first[some, None], len(flat) - 1)
        flat[index] = lower[some]
    return blocks[:, :size, :], blocks[:, size:, :]


def _blocks_of_inverse(D: Numbers, E: Numbers) -> tuple[Numbers, Numbers]:
    """Return the blocks of the inverse on its diagonal, and the G in the head of this file."""
    xp = numpy_namespace
    Z, G = np.empty_like(D), np.empty_like(D)
    for some in parts_of(len(D), D[0].size, D, xp):
        inverse = inverse_of_lower(D[some], xp)
        np.matmul(-E[some], inverse, out=G[some])
        np.matmul(adjoint(inverse, xp), inverse, out=Z[some])
    for k in range(len(Z) - 2, -1, -1):
        Z[k] += adjoint(G[k], xp) @ (Z[k + 1] @ G[k])
    return Z, G
