"""Bad arguments are refused, by a message that names the function, the argument, what came and what was expected."""

from pathlib import Path

import numpy as np
import pytest

from structmat import ArgumentError
from structmat.fit import error_curve, factorize_cdd, fit_cdd, fit_phase_masks
from structmat.operators import CDDProduct
from structmat.studies import sweep
from tests.cases import in_one_test

W = np.random.default_rng(0).standard_normal((4, 6))


@in_one_test("bad", [np.nan, np.inf, -np.inf])
@in_one_test("dtype", [np.float16, np.float32, np.float64, np.complex128])
def test_non_finite_entries(bad, dtype):
    matrix = W.astype(dtype)
    matrix[2, 3] = bad
    with pytest.raises(ValueError, match=r"fit_cdd: W must be finite, got NaN or infinity"):
        fit_cdd(matrix)


@in_one_test("matrix", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(4), np.zeros((2, 2, 2)), [], [1.0], 3.0])
def test_not_a_matrix(matrix):
    with pytest.raises(ValueError, match=r"fit_cdd: W must be a non-empty matrix .* got shape \("):
        fit_cdd(matrix)


@in_one_test("function", [fit_cdd, error_curve, factorize_cdd])
@in_one_test("batch", [(3,), (2, 3)])
def test_a_stack_is_told_to_come_one_by_one(function, batch):
    stack = np.ones((*batch, 4, 4))
    with pytest.raises(ValueError, match="of a stack pass one matrix after the other, such as W") as caught:
        function(stack)
    matrix = eval(str(caught.value).rpartition(" such as ")[2], {"W": stack})  # noqa: S307
    assert matrix.shape == (4, 4)


@pytest.mark.parametrize(
    "matrix", [[[1.0, 2.0], [3.0]], [["a", "b"]], [[None, 1.0]], np.array([["x"]]), np.array([[{}]])]
)
def test_not_numbers(matrix):
    with pytest.raises((TypeError, ValueError), match=r"fit_cdd: W must"):
        fit_cdd(matrix)


SQUARE = W[:, :4]


@in_one_test(
    "matrix, n_factors, block_size, message",
    [
        (SQUARE, 0, "min", "at least 1, got 0"),
        (SQUARE, -3, "min", "at least 1, got -3"),
        (W, 1, "min", "odd and at least 3"),
        (W, 6, "min", "odd and at least 3"),
        (SQUARE, 4, 2, "odd"),
        (SQUARE, 10**9, "min", r"at most 1,000 for a product of shape \(4, 4\), got 10{9}"),
    ],
)
def test_numbers_of_factors(matrix, n_factors, block_size, message):
    with pytest.raises(ValueError, match=f"fit_cdd: n_factors must be {message}"):
        fit_cdd(matrix, n_factors, block_size=block_size)


@in_one_test(
    "start, error, message",
    [
        ("random", TypeError, r"start must be a CDDProduct or a FitResult, got 'random'"),
        (CDDProduct.from_vectors(*np.ones((3, 5))), ValueError, r"start must have shape \(4, 4\), got \(5, 5\)"),
        (CDDProduct.from_vectors(*np.ones((7, 4))), ValueError, r"start must become a product of 5 .* got 7 factors"),
        (CDDProduct.from_vectors(*np.ones((5, 4)), first="circulant"), ValueError, r"start must .* got 6 factors"),
        (CDDProduct.from_vectors(*np.ones((3, 4)) * 1j), ValueError, r"start must be real where W is"),
        (CDDProduct.from_vectors(*np.ones((3, 4)) * np.nan), ValueError, r"start must be finite"),
        (CDDProduct.from_vectors(*np.ones((3, 2, 4))), ValueError, r"start must be one product, got a stack"),
        (
            CDDProduct.from_vectors(np.ones(4), np.ones((2, 2, 2)), np.ones(4), block=True),
            ValueError,
            r"start must have blocks of 4, got blocks of 2",
        ),
    ],
)
def test_bad_starts(start, error, message):
    with pytest.raises(error, match="fit_cdd: " + message):
        fit_cdd(SQUARE, 5, start=start)


