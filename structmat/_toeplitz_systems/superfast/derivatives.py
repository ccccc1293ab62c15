"""Derivatives of solutions by the implicit rule, of log-determinants by sums along the diagonals of the inverse.

``d log det K = tr(K^-1 dK)`` takes of the inverse its diagonal and the sums along its diagonals alone. From the root
down each node is told the block of the inverse for what was left of it, ``Z_above``; from the leaves up the products of
the V below it are formed, whose products with the blocks between two children have the sums of their points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._rules import Solver
from structmat._toeplitz_systems.superfast.batches import adjoint, numbers_at_once
from structmat._toeplitz_systems.superfast.factor import Factor, Nodes
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz

BY_PRODUCTS = 512
"""Up to so many points of a node the sums along diagonals are made by products of matrices."""


@dataclass(frozen=True)
class FactorSolver(Solver):
    """Finds solutions by a factor, for the implicit rule of a library."""

    def __call__(self, A: NoisyToeplitz, M: Factor, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        """Return solutions along the last axis, refined once by the residual of the matrix itself."""
        x = M._matvec(b, xp)
        return x + M._matvec(b - A._matvec(x, xp), xp), ()


@dataclass(frozen=True)
class TraceByFactor:
    """What the derivative of the log-determinant takes: that of ``tr(K^-1 dK)`` by a factor."""

    def inverse(self, A: NoisyToeplitz, given: Factor, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of the inverse, and its diagonal, which have no derivatives in turn."""
        why = "second derivatives of a log-determinant by a direct factor are not known; give n_probes for an estimate"
        once = rules_of(xp).without_derivative
        sums, diagonal = (once(value, A._arrays(), why) for value in inverse_sums(given, A.there, xp))
        return sums, diagonal

    def trace(self, A: NoisyToeplitz, inverse: tuple[Array, Array], given: Factor, xp: Namespace) -> Array:
        """Return the trace of the inverse times A."""
        sums, diagonal = inverse
        of_T = 2 * real_part(xp.sum(sums * A.c), xp) - real_part(sums[0] * A.c[0], xp)
        return of_T + xp.sum(diagonal * A.noise)


