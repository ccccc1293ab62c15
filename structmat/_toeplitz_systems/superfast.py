"""Direct factors of a Hermitian positive definite Toeplitz matrix plus a diagonal, with any rows missing, in O(n r^2).

The matrix is ``K = M T M + D + (1 - M)``: T a Toeplitz matrix, M the mask of the rows that are there, D the noise in
these. Its inverse and its determinant come from a hierarchically semiseparable (HSS) form of T [1]_, [2]_, [3]_.

**The tree.** The n points are cut into leaves of m points, and neighbours are joined two by two, level by level. Where
n is no multiple of the size of a level, its last node, the *tail*, is shorter: no point is made up, so that T needs no
continuation.

**One basis a level.** A node of s points sees all others through its rows of T, of which r are independent up to the
tolerance: with an interpolation matrix P and r skeleton points p, ``T[i, j] = sum_a P[i, a] T[p_a, j]`` for each j
outside. As T is invariant under translations, all nodes of a level but the tail share P and p. QR factorisation with
pivoting finds both [4]_: at the leaves from all m points, above from the skeleton points of the two children, so that
bases are nested. It is given columns of T outside: all that are near, and of those that are far some in each octave of
the distance, as a covariance varies less there. What such a choice may overlook is found in the end, as a solution is
compared with the product by the matrix itself.

**Elimination.** A node has variables x, a matrix K, and a basis U, so that its equations are ``K x + U f = b`` with f
from outside. With the complete QR factorisation ``U = Q_1 R``, ``Q = (Q_1, Q_2)``, only ``Q_1^H x`` takes part outside;
the others are eliminated. With the Cholesky factor of ``Q^H K Q``, ordered so that Q_2 comes first, with blocks
``L_22``, ``X`` below, and ``L_11``,

    N = L_22^-1 Q_2^H,          V = Q_1 - N^H X^H,
    K^-1 = N^H N + V (L_11 L_11^H)^-1 V^H,

and ``log det K`` is that of the pivots of L_22 and of ``L_11 L_11^H``, which is what is left of the node. Two children
are joined to ``K = [[K_1, R_1 S R_2^H], [R_2 S^H R_1^H, K_2]]``, K_1 and K_2 being what is left of them and S the
entries of T between their skeleton points, and to ``U = (R_1 P_1, R_2 P_2)``. All nodes of a level are one batch. Gaps
and noise enter at the leaves only: in the rows of U that are missing there are zeros. Only orthogonal matrices and
Cholesky factors of positive definite matrices are used, so that errors are those of elimination [3]_; a form that
carries ``U^H K^-1 U`` upward in place of what is left was tried, and lost as many digits again as the matrix is
ill-conditioned.

**Derivatives.** ``d log det K = tr(K^-1 dK)`` takes the sums along the diagonals of the inverse, which are exact for
any change of T, smooth or not; they have no derivatives in turn. From the root down ``Z = N^H N + V Z_above V^H`` is
the inverse in the variables of a node, Z_above being its block for what was left of it; between two children it is
``Phi_1 Z_12 Phi_2^H`` with products Phi of the V below. Its sums are products of matrices for small nodes and
correlations by FFTs for large ones, over all nodes of a level together. Solutions have the implicit rule,
``dx = K^-1 (db - dK x)``.

References
----------
.. [1] Chandrasekaran, S., Gu, M., Sun, X., Xia, J., Zhu, J., A superfast algorithm for Toeplitz systems of linear
   equations, SIAM J. Matrix Anal. Appl. 29, 2007.
.. [2] Martinsson, P.-G., Rokhlin, V., A fast direct solver for boundary integral equations in two dimensions, J.
   Comput. Phys. 205, 2005.
.. [3] Xia, J., Chandrasekaran, S., Gu, M., Li, X. S., Fast algorithms for hierarchically semiseparable matrices, Numer.
   Linear Algebra Appl. 17, 2010.
.. [4] Cheng, H., Gimbutas, Z., Martinsson, P.-G., Rokhlin, V., On the compression of low rank matrices, SIAM J. Sci.
   Comput. 26, 2005.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.libraries import device_of, is_numpy, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length, kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._parametrised import Parametrised
from structmat._rules import Solver

LEAF = 64
"""Points of a leaf. A factor of 100,000 points takes 0.57 s with 64, 0.59 s with 48, 0.72 s with 96."""

TOLERANCE = 1e-13
"""What is left out of a block of T, relative to the largest entry of T.

The rounding errors of elimination are no smaller; with 1e-14 the rounding errors of a covariance itself count as rank:
that of a damped cosine of 60,000 points rises from 9 to 398.
"""

ROUNDED = 8.0
"""The least tolerance in units of eps of the numbers T was given in: less is rounding, which has full rank."""

NEAR, PER_OCTAVE = 64, 24
"""How many columns of T outside of a node are looked at: all that are nearer, and so many in each octave beyond."""

TRACED_RANK = 64
"""The rank that is allowed for in a trace, where ranks cannot depend on values. Matérn covariances have 4 to 6, the
squared exponential 32, the slowest of six kernels 71 at a million points."""

ROUND_RANK = 16
"""Where each shape is compiled, ranks are multiples of this."""

WORK_PER_POINT = 1e5
"""The cubes of the sizes of all nodes for each point from which on nothing is gained: 7,000 for a squared exponential,
which takes 6 microseconds a point."""

OVERLOOKED = 100.0
"""The largest product with what was left out of T, in units of the tolerance, with a vector of norm one.

