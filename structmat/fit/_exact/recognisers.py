"""Matrices that are products of a few diagonal and circulant factors in closed form.

Every recogniser takes a square matrix and returns factors that would reproduce it if it had the form, or nothing where
that is plain to see. Whether they do is for the caller to check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from structmat.fit._exact.forms import Form
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._many_factors.descent import descend
from structmat.fit._many_factors.levenberg_marquardt import steps
from structmat.fit._three_factors.blocks import by_diagonals

__all__ = ["RECOGNISERS", "Recogniser", "closed_forms"]

# A fit of three factors with this error is close to a member of the set; its last digits are the solver's.
_NEARLY, _FIT_ITERATIONS, _POLISH = 1e-2, 100, 50
# A fit with this error has no digits left to be polished.
_ACCURATE = 1e-14

# Tests that cost O(n**2) come before what costs more: entries below the first share of the largest one count as zero,
# those below the second share of the root mean square have no phase to speak of, and the matrix passes if it is nearer
# than the third to what is tested, or all but that share of the phases are.
_ZERO, _SMALL, _FAR = 1e-14, 1e-3, 0.1


Recogniser: TypeAlias = "Callable[[NDArray[Any], np.random.Generator], Form | None]"


def closed_forms(W: NDArray[Any], rng: np.random.Generator) -> Iterator[Form]:
    """Candidates for `W`, those of fewer factors first."""
    for recognise in RECOGNISERS:
        form = recognise(W, rng)
        if form is not None:
            yield form


def _zero(W: NDArray[Any], _rng: np.random.Generator) -> Form | None:
    return None if W.any() else Form("zero", "diagonal", [np.zeros(len(W), dtype=W.dtype)])


def _diagonal(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    return Form("diagonal", "diagonal", [W.diagonal().copy()])


def _circulant(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    return Form("circulant", "circulant", [_cyclic_diagonals(W).mean(axis=0)])


def _diagonal_times_circulant(W: NDArray[Any], _rng: np.random.Generator) -> Form | None:
    """``W[i, i - k] = a[i] * c[k]``: the cyclic diagonals, as columns, have rank one."""
    if (outer := _outer(_cyclic_diagonals(W))) is None:
        return None
    a, c, shift = outer
    return Form("diagonal times shift" if shift else "diagonal times circulant", "diagonal", [a, c])


def _circulant_times_diagonal(W: NDArray[Any], _rng: np.random.Generator) -> Form | None:
    """``W[j + k, j] = c[k] * b[j]``: the transpose is a diagonal times a circulant."""
    if (outer := _outer(_cyclic_diagonals(W.T))) is None:
        return None
    b, c, _ = outer
    return Form("circulant times diagonal", "circulant", [np.roll(c[::-1], 1), b])


def _rank_one(W: NDArray[Any], _rng: np.random.Generator) -> Form | None:
    """``u v^T = diag(u) circ(1) diag(v)``."""
    if (outer := _outer(W)) is None:
        return None
    u, v, _ = outer
    return Form("rank one", "diagonal", [u, np.ones(len(W), dtype=W.dtype), v])


def _diagonal_circulant_diagonal(W: NDArray[Any], rng: np.random.Generator) -> Form | None:
    vectors = _three_factors(W, rng)
    return None if vectors is None else Form("diagonal, circulant, diagonal", "diagonal", vectors)


def _circulant_diagonal_circulant(W: NDArray[Any], rng: np.random.Generator) -> Form | None:
    """Between two Fourier matrices circulants are diagonal, and the diagonal is a circulant."""
    inside = np.fft.ifft(np.fft.fft(W, axis=0, norm="ortho"), axis=1, norm="ortho")
    vectors = _three_factors(inside, rng)
    if vectors is None:
        return None
    a, c, b = vectors
    return Form(
        "circulant, diagonal, circulant", "circulant", [np.fft.ifft(a), np.fft.ifft(c) * len(W), np.fft.ifft(b)]
    )


def _affine_permutation(W: NDArray[Any], _rng: np.random.Generator) -> Form | None:
    """``W[a * j + b, j] = d[a * j + b]``, indices modulo n: chirps and convolutions by chirps.

    With ``U(s)`` the diagonal of the chirp of rate `s` and ``L(s)`` the circulant with that spectrum, ``U(1 / a)
    L(a) U(1 / a - 1) L(-1) U(-1)`` is the permutation ``j -> a * j`` up to one phase.
    """
    n = len(W)
    rows = np.abs(W).argmax(axis=0)
    shift = int(rows[0])
    rate = int(rows[1 % n] - shift) % n
    if math.gcd(rate, n) != 1 or (rows != (rate * np.arange(n) + shift) % n).any():
        return None
    d = np.empty(n, dtype=np.complex128)
    d[rows] = W[rows, np.arange(n)]
    inverse = pow(rate, -1, n if n % 2 else 2 * n)
    left, convolution = _chirp(n, inverse), np.fft.ifft(_chirp(n, rate))
    vectors = [left, convolution, _chirp(n, inverse - 1), np.fft.ifft(_chirp(n, -1)), _chirp(n, -1)]
    # Column 0 of the permutation is that of the identity; what the chirps put there is their common phase.
    column = vectors[4] * (np.arange(n) == 0)
    for k in (3, 2, 1, 0):
        column = vectors[k] * column if k % 2 == 0 else np.fft.ifft(np.fft.fft(vectors[k]) * np.fft.fft(column))
    vectors[0] = d * np.roll(left, shift) / column[0]
    vectors[1] = np.roll(convolution, shift)
    return Form("affine permutation", "diagonal", vectors)


def _chirp(n: int, rate: int) -> NDArray[np.complex128]:
    """``exp(i pi rate j**2 / n)``, for odd n with ``(n + 1) / 2`` for one half so that it is periodic too."""
    j = np.arange(n)
    turns = (rate * (n + 1) % (2 * n)) * j**2 if n % 2 else (rate % (2 * n)) * j**2
    return np.exp(1j * np.pi * (turns % (2 * n)) / n)


def _three_factors(W: NDArray[Any], rng: np.random.Generator) -> list[NDArray[Any]] | None:
    """Factors of a diagonal, circulant, diagonal product, if `W` looks like one."""
    if not _may_be_three_factors(W):
        return None
    fit = fit_cdd(W, rng=rng, max_iter=_FIT_ITERATIONS)
    if fit.error > _NEARLY:
        return None
    vectors = [np.asarray(vector) for factor in fit.operator.factors for vector, _ in factor._leaves()]
    if fit.error <= _ACCURATE:
        return vectors
    return descend(steps, W, vectors, "diagonal", max_iter=_POLISH, tol=0.0)[0]


def _cyclic_diagonals(W: NDArray[Any]) -> NDArray[Any]:
    """``V[i, k] = W[i, (i - k) % n]``."""
    return by_diagonals(W[None, :, None])[0, :, 0]


def _may_be_three_factors(W: NDArray[Any]) -> bool:
    """Whether ``W[i, j] = a[i] * c[i - j] * b[j]`` is not ruled out by its zeros, phases or moduli."""
    size = np.abs(W)
    used = size > _ZERO * size.max()
    diagonals = _cyclic_diagonals(used)
    possible = used.any(axis=1)[:, None] & _cyclic_diagonals(np.broadcast_to(used.any(axis=0), W.shape))
    if (possible & ~diagonals & diagonals.any(axis=0)).any():
        return False
    # W[i + 1, j + 1] conj(W[i, j]) is an outer product times the squared moduli of c: its phases have no mixed
    # differences.
    phase = np.where(size > _SMALL * np.linalg.norm(W) / len(W), W, 0)
    phase = np.divide(phase, size, out=np.zeros_like(phase), where=phase != 0)
    step = np.roll(phase, (-1, -1), (0, 1)) * phase.conj()
    mixed = step * np.roll(step, (-1, -1), (0, 1)) * (np.roll(step, -1, 0) * np.roll(step, -1, 1)).conj()
    if abs(mixed.sum()) < (1 - _FAR) * np.abs(mixed).sum():
        return False
    if not used.all():
        return True
    # Logarithms of moduli are sums of effects of rows, columns and cyclic diagonals, which are orthogonal.
    logs = np.log(size)
    d = _cyclic_diagonals(logs).mean(axis=0)
    effects = logs.mean(axis=1)[:, None] + logs.mean(axis=0) + _circulant_of(d) - 2 * logs.mean()
    return bool(np.linalg.norm(np.exp(effects) - size) <= _FAR * np.linalg.norm(W))


def _circulant_of(c: NDArray[Any]) -> NDArray[Any]:
    i = np.arange(len(c))
    return c[(i[:, None] - i) % len(c)]


def _outer(M: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], bool] | None:
    """`u` and `v` of the nearest matrix of rank one, and whether that is a single column, which stays as it is.

    None where the cross of the largest entry, which spans a matrix of rank one, shows that `M` is far from it.
    """
    used = np.flatnonzero(M.any(axis=0))
    if len(used) == 1:
        return M[:, used[0]], (np.arange(len(M)) == used[0]).astype(M.dtype), True
    row, col = np.unravel_index(np.abs(M).argmax(), M.shape)
    if np.linalg.norm(M - np.outer(M[:, col] / M[row, col], M[row])) > _FAR * np.linalg.norm(M):
        return None
    u, s, vh = np.linalg.svd(M)
    share = np.sqrt(s[0])
    return u[:, 0] * share, share * vh[0], False


RECOGNISERS: tuple[Recogniser, ...] = (
    _zero,
    _diagonal,
    _circulant,
    _diagonal_times_circulant,
    _circulant_times_diagonal,
    _rank_one,
    _diagonal_circulant_diagonal,
    _circulant_diagonal_circulant,
    _affine_permutation,
)
"""The closed forms that are recognised, those of fewer factors first."""
