"""What elimination leaves of the inverse in each node of the tree, and the ways up the tree and down.

On the way up each node hands on what is left of its variables to the one above; on the way down it hands to its two
children what those above have found of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from structmat._arrays.typing import Array, Namespace
from structmat._parametrised import Parametrised
from structmat._toeplitz_systems.superfast.bases import Level
from structmat._toeplitz_systems.superfast.batches import adjoint, joined_parts
from structmat._toeplitz_systems.superfast.tree import Join, Tree


@dataclass(frozen=True, eq=False, repr=False)
class Nodes(Parametrised):
    """Nodes of one size, by what the inverse has in their variables: ``N^H N + V^H Z V``, Z being that of the rest."""

    _core_axes = {"N": 3, "V": 3}

    N: Array
    V: Array | None
    """The adjoint of the V in the head of this package; None at the root."""

    def inverse_times(self, b: Array, outer: Array | None, xp: Namespace) -> Array:
        """Return the variables of the nodes by their right-hand sides, and by those that are left over, from above."""
        x = xp.matmul(adjoint(self.N, xp), xp.matmul(self.N, b))
        return x if outer is None else x + xp.matmul(adjoint(self.V, xp), outer)


class Rest(NamedTuple):
    """What is left of nodes after their own variables were eliminated."""

    matrix: Array
    seen: Array
    """Other nodes are coupled with these variables by this matrix times T at the skeleton points."""


class Neighbours(NamedTuple):
    """Nodes that are joined two by two, as they are before."""

    left: Rest
    right: Rest
    coupling: Array
    """The entries of T between the skeleton points of both."""
    above: Array | None
    """What interpolates the skeleton points of both from those of the node they are joined to; None at the root."""


class Beside(NamedTuple):
    """What posterior variances take beside the inverse, in units of the factor."""

    leaves: Level
    """The bases of the leaves."""
    neighbours: list[list[Neighbours | None]]
    """For each step of the tree the pairs, and the last node with the tail; None where there are none."""


class Ways(NamedTuple):
    """The nodes of a tree, in the order in which they are joined."""

    tree: Tree
    leaves: tuple[Nodes, ...]
    """The full leaves, and the tail where there is one."""
    pairs: tuple[Nodes, ...]
    """For each step with pairs what they are joined to."""
    lasts: tuple[Nodes, ...]
    """For each step where the last node is joined with the tail what they are joined to."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of full nodes from the leaves on."""
        known = (self.leaves[0], *self.pairs)
        return tuple(nodes.V.shape[-2] for nodes in known if nodes.V is not None)

    @property
    def has_joins(self) -> bool:
        """Whether there is more than one leaf."""
        return bool(self.pairs or self.lasts)

    @property
    def steps(self) -> list[tuple[Join, Nodes | None, Nodes | None]]:
        """The steps from the leaves on, each with what pairs are joined to, and the last node and the tail."""
        pairs, lasts = iter(self.pairs), iter(self.lasts)
        return [
            (step, next(pairs) if step.pairs else None, next(lasts) if step.odd and step.tail else None)
            for step in self.tree.steps
        ]

    def upward(self, of_leaves: list[Any], function: Callable[..., Any], xp: Namespace) -> list[Any]:
        """Call ``function(nodes, left, right)`` for what is joined, from what belongs to full leaves and the tail on.

        It returns something to keep, which is returned for each step, and what the node hands on to the next level.
        """
        full, tail = of_leaves if self.tree.tail else (*of_leaves, None)
        kept = []
        for step, pairs, last in self.steps:
            new_full, new_tail = None, tail
            found = [None, None]
            if step.pairs:
                left = full[: 2 * step.pairs : 2, ...]
                right = full[1 : 2 * step.pairs : 2, ...]
                found[0], new_full = function(pairs, left, right)
            if step.odd:
                new_tail = xp.asarray(full[-1:, ...], copy=True)  # so that all others are not kept with it
            if last is not None:
                found[1], new_tail = function(last, new_tail, tail)
            kept.append(found)
            full, tail = new_full, new_tail
        return kept

    def downward(self, kept: list[Any], function: Callable[..., Any], xp: Namespace) -> list[Any]:
        """Call ``function(nodes, kept, outer)`` for what is joined, from the root on, in the reverse order of `upward`.

        `outer` is None at the root. The function returns what it hands down to the left and to the right child. What
        reaches full leaves, and the tail, is returned.
        """
        full: Any = None
        tail: Any = None
        for (step, pairs, last), found in zip(reversed(self.steps), reversed(kept), strict=True):
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
            full = joined_parts(parts, xp)
        return [full, tail] if self.tree.tail else [full]
