"""Levenberg-Marquardt on all factors: its derivatives against dense formulas, its laws, and what it reaches."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat.fit._many_factors.descent import descend
from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.fit._many_factors.levenberg_marquardt import _step, normal_equations, right_hand_side, steps
from structmat.operators._cdd import CDDProduct

FIRSTS = st.sampled_from(["diagonal", "circulant"])


def gaussian(rng, shape, real):
    x = rng.standard_normal(shape)
    return x if real else x + 1j * rng.standard_normal(shape)


def dense(vectors, first):
    return np.asarray(CDDProduct.from_vectors(*vectors, first=first).to_dense())


def unknowns_to_vectors(u, chain):
    """The unknowns of the normal equations as diagonals and first columns, by their definition."""
    n_factors, n = chain.x.shape
    if not chain.real:
        return DiagonalForms(u.reshape(n_factors, n) + 0j, chain.first, real=False).to_vectors()
    vectors = [None] * n_factors
    places = [*range(n_factors)[chain.diagonals], *range(n_factors)[chain.circulants]]
    for k, part in zip(places, u.reshape(n_factors, n), strict=True):
        vectors[k] = part / np.sqrt(n) if k in range(n_factors)[chain.circulants] else part
    return vectors


def jacobian(vectors, chain):
    """Derivative of the dense product; it is linear in every unknown, so differences are exact."""
    n_factors, n = chain.x.shape
    base = dense(vectors, chain.first)
    columns = []
    for u in np.eye(n_factors * n):
        change = unknowns_to_vectors(u, chain)
        columns.append((dense([v + d for v, d in zip(vectors, change, strict=True)], chain.first) - base).ravel())
    return np.array(columns).T


@st.composite
def chains(draw):
    n, n_factors, first, real = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(FIRSTS), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    vectors = list(gaussian(rng, (n_factors, n), real))
    return rng, vectors, DiagonalForms.from_vectors(vectors, first, real=real)


@settings(max_examples=60, deadline=None)
@given(chains())
def test_chain_agrees_with_the_operator(drawn):
    _, vectors, chain = drawn
    P = dense(vectors, chain.first)
    size = np.linalg.norm(P) + 1e-300
    assert np.linalg.norm(chain.dense() - P) <= 1e-13 * size
    assert np.linalg.norm(chain.balanced().dense() - P) <= 1e-12 * size
    assert np.allclose(np.linalg.norm(chain.balanced().x, axis=1), np.linalg.norm(chain.balanced().x[0]))
    for A, x, B in zip(chain.lefts, chain.x, chain.rights, strict=True):
        assert np.linalg.norm((A * x) @ B - P) <= 1e-12 * size
    assert all(np.allclose(v, w) for v, w in zip(vectors, chain.to_vectors(), strict=True))


@settings(max_examples=60, deadline=None)
@given(chains())
def test_normal_equations_agree_with_the_dense_jacobian(drawn):
    rng, vectors, chain = drawn
    J = jacobian(vectors, chain)
    R = gaussian(rng, (chain.x.shape[1],) * 2, chain.real)
    G, expected = np.tril(normal_equations(chain)), J.conj().T @ J
    assert np.allclose(G, np.tril(expected), atol=1e-10 * np.abs(expected).max(), rtol=0)
    g = J.conj().T @ R.ravel()
    assert np.allclose(right_hand_side(chain, R), g, atol=1e-10 * (1 + np.abs(g).max()), rtol=0)


@settings(max_examples=40, deadline=None)
@given(chains())
def test_derivatives_agree_with_finite_differences(drawn):
    rng, vectors, chain = drawn
    change = list(gaussian(rng, np.shape(vectors), chain.real))
    direction = DiagonalForms.from_vectors(change, chain.first, real=chain.real).x
    value, slope, curvature = chain.derivatives(direction, 2)
    h = 1e-4
    ahead, behind = (dense([v + t * d for v, d in zip(vectors, change, strict=True)], chain.first) for t in (h, -h))
    size = np.linalg.norm(np.abs(chain.x) + np.abs(direction)) ** len(vectors)
    assert np.allclose(slope, (ahead - behind) / (2 * h), atol=1e-6 * (1 + size), rtol=0)
    assert np.allclose(2 * curvature, (ahead - 2 * value + behind) / h**2, atol=1e-5 * (1 + size), rtol=0)


def fit(W, vectors, first="diagonal", **options):
    return descend(steps, W, vectors, first, **{"max_iter": 200, "tol": 1e-9, **options})


@settings(max_examples=40, deadline=None)
@given(chains(), st.integers(0, 20))
def test_never_rises_and_reports_what_it_returns(drawn, max_iter):
    rng, vectors, chain = drawn
    W = gaussian(rng, (chain.x.shape[1],) * 2, chain.real)
    reports = []
    found, history, converged = fit(
        W, vectors, chain.first, max_iter=max_iter, report=lambda *report: reports.append(report)
    )
    assert len(history) <= max_iter + 1
    assert (np.diff(history) <= 0).all()
    assert reports == list(enumerate(history))[1:]
    assert np.linalg.norm(W - dense(found, chain.first)) <= (history[-1] + 1e-12) * np.linalg.norm(W)
    assert all(np.isrealobj(v) == chain.real for v in found)
    assert isinstance(converged, bool)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("first", ["diagonal", "circulant"])
@pytest.mark.parametrize("n", [7, 16])
@pytest.mark.parametrize("n_factors", [3, 5])
def test_returns_to_a_member_nearby(real, first, n, n_factors):
    rng = np.random.default_rng(n)
    truth = gaussian(rng, (n_factors, n), real)
    start = truth + 1e-2 * gaussian(rng, truth.shape, real)
    found, history, _ = fit(dense(truth, first), list(start), first)
    assert history[-1] < 1e-13
    assert np.allclose(dense(found, first), dense(truth, first))


def test_stops_at_a_stationary_point():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((6, 6))
    found, _, converged = fit(W, [np.ones(6)], "circulant")
    assert converged
    i = np.arange(6)
    nearest = np.array([W[i, (i - k) % 6].mean() for k in range(6)])
    assert np.allclose(found[0], nearest)
    again, _, converged = fit(W, found, "circulant", tol=0.0)
    assert converged
    assert np.allclose(again[0], nearest)


def test_vectors_of_zeros_stay_finite():
    found, history, converged = fit(np.eye(4), [np.zeros(4)] * 3)
    assert history == [1.0, 1.0]
    assert converged
    assert not np.any(found)


@pytest.mark.parametrize("scale", [1e-250, 1e-30, 1e30, 1e250])
def test_scale_of_the_matrix_leaves_the_path(scale):
    rng = np.random.default_rng(2)
    W = rng.standard_normal((6, 6))
    start = list(rng.standard_normal((3, 6)))
    scaled = [start[0] * scale, *start[1:]]
    expected, history, _ = fit(W, start, max_iter=8)
    found, scaled_history, _ = fit(W * scale, scaled, max_iter=8)
    assert np.allclose(history, scaled_history, rtol=1e-6)
    assert np.allclose(dense(found, "diagonal") / scale, dense(expected, "diagonal"))


def test_deadline_returns_at_once():
    rng = np.random.default_rng(3)
    _, history, converged = fit(
        rng.standard_normal((8, 8)), list(rng.standard_normal((5, 8))), deadline=time.monotonic()
    )
    assert len(history) == 1
    assert not converged


def test_equations_that_are_not_positive_definite_give_no_step():
    """Rounding makes such of those that are singular; more damping is the answer."""
    chain = DiagonalForms.from_vectors([np.ones(2)], "diagonal", real=True)
    assert _step(chain, np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2), 1e-3) is None