For six kernels, 3,001 and 60,000 points, and two sizes of noise it was at most 4.
"""

BY_PRODUCTS = 512
"""Up to so many points of a node the sums along diagonals are made by products of matrices."""

CHUNK = 1 << 20
"""Numbers that one step holds at once where it may be parted: so it stays in the caches, and needs little memory."""

COMPILED_CHUNK = 1 << 24
"""The same where each part is compiled anew, or a GPU wants them together."""


class NotWorthwhile(Exception):  # noqa: N818  # no error: the caller goes another way
    """The ranks are so high that nothing is gained."""


# The tree


class Join(NamedTuple):
    """What is joined on the way from one level to the next, of the nodes of full size and the tail."""

    size: int
    """Points of a node."""
    pairs: int
    """So many pairs of nodes become nodes of the next level."""
    odd: bool
    """A last node is left: it is joined with the tail, or becomes it."""
    tail: int
    """Points of the tail, 0 without one."""


class Tree(NamedTuple):
    """The tree over n points."""

    n: int
    leaf: int

    @property
    def steps(self) -> list[Join]:
        """The steps from the leaves to the root."""
        steps: list[Join] = []
        count, size, tail = self.n // self.leaf, self.leaf, self.n % self.leaf
        while count + bool(tail) > 1:
            step = Join(size, count // 2, bool(count % 2), tail)
            steps.append(step)
            tail += size if step.odd else 0
            count, size = count // 2, 2 * size
        return steps


# The matrix and its factor, as objects with parameters


@dataclass(frozen=True, eq=False, repr=False)
class NoisyToeplitz(Parametrised):
    """The matrix ``K = M T M + D + (1 - M)``."""

    _core_axes = {"c": 1, "noise": 1, "there": 1}

    c: Array
    """The first column of T, of which the first entry is real."""
    noise: Array
    """The diagonal of D, one number for each row."""
    there: Array
    """One for a row that is there, zero for one that is missing."""

    @property
    def H(self) -> Self:
        """The matrix itself."""
        return self

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        n = self.c.shape[-1]
        first = real_part(self.c[:1], xp)
        column = concat_last([first, self.c[1:]], xp) if n > 1 else first
        plan = Convolution.of(kernel_of_diagonals(column, conjugate(self.c[1:], xp), xp), (n, n), xp)
        return self.there * plan.apply(self.there * x, xp) + self._diagonal(xp) * x

    def _diagonal(self, xp: Namespace) -> Array:
        return xp.where(self.there > 0.0, self.noise, xp.ones_like(self.noise))


@dataclass(frozen=True, eq=False, repr=False)
class Nodes(Parametrised):
    """Nodes of one size, by what the inverse has in their variables: ``N^H N + V^H Z V``, Z being that of the rest."""

    _core_axes = {"N": 3, "V": 3}

    N: Array
    V: Array | None
    """The adjoint of the V above; None at the root."""


@dataclass(frozen=True, eq=False, repr=False)
class Factor(Parametrised):
    """The inverse and the determinant of a `NoisyToeplitz` in units of the largest entry of T."""

    _core_axes = {"unit": 0, "units": 1, "logdet": 0, "leaves": None, "pairs": None, "lasts": None}

    tree: Tree
    unit: Array
    """The largest entry of T."""
    units: Array
    """That in each row that is there, one elsewhere."""
    logdet: Array
    """That of K itself."""
    leaves: tuple[Nodes, ...]
    """All full leaves in a few parts, and the tail."""
    pairs: tuple[Nodes, ...]
    """For each step with pairs what they are joined to."""
    lasts: tuple[Nodes, ...]
    """For each step where the last node is joined with the tail what they are joined to."""

    @property
    def H(self) -> Self:
        """The factor itself."""
        return self

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        """Return the product with the inverse of K."""
        rows = xp.reshape(x, (-1, x.shape[-1]))
        dtype = self.leaves[0].N.dtype
        in_parts = is_complex(x.dtype, xp) and not is_complex(dtype, xp)
        if in_parts:
            rows = xp.concat([xp.real(rows), xp.imag(rows)], axis=0)
        found = xp.matrix_transpose(applied(self, xp.astype(xp.matrix_transpose(rows), dtype), xp))
        if in_parts:
            half = found.shape[0] // 2
            found = xp.astype(found[:half, :], x.dtype) + 1j * xp.astype(found[half:, :], x.dtype)
        return xp.reshape(found / self.units, tuple(x.shape))

    @property
    def steps(self) -> list[tuple[Join, Nodes | None, Nodes | None]]:
        """The steps from the leaves on, each with what pairs are joined to, and the last node and the tail."""
        pairs, lasts = iter(self.pairs), iter(self.lasts)
        return [
            (step, next(pairs) if step.pairs else None, next(lasts) if step.odd and step.tail else None)
            for step in self.tree.steps
        ]

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of full nodes from the leaves on."""
        known = (self.leaves[0], *self.pairs)
        return tuple(nodes.V.shape[-2] for nodes in known if nodes.V is not None)


