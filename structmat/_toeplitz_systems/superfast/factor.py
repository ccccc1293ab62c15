"""The factor by a tree of nodes: the product with the inverse by a way up the tree and down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays.dtypes import is_complex
from structmat._arrays.typing import Array, Namespace
from structmat._parametrised import Parametrised
from structmat._toeplitz_systems.superfast.conditional import by_tree
from structmat._toeplitz_systems.superfast.inverse_sums import inverse_sums
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.tree import Tree
from structmat._toeplitz_systems.superfast.ways import Beside, Nodes, Ways


@dataclass(frozen=True, eq=False, repr=False)
class Factor(Parametrised):
    """The inverse and the determinant of a `NoisyToeplitz`; all nodes are in units of the largest entry of T."""

    _core_axes = {"unit": 0, "units": 1, "logdet": 0, "error": 0, "leaves": None, "pairs": None, "lasts": None}

    tree: Tree
    tolerance: float
    """What may have been left out of a block of T, relative to its largest entry."""
    unit: Array
    """The largest entry of T."""
    units: Array
    """That in each row that is there, one elsewhere."""
    logdet: Array
    """The logarithm of the determinant of K itself."""
    error: Array
    """How far off the logarithm may be, as was measured."""
    leaves: tuple[Nodes, ...]
    """The full leaves, and the tail where there is one."""
    pairs: tuple[Nodes, ...]
    """For each step with pairs what they are joined to."""
    lasts: tuple[Nodes, ...]
    """For each step where the last node is joined with the tail what they are joined to."""
    beside: Beside | None = None
    """What posterior variances take beside the inverse; None where it is not kept."""

    @property
    def H(self) -> Factor:
        """The factor itself."""
        return self

    @property
    def ways(self) -> Ways:
        """The ways from the leaves to the root and back."""
        return Ways(self.tree, self.leaves, self.pairs, self.lasts)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of full nodes from the leaves on."""
        return self.ways.ranks

    def inverse_sums(self, there: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of ``M K^-1 M``, ``sum(i, Z[i, i + k])`` for each k, and its diagonal."""
        sums, diagonal = inverse_sums(self.ways, there, xp)
        return sums / self.unit, diagonal / self.unit

    def variances(self, K: NoisyToeplitz, noise: Any) -> Any:
        """Return the posterior variances of all rows, where the factor has kept what they take."""
        assert self.beside is not None  # noqa: S101  # it is kept where variances are to be asked for
        return by_tree(K, self.ways, self.beside, float(self.unit), noise)

    # The product with the inverse

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        """Return the product with the inverse of K."""
        rows = xp.reshape(x, (-1, x.shape[-1]))
        dtype = self.leaves[0].N.dtype
        in_parts = is_complex(x.dtype, xp) and not is_complex(dtype, xp)
        if in_parts:
            rows = xp.concat([xp.real(rows), xp.imag(rows)], axis=0)
        found = xp.matrix_transpose(self._inverse_times(xp.astype(xp.matrix_transpose(rows), dtype), xp))
        if in_parts:
            half = found.shape[0] // 2
            found = xp.astype(found[:half, :], x.dtype) + 1j * xp.astype(found[half:, :], x.dtype)
        return xp.reshape(found / self.units, tuple(x.shape))

    def _inverse_times(self, b: Array, xp: Namespace) -> Array:
        """Return ``K^-1 b`` in units of the factor for right-hand sides in columns, shape ``(n, k)``."""
        given = []
        start = 0
        for leaves in self.leaves:
            count, _, size = leaves.N.shape
            given.append(xp.reshape(b[start : start + count * size, :], (count, size, -1)))
            start += count * size

        def up(nodes: Nodes, left: Array, right: Array) -> Any:
            both = xp.concat([left, right], axis=-2)
            above = None if nodes.V is None else xp.matmul(nodes.V, both)
            return (both, left.shape[-2]), above

        def down(nodes: Nodes, kept: Any, outer: Array | None) -> tuple[Array, Array]:
            both, size = kept
            x = nodes.inverse_times(both, outer, xp)
            return x[..., :size, :], x[..., size:, :]

        outer = [None] * len(given)
        ways = self.ways
        if ways.has_joins:
            sides = [xp.matmul(leaves.V, v) for leaves, v in zip(self.leaves, given, strict=True)]
            outer = ways.downward(ways.upward(sides, up, xp), down, xp)
        parts = [leaves.inverse_times(v, own, xp) for leaves, v, own in zip(self.leaves, given, outer, strict=True)]
        return xp.concat([xp.reshape(part, (-1, b.shape[-1])) for part in parts], axis=0)
