"""The binary tree over the rows: leaves of one size, joined two by two, and a shorter last node on each level.

Rows are in the order of points in time, and within each of them of channels. No point is parted between two nodes.
"""

from __future__ import annotations

from typing import NamedTuple

from structmat._toeplitz_systems import thresholds


class Join(NamedTuple):
    """What is joined on the way from one level to the next, of the nodes of full size and the tail."""

    size: int
    """Rows of a node."""
    pairs: int
    """So many pairs of nodes become nodes of the next level."""
    odd: bool
    """A last node is left: it is joined with the tail, or becomes it."""
    tail: int
    """Rows of the tail, 0 without one."""


class Tree(NamedTuple):
    """The tree over n rows."""

    n: int
    leaf: int
    """Rows of a leaf."""
    channels: int
    """Rows of each point in time."""

    @classmethod
    def over(cls, n: int, channels: int) -> Tree:
        """Return the tree over n rows."""
        return cls(n, min(thresholds.LEAF + -thresholds.LEAF % channels, n), channels)

    @property
    def leaves(self) -> int:
        """How many leaves have the full size."""
        return self.n // self.leaf

    @property
    def tail(self) -> int:
        """Rows of the tail among the leaves, 0 without one."""
        return self.n % self.leaf

    @property
    def steps(self) -> list[Join]:
        """The steps from the leaves to the root."""
        steps: list[Join] = []
        count, size, tail = self.leaves, self.leaf, self.tail
        while count + bool(tail) > 1:
            step = Join(size, count // 2, bool(count % 2), tail)
            steps.append(step)
            if step.odd:
                tail += size
            count = step.pairs
            size = 2 * size
        return steps
