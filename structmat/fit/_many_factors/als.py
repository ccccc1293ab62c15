"""Alternating least squares over the factors of a square chain, with products carried from factor to factor.

With ``P = A_k diag(x_k) B_k`` the best `x_k` for the other factors solves a linear system with the normal matrix
``(A_k^H A_k) * conj(B_k B_k^H)``. An iteration goes along the chain and back. The Gram matrices and ``W^H A_k`` of the
next factor follow from those of this one by scalings and transforms, so a step costs one Cholesky factor and
O(n^2 log n), never a matrix product.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy  # its `linalg` is imported on first use
from numpy.typing import NDArray

from structmat.fit._many_factors.descent import State
from structmat.fit._many_factors.diagonal_forms import DiagonalForms

__all__ = ["best_factors", "steps"]

# Relative to the mean diagonal entry, so that there is always a Cholesky factor; steps are repeated to undo its effect.
_RIDGE, _REPEATS = 1e-13, 2


def steps(W: NDArray[Any], chain: DiagonalForms, deadline: float | None = None) -> Iterator[State]:
    """The start and then one iteration after the other, along the chain and back; the error never rises.

    The deadline, a value of ``time.monotonic()``, cuts an iteration short.
    """
    size = float(np.linalg.norm(W)) or 1.0
    chain = chain.balanced()
    error = float(np.linalg.norm(W - chain.dense())) / size
    yield State(chain, error, stationary=False)
    while True:
        candidate, late = chain, False
        for candidate in best_factors(W, chain):  # noqa: B007  # the last one counts
            late = deadline is not None and time.monotonic() >= deadline
            if late:
                break
        lower = float(np.linalg.norm(W - candidate.dense())) / size
        # Only rounding can raise the error.
        stationary = not late and lower >= error
        if lower < error:
            chain, error = candidate.balanced(), lower
        yield State(chain, error, stationary)


def best_factors(W: NDArray[Any], chain: DiagonalForms) -> Iterator[DiagonalForms]:
    """Yield the chain after every step of an iteration along it and back, each the best for one factor.

    In order these are factors 0, 1, ..., F - 1, F - 2, ..., 1, 0.
    """
    n_factors, n = chain.x.shape
    x, B = chain.x.copy(), chain.rights.copy()
    right_grams, left_grams, moments = np.zeros((3, n_factors, n, n), dtype=np.complex128)
    right_grams[-1] = left_grams[0] = np.eye(n)
    for k in range(n_factors - 2, -1, -1):
        right_grams[k] = _right_gram(chain, k, x[k + 1], right_grams[k + 1])
    adjoint = W.conj().T.astype(np.complex128)
    moments[0] = np.fft.ifft(adjoint, norm="ortho") if chain.is_circulant(0) else adjoint
    for k in range(n_factors):
        if k:
            left_grams[k] = _left_gram(chain, k - 1, x[k - 1], left_grams[k - 1])
            moments[k] = chain.change(k - 1, moments[k - 1] * x[k - 1], axis=-1)
        x[k] = _best(chain, k, x[k], left_grams[k] * right_grams[k].conj(), _right_hand_side(moments[k], B[k]))
        yield replace(chain, x=x.copy())
    for k in range(n_factors - 2, -1, -1):
        right_grams[k] = _right_gram(chain, k, x[k + 1], right_grams[k + 1])
        B[k] = chain.change(k, x[k + 1, :, None] * B[k + 1], axis=-2)
        x[k] = _best(chain, k, x[k], left_grams[k] * right_grams[k].conj(), _right_hand_side(moments[k], B[k]))
        yield replace(chain, x=x.copy())


def _right_gram(chain: DiagonalForms, k: int, x: NDArray[Any], gram: NDArray[Any]) -> NDArray[Any]:
    """``B_k B_k^H`` from that of the next factor, whose diagonal form is `x`."""
    half = chain.change(k, x[:, None] * gram * x.conj(), axis=-2)
    return chain.change(k, half.conj().T, axis=-2)


def _left_gram(chain: DiagonalForms, k: int, x: NDArray[Any], gram: NDArray[Any]) -> NDArray[Any]:
    """``A_(k+1)^H A_(k+1)`` from that of factor `k`, whose diagonal form is `x`."""
    half = chain.change(k, x.conj()[:, None] * gram * x, axis=-1)
    return chain.change(k, half.conj().T, axis=-1)


def _right_hand_side(moment: NDArray[Any], B: NDArray[Any]) -> NDArray[Any]:
    """``diag(A^H W B^H)`` from ``W^H A``."""
    return np.einsum("ji,ij->i", moment, B).conj()


def _best(chain: DiagonalForms, k: int, x: NDArray[Any], G: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
    """The diagonal form with ``G x = g``; of a real factor, if the chain is real."""
    circulant = chain.is_circulant(k)
    if chain.real and circulant:
        # Its real unknowns are the first column times sqrt(n), the unitary transform of the spectrum.
        G = np.fft.fft(np.fft.ifft(G, axis=0, norm="ortho"), axis=1, norm="ortho")
        g, x = np.fft.ifft(g, norm="ortho"), np.fft.ifft(x, norm="ortho")
    if chain.real:
        G, g, x = G.real, g.real, x.real
    x = _solved(np.ascontiguousarray(G), g, x)
    return np.fft.fft(x, norm="ortho") if chain.real and circulant else x


def _solved(G: NDArray[Any], g: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Solve for the change of `x`: this leaves free directions of a singular `G` alone, and rounds less."""
    mean = float(G.diagonal().real.mean())
    if not mean > 0.0:
        return x
    ridged = G.copy()
    ridged.reshape(-1)[:: len(G) + 1] += _RIDGE * mean
    try:
        factor = scipy.linalg.cho_factor(ridged, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(G)
        kept = values > _RIDGE * values[-1]
        return x + vectors[:, kept] @ ((vectors[:, kept].conj().T @ (g - G @ x)) / values[kept])
    for _ in range(_REPEATS):
        x = x + scipy.linalg.cho_solve(factor, g - G @ x, check_finite=False)
    return x
