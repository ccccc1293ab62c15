"""Weighted fits: the error that counts is the one of the layer's output."""

import numpy as np
import pytest

from structmat.fit import fit_cdd
from structmat.operators import CDDProduct
from tests.cases import in_one_test

QUICK = {"max_iter": 100, "restarts": 1, "rng": 4}
N = 8


def problem(kind, *, real, seed=0):
    """A matrix and second moments of inputs of unequal directions."""
    rng = np.random.default_rng(seed)
    W, X = (rng.standard_normal((N, size)) for size in (N, 40))
    if not real:
        W, X = W + 1j * rng.standard_normal(W.shape), X + 1j * rng.standard_normal(X.shape)
    X = X * np.logspace(0, -2, N)[:, None]
    if kind == "vector":
        return W, np.mean(np.abs(X) ** 2, axis=1)
    if kind == "singular":
        X = X[:, :5]
    return W, X @ X.conj().T / X.shape[1]


def weighted_error(W, P, weights):
    S = np.diag(weights) if weights.ndim == 1 else weights

    def norm(R):
        return np.sqrt(np.trace(R @ S @ R.conj().T).real)

    return norm(W - np.asarray(P)) / norm(W)


@pytest.mark.parametrize("kind", ["vector", "full", "singular"])
@pytest.mark.parametrize("n_factors", [2, 3, 5])
@pytest.mark.parametrize("real", [True, False])
def test_never_worse_than_without_weights(kind, n_factors, real):
    W, S = problem(kind, real=real)
    fit, plain = (fit_cdd(W, n_factors, input_second_moment=weights, **QUICK) for weights in (S, None))
    assert fit.error == pytest.approx(weighted_error(W, fit.operator.to_dense(), S), rel=1e-5, abs=1e-6)
    assert fit.error < weighted_error(W, plain.operator.to_dense(), S)
    if n_factors > 2:
        assert fit.error <= fit_cdd(W, n_factors - 2, input_second_moment=S, **QUICK).error


def test_more_factors_are_never_worse_than_three_under_weights_of_columns():
    rng, n = np.random.default_rng(0), 12
    heavy = np.arange(n) < 9  # columns of a product of three, beside others that hide it from a fit without weights
    three = np.asarray(CDDProduct.from_vectors(*rng.standard_normal((3, n))).to_dense())
    W, weights = np.where(heavy, three, 10 * rng.standard_normal((n, n))), np.where(heavy, 1.0, 1e-8)
    options = {"input_second_moment": weights, "max_iter": 2, "restarts": 1, "rng": 0}
    short, long = (fit_cdd(W, n_factors, **options).error for n_factors in (3, 5))
    assert long <= short * (1 + 1e-9)


@in_one_test("kind", ["vector", "full", "singular"])
@in_one_test("real", [True, False])
def test_never_worse_than_weighted_rank_one_whatever_the_time(kind, real):
    W, S = problem(kind, real=real)
    values, vectors = np.linalg.eigh(np.diag(S) if S.ndim == 1 else S)
    singular = np.linalg.svdvals(W @ vectors * np.sqrt(np.maximum(values, 0)))
    rank_one = np.sqrt(np.sum(singular[1:] ** 2) / np.sum(singular**2))
    for n_factors in (3, 4, 5):
        assert fit_cdd(W, n_factors, input_second_moment=S, rng=4, time_limit=0.0).error <= rank_one + 1e-9


def test_weak_directions_in_single_precision_count():
    """A product left free in them could do there what it likes, and the error would not tell."""
    rng = np.random.default_rng(3)
    W, (basis, _) = rng.standard_normal((64, 64)), np.linalg.qr(rng.standard_normal((64, 64)))
    S = ((basis * np.where(np.arange(64) == 0, 1.0, 5e-5)) @ basis.T).astype(np.float32)
    S = (S + S.T) / 2
    fit = fit_cdd(W, 3, input_second_moment=S, **QUICK)
    assert fit.error == pytest.approx(weighted_error(W, fit.operator.to_dense(), S.astype(np.float64)), rel=1e-4)


