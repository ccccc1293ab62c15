"""Posterior variances of all rows, those that are missing included, by what the rows outside of each leaf tell of it.

T is the covariance of a process, and ``D`` the noise of the rows that are there. For a leaf of rows let S be their
covariance once all rows outside are known: then ``S - S M (M S M + D)^-1 M S`` is that once its own are known too, in
which M chooses those that are there. It is a small matrix, whose diagonal is what is asked for. Of a row that is
there, with noise d, the diagonal is also ``d - d^2 Z``, with Z the diagonal of the inverse of ``M S M + D``, as

    S - S (S + D)^-1 S = S (S + D)^-1 D = D - D (S + D)^-1 D,

which keeps the digits that the first form loses where d is smaller than the diagonal of S.

**By a tree.** What is outside of a node is seen through its basis P alone, so that ``S = T - P C P^H`` with a small
matrix C: at its skeleton points it is what the rows outside explain. From the root, where it is zero, it is handed
down. Let two children have the couplings S_12, and E be ``P C P^H`` of their parent at the skeleton points of both.
Once what is outside of both is known, the rest of the right child, ``K_2`` beside which others see it by R_2, is
``K_2 - R_2 E_22 R_2^H``, and

    C_1 = E_11 + G R_2^H (K_2 - R_2 E_22 R_2^H)^-1 R_2 G^H,        G = S_12 - E_12,

for the left child, and likewise for the right one: sums of positive semidefinite matrices.

**By a band.** The rows are cut into blocks as long as the band is wide, so that a block is coupled with its two
neighbours alone. What lies before it and what lies behind it are independent, so that S is T less what the one explains
and less what the other does; each is handed on from block to block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.batches import adjoint, entries, inverse_of_lower, parts_of
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.ways import Beside, Neighbours, Nodes, Rest, Ways

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[Any]

_XP = numpy_namespace


def by_tree(K: NoisyToeplitz, ways: Ways, beside: Beside, unit: float, noise: Numbers) -> Numbers:
    """Return the posterior variances of all rows by the ways of a factor that has kept what they take beside.

    Parameters
    ----------
    K : NoisyToeplitz
        The matrix, of NumPy. Its diagonal is that of the prior covariance beside T, and the noise.
    ways : Ways
        Those of the factor of K.
    beside : Beside
        What it has kept.
    unit : float
        The largest entry of T, in units of which both are.
    noise : array, shape (n,)
        The noise of rows that are there, zero for those that are missing.
    """
    tree = ways.tree
    outside: list[Any] = [None] * len(ways.leaves)
    if ways.has_joins:
        outside = ways.downward(beside.neighbours, _handed_down, _XP)
    t, noise, own = K.c / unit, noise / unit, (K.noise - noise) / unit
    found = []
    start = 0
    for basis, C, size in zip(beside.leaves, outside, (tree.leaf, tree.tail), strict=False):
        stop = start + (tree.leaves * size if size == tree.leaf else size)
        T = _corner(t, size, K.channels)
        rows = [np.reshape(each[start:stop], (-1, size)) for each in (noise, K.there, own)]
        for some in parts_of(len(rows[0]), size**2, T, _XP):
            prior = T
            if basis is not None and C is not None:
                prior = T - basis.matrix @ C[some] @ adjoint(basis.matrix, _XP)
            found.append(_of_blocks(prior, *(each[some] for each in rows)).reshape(-1))
        start = stop
    return unit * np.concatenate(found)


def _handed_down(_: Nodes, met: Neighbours, outer: Numbers | None) -> tuple[Numbers, Numbers]:
    """Return the matrices C of left and right children."""
    left, right, S, above = met
    count, cut = len(left.matrix), S.shape[0]
    of_left = np.empty((count, cut, cut), S.dtype)
    of_right = np.empty((count, *(S.shape[1],) * 2), S.dtype)
    for some in parts_of(count, sum(S.shape) ** 2, S, _XP):
        first, last = (Rest(rest.matrix[some], rest.seen[some]) for rest in (left, right))
        if outer is None:
            G, E_11, E_22 = S, 0.0, 0.0
        else:
            E = above @ outer[some] @ adjoint(above, _XP)
            E_11, E_22 = E[:, :cut, :cut], E[:, cut:, cut:]
            G = S - E[:, :cut, cut:]
        of_left[some] = E_11 + _explained(last, E_22, G)
        of_right[some] = E_22 + _explained(first, E_11, adjoint(G, _XP))
    return of_left, of_right


def _explained(rest: Rest, E: Numbers | float, G: Numbers) -> Numbers:
    """Return what nodes explain of others, G being the covariances between the skeleton points of both."""
    R = rest.seen
    L = np.linalg.cholesky(rest.matrix - R @ E @ adjoint(R, _XP) if isinstance(E, np.ndarray) else rest.matrix)
    root = inverse_of_lower(L, _XP) @ (R @ adjoint(G, _XP))
    return adjoint(root, _XP) @ root


def by_band(K: NoisyToeplitz, lag: int, noise: Numbers) -> Numbers:
    """Return the posterior variances of all rows of a matrix of NumPy that is zero beyond a lag; see `by_tree`."""
    size = min(max(lag, thresholds.BAND_BLOCK), K.rows)
    size += -size % K.channels
    count = -(-K.rows // size)
    more = count * size - K.rows  # rows that are nowhere
    padded = (np.pad(each, (0, more)) for each in (noise, K.there, K.noise - noise))
    rows = [np.reshape(each, (count, size)) for each in padded]
    c = np.zeros(2 * size * K.channels, K.c.dtype)
    known = min((lag + 1) * K.channels, len(K.c), len(c))
    c[:known] = K.c[:known]
    both = _corner(c, 2 * size, K.channels)
    T, below = both[:size, :size], both[size:, :size]
    before = np.zeros((count, size, size), T.dtype)  # what the blocks before each one explain of it
    for k in range(count - 1):
        before[k + 1] = _explained_by(T - before[k], below, *(each[k] for each in rows))
    behind = np.zeros_like(T)
    found = []
    for k in range(count - 1, -1, -1):
        of_block = [each[k] for each in rows]
        found.append(_of_blocks(T - before[k] - behind, *of_block))
        behind = _explained_by(T - behind, adjoint(below, _XP), *of_block)
    return np.concatenate(found[::-1])[: K.rows]


def _explained_by(prior: Numbers, coupling: Numbers, noise: Numbers, there: Numbers, own: Numbers) -> Numbers:
    """Return what a block of rows explains of its neighbour, which is coupled with it by these entries of T."""
    L = np.linalg.cholesky(_with_noise(prior, noise, there, own))
    right = there[:, None] * adjoint(coupling, _XP)
    root = scipy.linalg.solve_triangular(L, right, lower=True, check_finite=False)
    return adjoint(root, _XP) @ root


def _corner(t: Numbers, size: int, channels: int) -> Numbers:
    """Return the first rows and columns of T."""
    j = np.arange(size)
    i = j[:, None]
    T: Any = entries(t, np.maximum(i, j), np.minimum(i, j), channels, _XP)
    found: Numbers = np.where(i < j, np.conj(T), T)
    return found


def _with_noise(prior: Numbers, noise: Numbers, there: Numbers, own: Numbers) -> Numbers:
    """Return the covariances of what was measured, with ones on the diagonal for rows that are missing."""
    K = prior * (there[..., :, None] * there[..., None, :])
    diagonal = np.einsum("...ii->...i", K)  # a view
    diagonal += np.where(there > 0.0, own + noise, 1.0)
    return K


def _of_blocks(prior: Numbers, noise: Numbers, there: Numbers, own: Numbers) -> Numbers:
    """Return the posterior variances of blocks by their own rows, `prior` being the covariance without these."""
    inverse = inverse_of_lower(np.linalg.cholesky(_with_noise(prior, noise, there, own)), _XP)
    diagonal = np.real(np.einsum("...ii->...i", prior)) + own
    with_own = prior * there[..., :, None]
    on_diagonal = np.einsum("...ii->...i", with_own)  # a view
    on_diagonal += there * own
    explained = np.sum(np.abs(inverse @ with_own) ** 2, axis=-2)
    of_inverse = np.sum(np.abs(inverse) ** 2, axis=-2)
    by_noise = (there > 0.0) & (noise < diagonal)
    return np.where(by_noise, noise * (1.0 - noise * of_inverse), diagonal - explained)
