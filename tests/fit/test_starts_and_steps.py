"""The parts under the fit: layout, closed-form steps, starting points."""

import numpy as np
import pytest

from structmat.fit._alternation import Run, _bounded_ratio, alternations, iteration, spread2, with_best_circulant
from structmat.fit._block_grid import BlockGrid, Factors, residual_norm2
from structmat.fit._closed_forms import CLOSED_FORMS
from structmat.fit._matrices import most_spread
from structmat.fit._synchronisation import shift_synchronisation_start
from structmat.fit._three_factor_search import _random_start
from tests.cases import in_one_test
from tests.fit.matrices import closed_form_errors, dense_of_grid, matrix_of, normal, planted

SHAPES = [((6, 6), 6), ((11, 17), 6), ((5, 9), 2), ((4, 7), 1), ((1, 5), 5), ((300, 310), 300)]
STARTS = [*CLOSED_FORMS.values(), shift_synchronisation_start, _random_start]


@pytest.fixture(params=SHAPES, ids=str)
def problem(request):
    shape, block_size = request.param
    W = np.random.default_rng(0).standard_normal(shape)
    return W, BlockGrid(W, block_size)


@pytest.mark.parametrize("bounds", [(0, None), (1, 4), (4, 4)])
@in_one_test("shape, block_size", [*SHAPES, ((2000, 600), 100)])
def test_chunks_cover_every_row_once(bounds, shape, block_size):
    grid = BlockGrid(np.ones(shape), block_size)
    start, stop = bounds[0], grid.m if bounds[1] is None else min(bounds[1], grid.m)
    count = np.zeros((grid.p, grid.m), dtype=int)
    for chunk in grid.chunks(start, stop):
        count[chunk] += 1
    expected = np.zeros_like(count)
    expected[:, start:stop] = 1
    assert np.array_equal(count, expected)


@pytest.mark.parametrize("start", STARTS)
def test_starts_and_iterations_tell_their_residual(problem, start):
    W, grid = problem
    factors = start(grid, np.random.default_rng(0))
    scaled = W / 2.0**grid.exponent
    assert residual_norm2(grid, factors) == pytest.approx(np.linalg.norm(scaled - dense_of_grid(factors, W.shape)) ** 2)
    before = residual_norm2(grid, factors)
    for _ in range(3):
        factors, residual = iteration(grid, factors.c, factors.b)
        direct = np.linalg.norm(scaled - dense_of_grid(factors, W.shape)) ** 2
        assert residual == pytest.approx(direct, rel=1e-9, abs=1e-12 * grid.norm2)
        assert residual <= before * (1 + 1e-12) + 1e-15
        before = residual


def test_an_iteration_ends_in_a_least_squares_solution(problem):
    """At the end of an iteration no change of the last vector lowers the residual, whatever the dynamic range."""
    _, grid = problem
    rng = np.random.default_rng(1)
    c = rng.standard_normal((grid.p, grid.q, grid.m)) * 10.0 ** rng.uniform(-9, 0, grid.m)
    factors, residual = iteration(grid, c, grid.cols_present * rng.standard_normal((grid.q, grid.m)))
    for _ in range(5):
        moved = factors._replace(b=factors.b * (1 + 1e-3 * rng.standard_normal(factors.b.shape)))
        assert residual_norm2(grid, moved) >= residual * (1 - 1e-9)


@pytest.mark.parametrize("real", [True, False])
@in_one_test("m", [5, 150])  # of the larger one the sums of weights are convolutions
def test_the_circulant_between_given_diagonals_is_the_nearest(real, m):
    rng = np.random.default_rng(0)
    grid = BlockGrid(normal(rng, (2 * m, 3 * m), real=real), m)
    a, b = normal(rng, (2, m), real=real), normal(rng, (3, m), real=real)
    found = with_best_circulant(grid, a, b)
    best = residual_norm2(grid, found)
    for _ in range(5):
        change = 1e-4 * normal(rng, found.c.shape, real=real)
        both = [residual_norm2(grid, found._replace(c=c)) for c in (found.c + change, found.c - change)]
        # Both are larger by the squared norm of the change of the product, and by nothing of first order.
        assert min(both) > best
        assert both[0] - both[1] == pytest.approx(0.0, abs=1e-6 * (both[0] - best))


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms_are_the_nearest(problem, name):
    W, grid = problem
    error = Run.begin(grid, CLOSED_FORMS[name](grid, np.random.default_rng(0))).error
    nearest = closed_form_errors(W, grid.m)[name]
    if name == "diagonal":
        assert error <= nearest * (1 + 1e-12)
    else:
        assert error == pytest.approx(nearest, rel=1e-9, abs=1e-12)


