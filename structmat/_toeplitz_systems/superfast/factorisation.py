"""Elimination from the leaves to the root: all nodes of a level are one batch, and the last, shorter one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of
from structmat._arrays.linear_algebra import measured_error_of_logdet, signs_for_error
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems.superfast.bases import Basis, Level
from structmat._toeplitz_systems.superfast.batches import (
    adjoint,
    entries,
    inverse_of_lower,
    joined_parts,
    largest_modulus,
    parts_of,
)
from structmat._toeplitz_systems.superfast.factor import Factor
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.tree import Join, Tree
from structmat._toeplitz_systems.superfast.ways import Beside, Neighbours, Nodes, Rest


class _Eliminated(NamedTuple):
    """The result of an elimination, of nodes of one level."""

    logs: Array
    """The logarithms of the determinants of what was eliminated, one for each node."""
    rest: Any
    """What is left of each, a `Rest`; None at the root, where nothing is."""
    N: Array
    V: Array | None
    """Both as in `Nodes`."""


@dataclass(frozen=True)
class Factorisation:
    """A function of arrays that returns the factor of K, and how much was overlooked in its bases."""

    tree: Tree
    tolerance: float
    """What is left out of a block of T by the bases, relative to its largest entry."""
    xp: Namespace
    equal: bool = False
    """Whether all rows are there and have the same noise, so that all nodes of a level but the tail are equal."""
    keeps_beside: bool = False
    """Whether the factor keeps what posterior variances take, which is for NumPy alone."""

    def __call__(self, K: NoisyToeplitz, levels: list[Level]) -> tuple[Factor, Array]:
        factor = factorised(
            K, self.tree, self.tolerance, levels, self.xp, equal=self.equal, keeps_beside=self.keeps_beside
        )
        overlooked, error = _measured(K, factor, self.xp)
        return factor._replaced(error=error), overlooked


def factorised(
    K: NoisyToeplitz,
    tree: Tree,
    tolerance: float,
    levels: list[Level],
    xp: Namespace,
    *,
    equal: bool,
    keeps_beside: bool = False,
) -> Factor:
    """Return the factor of K by its bases; where nodes are equal, one of each level is computed."""
    unit = largest_modulus(K.c, xp)
    t = K.c / unit
    there = K.there
    d = xp.where(there > 0.0, K.noise / unit, xp.ones_like(there))
    of_leaves = _leaves(t, d, xp.astype(there, t.dtype), tree, levels[0], xp, equal=equal)
    logs = [each.logs for each in of_leaves]
    leaves = tuple(Nodes(each.N, each.V) for each in of_leaves)
    full, tail = of_leaves[0].rest, of_leaves[1].rest if tree.tail else None
    del of_leaves  # so that what is left of leaves is not kept
    pairs: list[Nodes] = []
    lasts: list[Nodes] = []
    neighbours: list[list[Neighbours | None]] = []

    def met(left: Rest, right: Rest, S: Array, above: Basis | None) -> Neighbours | None:
        return Neighbours(left, right, S, None if above is None else above.matrix) if keeps_beside else None

    for step, level, above in zip(tree.steps, levels, levels[1:], strict=False):
        last = _last_of(full, xp) if step.odd else None
        of_pairs = of_last = None
        if step.pairs:
            S = _coupling(t, level.full, level.full, step.size, tree.channels, xp)
            both = _pairs_of(full, step)
            of_pairs = met(*both, S, above.full)
            log, full, N, V = _joined(*both, S, above.full, xp, equal=equal)
            logs.append(log)
            pairs.append(Nodes(N, V))
        if last is not None and tail is not None:
            S = _coupling(t, level.full, level.tail, step.size, tree.channels, xp)
            of_last = met(last, tail, S, above.tail)
            log, tail, N, V = _joined(last, tail, S, above.tail, xp)
            logs.append(log)
            lasts.append(Nodes(N, V))
        elif last is not None:
            tail = last
        neighbours.append([of_pairs, of_last])
    logdet = sum(xp.sum(log) for log in logs) + xp.sum(there) * xp.log(unit)
    units = xp.where(there > 0.0, unit, xp.ones_like(there))
    beside = Beside(levels[0], neighbours) if keeps_beside else None
    error = xp.zeros_like(logdet)
    return Factor(tree, tolerance, unit, units, logdet, error, leaves, tuple(pairs), tuple(lasts), beside)


def _measured(K: NoisyToeplitz, factor: Factor, xp: Namespace) -> tuple[Array, Array]:
    """Return how much was overlooked in the bases, and how far off the logarithm of the determinant may be.

    The first is the largest norm of a product with what was left out of T, relative to its largest entry and to the
    vector.
    """
    z = signs_for_error(factor.tree.n, K.c, xp)
    x = factor._matvec(z, xp)
    left = K._matvec(x, xp) - z
    norms = xp.linalg.vector_norm(left, axis=-1)
    overlooked = xp.max(norms / xp.linalg.vector_norm(x, axis=-1)) / factor.unit
    return overlooked, measured_error_of_logdet(z, left, xp)


# Leaves


def _leaves(
    t: Array, d: Array, weight: Array, tree: Tree, level: Level, xp: Namespace, *, equal: bool
) -> list[_Eliminated]:
    """Return what comes of the full leaves, and of the tail where there is one."""

    def leaves(start: int, stop: int, size: int, basis: Basis | None) -> _Eliminated:
        """Return what comes of leaves of some size that have the points from `start` to `stop`."""
        own = xp.reshape(weight[start:stop], (-1, size))
        K = _blocks(t, xp.reshape(d[start:stop], (-1, size)), own, tree.channels, xp)
        U = None if basis is None else own[:, :, None] * basis.matrix
        return _eliminated(K, U, xp)

    size = tree.leaf
    parts = [_ONE] if equal else parts_of(tree.leaves, size**2, t, xp)
    full = joined_parts([leaves(size * some.start, size * some.stop, size, level.full) for some in parts], xp)
    found = [_repeated(full, tree.leaves, xp) if equal else full]
    if tree.tail:
        found.append(leaves(size * tree.leaves, tree.n, tree.tail, level.tail))
    return found


def _blocks(t: Array, d: Array, weight: Array, channels: int, xp: Namespace) -> Array:
    """Return the diagonal blocks of K for leaves with these diagonals and masks."""
    size = d.shape[-1]
    j = xp.arange(size, device=device_of(t))
    i = j[:, None]
    above = i < j
    T = entries(t, xp.where(above, j, i), xp.where(above, i, j), channels, xp)
    if is_complex(t.dtype, xp):
        T = xp.where(above, xp.conj(T), T)
    eye = xp.eye(size, dtype=t.dtype, device=device_of(t))
    return T * (weight[:, :, None] * weight[:, None, :]) + eye * xp.astype(d, t.dtype)[:, None, :]


def leaves_are_definite(K: NoisyToeplitz, tree: Tree) -> bool:
    """Tell whether the blocks of the full leaves of a matrix of NumPy are positive definite, as they are if K is."""
    xp = numpy_namespace
    d, weight = (np.reshape(each[: tree.leaves * tree.leaf], (-1, tree.leaf)) for each in (K._diagonal(xp), K.there))
    try:
        for some in parts_of(tree.leaves, tree.leaf**2, weight, xp):
            np.linalg.cholesky(_blocks(K.c, d[some], weight[some], tree.channels, xp))
    except np.linalg.LinAlgError:
        return False
    return True


# Joins


def _coupling(t: Array, left: Any, right: Any, size: int, channels: int, xp: Namespace) -> Array:
    """Return the entries of T between the skeleton points of a node and of its neighbour to the right."""
    p, q = (xp.asarray(basis.points, device=device_of(t)) for basis in (left, right))
    return conjugate(entries(t, size + q[None, :], p[:, None], channels, xp), xp)


def _pairs_of(rest: Rest, step: Join) -> tuple[Rest, Rest]:
    """Return the left and the right ones of pairs."""
    left = Rest(*(each[: 2 * step.pairs : 2, ...] for each in rest))
    right = Rest(*(each[1 : 2 * step.pairs : 2, ...] for each in rest))
    return left, right


def _last_of(rest: Rest, xp: Namespace) -> Rest:
    """Return what is left of the last node, a copy, so that what is left of all others is not kept with it."""
    return Rest(*(xp.asarray(each[-1:, ...], copy=True) for each in rest))


def _joined(
    first: Rest, last: Rest, S: Array, above: Basis | None, xp: Namespace, *, equal: bool = False
) -> _Eliminated:
    """Return what comes of nodes that are joined two by two, computed in parts that stay in the caches."""
    count = first.matrix.shape[0]
    width = S.shape[0] + S.shape[1]
    found = []
    for some in [_ONE] if equal else parts_of(count, width**2, S, xp):
        left, right = (Rest(rest.matrix[some, ...], rest.seen[some, ...]) for rest in (first, last))
        found.append(_joined_at_once(left, right, S, above, xp))
    joined: _Eliminated = joined_parts(found, xp)
    return _repeated(joined, count, xp) if equal else joined


def _joined_at_once(first: Rest, last: Rest, S: Array, above: Basis | None, xp: Namespace) -> _Eliminated:
    block = xp.matmul(xp.matmul(first.seen, S), adjoint(last.seen, xp))
    upper = xp.concat([first.matrix, block], axis=-1)
    lower = xp.concat([adjoint(block, xp), last.matrix], axis=-1)
    U = None
    if above is not None:
        of_first = xp.matmul(first.seen, above.matrix[: S.shape[0], :])
        of_last = xp.matmul(last.seen, above.matrix[S.shape[0] :, :])
        U = xp.concat([of_first, of_last], axis=-2)
    return _eliminated(xp.concat([upper, lower], axis=-2), U, xp)


# Equal nodes

_ONE = slice(0, 1)
"""The first of equal nodes."""


def _repeated(one: _Eliminated, count: int, xp: Namespace) -> _Eliminated:
    """Return what comes of a number of equal nodes: views of the numbers of one."""

    def every(array: Array) -> Array:
        return xp.broadcast_to(array, (count, *array.shape[1:]))

    rest = None if one.rest is None else Rest(*map(every, one.rest))
    return _Eliminated(every(one.logs), rest, every(one.N), None if one.V is None else every(one.V))


# One elimination


def _eliminated(K: Array, U: Array | None, xp: Namespace) -> _Eliminated:
    """Eliminate all variables of nodes but those that others see by U, in orthonormal coordinates."""
    if U is None:
        L = xp.linalg.cholesky(K)
        return _Eliminated(_logs_of(L, xp), None, inverse_of_lower(L, xp), None)
    seen = U.shape[-1]
    own = U.shape[-2] - seen
    Q, R = xp.linalg.qr(U, mode="complete")
    Q_adjoint = adjoint(xp.concat([Q[..., seen:], Q[..., :seen]], axis=-1), xp)
    L = xp.linalg.cholesky(xp.matmul(xp.matmul(Q_adjoint, K), adjoint(Q_adjoint, xp)))
    L_22 = L[..., :own, :own]
    X = L[..., own:, :own]
    L_11 = L[..., own:, own:]
    N = xp.matmul(inverse_of_lower(L_22, xp), Q_adjoint[..., :own, :])
    V = Q_adjoint[..., own:, :] - xp.matmul(X, N)
    rest = Rest(xp.matmul(L_11, adjoint(L_11, xp)), xp.asarray(R[..., :seen, :], copy=True))  # R has more rows
    return _Eliminated(_logs_of(L_22, xp), rest, N, V)


def _logs_of(L: Array, xp: Namespace) -> Array:
    """Return the logarithms of the determinants of ``L L^H``."""
    return 2 * xp.sum(xp.log(real_part(xp.linalg.diagonal(L), xp)), axis=-1)
