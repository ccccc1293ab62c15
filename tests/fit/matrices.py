"""Matrices, planted products and dense references for the tests of the fit, independent of the code under test."""

import numpy as np
from scipy.linalg import circulant

from structmat.operators import CDDLayout


def normal(rng, shape, *, real=True):
    return rng.standard_normal(shape) if real else rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def matrix(shape, *, real=True, seed=0):
    """A normal matrix of a shape, or a square one of a side."""
    return normal(np.random.default_rng(seed), (shape, shape) if isinstance(shape, int) else shape, real=real)


def matrix_of(kind, shape, dtype, rng):
    rows, cols = shape
    i, j = np.indices(shape)
    W = normal(rng, shape, real=not np.issubdtype(dtype, np.complexfloating))
    match kind:
        case "heavy tails":
            W = W * np.abs(rng.standard_t(1.5, shape))
        case "heavier tails":
            W = W * np.abs(rng.standard_t(1.0, shape))
        case "sparse":
            W = W * (rng.random(shape) < 0.15)
        case "banded":
            W = W * (np.abs(i - j) < 2)
        case "permutation":
            W = (rng.permutation(max(shape))[:rows, None] == np.arange(cols)).astype(float)
        case "single entry":
            W = W * ((i == rows // 2) & (j == cols // 3))
        case "signs":
            W = np.sign(W.real)
        case "low rank":
            W = W[:, :2] @ rng.standard_normal((min(2, cols), cols))
        case "two scales":
            W = W * 10.0 ** rng.uniform(-6, 0, rows)[:, None] * 10.0 ** rng.uniform(-6, 0, cols)
    return W.astype(dtype)


def _vectors(kind, size, rng):
    match kind:
        case "normal":
            return normal(rng, size)
        case "complex normal":
            return normal(rng, size, real=False)
        case "signs":
            return rng.choice([-1.0, 1.0], size)
        case "phases":
            return np.exp(2j * np.pi * rng.random(size))
        case "uniform":
            return rng.uniform(0.5, 2.0, size) * rng.choice([-1.0, 1.0], size)


def dense_factor(vector, shape):
    """A diagonal, or a grid of circulants cropped to a shape, by the definition."""
    if vector.ndim == 1:
        return np.diag(vector)
    return np.block([[circulant(c) for c in row] for row in vector])[: shape[0], : shape[1]]


def dense_product(layout, vectors):
    """The product of the factors of a layout, by the definition."""
    first, *factors = (dense_factor(*pair) for pair in zip(vectors, layout.factor_shapes, strict=True))
    for factor in factors:
        first = first @ factor
    return first


def dense(a, c, b):
    """The product of three factors, entry by entry."""
    m = c.shape[-1]
    i, j = np.arange(a.size), np.arange(b.size)
    entries = c[i[:, None] // m, j // m, (i[:, None] - j) % m]
    return a[:, None] * entries * b


def dense_of_grid(factors, shape):
    """The same of vectors that are padded to whole blocks."""
    a, c, b = factors
    return dense(a.reshape(-1)[: shape[0]], c, b.reshape(-1)[: shape[1]])


def planted(kind, rng, shape, block_size="min", n_factors=3):
    """A random product, dense, and its vectors, in the shapes of the layout."""
    layout = CDDLayout(shape, n_factors, block_size)
    vectors = [_vectors(kind, size, rng) for size in layout.vector_shapes]
    return dense_product(layout, vectors), vectors


def planted_operator(kind, rng, shape, block_size="min", n_factors=3):
    """A random product as an operator."""
    layout = CDDLayout(shape, n_factors, block_size)
    return layout.product(planted(kind, rng, shape, block_size, n_factors)[1])


def with_noise(W, level, rng):
    noise = normal(rng, W.shape, real=not np.iscomplexobj(W))
    return W + level * np.linalg.norm(W) / np.linalg.norm(noise) * noise


def relative(W, P):
    W = np.asarray(W)
    return float(np.linalg.norm(W - np.asarray(P)) / (np.linalg.norm(W) or 1.0))


def svd_error(W, rank):
    """The error of the nearest matrix of a rank."""
    s = np.linalg.svd(W, compute_uv=False)
    return np.linalg.norm(s[rank:]) / np.linalg.norm(s)


def closed_form_errors(W, block_size):
    """Errors of the nearest block circulant, the nearest diagonal and the nearest rank-one matrix."""
    i, j = np.indices(W.shape)
    label = np.ravel_multi_index(
        (i // block_size, j // block_size, (i - j) % block_size),
        (*(-(-side // block_size) for side in W.shape), block_size),
    )
    count = np.maximum(np.bincount(label.ravel()), 1)
    sums = np.zeros(count.size, dtype=W.dtype)
    np.add.at(sums, label, W)
    u, s, vh = np.linalg.svd(W, full_matrices=False)
    return {
        "circulant": relative(W, (sums / count)[label]),
        "diagonal": relative(W, np.where(i == j, W, 0)),
        "rank-one": relative(W, s[0] * np.outer(u[:, 0], vh[0])),
    }