# Bases


class Basis(NamedTuple):
    """What other nodes see of a node: of a leaf, or of two children by their skeleton points."""

    matrix: Array
    """Interpolates all points, or those of both children, from the skeleton points."""
    points: Array
    """The skeleton points, from 0 at the start of the node."""


class Level(NamedTuple):
    """The bases of the nodes of one level; None where a node sees nothing outside, or is not there."""

    full: Basis | None
    tail: Basis | None


def columns_looked_at(count: int) -> Any:
    """Return which of `count` columns outside of a node, from the nearest on, show its basis."""
    near = np.arange(min(count, NEAR))
    if count <= NEAR:
        return near
    number = max(2, round(PER_OCTAVE * math.log2(count / NEAR)))
    return np.union1d(near, np.geomspace(NEAR, count - 1, number).astype(int))


def found_bases(
    t: Array, tree: Tree, interpolation: Callable[[Array], tuple[Array, Array]], xp: Namespace
) -> list[Level]:
    """Return the bases of all levels from the leaves on, by the interpolation that a function finds of a matrix."""

    def basis(points: Array, size: int, *, right: bool) -> Basis | None:
        if size == tree.n:
            return None
        k = xp.asarray(columns_looked_at(tree.n - size), device=device_of(t))[:, None]
        seen = [_entries(t, points + 1 + k, xp)]
        if right:
            seen.append(conjugate(_entries(t, size - points + k, xp), xp))
        matrix, chosen = interpolation(xp.concat(seen, axis=0))
        return Basis(matrix, xp.take(points, chosen, axis=0))

    def start(size: int, *, right: bool) -> Basis | None:
        return basis(xp.arange(size, device=device_of(t)), size, right=right) if size else None

    levels = [Level(start(tree.leaf, right=True), start(tree.n % tree.leaf, right=False))]
    for step in tree.steps:
        full, tail = levels[-1]
        joined, last = None, tail
        if step.pairs and full is not None:
            joined = basis(xp.concat([full.points, full.points + step.size]), 2 * step.size, right=True)
        if step.odd and tail is None:
            last = full
        elif step.odd and full is not None and tail is not None:
            last = basis(xp.concat([full.points, tail.points + step.size]), step.size + step.tail, right=False)
        levels.append(Level(joined, last))
    return levels


def _entries(t: Array, lags: Array, xp: Namespace) -> Array:
    return xp.reshape(xp.take(t, xp.reshape(lags, (-1,)), axis=0), tuple(lags.shape))


def interpolation_on_host(tolerance: float, most: int | None) -> Callable[[Any], tuple[Any, Any]]:
    """Return a function that finds skeleton columns of a matrix of NumPy, and the matrix that gives all from them.

    A rank above `most` is an error.
    """

    def found(seen: Any) -> tuple[Any, Any]:
        R, order = scipy.linalg.qr(seen, mode="r", pivoting=True, check_finite=False)
        rank = int(np.count_nonzero(np.abs(np.diagonal(R)) > tolerance))
        if rank == 0:  # nothing is seen
            return np.zeros((len(order), 1), R.dtype), order[:1]
        if most is not None and rank > most:
            raise NotWorthwhile(f"the rank is {rank}")
        matrix = np.zeros((len(order), rank), R.dtype)
        rest = scipy.linalg.solve_triangular(R[:rank, :rank], R[:rank, rank:], check_finite=False)
        matrix[order] = np.concatenate([np.eye(rank), rest], axis=1).T
        return matrix, order[:rank]

    return found


class TracedInterpolation:
    """The same in a trace: the rank is fixed, and whether it suffices is found out."""

    def __init__(self, tolerance: Array, rank: int, xp: Namespace) -> None:
        self.tolerance, self.rank, self.xp = tolerance, rank, xp
        self.left: list[Array] = []
        """The size of what each interpolation leaves out."""

    def __call__(self, seen: Array) -> tuple[Array, Array]:
        """Return the interpolation matrix, with zeros for points that are not needed, and the points.

        Gram and Schmidt's method takes the longest column in each step.
        """
        xp, rank = self.xp, min(self.rank, *seen.shape)

        def step(rest: Array, _: Any) -> tuple[Array, tuple[Array, Array, Array]]:
            sizes = xp.sqrt(xp.sum(xp.abs(rest) ** 2, axis=0))
            place = xp.argmax(sizes)
            size = xp.max(sizes)
            q = xp.take(rest, place[None], axis=1) / xp.where(size > 0.0, size, xp.ones_like(size))
            row = xp.matmul(_adjoint(q, xp), rest)
            return rest - q * row, (place, row[0, :], size)

        rest, (chosen, R, sizes) = rules_of(xp).scan(step, seen, xp.arange(rank))
        self.left.append(xp.max(xp.sqrt(xp.sum(xp.abs(rest) ** 2, axis=0))))
        needed = sizes > self.tolerance
        R = xp.where(needed[:, None], R, xp.zeros_like(R))
        eye = xp.eye(rank, dtype=R.dtype)
        triangle = xp.where(needed[:, None], xp.triu(xp.take(R, chosen, axis=1)), eye)
        return xp.matrix_transpose(xp.linalg.solve(triangle, R)), chosen


