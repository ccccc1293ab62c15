"""Exact products of real matrices with real factors: any side, any structure, and no more factors than are promised."""

import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat import factorize_cdd
from structmat._array_tools import ArgumentValueError
from structmat.fit._exact.constructions import construct, constructions
from structmat.fit._exact.forms import to_product
from structmat.fit._exact.real_deflation import factor_real_sequences

KINDS = {
    "Gaussian": lambda rng, n: rng.standard_normal((n, n)),
    "symmetric": lambda rng, n: np.cov(rng.standard_normal((n, 2 * n))).reshape(n, n),
    "skew": lambda rng, n: np.triu(G := rng.standard_normal((n, n)), 1) - np.triu(G, 1).T,
    "orthogonal": lambda rng, n: np.linalg.qr(rng.standard_normal((n, n)))[0],
    "permutation": lambda rng, n: np.eye(n)[rng.permutation(n)],
    "identity": lambda rng, n: np.eye(n),
    "singular": lambda rng, n: rng.standard_normal((n, n - 1)) @ rng.standard_normal((n - 1, n)),
    "half rank": lambda rng, n: rng.standard_normal((n, (n + 1) // 2)) @ rng.standard_normal(((n + 1) // 2, n)),
    "triangular": lambda rng, n: np.triu(rng.standard_normal((n, n))),
    "Toeplitz": lambda rng, n: scipy.linalg.toeplitz(rng.standard_normal(n), rng.standard_normal(n)),
}


def error_of(W, P):
    return np.linalg.norm(P - W) / np.linalg.norm(W)


def constructed(W):
    rng = np.random.default_rng(0)
    choices = constructions(W, real=True)
    return construct(W, choices, None, 1e-10, rng, real=True, deadline=math.inf, callback=None)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None)
@given(n=st.integers(3, 40), seed=st.integers(0, 2**16))
def test_every_real_matrix_has_real_factors(kind, n, seed):
    W = KINDS[kind](np.random.default_rng(seed), n)
    found = constructed(W)
    product = to_product(found.form)
    assert product.dtype == np.float64
    most = 8 * n + 5 if "rotations" in found.form.name else 3 * n + 1
    assert product.n_factors <= most + 4 * ("random phases" in found.form.name)
    assert error_of(W, product @ np.eye(n)) <= 1e-12
    assert error_of(W, np.asarray(product.to_dense())) <= 1e-12
    assert "real factors by construction" in found.message


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=1, deadline=None)
@given(n=st.integers(1, 24), seed=st.integers(0, 2**16))
def test_factorize_cdd_of_real_factors(kind, n, seed):
    W = KINDS[kind](np.random.default_rng(seed), n) if n > 1 else np.ones((1, 1))
    result = factorize_cdd(W, real=True, rng=seed)
    assert result.operator.dtype == np.float64
    assert result.converged
    assert error_of(W, np.asarray(result.operator.to_dense())) == pytest.approx(result.error, abs=1e-10)


@settings(max_examples=10, deadline=None)
@given(n=st.integers(12, 80), rank=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_low_rank_takes_six_real_factors_for_each_rank(n, rank, seed):
    rng, rank = np.random.default_rng(seed), min(rank, n // 4)
    W = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
    found = constructed(W)
    assert found.form.name.startswith(f"rank {rank}")
    assert len(found.form.vectors) <= 6 * rank + 3 + 4 * ("random phases" in found.form.name)
    assert not any(map(np.iscomplexobj, found.form.vectors))
    assert error_of(W, to_product(found.form) @ np.eye(n)) <= 1e-10


@pytest.mark.parametrize("n", [5, 16, 41, 200])
def test_tridiagonal_matrices_are_five_real_factors(n):
    W = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    for T in (W, W + np.diag(np.random.default_rng(n).random(n)), np.tril(W)):
        result = factorize_cdd(T, real=True, rng=0)
        assert result.operator.n_factors <= 5
        assert result.operator.dtype == np.float64
        assert error_of(T, result.operator @ np.eye(n)) <= 1e-13


@pytest.mark.parametrize(("below", "above"), [(3, 3), (6, 0), (1, 5)])
def test_real_bands_of_up_to_half_of_the_diagonals_take_two_factors_for_each_but_one(below, above):
    n, rng = 12, np.random.default_rng(0)
    W = np.triu(np.tril(rng.standard_normal((n, n)) / 4, above), -below) + np.diag(2 + rng.random(n))
    found = constructed(W)
    assert len(found.form.vectors) == 13
    assert error_of(W, to_product(found.form) @ np.eye(n)) <= 1e-13


@settings(max_examples=10, deadline=None)
@given(n=st.integers(3, 40), seed=st.integers(0, 2**16))
def test_a_complex_pair_is_seven_real_factors(n, seed):
    """The quadratic polynomial with a given pair of null sequences."""
    rng = np.random.default_rng(seed)
    w = np.exp(2j * np.pi * rng.random(n)) * rng.uniform(0.5, 1.5, n)
    nu = rng.uniform(0.9, 1.1) * np.exp(1j * np.pi * rng.uniform(0.1, 0.9) / n)
    vectors = factor_real_sequences(np.stack([w, w.conj()]), np.array([nu, nu.conj()]), extended=True)
    assert len(vectors) == 7
    Q = np.asarray(sm.CDDProduct.from_vectors(*vectors).to_dense())
    # On sequences that grow by z over n steps the polynomial has the entries of Q, those that wrap around times z.
    i = np.arange(n)
    lag = (i[:, None] - i) % n
    if n > 3:
        assert np.abs(Q[lag > 2]).max() <= 1e-6 * np.abs(Q).max()
        assert np.allclose(Q[lag == 2], 1.0, rtol=1e-6)
    wraps = (lag <= 2) & (i[:, None] < i)
    M = np.where(lag <= 2, Q, 0) * np.where(wraps, nu**n, 1.0)
    residual = M @ (w * nu ** -i.astype(float))
    assert np.linalg.norm(residual) <= 1e-6 * np.linalg.norm(M) * np.linalg.norm(w)


def test_search_for_real_factors():
    W = np.random.default_rng(0).standard_normal((8, 8))
    result = factorize_cdd(W, real=True, rng=0)
    assert result.solver == "levenberg-marquardt"
    assert result.operator.dtype == np.float64
    assert 9 <= result.operator.n_factors <= 14
    assert "real factors" in result.message


@pytest.mark.parametrize("first", ["diagonal", "circulant"])
def test_closed_forms_stay_real(first):
    vectors = np.random.default_rng(1).standard_normal((3, 9))
    W = np.asarray(sm.CDDProduct.from_vectors(*vectors, first=first).to_dense())
    result = factorize_cdd(W, real=True, rng=0)
    assert (result.operator.n_factors, result.operator.dtype) == (3, np.float64)


def test_complex_matrices_have_no_real_factors():
    with pytest.raises(ArgumentValueError, match="real must be False for a complex W"):
        factorize_cdd(1j * np.eye(3), real=True)
