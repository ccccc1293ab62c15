"""Limits count the processor's time: a longer one runs the same steps further, and none loses the closed forms."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from structmat.fit import fit_cdd
from tests.fit.matrices import closed_form_errors, matrix, planted, svd_error

LIMITS = (0, 60, 400, 3000)


@pytest.fixture(scope="module", autouse=True)
def a_processor_that_counts_the_readings_of_its_time():
    """Fits of one limit make the same steps whatever else goes on; on the clock hours go by meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "process_time", itertools.count().__next__)
        for clock in ("monotonic", "perf_counter"):
            patch.setattr(time, clock, itertools.count(step=10_000.0).__next__)
        yield


def fits(W, n_factors, **options):
    """Fits of rising limits, and what each reported before its end; what goes on then is to lose nothing."""
    for limit in LIMITS:
        seen = []
        fit = fit_cdd(W, n_factors, time_limit=limit, rng=3, callback=seen.append, **options)
        yield fit, [(s.start, s.phase, s.n_factors, s.iteration, s.error) for s in seen if s.remaining > 0]


def check(runs):
    for (fit, seen), (longer, more) in itertools.pairwise(runs):
        assert more[: len(seen)] == seen
        assert longer.error <= fit.error
    assert len(seen) < len(more)
    assert longer.error < runs[0][0].error
    assert longer.status == "time limit"


@settings(max_examples=3, deadline=None)
@given(n=st.integers(5, 12), n_factors=st.sampled_from([2, 4, 5, 7]), real=st.booleans(), seed=st.integers(0, 2**16))
def test_square_matrices(n, n_factors, real, seed):
    assume(n_factors <= n)  # with more some product is the matrix, and a fit that finds it is complete
    check([*fits(matrix(n, real=real, seed=seed), n_factors)])


def error(W, n_factors, limit):
    return fit_cdd(W, n_factors, time_limit=limit, rng=3).error


@st.composite
def problems(draw):
    """A matrix, a number of factors, how they are fitted, and errors of products in closed form that there are."""
    rows, cols = draw(st.tuples(st.integers(5, 12), st.integers(5, 12)))
    W = matrix((rows, cols), real=draw(st.booleans()), seed=draw(st.integers(0, 2**16)))
    n_factors = draw(st.sampled_from([3, 5, 7, 9]))
    match draw(st.sampled_from(["square", "rectangle", "blocks", "vector", "full"])):
        case "square":
            side = min(rows, cols)
            W = W[:side, :side]
            bounds = list(closed_form_errors(W, side).values())
            return W, n_factors, {}, [*bounds, svd_error(W, 2)] if n_factors >= 5 else bounds
        case "rectangle":
            return W, n_factors, {}, [*closed_form_errors(W, min(rows, cols)).values()]
        case "blocks":
            size = draw(st.integers(2, min(rows, cols)))
            return W, n_factors, {"block_size": size}, [*closed_form_errors(W, size).values()]
        case "vector":
            roots = np.sqrt(np.linspace(0.1, 2.0, cols))
            return W, n_factors, {"input_second_moment": roots**2}, [svd_error(W * roots, 1)]
        case "full":
            X = matrix((cols, 2 * cols), seed=1)
            return W, n_factors, {"input_second_moment": X @ X.T}, []


@settings(max_examples=15, deadline=None)
@given(problem=problems(), limit=st.sampled_from([1, 2, 7, 30, 100, 300]))
def test_no_limit_is_too_short_for_the_closed_forms(problem, limit):
    """They are what a fit without any time returns: of a single block from five factors on, a product of rank two."""
    W, n_factors, how, bounds = problem
    closed_forms, fit = (fit_cdd(W, n_factors, time_limit=time, rng=3, **how) for time in (0, limit))
    assert fit.error <= closed_forms.error
    assert closed_forms.error <= min(bounds, default=1.0) + 1e-6


def test_an_exploration_that_is_cut_short_is_not_lost():
    W, n_factors, seen = matrix(24, seed=1), 9, []
    fit_cdd(W, n_factors, time_limit=8000, rng=3, callback=seen.append)
    late = next(s for s in seen if s.phase == "exploration" and s.iteration == 280)
    cut = fit_cdd(W, n_factors, time_limit=8000 - late.remaining, rng=3, callback=seen.append)
    assert seen[-1].iteration in range(279, 282)
    assert (cut.start, cut.status) == ("random", "time limit")
    assert cut.error < 0.9 * fit_cdd(W, n_factors, time_limit=0, rng=3).error


@pytest.mark.parametrize(("n_factors", "is_planted"), [(4, False), (5, True), (7, False)])
def test_two_more_factors_are_no_worse_than_without_them_in_a_quarter_of_the_time(n_factors, is_planted):
    rng = np.random.default_rng(n_factors)
    W = planted("uniform", rng, (8, 8), n_factors=n_factors)[0] if is_planted else rng.standard_normal((8, 8))
    assert error(W, n_factors + 2, 4000) <= error(W, n_factors, 1000) + 1e-12


@pytest.mark.parametrize("max_iter", [1, 3])
def test_the_fit_that_another_starts_from_takes_no_more_iterations_than_allowed(max_iter):
    seen = []
    W, weights = np.random.default_rng(0).standard_normal((9, 9)), np.linspace(0.1, 2.0, 9)
    options = {"input_second_moment": weights, "max_iter": max_iter, "time_limit": 10_000}
    fit_cdd(W, **options, rng=0, callback=seen.append)
    assert max(state.iteration for state in seen) == max_iter


@pytest.mark.parametrize("how", [{}, {"block_size": 4}, {"restarts": 0}])
def test_rectangles_and_ways_of_search(how):
    check([*fits(np.random.default_rng(1).standard_normal((12, 8)), 5, **how)])


@pytest.mark.parametrize("weights", [np.linspace(0.1, 2.0, 9), np.diag(np.linspace(0.1, 2.0, 9))])
def test_weights(weights):
    check([*fits(np.random.default_rng(2).standard_normal((9, 9)), 5, input_second_moment=weights)])
