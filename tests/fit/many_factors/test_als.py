"""Alternating least squares over the factors: every step exact, the error never rises, limits and refusals."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat import fit_cdd
from structmat.fit._many_factors import als, levenberg_marquardt
from structmat.fit._many_factors.als import _solved, best_factors
from structmat.fit._many_factors.descent import descend
from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.operators._cdd import CDDProduct

FIRSTS = st.sampled_from(["diagonal", "circulant"])


def gaussian(rng, shape, real):
    x = rng.standard_normal(shape)
    return x if real else x + 1j * rng.standard_normal(shape)


def dense(vectors, first):
    return np.asarray(CDDProduct.from_vectors(*vectors, first=first).to_dense())


def derivative(vectors, first, k):
    """The dense product is linear in factor `k`: its matrix, column by column."""
    columns = [dense([*vectors[:k], e, *vectors[k + 1 :]], first).ravel() for e in np.eye(len(vectors[k]))]
    return np.array(columns).T


@st.composite
def problems(draw):
    n, n_factors, first, real = draw(st.integers(1, 7)), draw(st.integers(1, 6)), draw(FIRSTS), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return gaussian(rng, (n, n), real), list(gaussian(rng, (n_factors, n), real)), first, real


@settings(max_examples=40, deadline=None)
@given(problems())
def test_every_step_is_the_exact_minimiser_of_its_factor(problem):
    W, vectors, first, real = problem
    n_factors = len(vectors)
    order = [*range(n_factors), *range(n_factors - 2, -1, -1)]
    error = np.linalg.norm(W - dense(vectors, first))
    chains = list(best_factors(W, DiagonalForms.from_vectors(vectors, first, real=real)))
    assert len(chains) == len(order)
    previous = vectors
    for k, chain in zip(order, chains, strict=True):
        now = chain.to_vectors()
        for j in range(n_factors):
            if j != k:
                np.testing.assert_allclose(now[j], previous[j], rtol=1e-9, atol=1e-12 * np.abs(now[j]).max())
        residual = W - dense(now, first)
        J = derivative(now, first, k)
        gradient = J.conj().T @ residual.ravel()
        assert np.linalg.norm(gradient) <= 1e-6 * np.linalg.norm(J) * np.linalg.norm(W)
        assert np.linalg.norm(residual) <= error * (1 + 1e-9) + 1e-13 * np.linalg.norm(W)
        error, previous = np.linalg.norm(residual), now


@settings(max_examples=25, deadline=None)
@given(problems(), st.integers(0, 5))
def test_error_never_rises_and_is_the_true_one(problem, iterations):
    W, vectors, first, _ = problem
    seen = []
    found, history, _ = descend(
        als.steps, W, vectors, first, max_iter=iterations, tol=0.0, report=lambda k, e: seen.append((k, e))
    )
    assert (np.diff(history) <= 0).all()
    assert seen == list(enumerate(history))[1:]
    assert len(history) <= iterations + 1
    assert np.linalg.norm(W - dense(found, first)) == pytest.approx(history[-1] * np.linalg.norm(W), abs=1e-9)


@pytest.mark.parametrize("first", ["diagonal", "circulant"])
@pytest.mark.parametrize("real", [True, False])
def test_a_gaussian_perturbation_of_a_product_is_undone(first, real):
    rng = np.random.default_rng(3)
    vectors = gaussian(rng, (3, 12), real)
    start = list(vectors + 0.01 * gaussian(rng, vectors.shape, real))
    _, history, _ = descend(als.steps, dense(list(vectors), first), start, first, max_iter=3000, tol=1e-9)
    assert history[0] > 1e-3
    assert history[-1] < 1e-9


def test_extreme_scales_and_zero_factors():
    rng = np.random.default_rng(4)
    W = rng.standard_normal((6, 6))
    vectors = rng.standard_normal((3, 6))
    plain = descend(als.steps, W, list(vectors), "diagonal", max_iter=20, tol=0.0)[1]
    scaled = vectors * np.array([1e250, 1.0, 1.0])[:, None]
    history = descend(als.steps, W * 1e250, list(scaled), "diagonal", max_iter=20, tol=0.0)[1]
    assert history == pytest.approx(plain, rel=1e-9)
    dead = [vectors[0], np.zeros(6), np.zeros(6)]
    found, history, converged = descend(als.steps, W, dead, "diagonal", max_iter=20, tol=1e-9)
    assert np.isfinite(found).all()
    assert history[-1] == 1.0
    assert converged


def test_ends_where_levenberg_marquardt_finds_nothing_to_do():
    rng = np.random.default_rng(5)
    W = gaussian(rng, (10, 10), real=False)
    vectors, history, converged = descend(
        als.steps, W, list(gaussian(rng, (5, 10), real=False)), "diagonal", max_iter=20000, tol=1e-9
    )
    assert converged
    _, polished, _ = descend(levenberg_marquardt.steps, W, vectors, "diagonal", max_iter=30, tol=1e-12)
    assert polished[-1] == pytest.approx(history[-1], rel=1e-4)


def test_gram_matrices_that_rounding_made_indefinite():
    x = _solved(np.diag([1.0, -1e-3, 2.0]), np.array([1.0, 0.0, 4.0]), np.array([5.0, 7.0, 0.0]))
    np.testing.assert_allclose(x, [1.0, 7.0, 2.0])


def test_no_iteration_begins_after_the_deadline():
    rng = np.random.default_rng(6)
    W, vectors = rng.standard_normal((8, 8)), list(rng.standard_normal((5, 8)))
    _, history, converged = descend(als.steps, W, vectors, "diagonal", max_iter=100, tol=0.0, deadline=time.monotonic())
    assert len(history) == 1
    assert not converged


def test_the_deadline_cuts_an_iteration_short():
    rng = np.random.default_rng(6)
    W, vectors = rng.standard_normal((8, 8)), list(rng.standard_normal((5, 8)))
    chain = DiagonalForms.from_vectors(vectors, "diagonal", real=True)
    start, cut = itertools.islice(als.steps(W, chain, time.monotonic()), 2)
    start, whole = itertools.islice(als.steps(W, chain), 2)
    assert start.error > cut.error > whole.error
    assert not cut.stationary


def test_as_a_solver_of_fit_cdd():
    W = np.random.default_rng(7).standard_normal((16, 16))
    fits = [fit_cdd(W, n, solver="als", rng=0, max_iter=200, restarts=2) for n in (1, 2, 3, 5)]
    assert [fit.solver for fit in fits] == ["als"] * 4
    assert fits[0].error >= fits[2].error >= fits[3].error
    assert fits[2].error == pytest.approx(fit_cdd(W, 3, rng=0).error, rel=0.02)
    longer = fit_cdd(W, 5, solver="als", start=fits[3], max_iter=20, rng=0)
    assert longer.error <= fits[3].error


def test_refusals():
    with pytest.raises(ValueError, match=r'fit_cdd: solver must not be "als" beyond a side of 512 but for .*, got 513'):
        fit_cdd(np.eye(513), 5, solver="als")
    with pytest.raises(ValueError, match='fit_cdd: solver must not be "als" with input_second_moment'):
        fit_cdd(np.eye(4), 5, solver="als", input_second_moment=np.ones(4))
