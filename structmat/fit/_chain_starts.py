"""Starting points of chains: closed forms, chains of fewer factors, random orthogonal factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._objective import balanced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._objective import First, Layout

__all__ = ["extended", "nearest_circulant", "random_orthogonal", "weighted_rank_one"]


def nearest_circulant(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return the first column of the nearest circulant matrix: the mean of every cyclic diagonal."""
    n = len(matrix)
    i = np.arange(n)
    column: NDArray[Any] = np.stack([matrix[i, i - k].mean() for k in range(n)])
    return column


def weighted_rank_one(matrix: NDArray[Any], inputs: NDArray[Any]) -> NDArray[Any]:
    """Return vectors u, ones, v of the D C D product of rank one that is best with `inputs`."""
    u, s, wh = np.linalg.svd(matrix @ inputs, full_matrices=False)
    # The first right singular vector is a combination of the rows of the inputs.
    v = np.linalg.lstsq(inputs.T, wh[0], rcond=None)[0]
    return np.stack([s[0] * u[:, 0], np.ones(len(matrix), dtype=u.dtype), v.astype(u.dtype)])


def extended(layout: Layout, vectors: NDArray[Any], first: First) -> NDArray[Any]:
    """Return parameters of the chain whose product is that of fewer `vectors`, of which the first is of kind `first`.

    Identities are appended on the right, and one on the left where the kinds ask for it; all factors have one norm.
    """
    whole = np.zeros((layout.n_factors, layout.n), dtype=vectors.dtype)
    whole[layout.diagonal] = 1.0
    whole[np.logical_not(layout.diagonal), 0] = 1.0
    offset = int(first != layout.first)
    whole[offset : offset + len(vectors)] = vectors
    return balanced(layout.from_vectors(whole))


def random_orthogonal(layout: Layout, count: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return chains of random signs and circulants of unit-modulus random-phase spectrum; phases if complex."""
    n, shape = layout.n, (count, layout.n_factors, layout.n)
    turns = np.exp(2j * np.pi * rng.random(shape))
    diagonal = np.array(layout.diagonal)
    if np.issubdtype(dtype, np.complexfloating):
        turns[:, ~diagonal] = np.fft.ifft(turns[:, ~diagonal], norm="ortho")
        return turns.astype(dtype)
    parameters = np.where(turns.real < 0, -1.0, 1.0)
    half = turns[:, ~diagonal, : n // 2 + 1]
    for real in (0, -1) if n % 2 == 0 else (0,):
        half[..., real] = np.where(half[..., real].real < 0, -1.0, 1.0)
    parameters[:, ~diagonal] = np.fft.irfft(half, n=n, norm="ortho")
    return parameters.astype(dtype)