# The factor


class _Rest(NamedTuple):
    """What is left of nodes after their own variables were eliminated."""

    matrix: Array
    seen: Array
    """Other nodes are coupled with these variables by this matrix times T at the skeleton points."""


@dataclass(frozen=True)
class Factorisation:
    """A function of arrays that returns the factor of K, and how much was overlooked in its bases."""

    tree: Tree
    xp: Namespace

    def __call__(self, K: NoisyToeplitz, levels: list[Level]) -> tuple[Factor, Array]:
        factor = factorised(K, self.tree, levels, self.xp)
        return factor, _overlooked(K, factor, self.xp)


def factorised(K: NoisyToeplitz, tree: Tree, levels: list[Level], xp: Namespace) -> Factor:
    """Return the factor of K by its bases."""
    unit = _largest(K.c, xp)
    t, there = K.c / unit, K.there
    d = xp.where(there > 0.0, K.noise / unit, xp.ones_like(there))
    logs, leaves, full, tail = _leaves(t, d, xp.astype(there, t.dtype), tree, levels[0], xp)
    of_pairs: list[Nodes] = []
    of_lasts: list[Nodes] = []
    for step, level, above in zip(tree.steps, levels, levels[1:], strict=False):
        new_full, new_tail = None, tail
        if step.pairs:
            S = _coupling(t, level.full, level.full, step.size, xp)
            log, new_full, nodes = _joined(*_pairs_of(full, step), S, above.full, xp)
            logs.append(log)
            of_pairs.append(nodes)
        if step.odd:
            new_tail = _Rest(*(each[-1:, ...] for each in full))
        if step.odd and tail is not None:
            S = _coupling(t, level.full, level.tail, step.size, xp)
            log, new_tail, nodes = _joined(new_tail, tail, S, above.tail, xp)
            logs.append(log)
            of_lasts.append(nodes)
        full, tail = new_full, new_tail
    logdet = sum(logs) + xp.sum(there) * xp.log(unit)
    units = xp.where(there > 0.0, unit, xp.ones_like(there))
    return Factor(tree, unit, units, logdet, tuple(leaves), tuple(of_pairs), tuple(of_lasts))


def _largest(c: Array, xp: Namespace) -> Array:
    """Return the largest modulus; one where all entries are zero."""
    size = xp.max(xp.abs(c))
    return xp.where(size > 0.0, size, xp.ones_like(size))


def _chunk(xp: Namespace) -> int:
    return CHUNK if is_numpy(xp) else COMPILED_CHUNK


