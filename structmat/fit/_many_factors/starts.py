"""Starting points of chains: closed forms, chains of fewer factors, random orthogonal factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._many_factors.block_objective import BlockLayout
from structmat.fit._many_factors.objective import balanced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.objective import First, Layout

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


def extended(layout: Layout, vectors: Any, first: First) -> NDArray[Any]:
    """Return parameters of the chain whose product is that of fewer `vectors`, of which the first is of kind `first`.

    Identities are appended on the right, and one on the left where the kinds ask for it; all factors have one norm. In
    a `BlockLayout` they are appended where its square factors are.
    """
    if isinstance(layout, BlockLayout):
        return _extended_blocks(layout, vectors)
    whole = np.zeros((layout.n_factors, layout.n), dtype=vectors.dtype)
    whole[layout.diagonal] = 1.0
    whole[np.logical_not(layout.diagonal), 0] = 1.0
    offset = int(first != layout.first)
    whole[offset : offset + len(vectors)] = vectors
    return balanced(layout.from_vectors(whole))


def random_orthogonal(layout: Layout, count: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return chains of random signs and circulants of unit-modulus random-phase spectrum; phases if complex.

    The spectra of block circulants are random matrices with orthonormal rows or columns.
    """
    if isinstance(layout, BlockLayout):
        return _random_blocks(layout, count, rng, dtype)
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


def _extended_blocks(layout: BlockLayout, vectors: Any) -> NDArray[Any]:
    shapes = layout.vector_shapes
    identities = []
    for shape in shapes[len(vectors) :] if layout.tall else shapes[: len(shapes) - len(vectors)]:
        identity = np.zeros(shape)
        if len(shape) == 1:
            identity[:] = 1.0
        else:
            i = np.arange(shape[0])
            identity[i, i, 0] = 1.0
        identities.append(identity)
    whole = [*vectors, *identities] if layout.tall else [*identities, *vectors]
    return layout.balanced(layout.from_vectors(whole))


def _random_blocks(layout: BlockLayout, count: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> NDArray[Any]:
    real, m = not np.issubdtype(dtype, np.complexfloating), layout.block_size
    parts: list[NDArray[Any]] = []
    for diagonal, shape, scale in zip(layout.diagonal, layout.vector_shapes, layout.scales, strict=True):
        if diagonal:
            turns = np.exp(2j * np.pi * rng.random((count, *shape)))
            parts.append(np.where(turns.real < 0, -1.0, 1.0) if real else turns)
            continue
        p, q, _ = shape
        size = (count, m // 2 + 1 if real else m, max(p, q), min(p, q))
        normal = rng.standard_normal(size) + 1j * rng.standard_normal(size)
        if real:  # the spectrum of a real vector is real at these frequencies
            ends = [0, -1] if m % 2 == 0 else [0]
            normal[:, ends] = normal[:, ends].real
        isometry, triangle = np.linalg.qr(normal)
        signs = np.diagonal(triangle, axis1=-2, axis2=-1)
        spectra = np.moveaxis(isometry * (signs / np.abs(signs))[..., None, :], 1, -1)
        if p < q:
            spectra = spectra.swapaxes(1, 2)
        columns = np.fft.irfft(spectra, n=m) if real else np.fft.ifft(spectra)
        parts.append(columns * scale)
    return layout.join(parts).astype(dtype)
