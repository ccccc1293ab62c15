"""A matrix of rank k as a product of ``4k + 3`` diagonals and circulants, or of at most ``6k + 3`` real ones.

With the Fourier vectors f_j of k frequencies, spread evenly, there is a polynomial X in the shift of degree below k
with diagonal coefficients and ``X f_j = u_j`` for given u_j: row by row a Vandermonde system of order k. The product of
all ``P - exp(-2 pi i j / n)`` is zero on every f_j, so a multiple of it may be added, which makes the leading
coefficient a scalar. With Y for the right singular vectors, ``W = X C Y^H`` where the circulant C has the singular
values at those frequencies, and zeros elsewhere, for eigenvalues.

For real factors frequencies come in pairs j and -j, and X takes cosines and sines to the u_j, so that it is real.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._exact.pencil import factor_polynomial, factor_real_polynomial

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Triplets", "factor_low_rank", "factor_real_low_rank", "singular_triplets"]

# The leading coefficient in units of the root mean square norm of a row of coefficients times sqrt(n / k). Multipliers
# are the growth of a recursion of order k over n steps, which varies as a random walk: its steps must shrink with n.
_LEAD = 0.6 * np.exp(0.6j)
# For real factors, one after the other until no multiplier is negative.
_REAL_LEADS = (0.6, 0.9, 1.4, 2.0, 3.0, 5.0)
# Vectors on which the rank is tried beyond the largest rank looked for.
_SPARE = 8

Triplets = tuple["NDArray[Any]", "NDArray[np.float64]", "NDArray[Any]"]


def singular_triplets(W: NDArray[Any], most: int, tol: float) -> Triplets | None:
    """Return U, s and V with ``W = U diag(s) V^H`` up to `tol` relative to its norm, if the rank is at most `most`.

    A random projection finds the range, so that the cost is ``O(n**2 * most)``; it may always be the same.
    """
    n, rng = len(W), np.random.default_rng(0)
    q = np.linalg.qr(W @ rng.standard_normal((n, min(n, most + _SPARE))))[0]
    inside = q.conj().T @ W
    norm = np.linalg.norm(W)
    if np.linalg.norm(W - q @ inside) > tol * norm:
        return None
    u, s, vh = np.linalg.svd(inside, full_matrices=False)
    tail = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
    rank = int(np.count_nonzero(tail > tol * norm))
    return None if rank > most else (q @ u[:, :rank], s[:rank], vh[:rank].conj().T)


def factor_low_rank(triplets: Triplets, *, extended: bool) -> list[NDArray[np.complex128]] | None:
    """Return ``4k + 3`` diagonals and first columns, or nothing where structure would spoil their accuracy."""
    u, s, v = triplets
    n, rank = u.shape
    frequencies = np.arange(rank) * n // rank
    sides = [_polynomial(side, frequencies, _LEAD) for side in (u, v)]
    left, right = (factor_polynomial(side, extended=extended) for side in sides)
    if left is None or right is None:
        return None
    spectrum = np.zeros(n, dtype=np.complex128)
    spectrum[frequencies] = s
    return [*left, np.fft.ifft(spectrum), *_adjoint(right)]


def factor_real_low_rank(triplets: Triplets, *, extended: bool) -> list[NDArray[np.float64]] | None:
    """Return at most ``6k + 3`` real diagonals and first columns, or nothing where structure is in the way."""
    u, s, v = triplets
    n, rank = u.shape
    pairs = rank // 2
    half = np.round((np.arange(pairs) + (1.0 if rank % 2 else 0.5)) * n / rank).astype(np.intp)
    frequencies = np.concatenate([np.zeros(rank % 2, dtype=np.intp), half, n - half])
    odd = rank % 2
    sides: list[list[NDArray[Any]]] = []
    for side in (u, v):
        scaled = side * np.sqrt(s)
        cosines, sines = scaled[:, odd : odd + pairs], scaled[:, odd + pairs :]
        waves = (cosines + 1j * sines) / np.sqrt(2)
        targets = np.concatenate([scaled[:, :odd], waves, waves.conj()], axis=1)
        for lead in _REAL_LEADS:
            vectors = factor_real_polynomial(_polynomial(targets, frequencies, lead).real, extended=extended)
            if vectors is not None:
                sides.append(vectors)
                break
        else:
            return None
    spectrum = np.zeros(n)
    spectrum[frequencies] = 1.0
    return [*sides[0], np.fft.ifft(spectrum).real, *_adjoint(sides[1])]


def _adjoint(vectors: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the vectors of the adjoint of a product that begins and ends with a diagonal."""
    return [
        np.conj(np.roll(vector[::-1], 1) if place % 2 else vector) for place, vector in enumerate(reversed(vectors))
    ]


def _polynomial(targets: NDArray[Any], frequencies: NDArray[np.intp], lead: complex) -> NDArray[np.complex128]:
    """Return the coefficients (k + 1, n) of a polynomial in the shift that takes Fourier vectors to the k `targets`."""
    n, rank = targets.shape
    phase = np.exp(-2j * np.pi * (np.outer(frequencies, np.arange(n)) % n) / n)
    values = np.sqrt(n) * phase * targets.T
    coefficients = np.zeros((rank + 1, n), dtype=np.complex128)
    coefficients[:rank] = np.linalg.solve(phase[:, :rank], values)
    coefficients += (
        lead * np.linalg.norm(coefficients) / np.sqrt(rank) * np.poly(phase[_spread_order(rank), 1])[::-1, None]
    )
    return coefficients


def _spread_order(count: int) -> list[int]:
    """Return the order of the numbers below `count` in which each is far from those before it, as on a circle."""
    bits = max(1, (count - 1).bit_length())
    return [k for k in (int(f"{j:0{bits}b}"[::-1], 2) for j in range(2**bits)) if k < count]
