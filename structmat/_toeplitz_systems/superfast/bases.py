"""One basis a level: interpolation from skeleton points, found by QR factorisation of columns of T with pivoting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.libraries import device_of
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.batches import entries
from structmat._toeplitz_systems.superfast.tree import Tree


class RankError(ValueError):
    """T has no blocks of low rank, or none of a rank that is allowed."""


class OverlookedError(RankError):
    """The columns of T that were looked at do not show the rank of its blocks."""


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


Interpolation = Callable[[Any], tuple[Any, Any]]
"""A function of a matrix that returns the matrix that interpolates all columns from some, and which these are."""


def columns_looked_at(count: int, all_near: int = thresholds.NEAR_COLUMNS) -> Any:
    """Return which of `count` block columns outside of a node, from the nearest on, show its basis."""
    near = np.arange(min(count, all_near))
    if count <= all_near:
        return near
    number = max(2, round(thresholds.COLUMNS_PER_OCTAVE * math.log2(count / all_near)))
    return np.union1d(near, np.geomspace(all_near, count - 1, number).astype(int))


def found_bases(
    t: Array,
    tree: Tree,
    interpolation: Interpolation,
    xp: Namespace,
    *,
    all_near: int = thresholds.NEAR_COLUMNS,
    most_work: float = math.inf,
) -> list[Level]:
    """Return the bases of all levels from the leaves on. More than so much work, as `work_of` counts it, is an error.

    That is found out on the way, since bases of high ranks take long themselves: those of fractional noise of 100,000
    points take 0.5 s with all levels, and 0.03 s up to the level where the work is too much.
    """

    def basis(points: Array, size: int, *, right: bool) -> Basis | None:
        """Return the basis of a node of some size by points of it; `right` says whether it has others to its right."""
        if size == tree.n:
            return None
        p = tree.channels
        times = columns_looked_at((tree.n - size) // p, max(thresholds.NEAR_COLUMNS, all_near // p))
        k = xp.asarray(np.reshape(p * times[:, None] + np.arange(p), (-1, 1)), device=device_of(t))
        seen = [entries(t, points, -1 - k, p, xp)]
        if right:
            seen.append(conjugate(entries(t, size + k, points, p, xp), xp))
        matrix, chosen = interpolation(xp.concat(seen, axis=0))
        return Basis(matrix, xp.take(points, chosen, axis=0))

    def of_leaf(size: int, *, right: bool) -> Basis | None:
        return basis(xp.arange(size, device=device_of(t)), size, right=right) if size else None

    levels = [Level(of_leaf(tree.leaf, right=True), of_leaf(tree.tail, right=False))]
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
        if work_of(tree, levels) > most_work:
            raise RankError("blocks beside the diagonal have so high a rank that nothing is gained")
    return levels


def interpolation_on_host(tolerance: float, most: int | None) -> Interpolation:
    """Return the interpolation of matrices of NumPy, by LAPACK. A rank above `most` is an error."""

    def found(seen: Any) -> tuple[Any, Any]:
        R, order = scipy.linalg.qr(seen, mode="r", pivoting=True, check_finite=False)
        rank = int(np.count_nonzero(np.abs(np.diagonal(R)) > tolerance))
        if rank == 0:  # nothing is seen
            return np.zeros((len(order), 1), R.dtype), order[:1]
        if most is not None and rank > most:
            raise RankError(f"blocks beside the diagonal have rank {rank}, above rank={most}")
        matrix = np.zeros((len(order), rank), R.dtype)
        rest = scipy.linalg.solve_triangular(R[:rank, :rank], R[:rank, rank:], check_finite=False)
        matrix[order] = np.concatenate([np.eye(rank), rest], axis=1).T
        return matrix, order[:rank]

    return found


def work_of(tree: Tree, levels: list[Level]) -> float:
    """Return the sum of the cubes of the numbers of variables of all nodes."""
    work = float(tree.n * tree.leaf**2)
    for step, level in zip(tree.steps, levels, strict=False):
        if level.full is not None:
            work += max(1, step.pairs) * (2.0 * level.full.matrix.shape[-1]) ** 3
    return work


def of_round_ranks(levels: list[Level]) -> list[Level]:
    """Return bases of NumPy with skeleton points that count for nothing, so that few shapes are compiled."""
    widened: dict[int, Basis] = {}

    def wide(basis: Basis | None, children: tuple[Basis | None, ...]) -> Basis | None:
        if basis is None:
            return None
        if id(basis) not in widened:
            widened[id(basis)] = _of_round_rank(_with_rows_for(basis, children, widened))
        return widened[id(basis)]

    below = levels[0]
    found = [Level(*(wide(basis, ()) for basis in below))]
    for level in levels[1:]:
        found.append(Level(wide(level.full, (below.full, below.full)), wide(level.tail, (below.full, below.tail))))
        below = level
    return found


def _with_rows_for(basis: Basis, children: tuple[Basis | None, ...], widened: dict[int, Basis]) -> Basis:
    """Return a basis with rows of zeros for the points that its children were given."""
    parts = []
    start = 0
    for child in children:
        if child is not None:
            rank = child.matrix.shape[1]
            more = widened[id(child)].matrix.shape[1] - rank
            parts.append(np.pad(basis.matrix[start : start + rank, :], ((0, more), (0, 0))))
            start += rank
    return Basis(np.concatenate(parts, axis=0), basis.points) if parts else basis


def _of_round_rank(basis: Basis) -> Basis:
    """Return a basis with columns of zeros up to the next round rank."""
    rows, rank = basis.matrix.shape
    more = min(rank + -rank % thresholds.ROUND_RANK, rows) - rank
    return Basis(np.pad(basis.matrix, ((0, 0), (0, more))), np.pad(basis.points, (0, more)))


def moved(levels: list[Level], like: Array, xp: Namespace) -> list[Level]:
    """Return bases of NumPy arrays as those of the library and the device of an array."""

    def of(basis: Basis | None) -> Basis | None:
        return None if basis is None else Basis(*(xp.asarray(part, device=device_of(like)) for part in basis))

    return [Level(of(level.full), of(level.tail)) for level in levels]
