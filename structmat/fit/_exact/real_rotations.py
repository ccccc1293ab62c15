"""A real matrix as some 4n real factors, by the rotations of its singular vectors: accurate at any side.

A rotation of the pair (m, m + 1) is a shear, a scaling and a shear, with entries of 1 / cos, or three shears with
entries of at most one. What all rotations of a layer take at a time from rows of one parity to those of the other is
one *star*, ``I + N`` with ``N[i, i - 1] = below[i]`` and ``N[i, i + 1] = above[i]`` in the rows of one parity. Stars
of one parity multiply by adding N, so that the last one of a layer and the first one of the next are one: n + 1 stars
for n layers, and one more for each layer of three shears.

A star is a circulant of three diagonals between two diagonals, up to entries far below rounding: if diagonals on the
left are large in the rows of its parity and small in the others, and on the right the reciprocals, only N is left
beside the identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from structmat.fit._exact.rotations import Layers, layers_of_rotations

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["factor_real_by_rotations"]

# The outer entries of a star's circulant beside its middle one, and what replaces zeros of N: a star has too much by
# the square of the first over the second.
_OUTER, _FILLED = 1e-30, 1e-18
# What scalings may multiply rounding errors by, up to the side of the second number, and as its square beyond: in the
# mean over directions, of which a matrix has its stable rank, the sum of its squared singular values over the largest.
_LOSS, _LOSS_SIDE = 100.0, 256
# Neighbouring singular values within this factor do not keep the stars on their two sides apart.
_STEADY = 100.0
# Singular values within this share of the largest are those of a multiple of an orthogonal matrix.
_EQUAL = 1e-13


class _Star(NamedTuple):
    parity: int
    below: NDArray[np.float64]
    above: NDArray[np.float64]


class _Chain(NamedTuple):
    """Diagonals, and the stars between them."""

    diagonals: list[NDArray[np.float64]]
    stars: list[_Star]

    def multiply(self, star: _Star) -> None:
        """Multiply by a star from the right."""
        if self.stars and self.stars[-1].parity == star.parity:
            # S D S' = D (D^-1 S D) S'
            last, d = self.stars.pop(), self.diagonals.pop()
            self.diagonals[-1] = self.diagonals[-1] * d
            below, above = last.below * np.roll(d, 1) / d, last.above * np.roll(d, -1) / d
            star = _Star(star.parity, below + star.below, above + star.above)
        self.stars.append(star)
        self.diagonals.append(np.ones(len(star.below)))

    def scale(self, d: NDArray[np.float64]) -> None:
        """Multiply by a diagonal from the right."""
        self.diagonals[-1] = self.diagonals[-1] * d


def factor_real_by_rotations(W: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the diagonals and first columns: ``4n + 3`` or more, at most ``8n + 5``.

    A multiple of an orthogonal matrix takes half of them.
    """
    n = len(W)
    u, s, vh = np.linalg.svd(W)
    chain = _Chain([np.ones(n)], [])
    if s[0] - s[-1] <= _EQUAL * s[0]:
        _multiply_by_rotations(chain, layers_of_rotations(W / s[0]), n)
        return _vectors(chain, float(s[0]))
    rank = float(np.sum((s / s[0]) ** 2))
    _multiply_by_rotations(chain, layers_of_rotations(u), rank)
    if (s[:-1] <= _STEADY * s[1:]).all():
        chain.scale(s)
        _multiply_by_rotations(chain, layers_of_rotations(vh), rank)
        return _vectors(chain, 1.0)
    right = _Chain([s], [])
    _multiply_by_rotations(right, layers_of_rotations(vh), rank)
    return _vectors(
        _Chain(
            [*chain.diagonals[:-1], chain.diagonals[-1] * right.diagonals[0], *right.diagonals[1:]],
            chain.stars + right.stars,
        ),
        1.0,
    )


