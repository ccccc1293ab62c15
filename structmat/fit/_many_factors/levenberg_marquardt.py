"""Levenberg-Marquardt on all factors of a square chain at once, with structured normal equations.

With ``P = A_k diag(x_k) B_k`` for every factor `k`, the normal matrix consists of the blocks ``(A_k^H A_l) * conj(B_k
B_l^H)``. What an iteration costs is its Cholesky factor, so everything that makes a step longer for a few products more
pays off: a second-order correction from the same factor (geodesic acceleration [1]_) halves the number of iterations.
Factors are kept at equal norm, which makes one damping for all unknowns better than one for each.

References
----------
.. [1] Transtrum, M. K., Sethna, J. P., Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares
   minimization, arXiv:1201.5885, 2012.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy  # its `linalg` is imported on first use
from numpy.typing import NDArray

from structmat.fit._many_factors.descent import State
from structmat.fit._many_factors.diagonal_forms import DiagonalForms

__all__ = ["normal_equations", "right_hand_side", "steps"]

# Damping relative to the largest diagonal entry of the normal matrix.
_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1.0, 1e-14, 1e8

# The second-order part of a step is used while it is no longer than this share of the first-order part.
_MOST_CURVATURE = 0.75

# Above this damping single precision serves; its Cholesky factor costs half.
_SINGLE_DAMPING = 1e-4


def steps(
    W: NDArray[Any], chain: DiagonalForms, _deadline: float | None = None, damping: float = _DAMPING
) -> Iterator[State]:
    """The start and then one iteration after the other: factorisations of the normal matrix; the error never rises."""
    size = float(np.linalg.norm(W)) or 1.0
    chain = chain.balanced()
    residual = W - chain.dense()
    norm = float(np.linalg.norm(residual))
    yield State(chain, norm / size, stationary=False)
    growth = 2.0
    G, g = normal_equations(chain), right_hand_side(chain, residual)
    while True:
        stationary = False
        found = _step(chain, G, g, damping)
        if found is not None:
            step, predicted = found
            candidate = chain.moved(step)
            left = W - candidate.dense()
            left_norm = float(np.linalg.norm(left))
            stationary = damping >= _MOST_DAMPING or not step.any()
        if found is not None and left_norm < norm:
            gain = (norm - left_norm) * (norm + left_norm) / predicted if predicted > 0.0 else 1.0
            damping = max(damping * max(0.2, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3), _LEAST_DAMPING)
            growth, stationary = 2.0, False
            chain, residual, norm = candidate.balanced(), left, left_norm
            G, g = normal_equations(chain), right_hand_side(chain, residual)
        else:
            damping, growth = min(damping * growth, _MOST_DAMPING), 2.0 * growth
        yield State(chain, norm / size, stationary)


def _step(
    chain: DiagonalForms, G: NDArray[Any], g: NDArray[Any], damping: float
) -> tuple[NDArray[np.complex128], float] | None:
    """The damped step, and by how much it lowers the squared norm of a linear residual; None without a factor."""
    top = float(G.diagonal().real.max())
    if top == 0.0:
        return np.zeros_like(chain.x), 0.0
    single = np.complex64 if np.iscomplexobj(G) else np.float32
    S = np.empty(G.shape, dtype=single if damping > _SINGLE_DAMPING else G.dtype)
    np.multiply(G, 1.0 / top, out=S, casting="same_kind")
    S.reshape(-1)[:: len(S) + 1] += damping
    try:
        # The transpose of the lower triangle is the upper one of the conjugate matrix, in the order LAPACK takes.
        factor: Any = scipy.linalg.cho_factor(S.T, lower=False, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return None

    def solve(right: NDArray[Any]) -> NDArray[Any]:
        scale = float(np.abs(right).max()) or 1.0
        x = scipy.linalg.cho_solve(factor, (right.conj() / scale).astype(S.dtype), check_finite=False)
        return x.conj().astype(G.dtype) * (scale / top)

    velocity = solve(g)
    direction = _as_diagonal_forms(chain, velocity)
    _, change, curvature = chain.derivatives(direction, 2)
    predicted = 2.0 * float(np.vdot(velocity, g).real) - float(np.linalg.norm(change)) ** 2
    correction = solve(right_hand_side(chain, -curvature))
    if np.linalg.norm(correction) <= _MOST_CURVATURE * np.linalg.norm(velocity):
        direction = direction + _as_diagonal_forms(chain, correction)
    return direction, predicted


def normal_equations(chain: DiagonalForms) -> NDArray[Any]:
    """The lower triangle of ``J^H J`` by blocks, `J` the derivative of the product by the unknowns.

    Unknowns of a complex chain are the entries of `DiagonalForms.x` in order. Those of a real chain are real: the
    entries of all diagonals, then the first columns of all circulants times ``sqrt(n)``, which are the unitary
    transforms of their spectra.
    """
    A, B = chain.lefts, chain.rights
    if not chain.real:
        return _complex_blocks(A, B)
    d, c = chain.diagonals, chain.circulants
    Ad, Bd, Ac, Bc = A[d].real.copy(), B[d].real.copy(), A[c], B[c]
    n, size, diagonal = A.shape[1], A.shape[0] * A.shape[1], Ad.shape[0] * A.shape[1]
    half = n // 2 + 1
    G = np.zeros((size, size))
    wide_d, tall_d, wide_c, tall_c = _wide(Ad), Bd.reshape(-1, n), _wide(Ac), Bc.reshape(-1, n)
    for k in range(len(Ad)):
        rows, cols = slice(k * n, (k + 1) * n), slice(0, (k + 1) * n)
        np.multiply(Ad[k].T @ wide_d[:, cols], Bd[k] @ tall_d[cols].T, out=G[rows, cols])
    for k in range(len(Ac)):
        rows = slice(diagonal + k * n, diagonal + (k + 1) * n)
        a, b = Ac[k, :, :half].conj().T, Bc[k, :half].conj()
        mixed = (a @ wide_d) * (b @ tall_d.T)
        own = slice(0, (k + 1) * n)
        pure = (a @ wide_c[:, own]) * (b @ tall_c[own].T)
        pure = np.fft.fft(pure.reshape(half, -1, n), norm="ortho").reshape(half, -1)
        G[rows, :diagonal] = np.fft.irfft(mixed, n, axis=0, norm="ortho")
        G[rows, diagonal : diagonal + (k + 1) * n] = np.fft.irfft(pure, n, axis=0, norm="ortho")
    return G


def _complex_blocks(A: NDArray[Any], B: NDArray[Any]) -> NDArray[Any]:
    n_factors, n = A.shape[:2]
    G = np.zeros((n_factors * n, n_factors * n), dtype=A.dtype)
    wide, tall = _wide(A), B.reshape(-1, n)
    for k in range(n_factors):
        rows, cols = slice(k * n, (k + 1) * n), slice(0, (k + 1) * n)
        np.multiply(A[k].conj().T @ wide[:, cols], B[k].conj() @ tall[cols].T, out=G[rows, cols])
    return G


def _wide(A: NDArray[Any]) -> NDArray[Any]:
    return A.transpose(1, 0, 2).reshape(A.shape[1], -1)


def right_hand_side(chain: DiagonalForms, residual: NDArray[Any]) -> NDArray[Any]:
    """``J^H residual``, in the unknowns of `normal_equations`: minus the gradient of half the squared residual norm."""
    A, B = chain.lefts, chain.rights
    g = np.einsum("kim,kim->km", A.conj(), residual @ B.conj().transpose(0, 2, 1))
    if not chain.real:
        return g.reshape(-1)
    c = np.fft.ifft(g[chain.circulants], norm="ortho")
    return np.concatenate((g[chain.diagonals].real.reshape(-1), c.real.reshape(-1)))


def _as_diagonal_forms(chain: DiagonalForms, unknowns: NDArray[Any]) -> NDArray[np.complex128]:
    """Unknowns of `normal_equations`, laid out like `DiagonalForms.x`."""
    if not chain.real:
        return unknowns.reshape(chain.x.shape)
    x = np.empty_like(chain.x)
    n_diagonals = len(x[chain.diagonals])
    parts = unknowns.reshape(chain.x.shape)
    x[chain.diagonals] = parts[:n_diagonals]
    x[chain.circulants] = np.fft.fft(parts[n_diagonals:], norm="ortho")
    return x
