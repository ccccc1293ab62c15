"""Fits by a circulant larger than the matrix: a Toeplitz matrix between two diagonals, and longer products."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.fit.matrices import normal


def through(operator, cols):
    return np.asarray(operator @ np.eye(cols))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), cols=st.integers(1, 12), real=st.booleans(), seed=st.integers(0, 2**16))
def test_every_toeplitz_matrix_is_reproduced(rows, cols, real, seed):
    rng = np.random.default_rng(seed)
    column, row = normal(rng, rows, real=real), normal(rng, cols, real=real)
    T = scipy.linalg.toeplitz(column, row)
    result = sm.fit_cdd(T, block_size="toeplitz", rng=0)
    assert result.block_size == rows + cols - 1
    assert result.operator.shape == (rows, cols)
    assert np.linalg.norm(T - through(result.operator, cols)) <= 1e-10 * np.linalg.norm(T)


@pytest.mark.parametrize("shape", [(24, 24), (24, 16), (10, 30)])
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_planted_products_are_found(shape, real, seed):
    rng = np.random.default_rng([seed, *shape])
    rows, cols = shape
    a, b = normal(rng, rows, real=real), normal(rng, cols, real=real)
    T = scipy.linalg.toeplitz(normal(rng, rows, real=real), normal(rng, cols, real=real))
    W = a[:, None] * T * b
    result = sm.fit_cdd(W, block_size="toeplitz", rng=0)
    assert result.error <= 1e-10
    assert np.linalg.norm(W - through(result.operator, cols)) <= 1e-10 * np.linalg.norm(W)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(2, 10), cols=st.integers(2, 10), seed=st.integers(0, 2**16))
def test_never_worse_than_the_nearest_toeplitz_matrix(rows, cols, seed):
    W = normal(np.random.default_rng(seed), (rows, cols))
    result = sm.fit_cdd(W, block_size="toeplitz", rng=0)
    rows, cols = W.shape
    means = np.array([np.diagonal(W, -k).mean() for k in range(1 - cols, rows)])
    T = sm.Toeplitz(means[cols - 1 :], means[cols - 1 :: -1])
    nearest = np.linalg.norm(W - T.to_dense()) / np.linalg.norm(W)
    assert result.error <= nearest * (1 + 1e-12) + 1e-14
    found = np.linalg.norm(W - through(result.operator, cols)) / np.linalg.norm(W)
    assert found == pytest.approx(result.error, rel=1e-9, abs=1e-12)


def test_more_factors_fit_better():
    W = normal(np.random.default_rng(4), (12, 9))
    options = {"block_size": "toeplitz", "rng": 0, "max_iter": 200, "restarts": 1}
    errors = [sm.fit_cdd(W, n_factors, **options).error for n_factors in (3, 5)]
    assert errors[1] < errors[0]


def test_sides_between_and_beyond():
    W = normal(np.random.default_rng(0), (6, 4))
    assert sm.fit_cdd(W, block_size=8, rng=0).operator.shape == (6, 4)
    with pytest.raises(sm.ArgumentError, match=r"at most rows \+ cols - 1 = 9, got 10"):
        sm.fit_cdd(W, block_size=10)