def _multiply_by_rotations(chain: _Chain, layers: Layers, rank: float) -> None:
    n = len(layers.phases)
    chain.scale(layers.phases)
    with np.errstate(divide="ignore"):
        losses = np.sum(1 / layers.c**2, axis=1)
    allowed = rank * (_LOSS * max(1.0, (n / _LOSS_SIDE) ** 2)) ** 2
    order = np.argsort(losses)
    sheared = np.ones(n, dtype=bool)
    sheared[order[np.cumsum(losses[order]) <= allowed]] = False
    for k in range(n):
        m = np.arange((layers.first + k) % 2, n - 1, 2)
        if not len(m):
            continue
        c, b = layers.c[k, m], layers.b[k, m]
        # A star of the lower rows of the pairs, or of the upper ones, whichever the one before takes in.
        lower = not chain.stars or chain.stars[-1].parity != m[0] % 2
        sign = -1.0 if lower else 1.0
        if sheared[k]:
            outer = b / (1 + c)
            for place, shear in enumerate((sign * outer, -sign * b, sign * outer)):
                chain.multiply(_star(n, m, shear, lower=lower != (place == 1)))
        else:
            chain.multiply(_star(n, m, sign * b / c, lower=lower))
            d = np.ones(n)
            d[m], d[m + 1] = (c, 1 / c) if lower else (1 / c, c)
            chain.scale(d)
            chain.multiply(_star(n, m, -sign * b / c, lower=not lower))


def _star(n: int, m: NDArray[np.intp], shear: NDArray[np.float64], *, lower: bool) -> _Star:
    below, above = np.zeros((2, n))
    if lower:
        below[m + 1] = shear
    else:
        above[m] = shear
    return _Star(int(m[0] + lower) % 2, below, above)


def _vectors(chain: _Chain, scale: float) -> list[NDArray[np.float64]]:
    """Return the diagonals and first columns of a chain, times a number."""
    vectors = [scale * chain.diagonals[0]]
    for star, diagonal in zip(chain.stars, chain.diagonals[1:], strict=True):
        left, column, right = _as_circulant(star)
        vectors[-1] = vectors[-1] * left
        vectors += [column, right * diagonal]
    return vectors


def _as_circulant(star: _Star) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the diagonal, first column and diagonal of a star.

    With x on the left in rows of its parity and y on the right in the others, ``below[i] = x[i] * c1 * y[i - 1]`` and
    ``above[i] = x[i] * c2 * y[i + 1]``, where c1 and c2 are the outer entries of the circulant. So y grows from one row
    to the next but one by ``above[i] / below[i] * c1 / c2``, around a cycle if n is even.
    """
    parity, below, above = star
    n = len(below)
    rows, others = np.arange(parity, n, 2), np.arange(1 - parity, n, 2)
    x, y, column = np.ones(n), np.ones(n), np.zeros(n)
    column[0] = 1.0
    if not above[rows].any() or not below[rows].any():
        one, place = (below, 1) if below[rows].any() else (above, n - 1)
        column[place] += _OUTER
        y[others] = _OUTER**-0.5
        x[rows] = _filled(one[rows]) * _OUTER**-0.5
    else:
        lower, upper = _filled(below[rows]), _filled(above[rows])
        # Nothing is to wrap around. With n even its sign is free, and closes the cycle; with n odd rows 0 and n - 1 are
        # neighbours of one parity, and there is no cycle.
        if n % 2 == 0 and np.prod(np.sign(lower) * np.sign(upper)) < 0:
            (upper if parity else lower)[-parity] *= -1
        ends = n % 2 == 1 and parity == 0
        steps = (upper / lower)[1:-1] if ends else upper / lower
        ratio = float(np.exp(-np.mean(np.log(np.abs(steps))))) if len(steps) else 1.0
        if ends:  # row 0 has nothing before it
            lower[0], steps = upper[0] * ratio, np.concatenate([[1 / ratio], steps])
        column[1], column[-1] = _OUTER * np.sqrt(ratio), _OUTER / np.sqrt(ratio)
        logs = np.append(0.0, np.cumsum(np.log(np.abs(steps) * ratio)))
        signs = np.append(1.0, np.cumprod(np.sign(steps)))
        around = signs * np.exp(logs - logs.mean()) * _OUTER**-0.5  # before row 0 of them, and after each
        y[(rows[: len(steps)] + 1) % n] = around[1:]
        if n % 2 and parity:
            y[0] = around[0]
        x[rows] = lower / (column[1] * around[: len(rows)])
    x[others], y[rows] = 1 / y[others], 1 / x[rows]
    return x, column, y


def _filled(entries: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(entries) < _FILLED, _FILLED, entries)