def inverse_sums(factor: Factor, there: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums along the diagonals of ``M K^-1 M``, ``sum(i, Z[i, i + k])`` for each k, and the main diagonal.

    The change of the log-determinant is ``z[0] dt[0] + 2 Re sum(k > 0, z[k] dt[k])``, and the diagonal times ``dD``.
    """
    like = factor.leaves[0].N
    n = factor.tree.n
    total = xp.zeros(n, dtype=like.dtype, device=device_of(like))
    outer = [None]
    if factor.has_joins:
        blocks, outer = _blocks_between_children(factor, xp)
        for sums in _sums_of_joins(factor, blocks, xp):
            total = total + _placed(sums, 1, n, xp)
    diagonals = []
    start = 0
    for leaves, own in zip(factor.leaves, outer, strict=True):
        count, _, size = leaves.N.shape
        weight = xp.reshape(there[start : start + count * size], (count, size))
        start += count * size
        block, diagonal = _leaf_sums(leaves, own, weight, xp)
        total = total + _placed(_sums_of(block, xp)[size - 1 :], 0, n, xp)
        diagonals.append(xp.reshape(diagonal, (-1,)))
    return total / factor.unit, xp.concat(diagonals) / factor.unit


def _blocks_between_children(factor: Factor, xp: Namespace) -> tuple[list[Array], list[Any]]:
    """Return the block of the inverse between the children of all nodes, from the root on, and what leaves are told."""
    blocks: list[Array] = []

    def down(nodes: Nodes, size: int, outer: Array | None) -> tuple[Array, Array]:
        Z = xp.matmul(adjoint(nodes.N, xp), nodes.N)
        if outer is not None:
            Z = Z + xp.matmul(adjoint(nodes.V, xp), xp.matmul(outer, nodes.V))
        blocks.append(xp.asarray(Z[..., :size, size:], copy=True))  # so that Z itself is not kept
        return Z[..., :size, :size], Z[..., size:, size:]

    ranks_of_left = [(rank, rank) for rank in factor.ranks]  # of both kinds of nodes: the left child has full size
    outer = factor.downward(ranks_of_left, down, xp)
    return blocks, outer


def _sums_of_joins(factor: Factor, blocks: list[Array], xp: Namespace) -> list[Array]:
    """Return sums along the diagonals of the inverse between children, from lag one on, by their blocks."""
    found: list[Array] = []

    def up(nodes: Nodes, left: Array, right: Array) -> tuple[None, Array | None]:
        found.append(_sums_between(left, right, blocks.pop(), xp))
        if nodes.V is None:
            return None, None
        size = left.shape[-2]
        of_left = xp.matmul(nodes.V[..., :size], left)
        of_right = xp.matmul(nodes.V[..., size:], right)
        return None, xp.concat([of_left, of_right], axis=-1)

    factor.upward([leaves.V for leaves in factor.leaves], up, xp)
    return found


def _leaf_sums(leaves: Nodes, outer: Array | None, weight: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sum of the blocks of leaves, and the diagonal of each."""
    size = weight.shape[-1]
    N = leaves.N * weight[:, None, :]
    flat = xp.reshape(N, (-1, size))
    block = xp.matmul(adjoint(flat, xp), flat)
    diagonal = xp.sum(xp.abs(N) ** 2, axis=-2)
    if outer is None:
        return block, diagonal
    V = leaves.V * weight[:, None, :]
    moved = xp.matmul(outer, V)
    block = block + xp.matmul(adjoint(xp.reshape(V, (-1, size)), xp), xp.reshape(moved, (-1, size)))
    return block, diagonal + xp.sum(real_part(conjugate(V, xp) * moved, xp), axis=-2)


def _placed(values: Array, first: int, n: int, xp: Namespace) -> Array:
    """Return a vector of n numbers with these from the first place on, and zeros elsewhere."""
    before, after = (
        xp.zeros(count, dtype=values.dtype, device=device_of(values)) for count in (first, n - first - values.shape[0])
    )
    return xp.concat([before, values, after])


def _sums_between(left: Array, right: Array, coupling: Array, xp: Namespace) -> Array:
    """Return the sums along the diagonals of ``left^H coupling right``, from the lower left corner on, over a batch."""
    right = xp.matmul(coupling, right)
    p, q = left.shape[-1], right.shape[-1]
    left, right = xp.reshape(left, (-1, p)), xp.reshape(right, (-1, q))
    if p <= BY_PRODUCTS:
        return _sums_of(xp.matmul(adjoint(left, xp), right), xp)
    return _correlation(left, right, xp)


def _correlation(left: Array, right: Array, xp: Namespace) -> Array:
    """Return the same sums for the product of matrices with two long sides, by FFTs."""
    p, q = left.shape[-1], right.shape[-1]
    left = conjugate(xp.flip(left, axis=-1), xp)
    length = fast_length(p + q - 1)
    real = not is_complex(left.dtype, xp)
    forward = xp.fft.rfft if real else xp.fft.fft
    spectrum, rows = None, max(1, numbers_at_once(xp) // length)
    for start in range(0, left.shape[0], rows):
        some = slice(start, min(left.shape[0], start + rows))
        product = xp.sum(forward(left[some, :], n=length) * forward(right[some, :], n=length), axis=0)
        spectrum = product if spectrum is None else spectrum + product
    found = xp.fft.irfft(spectrum, n=length) if real else xp.fft.ifft(spectrum, n=length)
    return found[: p + q - 1]


def _sums_of(block: Array, xp: Namespace) -> Array:
    """Return the sums along the diagonals of a matrix from the lower left corner to the upper right one."""
    p, q = block.shape
    wide = xp.concat([xp.flip(block, axis=0), xp.zeros((p, p), dtype=block.dtype, device=device_of(block))], axis=1)
    return xp.sum(xp.reshape(xp.reshape(wide, (-1,))[: p * (p + q - 1)], (p, p + q - 1)), axis=0)
