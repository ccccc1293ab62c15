"""Fits with a weight for every entry: dense formulas, what they must never be worse than, recovery, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat import fit_cdd
from structmat.fit._alternation import iteration, with_best_circulant
from structmat.fit._block_grid import BlockGrid, Factors, residual_norm2
from tests.cases import in_one_test
from tests.fit.matrices import dense_of_grid, normal, planted


def weighted_norm(M, R):
    return np.sqrt(np.sum(M * np.abs(R) ** 2))


@st.composite
def problems(draw):
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    m, real = draw(st.integers(1, max(rows, cols))), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    M = rng.random((rows, cols)) * (rng.random((rows, cols)) > draw(st.sampled_from([0.0, 0.3, 0.8])))
    M[0, 0] = 1.0
    return rng, normal(rng, (rows, cols), real=real), M, m, real


@settings(max_examples=40, deadline=None)
@given(problems())
def test_every_step_is_stationary_and_residuals_are_those_of_dense_formulas(problem):
    rng, W, M, m, real = problem
    W = np.where(M > 0, W, 0)
    grid = BlockGrid(W, m, M)
    start = Factors(*(normal(rng, s, real=real) for s in ((grid.p, m), (grid.p, grid.q, m), (grid.q, m))))
    a, b = start.a * grid.rows_present, start.b * grid.cols_present
    c = with_best_circulant(grid, a, b).c
    scale = 2.0**-grid.exponent
    M = M / M.max()

    def objective(factors):
        return weighted_norm(M, W * scale - dense_of_grid(factors, W.shape)) ** 2

    best = objective((a, c, b))
    for _ in range(3):
        other = c + 0.1 * normal(rng, c.shape, real=real)
        assert best <= objective((a, other, b)) + 1e-12
    factors, residual = iteration(grid, c, b)
    assert objective(factors) <= best + 1e-12
    assert residual == pytest.approx(objective(factors), abs=1e-12)
    assert residual_norm2(grid, factors) == pytest.approx(residual, abs=1e-12)
    for _ in range(3):
        other = factors.b + 0.1 * normal(rng, factors.b.shape, real=real)
        assert objective(factors) <= objective((factors.a, factors.c, other)) + 1e-12


@settings(max_examples=25, deadline=None)
@given(problems())
def test_error_is_the_weighted_one_and_never_above_closed_forms(problem):
    _, W, M, m, _ = problem
    result = fit_cdd(np.where(M > 0, W, np.nan), entry_weights=M, block_size=m, rng=0, max_iter=30, restarts=1)
    norm = weighted_norm(M, W)
    P = np.asarray(result.operator.to_dense())
    assert result.error == pytest.approx(weighted_norm(M, W - P) / norm, abs=1e-8)
    assert (np.diff(result.history) <= 1e-14).all()
    i, j = np.indices(W.shape)
    grid = tuple(-(-side // m) for side in W.shape)
    label = np.ravel_multi_index((i // m, j // m, (i - j) % m), (*grid, m))
    weights, sums = np.zeros((2, label.max() + 1), dtype=W.dtype)
    np.add.at(weights, label, M)
    np.add.at(sums, label, M * W)
    circulants = np.divide(sums, weights, out=np.zeros_like(sums), where=weights != 0)[label]
    for form in (circulants, np.where(i == j, W, 0)):
        assert result.error <= weighted_norm(M, W - form) / norm + 1e-9


@in_one_test("real", [True, False])
@pytest.mark.parametrize(("shape", "m"), [((32, 32), 32), ((64, 64), 64), ((40, 60), 20), ((48, 96), 48)])
def test_planted_product_comes_back_with_thirty_percent_missing(shape, m, real):
    rng = np.random.default_rng(5)
    P, _ = planted("normal" if real else "complex normal", rng, shape, m)
    mask = rng.random(shape) > 0.3
    result = fit_cdd(np.where(mask, P, np.nan), entry_weights=mask, block_size=m, rng=0)
    assert result.error < 1e-9
    assert np.linalg.norm(result.operator.to_dense() - P) < 1e-6 * np.linalg.norm(P)


def test_real_weights_count():
    rng = np.random.default_rng(6)
    W = planted("normal", rng, (32, 32))[0] + rng.standard_normal((32, 32))
    M = rng.uniform(0.01, 1.0, W.shape) ** 4
    weighted, plain = fit_cdd(W, entry_weights=M, rng=0), fit_cdd(W, rng=0)
    error = weighted_norm(M, W - plain.operator.to_dense()) / weighted_norm(M, W)
    assert weighted.error < error


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_mean_square_of_the_entries_is_one_of_weights(scale):
    """So that what rounding is measured by does not shrink with the weights: here all squares are one."""
    rng = np.random.default_rng(0)
    M = rng.random((6, 7)) * (rng.random((6, 7)) > 0.3)
    grid = BlockGrid(np.where(M > 0, rng.choice([-1.0, 1.0], M.shape), 0), 4, scale * M)
    assert grid.mean_norm2 == pytest.approx(M.size * 4.0**-grid.exponent)


def test_ones_change_nothing():
    W = np.random.default_rng(7).standard_normal((12, 18))
    fits = [fit_cdd(W, entry_weights=mask, rng=0) for mask in (None, np.ones(W.shape, bool), np.full(W.shape, 3))]
    assert [fit.error for fit in fits] == pytest.approx([fits[0].error] * 3, rel=1e-5)


def test_scale_of_weights_does_not_matter_and_single_precision_works():
    rng = np.random.default_rng(8)
    W, M = rng.standard_normal((2, 10, 10))
    M = np.abs(M)
    error = fit_cdd(W, entry_weights=M, rng=0).error
    assert fit_cdd(W, entry_weights=M * 1e200, rng=0).error == pytest.approx(error)
    low = fit_cdd(W.astype(np.float32), entry_weights=M, rng=0)
    assert low.error == pytest.approx(error, rel=1e-3)
    assert low.operator.dtype == np.float32


def test_missing_rows_and_observed_zeros():
    W = np.full((6, 6), np.nan)
    W[2:, :] = 0.0
    result = fit_cdd(W, entry_weights=~np.isnan(W), rng=0)
    assert result.error == 0.0
    assert not result.operator.to_dense().any()
    W[2:, :] = np.random.default_rng(0).standard_normal((4, 6))
    result = fit_cdd(W, entry_weights=~np.isnan(W), rng=0)
    assert np.isfinite(result.operator.to_dense()).all()
    assert result.error < 1.0


SQUARE = np.arange(16.0).reshape(4, 4)


@in_one_test(
    "options, message",
    [
        (
            {"entry_weights": np.ones((4, 3))},
            r"fit_cdd: entry_weights must have the shape of W, \(4, 4\), got \(4, 3\)",
        ),
        ({"entry_weights": -np.ones((4, 4))}, "fit_cdd: entry_weights must be finite and not negative"),
        ({"entry_weights": np.full((4, 4), np.nan)}, "fit_cdd: entry_weights must be finite"),
        ({"entry_weights": np.full((4, 4), np.inf)}, "fit_cdd: entry_weights must be finite"),
        ({"entry_weights": np.zeros((4, 4), bool)}, "fit_cdd: entry_weights must not be all zero"),
        ({"entry_weights": np.ones((4, 4)) * 1j}, "fit_cdd: entry_weights must be bool or real"),
        (
            {"entry_weights": np.ones((4, 4)), "input_second_moment": np.ones(4)},
            "fit_cdd: entry_weights must be None with input_second_moment",
        ),
        (
            {"entry_weights": np.ones((4, 4)), "n_factors": 5},
            "fit_cdd: entry_weights must be None except for three factors",
        ),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        fit_cdd(SQUARE, **options)


def test_observed_entries_must_be_finite():
    W = SQUARE.copy()
    W[1, 1] = np.nan
    with pytest.raises(ValueError, match="fit_cdd: W must be finite"):
        fit_cdd(W, entry_weights=np.ones((4, 4)))
