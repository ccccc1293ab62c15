"""The error that a fit reports is the error of its products, which go through transforms, whatever the matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat import error_curve, fit_cdd
from structmat.fit._matrices import product_error
from structmat.operators import CDDProduct
from tests.fit.matrices import matrix_of

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
KINDS = ["normal", "heavier tails", "sparse", "banded", "permutation", "two scales"]

# Rounding of products of a fit, relative to norm(W): what fits allow at most, times log2 of the side.
ACCURACY = {4: 1e-5, 8: 1e-12}


def errors(W, operator, mask=None, inputs=None):
    """Errors through products and of the entries, and the difference of the two products."""
    exact = W.astype(np.result_type(W.dtype, np.float64))
    mask = np.ones(W.shape) if mask is None else mask
    X = np.eye(W.shape[1]) if inputs is None else inputs
    P = np.asarray(operator @ np.eye(W.shape[1], dtype=W.dtype)).astype(exact.dtype)
    D = np.asarray(operator.to_dense()).astype(exact.dtype)
    sizes = [float(np.linalg.norm(np.sqrt(mask) * Y @ X)) for Y in (exact - P, exact - D, P - D)]
    return np.array(sizes) / float(np.linalg.norm(np.sqrt(mask) * exact @ X))


def check(W, fit, mask=None, inputs=None, allowed=1.0):
    through, dense, difference = errors(W, fit.operator, mask, inputs)
    bound = allowed * ACCURACY[W.real.dtype.itemsize] * np.log2(2 * max(W.shape))
    assert through == pytest.approx(fit.error, rel=1e-9, abs=0.1 * bound)
    assert difference <= bound
    assert dense == pytest.approx(fit.error, rel=1e-9, abs=bound)
    assert fit.history[-1] == fit.error
    assert (np.diff(fit.history) <= 0.0).all()


@st.composite
def problems(draw):
    shape = draw(st.tuples(st.integers(2, 24), st.integers(2, 24)))
    dtype = draw(st.sampled_from(DTYPES))
    block_size = draw(st.just("min") | st.integers(1, max(shape)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    W = matrix_of(kind := draw(st.sampled_from(KINDS)), shape, dtype, rng)
    W[0, 0] = 1.0 if kind in {"sparse", "permutation"} else W[0, 0]  # so that W is not zero
    return W, block_size, rng


@settings(max_examples=20, deadline=None)
@given(problem=problems())
def test_any_matrix(problem):
    W, block_size, _ = problem
    check(W, fit_cdd(W, block_size=block_size, rng=0, restarts=2))


@settings(max_examples=8, deadline=None)
@given(problem=problems(), share=st.sampled_from([0.1, 0.3, 0.9]), graded=st.booleans())
def test_any_mask(problem, share, graded):
    W, block_size, rng = problem
    M = (rng.random(W.shape) < share) * (rng.random(W.shape) ** 4 if graded else 1.0)
    i, j = np.unravel_index(np.argmax(np.abs(W)), W.shape)
    M[i, j] = 1.0
    fit = fit_cdd(W, entry_weights=M, block_size=block_size, rng=0, restarts=2)
    # Products of entries that count for little are right to the same share of the whole.
    check(W, fit, mask=M, allowed=np.sqrt(M.size / M.sum()))


@settings(max_examples=8, deadline=None)
@given(problem=problems(), decades=st.sampled_from([0.0, 3.0, 8.0]))
def test_any_weights_of_columns(problem, decades):
    W, block_size, rng = problem
    weights = 10.0 ** rng.uniform(-decades, 0.0, W.shape[1])
    weights[np.argmax(np.abs(W).max(axis=0))] = 1.0
    fit = fit_cdd(W, input_second_moment=weights, block_size=block_size, rng=0, restarts=2)
    check(W, fit, inputs=np.diag(np.sqrt(weights)))


def permutation(n, seed=0):
    return np.eye(n)[np.random.default_rng(seed).permutation(n)]


@pytest.mark.parametrize("n", [64, 256])
def test_permutations(n):
    check(permutation(n), fit_cdd(permutation(n), rng=0))


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_the_largest_entries_of_a_weight_change(share):
    W = np.load("docs/examples/data/minilm_banking77_l3_value.npy")
    W = np.where(np.abs(W) >= np.quantile(np.abs(W), 1 - share), W, 0)
    check(W, fit_cdd(W, rng=0))


def test_few_entries():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((128, 128)) * (rng.random((128, 128)) < 0.05)
    check(W, fit_cdd(W, rng=0))


@pytest.mark.parametrize(("dtype", "share"), [(np.float64, 0.1), (np.float32, 0.3)])
def test_missing_entries(dtype, share):
    rng = np.random.default_rng(0)
    W, mask = rng.standard_normal((64, 64)).astype(dtype), rng.random((64, 64)) < share
    check(W, fit_cdd(W, entry_weights=mask, rng=0), mask=mask, allowed=1 / np.sqrt(share))


def test_missing_entries_may_be_out_of_the_range_of_half_precision():
    rng = np.random.default_rng(0)
    vectors = rng.uniform(0.5, 2.0, (3, 4))
    vectors[:, 1] *= 300.0
    operator = CDDProduct.from_vectors(*vectors.astype(np.float16))
    with np.errstate(over="ignore"):
        product = np.asarray(operator @ np.eye(4, dtype=np.float16)).astype(float)
    missing = ~np.isfinite(product)
    assert missing.any()
    assert not missing.all()
    M = np.where(missing, 0.0, rng.uniform(0.1, 1.0, (4, 4)))
    W = np.where(missing, 0.0, product * rng.uniform(0.5, 2.0, (4, 4)))
    lost = np.sum(M[~missing] * (W - product)[~missing] ** 2) / np.sum(M * W**2)
    error = product_error(operator, np.zeros((4, 4), np.float16), W, entry_weights=M)
    assert error == pytest.approx(np.sqrt(lost), rel=1e-9)


@pytest.mark.parametrize(("shape", "block_size"), [((24, 16), "min"), ((32, 32), 8), ((64, 32), "min")])
def test_single_precision(shape, block_size):
    for seed in (0, 1, 8, 11):  # of twelve, those that lost most
        W = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        check(W, fit_cdd(W, block_size=block_size, rng=0))


@pytest.mark.parametrize("n_factors", [4, 5, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_factors(n_factors, dtype):
    for W in (permutation(24), np.random.default_rng(1).standard_normal((24, 24))):
        fit = fit_cdd(W.astype(dtype), n_factors, rng=0, max_iter=150, restarts=1)
        check(W.astype(dtype), fit)


@pytest.mark.parametrize("n_factors", [3, 5])
def test_second_moments(n_factors):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((20, 40)) * np.geomspace(1, 1e-3, 20)[:, None]
    W = permutation(20)
    check(W, fit_cdd(W, n_factors, input_second_moment=X @ X.T, rng=0, max_iter=150, restarts=1), inputs=X)


def test_rectangles_of_several_blocks_and_five_factors():
    W = permutation(32)[:24]
    check(W, fit_cdd(W, 5, block_size=8, rng=0, max_iter=150, restarts=1))


def test_curves():
    curve = error_curve(permutation(20), n_factors=[3, 5, 7], rng=0, max_iter=200, restarts=1)
    for result in curve.results:
        check(permutation(20), result)


def test_a_start_of_wide_range_is_not_taken_for_a_good_fit():
    """Its entries have an error of 0.82, its products none that is worth the name."""
    rng, n = np.random.default_rng(3), 32
    a, b = (10.0 ** rng.uniform(-12, 12, n) for _ in range(2))
    start = CDDProduct.from_vectors(a, rng.standard_normal(n), b)
    W = rng.standard_normal((n, n))
    fit, plain = fit_cdd(W, start=start, rng=0), fit_cdd(W, rng=0)
    check(W, fit)
    assert fit.error <= plain.error + 1e-6


def bidiagonal(n, decades):
    """A bidiagonal matrix whose diagonals make wide detours."""
    d = np.geomspace(1.0, 10.0**decades, n)
    c = np.zeros(n)
    c[:2] = 1.0, 0.3
    return CDDProduct.from_vectors(d, c, 1 / d)


def test_a_start_whose_products_are_accurate_enough_is_kept():
    start = bidiagonal(16, 6)
    fit = fit_cdd(start.to_dense(), start=start, rng=0, max_iter=1)
    assert fit.start == "warm start"
    assert fit.error < 1e-9


@pytest.mark.parametrize("shape", [(8, 8), (6, 9)])
def test_a_real_start_of_a_complex_fit(shape):
    rng = np.random.default_rng(5)
    W = rng.standard_normal(shape)
    start = fit_cdd(W, rng=0)
    for wide in (W + 0.1j * rng.standard_normal(shape), (W + 0.1j * W).astype("complex64")):
        fit = fit_cdd(wide, start=start, rng=0)
        assert fit.error <= errors(wide, start.operator)[1] + 1e-6
        assert fit.operator.dtype == wide.dtype


def test_a_start_whose_products_lose_digits_is_measured_by_its_products():
    start = bidiagonal(16, 10)
    W = start.to_dense()
    fit = fit_cdd(W, start=start, rng=0, max_iter=1)
    through, dense, difference = errors(W, fit.operator)
    assert dense < 1e-3 * difference
    assert through == pytest.approx(fit.error, rel=0.1)
