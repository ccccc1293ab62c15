"""Matrices that are products of a few diagonal and circulant factors in closed form.

Every recogniser takes a square matrix and returns factors that would reproduce it if it had the form, or nothing where
that is plain to see. Whether they do is for the caller to check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._many_factors.chain import First
from structmat.fit._many_factors.levenberg_marquardt import levenberg_marquardt

__all__ = ["Form", "short_forms"]

# A fit of three factors with this error is close to a member of the set; its last digits are the solver's.
_NEARLY, _FIT_SWEEPS, _POLISH = 1e-2, 100, 50


class Form(NamedTuple):
    """A candidate: diagonals and first columns, and what they are called."""

    name: str
    first: First
    vectors: list[NDArray[Any]]


_Recogniser: TypeAlias = "Callable[[NDArray[Any], np.random.Generator], Form | None]"


def short_forms(W: NDArray[Any], rng: np.random.Generator) -> Iterator[Form]:
    """Candidates for `W`, those of fewer factors first."""
    recognisers: tuple[_Recogniser, ...] = (
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
    for recognise in recognisers:
        form = recognise(W, rng)
        if form is not None:
            yield form


def _zero(W: NDArray[Any], _rng: np.random.Generator) -> Form | None:
    return None if W.any() else Form("zero", "diagonal", [np.zeros(len(W), dtype=W.dtype)])


def _diagonal(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    return Form("diagonal", "diagonal", [W.diagonal().copy()])


def _circulant(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    return Form("circulant", "circulant", [_cyclic_diagonals(W).mean(axis=0)])


def _diagonal_times_circulant(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    """``W[i, i - k] = a[i] * c[k]``: the cyclic diagonals, as columns, have rank one."""
    a, c, shift = _outer(_cyclic_diagonals(W))
    return Form("diagonal times shift" if shift else "diagonal times circulant", "diagonal", [a, c])


def _circulant_times_diagonal(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    """``W[j + k, j] = c[k] * b[j]``: the transpose is a diagonal times a circulant."""
    b, c, _ = _outer(_cyclic_diagonals(W.T))
    return Form("circulant times diagonal", "circulant", [np.roll(c[::-1], 1), b])


def _rank_one(W: NDArray[Any], _rng: np.random.Generator) -> Form:
    """``u v^T = diag(u) circ(1) diag(v)``."""
    u, v, _ = _outer(W)
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
    fit = fit_cdd(W, rng=rng, max_iter=_FIT_SWEEPS)
    if fit.error > _NEARLY:
        return None
    vectors = [np.asarray(vector) for factor in fit.operator.factors for vector, _ in factor._leaves()]
    return levenberg_marquardt(W, vectors, "diagonal", max_iter=_POLISH, tol=0.0)[0]


def _cyclic_diagonals(W: NDArray[Any]) -> NDArray[Any]:
    """``V[i, k] = W[i, (i - k) % n]``."""
    i = np.arange(len(W))
    return W[i[:, None], (i[:, None] - i) % len(W)]


def _outer(M: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], bool]:
    """`u` and `v` of the nearest matrix of rank one, and whether that is a single column, which stays as it is."""
    used = np.flatnonzero(M.any(axis=0))
    if len(used) == 1:
        return M[:, used[0]], (np.arange(len(M)) == used[0]).astype(M.dtype), True
    u, s, vh = np.linalg.svd(M)
    share = np.sqrt(s[0])
    return u[:, 0] * share, share * vh[0], False
