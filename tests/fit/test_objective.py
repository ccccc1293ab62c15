"""Chains: products, errors and gradients against dense formulas and finite differences, and the starts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import circulant

from structmat.fit._many_factors import objective as objectives
from structmat.fit._many_factors.objective import Layout, Objective, balanced
from structmat.fit._many_factors.starts import extended, nearest_circulant, random_orthogonal


def normal(rng, shape, *, real):
    return rng.standard_normal(shape) if real else rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def dense_reference(layout, vectors):
    product = np.eye(layout.n)
    for vector, diagonal in zip(vectors, layout.diagonal, strict=True):
        product = product @ (np.diag(vector) if diagonal else circulant(vector))
    return product


@st.composite
def layouts(draw):
    return Layout(draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.sampled_from(["diagonal", "circulant"])))


@settings(max_examples=80, deadline=None)
@given(
    layout=layouts(),
    real=st.booleans(),
    weighted=st.booleans(),
    chunk_bytes=st.sampled_from([1, 1 << 22]),
    seed=st.integers(0, 2**16),
)
def test_error_and_gradient(layout, real, weighted, chunk_bytes, seed):
    rng, n = np.random.default_rng(seed), layout.n
    target = normal(rng, (n, 4 if weighted else n), real=real)
    inputs = normal(rng, (n, 4), real=real) if weighted else None
    chains = normal(rng, (2, layout.n_factors, n), real=real)
    objective = Objective(layout, target, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "_CHUNK_BYTES", chunk_bytes)
        values, gradient = objective.value_and_gradient(chains)
        direction = normal(rng, chains.shape, real=real)
        step = 1e-6
        ahead, behind = (objective.value_and_gradient(chains + s * direction)[0] for s in (step, -step))
    for chain, value in zip(chains, values, strict=True):
        product = dense_reference(layout, layout.to_vectors(chain))
        assert layout.dense(chain) == pytest.approx(product, rel=1e-9, abs=1e-9)
        residual = target - (product if inputs is None else product @ inputs)
        expected = np.linalg.norm(residual) / np.linalg.norm(target)
        assert np.sqrt(value) == pytest.approx(expected, rel=1e-9)
        assert objective.error(chain) == pytest.approx(expected, rel=1e-9)
    slopes = np.sum((direction.conj() * gradient).real, axis=(1, 2))
    assert (ahead - behind) / (2 * step) == pytest.approx(slopes, rel=1e-4, abs=1e-5 * float(np.max(np.abs(values))))


@pytest.mark.parametrize("real", [True, False])
def test_single_precision_stays_single(real):
    rng = np.random.default_rng(0)
    layout = Layout(8, 5)
    dtype = np.float32 if real else np.complex64
    objective = Objective(layout, normal(rng, (8, 8), real=real)).astype(np.dtype(dtype))
    values, gradient = objective.value_and_gradient(random_orthogonal(layout, 3, rng, np.dtype(dtype)))
    assert values.dtype == np.float64
    assert gradient.dtype == dtype


@settings(max_examples=40, deadline=None)
@given(layout=layouts(), real=st.booleans(), seed=st.integers(0, 2**16))
def test_random_starts_are_orthogonal(layout, real, seed):
    dtype = np.dtype(np.float64 if real else np.complex128)
    for chain in random_orthogonal(layout, 2, np.random.default_rng(seed), dtype):
        dense = layout.dense(chain)
        assert dense @ dense.conj().T == pytest.approx(np.eye(layout.n), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(layout=layouts(), more=st.integers(0, 4), seed=st.integers(0, 2**16))
def test_identities_leave_the_product(layout, more, seed):
    vectors = np.random.default_rng(seed).standard_normal((layout.n_factors, layout.n))
    for first in ("diagonal", "circulant"):
        longer = Layout(layout.n, layout.n_factors + more + (first != layout.first), first)
        chain = extended(longer, vectors, layout.first)
        assert longer.dense(chain) == pytest.approx(dense_reference(layout, vectors), rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(layout=layouts(), seed=st.integers(0, 2**16))
def test_balancing_leaves_the_product(layout, seed):
    rng = np.random.default_rng(seed)
    chain = rng.standard_normal((layout.n_factors, layout.n)) * 10.0 ** rng.integers(-5, 5, (layout.n_factors, 1))
    even = balanced(chain)
    norms = np.linalg.norm(even, axis=-1)
    assert norms == pytest.approx(np.full_like(norms, norms[0]))
    dense = layout.dense(chain)
    assert layout.dense(even) == pytest.approx(dense, rel=1e-9, abs=1e-9 * np.abs(dense).max())


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_nearest_circulant_is_the_mean_of_each_cyclic_diagonal(n):
    rng = np.random.default_rng(n)
    c = rng.standard_normal(n)
    assert nearest_circulant(circulant(c)) == pytest.approx(c)
    W = rng.standard_normal((n, n))
    residual = W - circulant(nearest_circulant(W))
    assert nearest_circulant(residual) == pytest.approx(np.zeros(n), abs=1e-12)
