"""Derivatives of solutions by the implicit rule, of log-determinants by sums along the diagonals of the inverse.

``d log det K = tr(K^-1 dK)`` takes of the inverse its diagonal and the sums along its diagonals alone. From the root
down each node is told the block of the inverse for what was left of it, ``Z_above``; from the leaves up the products of
the V below it are formed, whose products with the blocks between two children have the sums of their points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._krylov import conjugate_gradients
from structmat._rules import Solver
from structmat._toeplitz_systems.superfast.batches import adjoint, joined_parts, parts_of
from structmat._toeplitz_systems.superfast.factor import Factor, Nodes
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz

EXACT = 1e-12
"""The largest tolerance of a factor with which one refinement of a solution leaves no more than rounding."""

MOST_STEPS = 100
"""The most steps of conjugate gradients with a loose factor: it takes 1 to 5 where its tolerance is below the noise."""

BY_PRODUCTS = 512
"""Up to so many points of a node the sums along diagonals are made by products of matrices."""


@dataclass(frozen=True)
class FactorSolver(Solver):
    """Finds solutions by a factor, for the implicit rule of a library."""

    rtol: float
    """The relative residual at which conjugate gradients end."""

    def __call__(self, A: NoisyToeplitz, M: Factor, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        """Return solutions along the last axis.

        Those of a factor that is as exact as elimination are refined once, which leaves no more than rounding; a looser
        one preconditions conjugate gradients.
        """
        if M.tolerance <= EXACT:
            x = M._matvec(b, xp)
            return x + M._matvec(b - A._matvec(x, xp), xp), ()
        scale = xp.max(xp.abs(b), axis=-1, keepdims=True)  # since the method squares the entries of vectors
        scale = xp.where(scale > 0.0, scale, xp.ones_like(scale))
        found = conjugate_gradients(
            lambda v: A._matvec(v, xp),
            b / scale,
            lambda v: M._matvec(v, xp),
            rtol=self.rtol / 2,  # the residual that is computed from the solution is another than that of the method
            max_iter=MOST_STEPS,
            xp=xp,
        )
        return scale * found.x, ()


@dataclass(frozen=True)
class _InverseSums:
    """A function of arrays that returns `inverse_sums`."""

    xp: Namespace

    def __call__(self, factor: Factor, there: Array) -> tuple[Array, Array]:
        return inverse_sums(factor, there, self.xp)


class TraceByDiagonals:
    """What all rules of the log-determinant of a `NoisyToeplitz` share: the trace of the inverse times K."""

    def trace(self, A: NoisyToeplitz, inverse: tuple[Array, Array], given: Factor | None, xp: Namespace) -> Array:
        """Return the trace of the inverse times A."""
        sums, diagonal = inverse
        products = sums * A.c
        of_T = 2 * real_part(xp.sum(products, axis=-1), xp) - real_part(products[..., 0], xp)
        return of_T + xp.sum(diagonal * A.noise, axis=-1)


@dataclass(frozen=True)
class TraceByFactor(TraceByDiagonals):
    """What the derivative of the log-determinant takes: that of ``tr(K^-1 dK)`` by a factor."""

    def inverse(self, A: NoisyToeplitz, given: Factor, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of the inverse, and its diagonal, which have no derivatives in turn."""
        return without_second_derivatives(rules_of(xp).compiled(_InverseSums(xp))(given, A.there), A, xp)