def _leaves(t: Array, d: Array, weight: Array, tree: Tree, level: Level, xp: Namespace) -> Any:
    """Return log-determinants, the leaves, and what is left of full ones and of the tail."""
    m, count = tree.leaf, tree.n // tree.leaf
    most = max(1, _chunk(xp) // m**2)
    parts = [(m * i, m * min(count, i + most), m, level.full) for i in range(0, count, most)]
    if tree.n % m:
        parts.append((m * count, tree.n, tree.n % m, level.tail))
    logs, rests, leaves = [], [], []
    for start, stop, size, basis in parts:
        some = slice(start, stop)
        K = _blocks(t, xp.reshape(d[some], (-1, size)), xp.reshape(weight[some], (-1, size)), xp)
        U = None if basis is None else xp.reshape(weight[some], (-1, size, 1)) * basis.matrix
        log, rest, nodes = _eliminated(K, U, xp)
        logs.append(log)
        rests.append(rest)
        leaves.append(nodes)
    tail = rests.pop() if tree.n % m else None
    full = rests[0]
    if len(rests) > 1:
        full = _Rest(*(xp.concat(parts, axis=0) for parts in zip(*rests, strict=True)))
    return logs, leaves, full, tail


def _blocks(t: Array, d: Array, weight: Array, xp: Namespace) -> Array:
    """Return the diagonal blocks of K for the leaves of these diagonals."""
    size = d.shape[-1]
    i = xp.arange(size, device=device_of(t))
    lag = i[:, None] - i
    T = _entries(t, xp.abs(lag), xp)
    if is_complex(t.dtype, xp):
        T = xp.where(lag < 0, xp.conj(T), T)
    eye = xp.eye(size, dtype=t.dtype, device=device_of(t))
    return T * (weight[:, :, None] * weight[:, None, :]) + eye * xp.astype(d, t.dtype)[:, None, :]


def _coupling(t: Array, left: Any, right: Any, size: int, xp: Namespace) -> Array:
    """Return the entries of T between the skeleton points of a node and of its neighbour to the right."""
    p, q = (xp.asarray(basis.points, device=device_of(t)) for basis in (left, right))
    return conjugate(_entries(t, size + q[None, :] - p[:, None], xp), xp)


def _joined(first: _Rest, last: _Rest, S: Array, above: Basis | None, xp: Namespace) -> Any:
    """Return the logarithm of the determinant of what two children leave, the rest of it, and the node."""
    width = S.shape[0] + S.shape[1]
    count, most = first.matrix.shape[0], max(1, _chunk(xp) // width**2)
    found = []
    for start in range(0, count, most):
        some = slice(start, min(count, start + most))
        left, right = (_Rest(rest.matrix[some, ...], rest.seen[some, ...]) for rest in (first, last))
        found.append(_joined_part(left, right, S, above, xp))
    if len(found) == 1:
        return found[0]
    logs, rests, nodes = zip(*found, strict=True)
    rest = None if above is None else _Rest(*(xp.concat(parts, axis=0) for parts in zip(*rests, strict=True)))
    V = None if above is None else xp.concat([each.V for each in nodes], axis=0)
    return sum(logs), rest, Nodes(xp.concat([each.N for each in nodes], axis=0), V)


def _joined_part(first: _Rest, last: _Rest, S: Array, above: Basis | None, xp: Namespace) -> Any:
    block = xp.matmul(xp.matmul(first.seen, S), _adjoint(last.seen, xp))
    upper = xp.concat([first.matrix, block], axis=-1)
    lower = xp.concat([_adjoint(block, xp), last.matrix], axis=-1)
    U = None
    if above is not None:
        parts = (above.matrix[: S.shape[0], :], above.matrix[S.shape[0] :, :])
        U = xp.concat([xp.matmul(first.seen, parts[0]), xp.matmul(last.seen, parts[1])], axis=-2)
    return _eliminated(xp.concat([upper, lower], axis=-2), U, xp)


def _eliminated(K: Array, U: Array | None, xp: Namespace) -> tuple[Array, _Rest | None, Nodes]:
    """Eliminate all variables of nodes but those that others see by U, in orthonormal coordinates.

    Returned is the logarithm of the determinant of what was eliminated, what is left, and the nodes.
    """
    if U is None:
        L = xp.linalg.cholesky(K)
        return _log_of(L, xp), None, Nodes(_inverse_of_lower(L, xp), None)
    own = U.shape[-2] - U.shape[-1]
    Q, R = xp.linalg.qr(U, mode="complete")
    Q = xp.concat([Q[..., U.shape[-1] :], Q[..., : U.shape[-1]]], axis=-1)
    Q_h = _adjoint(Q, xp)
    L = xp.linalg.cholesky(xp.matmul(xp.matmul(Q_h, K), Q))
    N = xp.matmul(_inverse_of_lower(L[..., :own, :own], xp), Q_h[..., :own, :])
    V_h = Q_h[..., own:, :] - xp.matmul(L[..., own:, :own], N)
    corner = L[..., own:, own:]
    rest = _Rest(xp.matmul(corner, _adjoint(corner, xp)), R[..., : U.shape[-1], :])
    return _log_of(L[..., :own, :own], xp), rest, Nodes(N, V_h)


def _log_of(L: Array, xp: Namespace) -> Array:
    return 2 * xp.sum(xp.log(real_part(xp.linalg.diagonal(L), xp)))


def _adjoint(A: Array, xp: Namespace) -> Array:
    return xp.matrix_transpose(conjugate(A, xp))


def _inverse_of_lower(L: Array, xp: Namespace) -> Array:
    """Return inverses of lower triangular matrices by those of their halves, at once where each step is compiled."""
    n = L.shape[-1]
    if n <= 16 or rules_of(xp).compiles:
        return xp.linalg.inv(L)
    h = n // 2
    first, last = (_inverse_of_lower(part, xp) for part in (L[..., :h, :h], L[..., h:, h:]))
    below = -xp.matmul(last, xp.matmul(L[..., h:, :h], first))
    zeros = xp.zeros((*L.shape[:-2], h, n - h), dtype=L.dtype, device=device_of(L))
    return xp.concat([xp.concat([first, zeros], axis=-1), xp.concat([below, last], axis=-1)], axis=-2)


def _pairs_of(rest: _Rest, step: Join) -> tuple[_Rest, _Rest]:
    """Return the left and the right ones of pairs."""
    both = [_Rest(*(each[k : 2 * step.pairs : 2, ...] for each in rest)) for k in (0, 1)]
    return both[0], both[1]


# The ways from the leaves to the root and back


def _upward(factor: Factor, full: Any, tail: Any, function: Callable[..., Any]) -> list[Any]:
    """Call ``function(nodes, left, right)`` for what is joined, from the leaves on.

    It returns something to keep, which is returned for each step, and what the node hands on to the next level.
    """
    kept = []
    for step, pairs, last in factor.steps:
        new_full, new_tail = None, tail
        found = [None, None]
        if step.pairs:
            found[0], new_full = function(pairs, full[: 2 * step.pairs : 2, ...], full[1 : 2 * step.pairs : 2, ...])
        if step.odd:
            new_tail = full[-1:, ...]
        if last is not None:
            found[1], new_tail = function(last, new_tail, tail)
        kept.append(found)
        full, tail = new_full, new_tail
    return kept


def _downward(factor: Factor, kept: list[Any], function: Callable[..., Any], xp: Namespace) -> Any:
    """Call ``function(nodes, kept, outer)`` for what is joined, from the root on, in the reverse order of `_upward`.

    `outer` is None at the root. The function returns what it hands down to the left and to the right child. What
    reaches the full leaves and the tail is returned.
    """
    full = tail = None
    for (step, pairs, last), found in zip(reversed(factor.steps), reversed(kept), strict=True):
        parts = []
        if last is not None:
            left, tail = function(last, found[1], tail)
            parts.append(left)
        elif step.odd:
            parts.append(tail)
            tail = None
        if pairs is not None:
            both = xp.stack(function(pairs, found[0], full), axis=1)
            parts.insert(0, xp.reshape(both, (2 * step.pairs, *both.shape[2:])))
        full = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    return full, tail


def _parted(full: Any, tail: Any, factor: Factor) -> list[Any]:
    """Return the parts of what belongs to full leaves and to the tail that belong to each of the parts of leaves."""
    if full is None:
        return [None]
    parts, start = [], 0
    for leaves in factor.leaves[: len(factor.leaves) - (tail is not None)]:
        parts.append(full[start : start + leaves.N.shape[0], ...])
        start += leaves.N.shape[0]
    return parts if tail is None else [*parts, tail]


def _gathered(parts: list[Any], factor: Factor, xp: Namespace) -> tuple[Array, Array | None]:
    """Return what belongs to full leaves and to the tail, of what belongs to each of the parts of leaves."""
    tail = parts[-1] if factor.tree.n % factor.tree.leaf else None
    full = parts if tail is None else parts[:-1]
    return (full[0] if len(full) == 1 else xp.concat(full, axis=0)), tail


# Systems


def applied(factor: Factor, b: Array, xp: Namespace) -> Array:
    """Return ``K^-1 b`` in units of the factor for right-hand sides in columns, shape ``(n, k)``."""
    given, start = [], 0
    for leaves in factor.leaves:
        count, _, size = leaves.N.shape
        given.append(xp.reshape(b[start : start + count * size, :], (count, size, -1)))
        start += count * size

    def up(nodes: Nodes, left: Array, right: Array) -> Any:
        both = xp.concat([left, right], axis=-2)
        above = None if nodes.V is None else xp.matmul(nodes.V, both)
        return (both, left.shape[-2]), above

    def down(nodes: Nodes, kept: Any, outer: Array | None) -> tuple[Array, Array]:
        both, size = kept
        x = _solved(nodes, both, outer, xp)
        return x[..., :size, :], x[..., size:, :]

    outer = [None] * len(given)
    if factor.pairs or factor.lasts:
        sides = [xp.matmul(leaves.V, v) for leaves, v in zip(factor.leaves, given, strict=True)]
        kept = _upward(factor, *_gathered(sides, factor, xp), up)
        full, tail = _downward(factor, kept, down, xp)
        outer = _parted(full, tail, factor)
    parts = [_solved(*args, xp) for args in zip(factor.leaves, given, outer, strict=True)]
    return xp.concat([xp.reshape(part, (-1, b.shape[-1])) for part in parts], axis=0)


def _solved(nodes: Nodes, b: Array, outer: Array | None, xp: Namespace) -> Array:
    """Return the variables of nodes by their right-hand sides and by those that are left over."""
    x = xp.matmul(_adjoint(nodes.N, xp), xp.matmul(nodes.N, b))
    return x if outer is None else x + xp.matmul(_adjoint(nodes.V, xp), outer)


@dataclass(frozen=True)
class FactorSolver(Solver):
    """Finds solutions by a factor, for the implicit rule of a library."""

    def __call__(self, A: NoisyToeplitz, M: Factor, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        """Return solutions along the last axis, refined once by the residual of the matrix itself."""
        x = M._matvec(b, xp)
        return x + M._matvec(b - A._matvec(x, xp), xp), ()


# Derivatives


@dataclass(frozen=True)
class TraceByFactor:
    """What the derivative of the log-determinant takes."""

    def inverse(self, A: NoisyToeplitz, given: Factor, xp: Namespace) -> tuple[Array, Array]:
        why = "second derivatives of a log-determinant by a direct factor are not known; give n_probes for an estimate"
        once = rules_of(xp).without_derivative
        sums, diagonal = (once(value, A._arrays(), why) for value in inverse_sums(given, A.there, xp))
        return sums, diagonal

    def trace(self, A: NoisyToeplitz, inverse: tuple[Array, Array], given: Factor, xp: Namespace) -> Array:
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
    outer, blocks, seen = [None], [], [None]
    if factor.pairs or factor.lasts:
        ranks = factor.ranks

        def down(nodes: Nodes, size: int, outer: Array | None) -> tuple[Array, Array]:
            Z = _block_of_inverse(nodes, outer, xp)
            blocks.append(Z[..., :size, size:])
            return Z[..., :size, :size], Z[..., size:, size:]

        def up(nodes: Nodes, left: Array, right: Array) -> Any:
            sums = _sums_between(left, right, blocks.pop(), xp)
            if nodes.V is None:
                return sums, None
            size = left.shape[-2]
            both = [xp.matmul(V, child) for V, child in ((nodes.V[..., :size], left), (nodes.V[..., size:], right))]
            return sums, xp.concat(both, axis=-1)

        full, tail = _downward(factor, [(r, r) for r in ranks], down, xp)
        outer = _parted(full, tail, factor)
        seen = [leaves.V for leaves in factor.leaves]
        for sums in _upward(factor, *_gathered(seen, factor, xp), up):
            for values in sums:
                if values is not None:
                    total = total + _placed(values, 1, n, xp)
    diagonals, start = [], 0
    for leaves, out in zip(factor.leaves, outer, strict=True):
        count, _, size = leaves.N.shape
        weight = xp.reshape(there[start : start + count * size], (count, size))
        start += count * size
        block, diagonal = _leaf_sums(leaves, out, weight, xp)
        total = total + _placed(_sums_of(block, xp)[size - 1 :], 0, n, xp)
        diagonals.append(xp.reshape(diagonal, (-1,)))
    return total / factor.unit, xp.concat(diagonals) / factor.unit


def _block_of_inverse(nodes: Nodes, outer: Array | None, xp: Namespace) -> Array:
    Z = xp.matmul(_adjoint(nodes.N, xp), nodes.N)
    return Z if outer is None else Z + xp.matmul(_adjoint(nodes.V, xp), xp.matmul(outer, nodes.V))


def _leaf_sums(leaves: Nodes, outer: Array | None, weight: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sum of the blocks of leaves, and the diagonal of each."""
    size = weight.shape[-1]
    N = leaves.N * weight[:, None, :]
    flat = xp.reshape(N, (-1, size))
    block = xp.matmul(_adjoint(flat, xp), flat)
    diagonal = xp.sum(xp.abs(N) ** 2, axis=-2)
    if outer is None:
        return block, diagonal
    V = leaves.V * weight[:, None, :]
    moved = xp.matmul(outer, V)
    block = block + xp.matmul(_adjoint(xp.reshape(V, (-1, size)), xp), xp.reshape(moved, (-1, size)))
    return block, diagonal + xp.sum(real_part(conjugate(V, xp) * moved, xp), axis=-2)


def _placed(values: Array, first: int, n: int, xp: Namespace) -> Array:
    zeros = [xp.zeros(k, dtype=values.dtype, device=device_of(values)) for k in (first, n - first - values.shape[0])]
    return xp.concat([zeros[0], values, zeros[1]])


def _sums_between(left: Array, right: Array, coupling: Array, xp: Namespace) -> Array:
    """Return the sums along the diagonals of ``left^H coupling right``, from the lower left corner on, over a batch."""
    right = xp.matmul(coupling, right)
    p, q = left.shape[-1], right.shape[-1]
    left, right = xp.reshape(left, (-1, p)), xp.reshape(right, (-1, q))
    if p <= BY_PRODUCTS:
        return _sums_of(xp.matmul(_adjoint(left, xp), right), xp)
    left = conjugate(xp.flip(left, axis=-1), xp)
    length = fast_length(p + q - 1)
    real = not is_complex(left.dtype, xp)
    forward = xp.fft.rfft if real else xp.fft.fft
    spectrum, rows = None, max(1, _chunk(xp) // length)
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


# The whole


class SuperfastFactor:
    """A direct factor of ``K = M T M + D + (1 - M)``, with derivatives in torch and JAX by the first column and noise.

    Parameters
    ----------
    c : array, shape (n,)
        The first column of T, of any library; all is computed in double precision.
    noise : array, shape (n,)
        The diagonal of D.
    there : array of bool, shape (n,), optional
        The mask of the rows that are there; the others are those of the identity. Default: all.
    tolerance : float
        What may be left out of a block of T, relative to its largest entry.
    rank : int, optional
        The largest rank that is allowed for; of JAX in a trace the one that is computed with. By default it depends on
        the work that it makes, or is 64 in a trace.

    Raises
    ------
    NotWorthwhile
        If T has no blocks of low rank, or not up to `rank`. In a trace all is NaN then.
    numpy.linalg.LinAlgError
        If K is not positive definite, or holds NaN or infinity. In a trace all is NaN then.
    """

    def __init__(
        self,
        c: Array,
        noise: Array,
        there: Array | None,
        xp: Namespace,
        *,
        tolerance: float = TOLERANCE,
        rank: int | None = None,
    ) -> None:
        rules = self._rules = rules_of(xp)
        self._xp = xp
        wide = xp.complex128 if is_complex(c.dtype, xp) else xp.float64
        tolerance = max(tolerance, ROUNDED * float(xp.finfo(precision_of(c.dtype, xp)).eps))
        noise = xp.astype(noise, xp.float64)
        there = xp.ones_like(noise) if there is None else xp.astype(there, xp.float64)
        self.matrix = NoisyToeplitz(xp.astype(c, wide), noise, there)
        constant = self.matrix._map(lambda array, _: rules.constant(array))
        tree = Tree(c.shape[0], min(LEAF, c.shape[0]))
        with rules.unrecorded():
            if rules.is_traced(constant.c) or rules.is_traced(constant.noise):
                self._factor = _traced(constant, tree, tolerance, rank or TRACED_RANK, xp)
            else:
                self._factor = _untraced(constant, tree, tolerance, rank, xp)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the levels from the leaves on."""
        return self._factor.ranks

    @property
    def logdet(self) -> Array:
        """The logarithm of the determinant of K."""
        return self._rules.log_determinant(TraceByFactor(), self.matrix, self._factor, self._factor.logdet)

    def solve(self, b: Array) -> Array:
        """Return x with ``K x = b`` along the last axis, in double precision."""
        xp = self._xp
        is_real = not (is_complex(b.dtype, xp) or is_complex(self.matrix.c.dtype, xp))
        b = xp.astype(b, xp.float64 if is_real else xp.complex128)
        x, _ = self._rules.solution(FactorSolver(), self.matrix, self._factor, b)
        return x


def _untraced(K: NoisyToeplitz, tree: Tree, tolerance: float, rank: int | None, xp: Namespace) -> Factor:
    """Return the factor of a matrix whose values are known."""
    c = to_numpy(K.c)
    finite = all(bool(xp.all(xp.isfinite(array))) for array in K._arrays())
    if not finite:
        raise _not_definite("it holds NaN or infinity")
    size = float(np.max(np.abs(c))) or 1.0
    found = found_bases(c, tree, interpolation_on_host(tolerance * size, rank), numpy_namespace)
    if rank is None and _work(tree, found) > WORK_PER_POINT * tree.n:
        raise NotWorthwhile("the ranks are too high")
    rules = rules_of(xp)
    if rules.compiles:
        found = _of_round_ranks(found)
    levels = [Level(*(_moved(basis, K.c, xp) for basis in level)) for level in found]
    try:
        factor, overlooked = rules.compiled(Factorisation(tree, xp))(K, levels)
    except (np.linalg.LinAlgError, RuntimeError) as error:  # the latter of torch
        raise _not_definite("a leading section is not") from error
    if not bool(xp.isfinite(factor.logdet)):
        raise _not_definite("a leading section is not")
    if not bool(overlooked <= OVERLOOKED * tolerance):
        raise NotWorthwhile("the columns of T that were looked at do not show its rank")
    return factor


def _traced(K: NoisyToeplitz, tree: Tree, tolerance: float, rank: int, xp: Namespace) -> Factor:
    """Return the factor of a matrix whose values are not known, with NaN for the logarithm where it is none."""
    allowed = tolerance * _largest(K.c, xp)
    interpolation = TracedInterpolation(allowed, rank, xp)
    factor, overlooked = Factorisation(tree, xp)(K, found_bases(K.c, tree, interpolation, xp))
    is_one = overlooked <= OVERLOOKED * tolerance
    for left in interpolation.left:
        is_one = is_one & (left <= allowed)
    nan = xp.full_like(factor.unit, xp.nan)
    return factor._replaced(
        units=xp.where(is_one, factor.units, nan),
        unit=xp.where(is_one, factor.unit, nan),
        logdet=xp.where(is_one, factor.logdet, nan),
    )


def _overlooked(K: NoisyToeplitz, factor: Factor, xp: Namespace) -> Array:
    """Return the norm of the product with what was left out of T, relative to its largest entry and to the vector."""
    signs = np.random.default_rng(0).integers(0, 2, factor.tree.n) * 2.0 - 1.0
    b = xp.astype(xp.asarray(signs, device=device_of(K.c)), K.c.dtype)
    x = factor._matvec(b, xp)
    left = b - K._matvec(x, xp)
    return xp.linalg.vector_norm(left) / xp.linalg.vector_norm(x) / factor.unit


def _of_round_ranks(levels: list[Level]) -> list[Level]:
    """Return bases of NumPy with skeleton points that count for nothing, so that few shapes are compiled."""
    widened: dict[int, Basis] = {}

    def wide(basis: Basis | None, children: tuple[Basis | None, ...]) -> Basis | None:
        if basis is None:
            return None
        if id(basis) not in widened:
            parts, start = [], 0
            for child in children:
                rank = 0 if child is None else child.matrix.shape[1]
                more = 0 if child is None else widened[id(child)].matrix.shape[1] - rank
                parts.append(np.pad(basis.matrix[start : start + rank, :], ((0, more), (0, 0))))
                start += rank
            matrix = np.concatenate(parts, axis=0) if parts else basis.matrix
            rows, rank = matrix.shape
            more = min(rank + -rank % ROUND_RANK, rows) - rank
            widened[id(basis)] = Basis(np.pad(matrix, ((0, 0), (0, more))), np.pad(basis.points, (0, more)))
        return widened[id(basis)]

    found, below = [Level(*(wide(basis, ()) for basis in levels[0]))], levels[0]
    for level in levels[1:]:
        found.append(Level(wide(level.full, (below.full, below.full)), wide(level.tail, (below.full, below.tail))))
        below = level
    return found


def _moved(basis: Basis | None, like: Array, xp: Namespace) -> Basis | None:
    """Return a basis of NumPy arrays as one of the library and the device of an array."""
    return None if basis is None else Basis(*(xp.asarray(part, device=device_of(like)) for part in basis))


def _work(tree: Tree, levels: list[Level]) -> float:
    """Return the cubes of the numbers of variables of all nodes."""
    work = float(tree.n * tree.leaf**2)
    for step, level in zip(tree.steps, levels, strict=False):
        if level.full is not None:
            work += max(1, step.pairs) * (2.0 * level.full.matrix.shape[-1]) ** 3
    return work


def _not_definite(why: str) -> np.linalg.LinAlgError:
    return np.linalg.LinAlgError(f"the matrix is not positive definite: {why}")
