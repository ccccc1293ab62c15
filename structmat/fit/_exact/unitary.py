"""A unitary matrix of even side as ``2n + 5`` unitary diagonals and circulants, and any by its singular vectors.

The rotations of a layer join the entries m and m + n / 2 of a vector, for all m, or after the first half was shifted by
one, S. With the circulant ``K = (I + i P^(n / 2)) / sqrt(2)`` and diagonal phases, ``K diag K`` is any rotation of all
pairs, up to phases of their entries, which pass to the layers beside. Between two layers stand ``K S K`` or its like
with the inverse of S. With the phases ``E = diag(1, i)`` of the two halves, ``K = E H E`` where H takes the two halves
to their sum and difference, over the square root of two; so ``K S K = E (H S Z H) E`` with signs Z. The bracket is
a circulant, because H S H shifts the sum of both halves and keeps their difference, as circulants can. So each layer
takes one diagonal and one circulant (Girouard and Quesada, arXiv:2508.20010).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._exact.rotations import Layers, layers_of_rotations

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["factor_by_singular_vectors", "factor_unitary", "is_unitary"]

# A matrix is a multiple of a unitary one up to this share of its norm.
_ORTHOGONAL = 1e-13


def is_unitary(W: NDArray[Any]) -> bool:
    """Return whether a matrix is a multiple of a unitary one, and not zero."""
    n, scale = len(W), np.linalg.norm(W) ** 2 / len(W)
    return bool(scale > 0 and np.linalg.norm(W.conj().T @ W - scale * np.eye(n)) <= _ORTHOGONAL * np.sqrt(n) * scale)


def factor_unitary(W: NDArray[Any]) -> list[NDArray[np.complex128]]:
    """Return ``2n + 5`` diagonals and first columns of a multiple of a unitary matrix of even side, unitary but one."""
    n = len(W)
    scale = float(np.linalg.norm(W)) / np.sqrt(n)
    vectors = _unitary_factors(W / scale)
    return [scale * vectors[0], *vectors[1:]]


def factor_by_singular_vectors(W: NDArray[Any]) -> list[NDArray[np.complex128]]:
    """Return ``4n + 9`` diagonals and first columns of any matrix of even side."""
    u, s, vh = np.linalg.svd(W)
    left, right = _unitary_factors(u), _unitary_factors(vh)
    return [*left[:-1], left[-1] * s * right[0], *right[1:]]


def _unitary_factors(Q: NDArray[Any]) -> list[NDArray[np.complex128]]:
    n = len(Q)
    half = n // 2
    # Neighbours on a line: entry m of the first half has the number 2m, that of the second half 2m + 1.
    place = np.append(2 * np.arange(half), 2 * np.arange(half) + 1)
    line = np.argsort(place)
    layers = layers_of_rotations(Q[np.ix_(line, line)].astype(np.complex128))
    (before, after), inner, twists = _phases(layers)
    e = np.where(np.arange(n) < half, 1.0, 1j)
    vectors = [before[place]]
    if layers.first:
        vectors += [_coupling(n, -1), e, _shift(n, 1, 1.0), e]
    else:
        vectors += [_coupling(n, 1), np.ones(n)]
    for k in range(n):
        odd = (layers.first + k) % 2
        vectors[-1] = vectors[-1] * inner[k]
        if k < n - 1:
            vectors[-1] = vectors[-1] * e
            vectors += [_shift(n, -1 if odd else 1, twists[k + 1]), e]
        elif odd:
            vectors[-1] = vectors[-1] * e
            vectors += [_shift(n, -1, 1.0), e, _coupling(n, -1)]
        else:
            vectors.append(_coupling(n, 1))
    return [*vectors, after[place]]


def _phases(
    layers: Layers,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[np.complex128], NDArray[np.complex128]]:
    """Return the diagonals before and after, those between two couplings, and the phases of the shifts before these.

    With s, t = c, abs(b) a rotation is ``i [[s, t], [t, -s]]`` between two diagonals, in layers that begin at 1 with
    the signs of s exchanged. The diagonal on its right is that of the next layer. That on its left is, for the layer
    before, a phase of both entries of each pair, and a phase of all even entries of the line, which closes the cycle.
    """
    n = len(layers.phases)
    half = n // 2
    before, pending = np.ones(n, dtype=np.complex128), layers.phases.astype(np.complex128)
    inner = np.ones((n, n), dtype=np.complex128)
    twists = np.ones(n, dtype=np.complex128)
    for k in range(n):
        odd = (layers.first + k) % 2
        i = np.arange(odd, n, 2)
        j = (i + 1) % n
        pairs = j > i
        c, b = np.ones(half), np.zeros(half, dtype=np.complex128)
        c[pairs], b[pairs] = layers.c[k, i[pairs]], layers.b[k, i[pairs]]
        phase = np.exp(1j * np.angle(b))
        sign = 1.0 if odd else -1.0
        ratio = sign * pending[j] * phase.conj() / pending[i]
        left = np.ones(n, dtype=np.complex128)
        if k:
            angles = np.append(0.0, np.cumsum(np.angle(ratio)))
            twist = -angles[-1] / half
            left[i] = np.exp(1j * (angles[:-1] + twist * np.arange(half)))
            twists[k] = np.exp(sign * -1j * twist)
        left[j] = left[i] * ratio
        if k:
            inner[k - 1] *= np.tile(left[1::2], 2)
        else:
            before = left
        pending[i], pending[j] = sign * 1j * pending[i] / left[i], -1j * pending[i] * phase / left[i]
        turn = np.exp(1j * np.arctan2(c, np.abs(b)))
        inner[k] = np.append(turn, turn.conj())
    return (before, pending), inner, twists


def _coupling(n: int, sign: int) -> NDArray[np.complex128]:
    """Return the first column of ``(I + sign * i P^(n / 2)) / sqrt(2)``."""
    column = np.zeros(n, dtype=np.complex128)
    column[0], column[n // 2] = np.sqrt(0.5), sign * 1j * np.sqrt(0.5)
    return column


def _shift(n: int, by: int, phase: complex) -> NDArray[np.complex128]:
    """Return that of ``((I + P^(n / 2)) P^by * phase - (I - P^(n / 2))) / 2``."""
    column = np.zeros(n, dtype=np.complex128)
    for place, entry in ((by, phase), (by + n // 2, phase), (0, -1.0), (n // 2, 1.0)):
        column[place % n] += 0.5 * entry
    return column
