"""Planted products and dense references for the tests of the fit, independent of the code under test."""

import numpy as np
import pytest


def _vectors(kind, size, rng):
    match kind:
        case "normal":
            return rng.standard_normal(size)
        case "complex normal":
            return rng.standard_normal(size) + 1j * rng.standard_normal(size)
        case "signs":
            return rng.choice([-1.0, 1.0], size)
        case "phases":
            return np.exp(2j * np.pi * rng.random(size))
        case "uniform":
            return rng.uniform(0.5, 2.0, size) * rng.choice([-1.0, 1.0], size)


def _dense(a, c, b):
    m = c.shape[-1]
    i, j = np.arange(a.size), np.arange(b.size)
    entries = c[i[:, None] // m, j // m, (i[:, None] - j) % m]
    return a[:, None] * entries * b


def _planted(kind, rng, shape, block_size):
    """A random product and its three vectors."""
    grid = [-(-side // block_size) for side in shape]
    a, c, b = (_vectors(kind, size, rng) for size in (shape[0], (*grid, block_size), shape[1]))
    return _dense(a, c, b), (a, c, b)


def _with_noise(W, level, rng):
    noise = rng.standard_normal(W.shape)
    if np.iscomplexobj(W):
        noise = noise + 1j * rng.standard_normal(W.shape)
    return W + level * np.linalg.norm(W) / np.linalg.norm(noise) * noise


def _relative(W, P):
    W = np.asarray(W)
    return float(np.linalg.norm(W - np.asarray(P)) / (np.linalg.norm(W) or 1.0))


def _closed_form_errors(W, block_size):
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
        "circulant": _relative(W, (sums / count)[label]),
        "diagonal": _relative(W, np.where(i == j, W, 0)),
        "rank-one": _relative(W, s[0] * np.outer(u[:, 0], vh[0])),
    }


@pytest.fixture(scope="session")
def planted():
    return _planted


@pytest.fixture(scope="session")
def with_noise():
    return _with_noise


@pytest.fixture(scope="session")
def dense():
    return _dense


@pytest.fixture(scope="session")
def relative():
    return _relative


@pytest.fixture(scope="session")
def closed_form_errors():
    return _closed_form_errors
