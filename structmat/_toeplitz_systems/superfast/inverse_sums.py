"""Sums along the diagonals of the inverse by a tree of nodes, which derivatives of log-determinants take.

From the root down each node is told the block of the inverse for what was left of it, ``Z_above``; from the leaves up
the products of the V below it are formed, whose products with the blocks between two children have the sums of their
points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems.superfast.batches import adjoint, joined_parts, parts_of
from structmat._toeplitz_systems.superfast.diagonal_sums import placed, sums_between, sums_of
from structmat._toeplitz_systems.superfast.ways import Nodes, Ways


def inverse_sums(ways: Ways, there: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums along the diagonals of ``M Z M``, ``sum(i, Z[i, i + k])`` for each k, and its main diagonal.

    Z is the inverse in units of the factor. The change of the log-determinant is ``z[0] dt[0] + 2 Re sum(k > 0, z[k]
    dt[k])``, and the diagonal times ``dD``. With several channels the blocks ``Z[i, i + k]^T`` are summed.
    """
    like = ways.leaves[0].N
    p = ways.tree.channels
    n = ways.tree.n * p
    total = xp.zeros(n, dtype=like.dtype, device=device_of(like))
    outer = [None]
    if ways.has_joins:
        blocks, outer = _blocks_between_children(ways, xp)
        for sums in _sums_of_joins(ways, blocks, xp):
            total = total + placed(sums, p**2, n, xp)
    diagonals = []
    start = 0
    for leaves, own in zip(ways.leaves, outer, strict=True):
        count, _, size = leaves.N.shape
        weight = xp.reshape(there[start : start + count * size], (count, size))
        start += count * size
        block: Any = 0.0
        for some in parts_of(count, size**2, weight, xp):
            of_part, diagonal = _leaf_sums(leaves, own, some, weight[some, :], xp)
            block = block + of_part
            diagonals.append(xp.reshape(diagonal, (-1,)))
        total = total + placed(sums_of(block, p, xp)[size * p - p**2 :], 0, n, xp)
    return total, xp.concat(diagonals)


class _Blocks(NamedTuple):
    """The blocks of the inverse of two children."""

    left: Array
    between: Array
    right: Array


def _blocks_between_children(ways: Ways, xp: Namespace) -> tuple[list[Array], list[Any]]:
    """Return the block of the inverse between the children of all nodes, from the root on, and what leaves are told."""
    blocks: list[Array] = []

    def down(nodes: Nodes, size: int, outer: Array | None) -> tuple[Array, Array]:
        count, _, width = nodes.N.shape
        found = []
        for some in parts_of(count, width**2, nodes.N, xp):
            Z = _block_of_inverse(nodes, outer, some, xp)
            own = (Z[..., :size, :size], Z[..., :size, size:], Z[..., size:, size:])
            found.append(_Blocks(*(xp.asarray(block, copy=True) for block in own)))  # so that Z itself is not kept
        joined: _Blocks = joined_parts(found, xp)
        blocks.append(joined.between)
        return joined.left, joined.right

    ranks_of_left = [(rank, rank) for rank in ways.ranks]  # of both kinds of nodes: the left child has full size
    outer = ways.downward(ranks_of_left, down, xp)
    return blocks, outer


def _block_of_inverse(nodes: Nodes, outer: Array | None, some: slice, xp: Namespace) -> Array:
    """Return the inverse in the variables of some nodes."""
    N = nodes.N[some, ...]
    Z = xp.matmul(adjoint(N, xp), N)
    if nodes.V is None or outer is None:
        return Z
    V = nodes.V[some, ...]
    return Z + xp.matmul(adjoint(V, xp), xp.matmul(outer[some, ...], V))


def _sums_of_joins(ways: Ways, blocks: list[Array], xp: Namespace) -> list[Array]:
    """Return sums along the diagonals of the inverse between children, from lag one on, by their blocks."""
    found: list[Array] = []

    def up(nodes: Nodes, left: Array, right: Array) -> tuple[None, Array | None]:
        found.append(sums_between(left, right, blocks.pop(), ways.tree.channels, xp))
        if nodes.V is None:
            return None, None
        return None, _seen_from_above(nodes.V, left, right, xp)

    ways.upward([leaves.V for leaves in ways.leaves], up, xp)
    return found


def _seen_from_above(V: Array, left: Array, right: Array, xp: Namespace) -> Array:
    """Return the product of the V of nodes with those of their two children, which lie side by side."""
    size, points = left.shape[-2:]
    shape = (V.shape[0], V.shape[-2], points + right.shape[-1])
    found = xp.zeros(shape, dtype=V.dtype, device=device_of(V))
    put, every = rules_of(xp).put, slice(None)
    for some in parts_of(shape[0], shape[1] * shape[2], V, xp):
        found = put(found, (some, every, slice(0, points)), xp.matmul(V[some, :, :size], left[some, ...]))
        found = put(found, (some, every, slice(points, None)), xp.matmul(V[some, :, size:], right[some, ...]))
    return found


def _leaf_sums(leaves: Nodes, outer: Array | None, some: slice, weight: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sum of the blocks of some leaves, and the diagonal of each."""
    size = weight.shape[-1]
    N = leaves.N[some, ...] * weight[:, None, :]
    flat = xp.reshape(N, (-1, size))
    block = xp.matmul(adjoint(flat, xp), flat)
    diagonal = xp.sum(xp.abs(N) ** 2, axis=-2)
    if leaves.V is None or outer is None:
        return block, diagonal
    V = leaves.V[some, ...] * weight[:, None, :]
    moved = xp.matmul(outer[some, ...], V)
    block = block + xp.matmul(adjoint(xp.reshape(V, (-1, size)), xp), xp.reshape(moved, (-1, size)))
    return block, diagonal + xp.sum(real_part(conjugate(V, xp) * moved, xp), axis=-2)