def without_second_derivatives(found: Sequence[Array], A: NoisyToeplitz, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums along the diagonals of the inverse of A, and its diagonal, of which a derivative is an error."""
    why = "second derivatives of a log-determinant by a direct factor are not known; give n_probes for an estimate"
    sums, diagonal = (rules_of(xp).without_derivative(value, A._arrays(), why) for value in found)
    return sums, diagonal


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
        block: Any = 0.0
        for some in parts_of(count, size**2, weight, xp):
            of_part, diagonal = _leaf_sums(leaves, own, some, weight[some, :], xp)
            block = block + of_part
            diagonals.append(xp.reshape(diagonal, (-1,)))
        total = total + _placed(_sums_of(block, xp)[size - 1 :], 0, n, xp)
    return total / factor.unit, xp.concat(diagonals) / factor.unit


class _Blocks(NamedTuple):
    """The blocks of the inverse of two children."""

    left: Array
    between: Array
    right: Array


def _blocks_between_children(factor: Factor, xp: Namespace) -> tuple[list[Array], list[Any]]:
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

    ranks_of_left = [(rank, rank) for rank in factor.ranks]  # of both kinds of nodes: the left child has full size
    outer = factor.downward(ranks_of_left, down, xp)
    return blocks, outer


def _block_of_inverse(nodes: Nodes, outer: Array | None, some: slice, xp: Namespace) -> Array:
    """Return the inverse in the variables of some nodes."""
    N = nodes.N[some, ...]
    Z = xp.matmul(adjoint(N, xp), N)
    if nodes.V is None or outer is None:
        return Z
    V = nodes.V[some, ...]
    return Z + xp.matmul(adjoint(V, xp), xp.matmul(outer[some, ...], V))


def _sums_of_joins(factor: Factor, blocks: list[Array], xp: Namespace) -> list[Array]:
    """Return sums along the diagonals of the inverse between children, from lag one on, by their blocks."""
    found: list[Array] = []

    def up(nodes: Nodes, left: Array, right: Array) -> tuple[None, Array | None]:
        found.append(_sums_between(left, right, blocks.pop(), xp))
        if nodes.V is None:
            return None, None
        return None, _seen_from_above(nodes.V, left, right, xp)

    factor.upward([leaves.V for leaves in factor.leaves], up, xp)
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


def _placed(values: Array, first: int, n: int, xp: Namespace) -> Array:
    """Return a vector of n numbers with these from the first place on, and zeros elsewhere."""
    before, after = (
        xp.zeros(count, dtype=values.dtype, device=device_of(values)) for count in (first, n - first - values.shape[0])
    )
    return xp.concat([before, values, after])


def _sums_between(left: Array, right: Array, coupling: Array, xp: Namespace) -> Array:
    """Return the sums along the diagonals of ``left^H coupling right``, from the lower left corner on, over a batch.

    They are those of a product of matrices for small nodes, and correlations by FFTs for large ones.
    """
    p, q = left.shape[-1], right.shape[-1]
    by_products = p <= BY_PRODUCTS
    of_rows = _product if by_products else _spectrum
    total: Any = 0.0
    for some in parts_of(left.shape[0], left.shape[-2] * (p + q), left, xp):
        rows = xp.reshape(left[some, ...], (-1, p))
        others = xp.reshape(xp.matmul(coupling[some, ...], right[some, ...]), (-1, q))
        total = total + of_rows(rows, others, xp)
    if by_products:
        return _sums_of(total, xp)
    length = fast_length(p + q - 1)
    found = xp.fft.ifft(total, n=length) if is_complex(left.dtype, xp) else xp.fft.irfft(total, n=length)
    return found[: p + q - 1]


def _product(left: Array, right: Array, xp: Namespace) -> Array:
    return xp.matmul(adjoint(left, xp), right)


def _spectrum(left: Array, right: Array, xp: Namespace) -> Array:
    """Return the spectrum of the correlations of rows with rows, summed over all."""
    length = fast_length(left.shape[-1] + right.shape[-1] - 1)
    forward = xp.fft.fft if is_complex(left.dtype, xp) else xp.fft.rfft
    total: Any = 0.0
    for some in parts_of(left.shape[0], length, left, xp):
        reversed_rows = conjugate(xp.flip(left[some, :], axis=-1), xp)
        total = total + xp.sum(forward(reversed_rows, n=length) * forward(right[some, :], n=length), axis=0)
    return total


def _sums_of(block: Array, xp: Namespace) -> Array:
    """Return the sums along the diagonals of a matrix from the lower left corner to the upper right one."""
    p, q = block.shape
    wide = xp.concat([xp.flip(block, axis=0), xp.zeros((p, p), dtype=block.dtype, device=device_of(block))], axis=1)
    return xp.sum(xp.reshape(xp.reshape(wide, (-1,))[: p * (p + q - 1)], (p, p + q - 1)), axis=0)
