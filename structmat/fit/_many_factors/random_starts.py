"""Starting points of products of any number of factors: random orthogonal factors, and a closed form with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._many_factors.parameters import factor_parameters, join

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.operators import CDDLayout

__all__ = ["random_orthogonal", "weighted_rank_one"]


def weighted_rank_one(matrix: NDArray[Any], inputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return u and v of the matrix ``u v^T`` of rank one that is best with `inputs`."""
    u, s, wh = np.linalg.svd(matrix @ inputs, full_matrices=False)
    # The first right singular vector is a combination of the rows of the inputs.
    v = np.linalg.lstsq(inputs.T, wh[0], rcond=None)[0]
    return s[0] * u[:, 0], v.astype(u.dtype)


def random_orthogonal(layout: CDDLayout, count: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return parameters of products of random signs and circulants of random-phase spectrum; phases if complex.

    The spectra of block circulants are random matrices with orthonormal rows or columns.
    """
    real = not np.issubdtype(dtype, np.complexfloating)
    factors = _of_single_blocks if layout.is_single_block else _of_grids
    return join(factors(layout, count, rng, real=real), lead=1).astype(dtype)


def _of_single_blocks(layout: CDDLayout, count: int, rng: np.random.Generator, *, real: bool) -> list[NDArray[Any]]:
    n, parts = layout.block_size, []
    every = np.exp(2j * np.pi * rng.random((count, layout.n_factors, n)))
    for k, kind in enumerate(layout.kinds):
        turns = every[:, k]
        if kind == "diagonal":
            parts.append(_signs(turns) if real else turns)
        elif real:
            half, ends = turns[:, : n // 2 + 1].copy(), _real_frequencies(n)
            half[:, ends] = _signs(half[:, ends])
            parts.append(np.fft.irfft(half, n=n, norm="ortho"))
        else:
            parts.append(np.fft.ifft(turns, norm="ortho"))
    return parts


def _of_grids(layout: CDDLayout, count: int, rng: np.random.Generator, *, real: bool) -> list[NDArray[Any]]:
    m = layout.block_size
    parts: list[NDArray[Any]] = []
    for factor in factor_parameters(layout):
        if factor.diagonal:
            turns = np.exp(2j * np.pi * rng.random((count, *factor.shape)))
            parts.append(_signs(turns) if real else turns)
            continue
        p, q, _ = factor.shape
        size = (count, m // 2 + 1 if real else m, max(p, q), min(p, q))
        normal = rng.standard_normal(size) + 1j * rng.standard_normal(size)
        if real:
            ends = _real_frequencies(m)
            normal[:, ends] = normal[:, ends].real
        isometry, triangle = np.linalg.qr(normal)
        signs = np.diagonal(triangle, axis1=-2, axis2=-1)
        spectra = np.moveaxis(isometry * (signs / np.abs(signs))[..., None, :], 1, -1)
        if p < q:
            spectra = spectra.swapaxes(1, 2)
        parts.append((np.fft.irfft(spectra, n=m) if real else np.fft.ifft(spectra)) * factor.scale)
    return parts


def _real_frequencies(n: int) -> list[int]:
    """Where the half spectrum of a real vector is real."""
    return [0, -1] if n % 2 == 0 else [0]


def _signs(turns: NDArray[Any]) -> NDArray[Any]:
    return np.where(turns.real < 0, -1.0, 1.0)
