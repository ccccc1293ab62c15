"""The phases of both diagonals of a planted product of three factors, read off a matrix, also under noise.

If W is ``a_i c_(i-j) b_j`` then ``W_(i+s, j+s) conj(W_ij)`` (indices cyclic inside each block) is a phase pattern ``g_i
h_j`` on non-negative weights, where ``g_i`` has the phase of ``a_(i+s) conj(a_i)`` and ``h_j`` that of ``b_(j+s)
conj(b_j)``. So its leading singular pair has exactly these phases (Perron-Frobenius), up to one free phase per shift.
The shifts used are the rounded halvings of the block side m: each is the sum of two smaller ones, which fixes its free
phase, and m itself is a whole turn, which fixes the one phase left. Long shifts beside short ones keep the phases from
drifting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from structmat.fit._alternation import with_best_circulant
from structmat.fit._block_grid import BlockGrid, Factors, conjugate_column_sums, conjugate_row_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["shift_synchronisation_start", "unit"]

Links: TypeAlias = "dict[int, NDArray[Any]]"

_FIRST_PASSES = 24
"""Power iterations of synchronisation for the first shift, which begin with noise."""

_NEXT_PASSES = 8
"""Power iterations for every other shift, which begin with a prediction."""

_RING_PASSES = 60
"""Power iterations for the phases on the ring: first with links of modulus one, then with weighted links."""


def shift_synchronisation_start(grid: BlockGrid, rng: np.random.Generator) -> Factors:
    """Return diagonals of phases by synchronisation over shifts times geometric means, and the best `c` for them."""
    g, h = _links(grid, rng)
    a, b = _geometric_means(grid)
    a = a * _ring_phases(g, grid.rows_present, rng)
    b = b * _ring_phases(h, grid.cols_present, rng)
    return with_best_circulant(grid, a, b)


def _links(grid: BlockGrid, rng: np.random.Generator) -> tuple[Links, Links]:
    """Return for every shift s estimates ``g[s]`` of ``a_(i+s) conj(a_i)`` and ``h[s]`` of ``b_(j+s) conj(b_j)``."""
    m = grid.m
    g: Links = {}
    h: Links = {}
    if m == 1:
        return g, h
    # It will be made again. So there are never more than two copies of the matrix.
    grid.__dict__.pop("weighted_diagonals", None)
    damped = _damped(grid)
    g[1], h[1] = _leading_pair(grid, damped, 1, _noise(grid.cols_present, rng), _FIRST_PASSES)
    for s in _shift_chain(m):
        g_guess, h_guess = _predicted(g, s), _predicted(h, s)
        g_new, h_new = _leading_pair(grid, damped, s, h_guess, _NEXT_PASSES)
        phase = unit(np.vdot(g_new, g_guess) + np.vdot(h_guess, h_new))
        g[s], h[s] = g_new * phase, h_new * np.conj(phase)
    turn = np.sum(_predicted(g, m)) + np.conj(np.sum(_predicted(h, m)))
    for s in g:
        if np.iscomplexobj(turn):
            correction = np.exp(-1j * np.angle(turn) * s / m)
        else:
            # For even m the sign of shift 1 is free: the product does not depend on it. For odd m it closes the turn.
            correction = -1.0 if turn < 0 and m % 2 and s % 2 else 1.0
        g[s], h[s] = g[s] * correction, h[s] * np.conj(correction)
    return g, h


def _shift_chain(m: int) -> list[int]:
    """Return the halvings of `m` between 1 and m, rounded both ways, in rising order.

    Each of them is the sum of two numbers that come before it, or are one.
    """
    chain: set[int] = set()
    half = m // 2
    while half >= 1:
        chain |= {half, half + 1}
        half //= 2
    return sorted(s for s in chain if 1 < s < m)


def _predicted(links: Links, s: int) -> NDArray[Any]:
    """Return the phases of shift `s` as those of shift t after shift s - t, from two shifts that are known."""
    t = max(t for t in links if s - t in links)
    phases: NDArray[Any] = unit(np.roll(links[s - t], -t, axis=-1) * links[t])
    return phases


def _damped(grid: BlockGrid) -> NDArray[Any]:
    """Return the blocks over the square roots of their moduli, which tames heavy tails in products of two entries."""
    out = np.zeros_like(grid.blocks)
    for chunk in grid.chunks():
        root = np.sqrt(np.abs(grid.blocks[chunk]))
        np.divide(grid.blocks[chunk], root, out=out[chunk], where=root > 0)
    return out


def _leading_pair(
    grid: BlockGrid, damped: NDArray[Any], s: int, h: NDArray[Any], passes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the leading singular pair ``g_i h_j`` of ``Q_ij = damped_(i+s, j+s) conj(damped_ij)``.

    It comes from power iterations that begin with `h`.
    """
    m = grid.m
    g = np.zeros((grid.p, m), dtype=grid.double)
    spans = ((slice(0, m - s), slice(s, m)), (slice(m - s, m), slice(0, s)))
    for _ in range(passes):
        h_low = h.astype(grid.dtype)
        h_new = np.zeros((grid.q, m), dtype=grid.double)
        for span, shifted in spans:
            for ps, rows in grid.chunks(span.start, span.stop):
                ahead = slice(rows.start - span.start + shifted.start, rows.stop - span.start + shifted.start)
                there, here = damped[ps, ahead], damped[ps, rows].conj()
                product = np.empty_like(there)
                for columns, shifted_columns in spans:
                    np.multiply(there[..., shifted_columns], here[..., columns], out=product[..., columns])
                g_low = conjugate_row_sums(product, h_low)
                g[ps, rows] = g_low
                h_new += conjugate_column_sums(product, g_low).sum(axis=0)
        h = h_new / (np.linalg.norm(h_new) or 1.0)
    return g / (np.linalg.norm(g) or 1.0), h