@pytest.mark.parametrize("n_factors", [1, 3, 4])
def test_equal_weights_are_none(n_factors):
    W, _ = problem("full", real=True)
    plain = fit_cdd(W, n_factors, **QUICK)
    for weights in (np.full(N, 3.0), 3.0 * np.eye(N)):
        fit = fit_cdd(W, n_factors, input_second_moment=weights, **QUICK)
        assert fit.error <= plain.error + 1e-9
        assert fit.error == pytest.approx(plain.error, rel=0.05)


@pytest.mark.parametrize("shape", [(8, 8), (7, 12)])
def test_weights_of_columns_are_taken_up_by_the_last_diagonal(shape):
    rng = np.random.default_rng(3)
    W, s = rng.standard_normal(shape), np.append(rng.uniform(0.1, 2.0, shape[1] - 2), [0.0, 0.0])
    fit = fit_cdd(W, 3, input_second_moment=s, rng=4)
    assert fit.error == pytest.approx(weighted_error(W, fit.operator.to_dense(), s), rel=1e-9)
    assert not fit.operator.factors[-1].d[-2:].any()
    assert fit.error <= 1.02 * fit_cdd(W, 3, input_second_moment=np.diag(s), rng=4).error


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_columns_without_weight_are_zero_in_any_precision(dtype):
    W = np.random.default_rng(3).standard_normal((8, 8)).astype(dtype)
    fit = fit_cdd(W, 3, input_second_moment=np.append(np.linspace(0.1, 2.0, 6), [0.0, 0.0]), **QUICK)
    assert np.isfinite(fit.operator.to_dense()).all()
    assert not fit.operator.to_dense()[:, -2:].any()


def test_a_vector_is_the_diagonal():
    W, s = problem("vector", real=True)
    vector, matrix = (fit_cdd(W, 2, input_second_moment=weights, rng=4).error for weights in (s, np.diag(s)))
    assert vector == pytest.approx(matrix, rel=1e-4)


def test_the_weighted_diagonal_is_least_squares():
    W, S = problem("full", real=True)
    fit = fit_cdd(W, 1, input_second_moment=S, tol=1e-14, rng=4)
    expected = np.diag(W @ S) / np.diag(S)
    assert np.diag(fit.operator.to_dense()) == pytest.approx(expected, rel=1e-4)


def test_directions_without_weight_do_not_count():
    """Weights of rank one ask for one product with a vector, which two factors reproduce."""
    W, _ = problem("full", real=True)
    x = np.random.default_rng(1).standard_normal(N)
    fit = fit_cdd(W, 2, input_second_moment=np.outer(x, x), rng=4)
    assert fit.operator @ x == pytest.approx(W @ x, abs=1e-4 * np.linalg.norm(W @ x))


@pytest.mark.parametrize("n_factors", [1, 3, 4])
def test_a_real_matrix_sees_the_real_part_of_a_complex_moment(n_factors):
    W, S = problem("full", real=True)[0], problem("full", real=False)[1]
    fit, plain = (fit_cdd(W, n_factors, input_second_moment=moment, **QUICK) for moment in (S, S.real))
    assert fit.operator.dtype == np.float64
    assert fit.error == pytest.approx(weighted_error(W, fit.operator.to_dense(), S), rel=1e-9)
    assert fit.error == pytest.approx(plain.error, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_scale_of_the_weights_does_not_matter(scale):
    W, S = problem("full", real=True)
    assert fit_cdd(W, 2, input_second_moment=S * scale, **QUICK).error == pytest.approx(
        fit_cdd(W, 2, input_second_moment=S, **QUICK).error
    )


def test_weights_under_which_the_matrix_vanishes():
    W = np.diag([1.0, 2.0, 0.0])
    fit = fit_cdd(W, 5, input_second_moment=[0.0, 0.0, 1.0])
    assert fit.error == 0.0