def test_rank_one_of_a_flat_spectrum():
    W = np.eye(300)[np.random.default_rng(0).permutation(300)]
    grid = BlockGrid(W, 300)
    error = Run.begin(grid, CLOSED_FORMS["rank-one"](grid, np.random.default_rng(0))).error
    assert error == pytest.approx(np.sqrt(1 - 1 / 300), rel=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "phases", "complex normal"])
@in_one_test("m", [1, 2, 3, 8, 31])
def test_synchronisation_alone_finds_a_product(kind, m):
    """Without padding the start is the product itself: phases and magnitudes are both exact."""
    W, _ = planted(kind, np.random.default_rng(m), (2 * m, 3 * m), m)
    grid = BlockGrid(W, m)
    assert Run.begin(grid, shift_synchronisation_start(grid, np.random.default_rng(0))).error < 1e-6


def test_scaling_moves_powers_of_two_only():
    rng = np.random.default_rng(0)
    factors = Factors(
        rng.standard_normal((1, 4)) * 1e-90, rng.standard_normal((1, 1, 4)) * 1e80, rng.standard_normal((1, 4))
    )
    scaled = factors.scaled(5)
    ratios = [y / x for x, y in zip(factors, scaled, strict=True)]
    assert all((np.frexp(r)[0] == 0.5).all() and np.ptp(np.log2(r)) == 0 for r in ratios)
    assert np.prod([r.flat[0] for r in ratios]) == 2.0**5
    sizes = [np.sqrt(np.mean(y**2)) for y in scaled]
    assert max(sizes) < 5 * min(sizes)


@in_one_test("share", [0.9, 0.3, 1e-3])
@in_one_test("real", [True, False])
def test_the_best_factor_under_a_bound_on_the_spread(real, share):
    """One multiplier of the spread makes the gradient vanish, and the bound is met."""
    rng = np.random.default_rng(0)
    numerator = normal(rng, (3, 7), real=real)
    denominator, weights = rng.uniform(0.1, 3.0, (3, 7)), rng.uniform(0.5, 2.0, 3)
    dtype = np.dtype(np.float64)
    free = _bounded_ratio(dtype, numerator, denominator, weights, np.inf)
    assert free == pytest.approx(numerator / denominator)
    limit = share * np.sum(weights[:, None] * np.abs(free) ** 2)
    x = _bounded_ratio(dtype, numerator, denominator, weights, limit)
    assert np.sum(weights[:, None] * np.abs(x) ** 2) == pytest.approx(limit, rel=1e-6)
    multipliers = (numerator - denominator * x) / (weights[:, None] * x)
    assert multipliers == pytest.approx(np.full((3, 7), multipliers[0, 0]), rel=1e-6)
    assert multipliers[0, 0].real > 0.0


def test_alternations_that_diverge_keep_the_bound_on_the_spread():
    """Without it the factors of sparse matrices grow until products in single precision mean nothing."""
    for seed in (1, 2):
        grid = BlockGrid(matrix_of("sparse", (9, 9), np.float32, np.random.default_rng(seed)), 9)
        run = Run.begin(grid, _random_start(grid, np.random.default_rng(0)))
        limit = most_spread(np.float32) ** 2 * grid.mean_norm2
        assert spread2(run.factors) < limit
        *_, last = alternations(grid, run, 100, 1e-12)
        # Both diverge: the factors grow up to the bound.
        assert spread2(last.factors) == pytest.approx(limit, rel=1e-6)