@in_one_test(
    "weights, message",
    [
        (np.ones(3), r"must have shape \(4,\) or \(4, 4\), got \(3,\)"),
        (np.ones((4, 3)), r"must have shape"),
        (np.zeros(4), r"must not be zero"),
        (np.array([1.0, np.nan, 1.0, 1.0]), r"must be finite"),
        (np.array([1.0, -1e-3, 1.0, 1.0]), r"must be real and not negative"),
        (np.diag([1.0, -1e-3, 1.0, 1.0]), r"must be positive semi-definite, got the eigenvalue -0\.001"),
        (np.triu(np.ones((4, 4))), r"must be a symmetric"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match="fit_cdd: input_second_moment " + message):
        fit_cdd(SQUARE, 5, input_second_moment=weights)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"block_size": 0}, ValueError, r"fit_cdd: block_size must be at least 1, got 0"),
        ({"block_size": 99}, ValueError, r"fit_cdd: block_size must be at most rows \+ cols - 1 = \d+, got 99"),
        ({"block_size": 2.0}, TypeError, r"fit_cdd: block_size must be an integer, got 2\.0"),
        ({"block_size": True}, TypeError, "fit_cdd: block_size must be an integer, got True"),
        ({"max_iter": np.True_}, TypeError, "fit_cdd: max_iter must be an integer, got .*True"),
        ({"tol": False}, TypeError, "fit_cdd: tol must be a number, got False"),
        ({"block_size": "4"}, TypeError, r"fit_cdd: block_size must be an integer, \"min\" or \"toeplitz\", got '4'"),
        ({"max_iter": 0}, ValueError, r"fit_cdd: max_iter must be at least 1, got 0"),
        ({"max_iter": 1.5}, TypeError, r"fit_cdd: max_iter must be an integer, got 1\.5"),
        ({"tol": -1e-3}, ValueError, r"fit_cdd: tol must be finite and not negative, got -0\.001"),
        ({"tol": "small"}, TypeError, r"fit_cdd: tol must be a number, got 'small'"),
        pytest.param({"tol": 10**400}, ValueError, r"fit_cdd: tol must be finite", id="huge"),
        ({"time_limit": "60"}, TypeError, r"fit_cdd: time_limit must be a number, got '60'"),
        ({"restarts": -1}, ValueError, r"fit_cdd: restarts must be at least 0, got -1"),
        ({"time_limit": -1}, ValueError, r"fit_cdd: time_limit must be finite and not negative, got -1"),
        ({"callback": 3}, TypeError, r"fit_cdd: callback must be callable, got 3"),
        ({"rng": "seed"}, TypeError, r"fit_cdd: rng must be .*, got 'seed'"),
        ({"rng": -1}, ValueError, r"fit_cdd: rng must be .*, got -1"),
    ],
)
def test_options(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        fit_cdd(W, **arguments)
    assert isinstance(caught.value, ArgumentError)
    assert (caught.value.owner, caught.value.argument) == ("fit_cdd", *arguments)


@pytest.mark.parametrize(
    "matrix", [[[1, 2], [3, 5]], np.array([[1, 2], [3, 5]]), np.array([[True, True], [False, False]])]
)
def test_integers_and_booleans_are_fitted_in_double_precision(matrix):
    fit = fit_cdd(matrix, rng=0)
    assert fit.operator.dtype == np.float64
    assert np.asarray(fit.operator.to_dense()) == pytest.approx(np.asarray(matrix, dtype=float), abs=1e-12)


@pytest.mark.parametrize("n_factors", [3, 5])
def test_fits_whose_products_overflow_are_refused(n_factors):
    """Where the entries are near the largest number of their dtype a fit may have larger ones."""
    square = np.random.default_rng(0).standard_normal((16, 16))
    narrow = (6e4 * square).clip(-6.5e4, 6.5e4).astype(np.float16)
    with pytest.raises(ValueError, match="fit_cdd: W has a fit whose products overflow float16: use a wider dtype"):
        fit_cdd(narrow, n_factors, rng=0, max_iter=50, restarts=1)
    assert fit_cdd(narrow.astype(np.float32), n_factors, rng=0, max_iter=50, restarts=1).error < 0.9
    assert fit_cdd(narrow / np.float16(8), n_factors, rng=0, max_iter=50, restarts=1).error < 0.9


@in_one_test(
    "call, text",
    [
        (lambda: fit_cdd("W.npy"), "got 'W.npy': structmat.io.load_matrix reads files"),
        (lambda: error_curve(Path("W.npy"), [3]), "structmat.io.load_matrix reads files"),
        (lambda: fit_cdd(None), "W must hold numbers, got None"),
        (lambda: fit_cdd(np.full((4, 4), np.nan)), "entry_weights"),
        (lambda: fit_cdd(np.eye(4), seed=0), "unexpected keyword argument 'seed', did you mean 'rng'"),
        (lambda: fit_cdd(np.eye(4), n_factor=3), "'n_factor', did you mean 'n_factors'"),
        (lambda: error_curve(np.eye(4), [3], random_state=0), "'random_state', did you mean 'rng'"),
        (lambda: factorize_cdd(np.eye(4), n_factor=3), "'n_factor', did you mean 'n_factors'"),
        (lambda: fit_phase_masks(np.eye(4), 3, seed=0), "'seed', did you mean 'rng'"),
        (lambda: sweep([np.eye(400)], "out"), "layers must be a dict of matrices by name, got a list$"),
    ],
)
def test_errors_name_what_was_meant(call, text):
    with pytest.raises((TypeError, ValueError), match=text):
        call()


def test_entries_that_are_not_known_may_be_nan_where_they_have_no_weight():
    W = np.eye(4)
    W[0, 1] = np.nan
    assert fit_cdd(W, entry_weights=np.isfinite(W)).error < 1e-6
