"""Products near a truncated SVD: of rank two by five factors, in closed form, and of rank k by 2k + 3 factors."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from structmat.fit import fit_cdd
from structmat.fit._control import Control
from structmat.fit._low_rank_product import low_rank_product
from structmat.fit._low_rank_start import _columns_of_projector, _projector_circulants, low_rank_start
from structmat.fit._matrices import truncated_svd
from structmat.fit._problem import Problem
from structmat.fit._search import Candidate, Search
from structmat.operators import BlockCirculant, CDDLayout, CDDProduct
from tests.cases import in_one_test
from tests.fit.matrices import normal, relative, svd_error

EPS = np.finfo(np.float64).eps


@st.composite
def pairs(draw, least=3, most=40):
    """Two columns for either side: normal, with zeros, equal columns, equal rows or entries of few sizes."""
    rows, cols = draw(st.integers(least, most)), draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = []
    for side in (rows, cols):
        X = rng.standard_normal((side, 2))
        if draw(st.booleans()):
            X = X + 1j * rng.standard_normal((side, 2))
        match draw(st.sampled_from(["plain", "zero entries", "zero rows", "equal columns", "equal rows", "integers"])):
            case "zero entries":
                X[rng.random((side, 2)) < 0.4] = 0.0
            case "zero rows":
                X[rng.random(side) < 0.4] = 0.0
            case "equal columns":
                X[:, 1] = X[:, 0]
            case "equal rows":
                X[:] = X[0]
            case "integers":
                X = np.round(2.0 * X)
        sides.append(X * 10.0 ** draw(st.integers(-3, 3)))
    dtype = np.result_type(*sides)
    return sides[0].astype(dtype), sides[1].astype(dtype)


def condition(vectors):
    """How much larger the entries of the product of the moduli of the factors are than those of the product."""
    moduli = CDDProduct.from_vectors(*map(np.abs, vectors), block=vectors[1].ndim == 3).to_dense()
    product = CDDProduct.from_vectors(*vectors, block=vectors[1].ndim == 3).to_dense()
    return np.linalg.norm(moduli) / np.linalg.norm(product)


@given(pairs())
def test_any_square_matrix_of_rank_two(pair):
    n = min(map(len, pair))
    A, B = (X[:n] for X in pair)
    W = A @ B.T
    assume(W.any())
    vectors = low_rank_product(*truncated_svd(W, 2, np.random.default_rng(0)), n)
    assert all(v.dtype == W.dtype and np.isfinite(v).all() for v in vectors)
    op, size = CDDProduct.from_vectors(*(v.reshape(n) for v in vectors)), np.linalg.norm(W)
    assert condition(vectors) <= 20 * n
    assert np.linalg.norm(op.to_dense() - W) <= 100 * n * EPS * size
    assert np.linalg.norm(op @ np.eye(n) - W) <= 1000 * n * EPS * size


@given(pairs(), st.data())
def test_rectangles_of_rank_two(pair, data):
    A, B = pair
    W = A @ B.T
    assume(W.any())
    block_size = data.draw(st.integers(2, max(W.shape)))
    vectors = low_rank_product(*truncated_svd(W, 2, np.random.default_rng(0)), block_size)
    op = CDDProduct.from_vectors(*vectors, block=True)
    assert op.shape == W.shape
    left = W - op.to_dense()
    blocks = -(-min(W.shape) // block_size)
    whole = max(W.shape) // block_size
    # The recursion closes inside one block; of several, one row of each may be left.
    if W.shape[0] < W.shape[1]:
        left = left.T
    off = np.linalg.norm(left, axis=1) > 1000 * max(W.shape) * EPS * np.linalg.norm(W)
    assert off.sum() <= (whole if blocks == 1 and whole > 1 else 0)


def test_of_several_whole_blocks_one_row_of_each_may_be_left():
    rng = np.random.default_rng(0)
    for _ in range(5):
        A, B = rng.standard_normal((24, 2)), rng.standard_normal((8, 2))
        left = CDDProduct.from_vectors(*low_rank_product(A, B, 8), block=True).to_dense() - A @ B.T
        is_left = np.linalg.norm(left, axis=1) > 1e-10
        assert max(is_left.reshape(3, 8).sum(axis=1)) <= 1


@in_one_test("real", [True, False])
@in_one_test("tiny", [1e-100, 1e-170, 1e-300, 5e-324])
def test_rows_whose_squares_vanish(tiny, real):
    rng = np.random.default_rng(0)
    A, B = normal(rng, (2, 8, 2), real=real)
    A[1] *= tiny
    B[0] *= tiny
    op = CDDProduct.from_vectors(*low_rank_product(A, B, 8), block=True)
    np.testing.assert_allclose(op.to_dense(), A @ B.T, rtol=0, atol=1e-12)


@in_one_test("real", [True, False])
@in_one_test("shape", [(12, 21), (21, 12), (13, 13), (20, 9)])
def test_as_many_terms_as_the_smaller_side_has_blocks(shape, real):
    rng = np.random.default_rng(1)
    W = normal(rng, shape, real=real)
    block_size = 4
    blocks = -(-min(shape) // block_size)
    u, s, vh = np.linalg.svd(W)
    best = u[:, :blocks] * s[:blocks] @ vh[:blocks]
    vectors = low_rank_product(*truncated_svd(W, blocks, rng), block_size)
    assert np.allclose(CDDProduct.from_vectors(*vectors, block=True).to_dense(), best)


@pytest.mark.parametrize("n", [48, 384])
@pytest.mark.parametrize("real", [True, False])
def test_well_conditioned(n, real):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        A, B = normal(rng, (2, n, 2), real=real)
        vectors = low_rank_product(A, B, n)
        assert condition(vectors) <= 0.7 * n
        for c in (vectors[1], vectors[3]):
            assert np.abs(c).max() <= 20 * np.abs(c).min()


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [5, 300])
def test_truncated(n, real):
    rng = np.random.default_rng(n)
    W = normal(rng, (n, n + 1), real=real)
    inputs = rng.standard_normal((n + 1, n)).astype(W.dtype)
    for M in (None, inputs):
        seen = W if M is None else W @ M
        values = np.linalg.svd(seen, compute_uv=False)
        A, B = truncated_svd(seen, 2, rng, M)
        reached = np.linalg.norm(seen - A @ B.T @ (np.eye(n + 1) if M is None else M))
        assert reached == pytest.approx(np.linalg.norm(values[2:]), rel=1e-9)


@in_one_test(
    "shape, n_factors, how",
    [
        ((14, 14), 5, {}),
        ((14, 14), 6, {}),
        ((23, 12), 5, {}),
        ((10, 18), 7, {}),
        ((12, 12), 5, {"block_size": 5}),
        ((8, 15), 5, {"block_size": 12}),
    ],
)
@in_one_test("real", [True, False])
def test_fits_are_never_worse(shape, n_factors, how, real):
    """The matrix has rank two but for noise; no time is left for anything but closed forms."""
    rng = np.random.default_rng(2)
    A, B, noise = (normal(rng, size, real=real) for size in ((shape[0], 2), (shape[1], 2), shape))
    W = A @ B.T + 1e-3 * noise
    assert fit_cdd(W, n_factors, rng=0, time_limit=0.0, **how).error <= svd_error(W, 2) * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(24, 12), (10, 35)])
def test_fits_of_several_whole_blocks_leave_a_row_of_each_to_the_solver(shape):
    W = np.random.default_rng(4).standard_normal(shape)
    assert fit_cdd(W, 5, rng=0, max_iter=100, restarts=1).error <= svd_error(W, 2)


def test_weighted_fits_are_never_worse():
    rng = np.random.default_rng(3)
    W, M = rng.standard_normal((2, 12, 12))
    W = W[:, :2] @ W[:2] + 1e-3 * rng.standard_normal((12, 12))
    fit = fit_cdd(W, 5, input_second_moment=M @ M.T, rng=0, time_limit=0.0)
    assert fit.error <= svd_error(W @ M, 2) * (1 + 1e-6)


def nearly_of_rank(k, shape, *, real, noise=0.2):
    rng = np.random.default_rng(k)
    A, B, added = (normal(rng, size, real=real) for size in ((shape[0], k), (shape[1], k), shape))
    W = A @ B.T
    return W / np.linalg.norm(W) + noise * added / np.linalg.norm(added)


def last_start(W, n_factors, block_size="min", inputs=None):
    problem = Problem(W, CDDLayout(W.shape, n_factors, block_size), W.dtype, inputs)
    *_, vectors = low_rank_start(problem, np.random.default_rng(0), Control(5000, 1e-7))
    return CDDLayout(W.shape, len(vectors), block_size).product(vectors).to_dense()


@pytest.mark.parametrize(
    ("shape", "n_factors", "block_size", "k"),
    [
        ((24, 24), 9, "min", 3),
        ((24, 24), 10, "min", 3),
        ((25, 25), 11, "min", 4),
        ((30, 20), 11, "min", 3),
        ((20, 30), 11, "min", 3),
        ((24, 24), 7, 12, 3),
        ((16, 15), 9, 8, 4),
    ],
)
@pytest.mark.parametrize("real", [True, False])
def test_rank_k_by_two_k_and_three_factors(shape, n_factors, block_size, k, real):
    """In blocks fewer factors do: what counts is that each half has more numbers than equations."""
    W = nearly_of_rank(k, shape, real=real)
    P = last_start(W, n_factors, block_size)
    assert P.dtype == W.dtype
    assert relative(W, P) <= 1.01 * svd_error(W, k)


@pytest.mark.parametrize(("of_low_rank", "restarts", "count"), [(False, None, 1), (False, 0, 2), (True, None, 2)])
def test_where_random_products_explain_more_than_the_truncated_svd_there_is_no_start_near_it(
    of_low_rank, restarts, count
):
    """Rank three explains 0.4 of a Gaussian matrix of 20 rows, and nine factors from random products 0.8."""
    W = nearly_of_rank(3, (20, 20), real=True) if of_low_rank else normal(np.random.default_rng(0), (20, 20), real=True)
    problem = Problem(W, CDDLayout(W.shape, 9), W.dtype)
    control = Control(50, 1e-7, restarts)
    assert len(list(low_rank_start(problem, np.random.default_rng(0), control))) == count


@pytest.mark.parametrize("n_factors", [9, 11])
def test_a_matrix_of_lower_rank_than_the_factors_hold(n_factors):
    W = nearly_of_rank(3, (20, 20), real=False, noise=0.0)
    assert relative(W, last_start(W, n_factors)) <= 1e-6


def test_one_rank_more_where_the_next_singular_value_is_worth_it():
    W = nearly_of_rank(4, (32, 32), real=True)
    assert relative(W, last_start(W, 9)) <= 0.7 * svd_error(W, 3)


def test_second_moments_count():
    W, M = nearly_of_rank(4, (32, 32), real=True), np.diag(np.linspace(0.1, 3.0, 32))
    best = last_start(W, 11, inputs=M)
    assert relative(W @ M, best @ M) <= 1.05 * svd_error(W @ M, 4)


def test_fits_are_no_worse_than_rank_k_from_two_k_and_three_factors_on():
    W = nearly_of_rank(3, (20, 20), real=True)
    fits = [fit_cdd(W, n_factors, rng=0, restarts=0).error for n_factors in (9, 11)]
    assert fits[0] <= 1.01 * svd_error(W, 3)
    assert fits[1] <= fits[0]


@pytest.mark.parametrize(("explored", "polished"), [(0.99, 1), (1.04, 2), (1.06, 1)])
def test_what_was_read_off_does_not_keep_an_explored_product_that_is_close_from_its_polish(explored, polished):
    W = nearly_of_rank(3, (6, 6), real=True)
    problem = Problem(W, CDDLayout(W.shape, 5), W.dtype)
    search = Search(problem, Control(10, 1e-7), np.random.default_rng(0))
    found = [Candidate(name, np.zeros(30), error) for name, error in (("low-rank", 1.0), ("random", explored))]
    chosen = search._worth_a_polish(found)
    assert len(chosen) == polished
    assert min(one.error for one in chosen) == min(1.0, explored)


@in_one_test("dtype", [np.float64, np.complex128])
@in_one_test("blocks", [1, 2])
@in_one_test("k", [1, 2, 3, 4])
def test_the_circulants_in_the_middle_are_a_projector(k, blocks, dtype):
    E = _columns_of_projector(k, blocks, 8, np.dtype(dtype), diagonal=False)
    columns = E.reshape(-1, k)
    np.testing.assert_allclose(columns.conj().T @ columns, np.eye(k), atol=1e-13)
    middle = BlockCirculant(_projector_circulants(E)).to_dense()
    np.testing.assert_allclose(middle, columns @ columns.conj().T, atol=1e-13)
