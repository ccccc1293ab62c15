"""Bad arguments are refused, by a message that names the function, the argument, what came and what was expected."""

import numpy as np
import pytest

from structmat.fit import fit_cdd

W = np.random.default_rng(0).standard_normal((4, 6))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex128])
def test_non_finite_entries(bad, dtype):
    matrix = W.astype(dtype)
    matrix[2, 3] = bad
    with pytest.raises(ValueError, match=r"fit_cdd: W must be finite, got NaN or infinity"):
        fit_cdd(matrix)


@pytest.mark.parametrize(
    "matrix", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(4), np.zeros((2, 2, 2)), [], [1.0], 3.0]
)
def test_not_a_matrix(matrix):
    with pytest.raises(ValueError, match=r"fit_cdd: W must be a non-empty matrix .* got shape \("):
        fit_cdd(matrix)


@pytest.mark.parametrize(
    "matrix", [[[1.0, 2.0], [3.0]], [["a", "b"]], [[None, 1.0]], np.array([["x"]]), np.array([[{}]])]
)
def test_not_numbers(matrix):
    with pytest.raises((TypeError, ValueError), match=r"fit_cdd: W must"):
        fit_cdd(matrix)


@pytest.mark.parametrize("n_factors", [0, 1, 2, 4, 5, -3])
def test_only_three_factors(n_factors):
    with pytest.raises(ValueError, match=rf"fit_cdd: n_factors must be 3.* got {n_factors}"):
        fit_cdd(W, n_factors)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"block_size": 0}, ValueError, r"fit_cdd: block_size must be at least 1, got 0"),
        ({"block_size": -2}, ValueError, r"fit_cdd: block_size must be at least 1, got -2"),
        ({"block_size": 7}, ValueError, r"fit_cdd: block_size must be at most .* 6, got 7"),
        ({"block_size": 2.0}, TypeError, r"fit_cdd: block_size must be an integer, got 2\.0"),
        ({"block_size": "4"}, TypeError, r"fit_cdd: block_size must be an integer, got '4'"),
        ({"max_iter": 0}, ValueError, r"fit_cdd: max_iter must be at least 1, got 0"),
        ({"max_iter": 1.5}, TypeError, r"fit_cdd: max_iter must be an integer, got 1\.5"),
        ({"tol": -1e-3}, ValueError, r"fit_cdd: tol must be finite and not negative, got -0\.001"),
        ({"tol": float("nan")}, ValueError, r"fit_cdd: tol must be finite and not negative, got nan"),
        ({"tol": "small"}, TypeError, r"fit_cdd: tol must be a number, got 'small'"),
        ({"callback": 3}, TypeError, r"fit_cdd: callback must be callable, got 3"),
        ({"rng": "seed"}, TypeError, r"fit_cdd: rng must be .*, got 'seed'"),
        ({"rng": -1}, ValueError, r"fit_cdd: rng must be .*, got -1"),
    ],
)
def test_options(arguments, error, message):
    with pytest.raises(error, match=message):
        fit_cdd(W, **arguments)


@pytest.mark.parametrize(
    "matrix", [[[1, 2], [3, 5]], np.array([[1, 2], [3, 5]]), np.array([[True, True], [False, False]])]
)
def test_integers_and_booleans_are_fitted_in_double_precision(matrix):
    fit = fit_cdd(matrix, rng=0)
    assert fit.operator.dtype == np.float64
    assert np.asarray(fit.operator.to_dense()) == pytest.approx(np.asarray(matrix, dtype=float), abs=1e-12)
