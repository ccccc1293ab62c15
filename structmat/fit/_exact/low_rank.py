"""A matrix of rank k as a product of ``4k + 3`` diagonals and circulants.

With the Fourier vectors f_j of k frequencies, spread evenly, there is a polynomial X in the shift of degree below k
with diagonal coefficients and ``X f_j = u_j`` for given u_j: row by row a Vandermonde system of order k. The product of
all ``P - exp(-2 pi i j / n)`` is zero on every f_j, so a multiple of it may be added, which makes the leading
coefficient a scalar. With Y for the right singular vectors, ``W = X C Y^H`` where the circulant C has the singular
values at those frequencies, and zeros elsewhere, for eigenvalues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._exact.pencil import factor_polynomial

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Triplets", "factor_low_rank", "singular_triplets"]

# The leading coefficient in units of the root mean square norm of a row of coefficients times sqrt(n / k). Multipliers
# are the growth of a recursion of order k over n steps, which varies as a random walk: its steps must shrink with n.
_LEAD = 0.6 * np.exp(0.6j)
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
    sides = [_polynomial(side, frequencies) for side in (u, v)]
    left, right = (factor_polynomial(side, extended=extended) for side in sides)
    if left is None or right is None:
        return None
    spectrum = np.zeros(n, dtype=np.complex128)
    spectrum[frequencies] = s
    # The adjoint has circulants conj(alpha) I + conj(beta) P^-1 = P^-1 (conj(alpha) P + conj(beta) I). All P^-1 go to
    # the left, which rolls the diagonals that they pass, and then into the circulant in the middle.
    adjoint: list[NDArray[np.complex128]] = []
    for place, vector in enumerate(reversed(right)):
        if place % 2:
            column = np.zeros(n, dtype=np.complex128)
            column[0] += vector[1].conj()
            column[1 % n] += vector[0].conj()
            adjoint.append(column)
        else:
            adjoint.append(np.roll(vector.conj(), rank - place // 2))
    spectrum *= np.exp(2j * np.pi * np.arange(n) * rank / n)
    return [*left, np.fft.ifft(spectrum), *adjoint]


def _polynomial(targets: NDArray[Any], frequencies: NDArray[np.intp]) -> NDArray[np.complex128]:
    """Return the coefficients (k + 1, n) of a polynomial in the shift that takes Fourier vectors to the `targets`."""
    n, rank = targets.shape
    phase = np.exp(-2j * np.pi * (np.outer(frequencies, np.arange(max(n, rank + 1))) % n) / n)
    values = np.sqrt(n) * phase[:, :n] * targets.T
    coefficients = np.zeros((rank + 1, n), dtype=np.complex128)
    coefficients[:rank] = np.linalg.solve(phase[:, :rank], values)
    lead = _LEAD * np.linalg.norm(coefficients) / np.sqrt(rank)
    coefficients += lead * np.poly(phase[_spread_order(rank), 1])[::-1, None]
    return coefficients


def _spread_order(count: int) -> list[int]:
    """Return the order of the numbers below `count` in which each is far from those before it, as on a circle."""
    bits = max(1, (count - 1).bit_length())
    return [k for k in (int(f"{j:0{bits}b}"[::-1], 2) for j in range(2**bits)) if k < count]