def _ring_phases(links: Links, present: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return the phases whose ratios over every shift agree best with the links; zero on padding.

    Each block has a free phase of its own. The leading eigenvector of the matrix of unit links is the global optimum of
    a simpler problem. Its phases are then refined with links that are weighted by the roots of their moduli.
    """
    phase_links = {s: unit(x) for s, x in links.items()}
    weighted = {s: x * np.sqrt(np.abs(links[s])) for s, x in phase_links.items()}
    x = _noise(present, rng)
    for _ in range(_RING_PASSES):
        # Adding the number of links to all eigenvalues keeps a large negative one from leading.
        x = len(links) * x + _coupled(phase_links, x)
        x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    for _ in range(_RING_PASSES):
        x = unit(_coupled(weighted, x))
    phases: NDArray[Any] = np.where(x == 0, 1, x) * present
    return phases


def _coupled(links: Links, x: NDArray[Any]) -> NDArray[Any]:
    """Return the product of `x` with the Hermitian matrix that has ``links[s]`` on its s-th cyclic off-diagonals."""
    out = np.zeros_like(x)
    for s, link in links.items():
        out += np.roll(link * x, s, axis=-1) + link.conj() * np.roll(x, -s, axis=-1)
    return out


def _geometric_means(grid: BlockGrid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the geometric means of the nonzero moduli of every row and of every column.

    Every row meets every column and every cyclic diagonal once. So, without padding, these are the moduli of the
    diagonals of a product exactly.
    """
    rows, cols = np.zeros((2, grid.p, grid.m)), np.zeros((2, grid.q, grid.m))
    for ps, i in grid.chunks():
        size = np.abs(grid.blocks[ps, i])
        present = size > 0
        logs = np.log(size, out=np.zeros_like(size), where=present)
        for k, terms in enumerate((logs, present)):
            rows[k, ps, i] = terms.sum(axis=(2, 3), dtype=np.float64)
            cols[k] += terms.sum(axis=(0, 1), dtype=np.float64)
    return np.exp(rows[0] / np.maximum(rows[1], 1.0)), np.exp(cols[0] / np.maximum(cols[1], 1.0))


def _noise(like: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return standard normal numbers of the shape of an array, complex if it is."""
    x = rng.standard_normal((2, *like.shape))
    noise: NDArray[Any] = x[0] + 1j * x[1] if np.iscomplexobj(like) else x[0]
    return noise


def unit(x: Any) -> Any:
    """Return ``x / |x|``, zero where `x` is zero."""
    size = np.abs(x)
    return x / np.where(size > 0, size, 1.0)
