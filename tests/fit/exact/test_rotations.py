"""Layers of rotations of unitary matrices, and the exact products that are made of them."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import example, given, settings
from hypothesis import strategies as st

from structmat import factorize_cdd
from structmat.fit._exact.forms import Form, to_product
from structmat.fit._exact.real_rotations import factor_real_by_rotations
from structmat.fit._exact.rotations import layers_of_rotations
from structmat.fit._exact.unitary import factor_by_singular_vectors, factor_unitary, is_unitary


def gaussian(rng, n, *, real):
    return rng.standard_normal((n, n)) + (0 if real else 1j * rng.standard_normal((n, n)))


def unitary(rng, n, *, real):
    return np.linalg.qr(gaussian(rng, n, real=real))[0]


UNITARY = {
    "Haar": lambda rng, n: unitary(rng, n, real=False),
    "orthogonal": lambda rng, n: unitary(rng, n, real=True),
    "permutation": lambda rng, n: np.eye(n)[rng.permutation(n)],
    "identity": lambda _, n: np.eye(n),
    "DFT": lambda _, n: scipy.linalg.dft(n, scale="sqrtn"),
    "signs": lambda rng, n: np.diag(rng.choice([-1.0, 1.0], n)),
}


def error_of(vectors, W):
    """The relative error of a product of dense matrices, which structmat did not multiply."""
    P = np.eye(len(W))
    for k, vector in enumerate(vectors):
        P = P @ (scipy.linalg.circulant(vector) if k % 2 else np.diag(vector))
    return np.linalg.norm(P - W) / np.linalg.norm(W)


def error_of_shifts(vectors, W):
    product = to_product(Form("", "diagonal", vectors, shifts=True))
    errors = [np.linalg.norm(P - W) for P in (product @ np.eye(len(W)), np.asarray(product.to_dense()))]
    return max(errors) / np.linalg.norm(W)


@pytest.mark.parametrize("kind", UNITARY)
@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 2**16))
def test_layers_of_rotations(kind, n, seed):
    Q = UNITARY[kind](np.random.default_rng(seed), n)
    layers = layers_of_rotations(Q)
    assert np.isrealobj(layers.b) == np.isrealobj(Q)
    assert np.allclose(np.abs(layers.phases), 1)
    P = np.diag(layers.phases)
    for k in range(n):
        G = np.eye(n, dtype=layers.b.dtype)
        for m in range((layers.first + k) % 2, n - 1, 2):
            c, b = layers.c[k, m], layers.b[k, m]
            G[m : m + 2, m : m + 2] = [[c, b], [-np.conj(b), c]]
        P = P @ G
    assert np.linalg.norm(P - Q) <= 1e-13 * n


@pytest.mark.parametrize("kind", UNITARY)
@settings(max_examples=10, deadline=None)
@given(half=st.integers(1, 20), seed=st.integers(0, 2**16), scale=st.sampled_from([1.0, 1e-3, 7.0]))
def test_unitary_matrices_are_unitary_factors(kind, half, seed, scale):
    n = 2 * half
    Q = UNITARY[kind](np.random.default_rng(seed), n)
    assert is_unitary(scale * Q)
    vectors = factor_unitary(scale * Q)
    assert len(vectors) == 2 * n + 5
    assert error_of(vectors, scale * Q) <= 1e-13
    vectors[0] = vectors[0] / scale
    for k, vector in enumerate(vectors):
        assert np.allclose(np.abs(np.fft.fft(vector) if k % 2 else vector), 1, atol=1e-13)


def test_other_matrices_are_not_unitary():
    rng = np.random.default_rng(0)
    assert not is_unitary(gaussian(rng, 6, real=False))
    assert not is_unitary(np.zeros((4, 4)))
    assert not is_unitary(unitary(rng, 6, real=True) * (1 + 1e-9 * np.arange(6)))


@settings(max_examples=10, deadline=None)
@given(half=st.integers(1, 20), real=st.booleans(), seed=st.integers(0, 2**16), decades=st.sampled_from([0, 8, 20]))
def test_singular_vectors_make_a_product_of_any_matrix(half, real, seed, decades):
    n = 2 * half
    W = gaussian(np.random.default_rng(seed), n, real=real) * np.logspace(0, -decades, n)
    vectors = factor_by_singular_vectors(W)
    assert len(vectors) == 4 * n + 9
    assert error_of(vectors, W) <= 1e-13


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**16), decades=st.sampled_from([0, 8, 20]))
@example(n=32, seed=14, decades=8)  # the loss of scalings falls on the leading singular vectors
def test_real_matrices_are_real_factors(n, seed, decades):
    W = gaussian(np.random.default_rng(seed), n, real=True) * np.logspace(0, -decades, n)
    vectors = factor_real_by_rotations(W)
    assert len(vectors) <= 8 * n + 5
    assert not any(map(np.iscomplexobj, vectors))
    assert all(np.count_nonzero(vector) <= 3 for vector in vectors[1::2])
    assert error_of_shifts(vectors, W) <= 1e-12


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 2**16))
def test_orthogonal_matrices_take_half_as_many_real_factors(n, seed):
    Q = 3 * unitary(np.random.default_rng(seed), n, real=True)
    vectors = factor_real_by_rotations(Q)
    assert 2 * n + 1 <= len(vectors) <= 4 * n + 3
    assert error_of_shifts(vectors, Q) <= 1e-12


@pytest.mark.parametrize("n", [24, 128])
def test_factorize_cdd_of_unitary_matrices(n):
    Q = unitary(np.random.default_rng(n), n, real=False)
    result = factorize_cdd(Q, rng=0)
    assert (result.start, result.operator.n_factors) == ("unitary", 2 * n + 5)
    assert result.error <= 1e-13
    assert factorize_cdd(Q, 2 * n + 1, rng=0).start == "generic"


def test_a_small_target_takes_the_singular_vectors():
    W = gaussian(np.random.default_rng(0), 64, real=False)
    result = factorize_cdd(W, rng=0, target_error=5e-14)
    assert (result.start, result.operator.n_factors, result.converged) == ("rotations", 4 * 64 + 9, True)
    assert "in double precision; generic left an error" in result.message


@pytest.mark.parametrize("n", [61, 100])
def test_larger_real_matrices_keep_their_digits(n):
    W = gaussian(np.random.default_rng(n), n, real=True)
    result = factorize_cdd(W, real=True, rng=0)
    assert result.operator.dtype == np.float64
    assert result.error <= 1e-12
    short = factorize_cdd(W, 3 * n + 1, real=True, rng=0, target_error=1e-7)
    assert (short.start, short.operator.n_factors, short.converged) == ("generic", 3 * n + 1, True)
