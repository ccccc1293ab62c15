"""Fits by any number of factors: never worse than what the family contains, reproducible, honest, stopped at will."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import circulant

from structmat import Circulant, Diagonal
from structmat.fit import _search, fit_cdd
from structmat.fit._control import Control
from structmat.fit._problem import Problem
from structmat.operators import CDDLayout, CDDProduct
from tests.fit.matrices import closed_form_errors, matrix, matrix_of, planted, relative, svd_error

QUICK = {"max_iter": 150, "restarts": 2}


def check(W, fit, n_factors):
    kinds = [Diagonal, Circulant]
    assert [type(factor) for factor in fit.operator.factors] == [kinds[k % 2] for k in range(n_factors)]
    assert fit.n_parameters == n_factors * len(W)
    assert fit.operator.dtype == W.dtype
    rounding = 1e-6 if W.dtype.itemsize == 4 else 1e-10
    assert fit.error == pytest.approx(relative(W, fit.operator.to_dense()), abs=rounding)
    assert (np.diff(fit.history) <= 0.0).all()
    assert fit.history[-1] == pytest.approx(fit.error, abs=rounding)
    assert len(fit.history) == fit.n_iter + 1


@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize("n_factors", [4, 5])
def test_never_worse_than_three_factors_with_the_same_seed(n_factors, seed):
    """Permutations have many local minima: random starts decide which one a search finds."""
    W = np.eye(16)[np.random.default_rng(seed).permutation(16)]
    options = {"rng": seed, "max_iter": 60, "restarts": 1}
    assert fit_cdd(W, n_factors, **options).error <= fit_cdd(W, 3, **options).error * (1 + 1e-9)


@pytest.mark.parametrize("n_factors", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("real", [True, False])
def test_never_worse_than_closed_forms_or_three_factors(n_factors, real):
    W = matrix(9, real=real, seed=n_factors)
    fit = fit_cdd(W, n_factors, rng=3, **QUICK)
    check(W, fit, n_factors)
    bounds = closed_form_errors(W, 9)
    if n_factors < 3:
        bounds.pop("rank-one")
    if n_factors == 1:
        bounds.pop("circulant")
    for name, bound in bounds.items():
        assert fit.error <= bound + 1e-12, name
    if n_factors > 3:
        assert fit.error <= fit_cdd(W, 3, rng=3, **QUICK).error + 1e-12


class EndlessSearchError(Exception):
    """A search has made more rounds than it has work for."""


@pytest.mark.parametrize("n_factors", [2, 4, 5, 9])
@pytest.mark.parametrize("max_iter", [3, 50])
@pytest.mark.parametrize("continued", [False, True])
def test_a_search_without_random_starts_ends_where_nothing_is_left_to_do(monkeypatch, n_factors, max_iter, continued):
    """Its rounds are counted, since one without anything to do takes no time: the limit alone is no guard."""

    def rounds():
        yield from range(100)
        raise EndlessSearchError

    monkeypatch.setattr(_search, "count", rounds)
    W = matrix(8, seed=1)
    options = {"restarts": 0, "max_iter": max_iter, "rng": 0}
    before = fit_cdd(W, n_factors - 1, **options) if continued else None
    fit = fit_cdd(W, n_factors, start=before, time_limit=600, **options)
    assert fit.status == "completed"
    assert fit.error <= (before.error if before else 1.0)


def test_a_search_ends_whose_only_product_was_polished_to_its_end():
    """Of four factors that were read off a noisy planted product, without random starts, nothing else is left."""
    W = planted("uniform", np.random.default_rng(0), (24, 24), n_factors=4)[0]
    noise = np.random.default_rng(9).standard_normal(W.shape)
    fit = fit_cdd(W / np.linalg.norm(W) + 0.3 * noise / np.linalg.norm(noise), 4, restarts=0, rng=0)
    assert (fit.start, fit.status) == ("peeling", "completed")
    assert fit.error < 0.3


def test_without_a_limit_a_polish_ends_where_it_gains_little(monkeypatch):
    """With one it goes on, and where more is asked for than it gains it ends in the first iterations that count."""
    W, options = matrix(8), {"rng": 0, "restarts": 1, "tol": 0.0}
    monkeypatch.setattr(_search, "_REFINED_NUMBERS", 0)  # no steps of second order after it
    monkeypatch.setattr(_search, "_GAIN", 0.0)
    to_the_end = fit_cdd(W, 5, **options, max_iter=400)
    monkeypatch.setattr(_search, "_GAIN", 0.5)
    ended = fit_cdd(W, 5, **options, max_iter=400)
    assert to_the_end.message == "all planned iterations made"
    assert (ended.message, ended.status, ended.converged) == (_search.GAINS_LITTLE, "completed", False)
    assert ended.n_iter < to_the_end.n_iter
    assert to_the_end.error <= ended.error
    np.testing.assert_allclose(ended.history[:-1], to_the_end.history[: ended.n_iter], rtol=1e-9)
    limited = fit_cdd(W, 5, **options, max_iter=400, time_limit=0.1)
    assert limited.message != _search.GAINS_LITTLE


@pytest.fixture
def explored(monkeypatch):
    """Explore with chains of four steps that have given errors; return candidates, rates and the steps of each."""
    monkeypatch.setattr(_search, "_TOGETHER_SIDE", 0)

    def explore(*errors, read_off=math.inf, known=1.0, restarts=None):
        rates, counts = [], []

        def annealing(objective, parameters, rate, steps):
            assert len(parameters) == 1
            counts.append(0)
            own = len(counts) - 1
            for error in errors[own][:steps]:
                rates.append(rate)
                counts[own] += 1
                yield np.array([error])

        monkeypatch.setattr(_search, "annealing", annealing)
        rng = np.random.default_rng(0)
        W = rng.standard_normal((64, 2)) @ rng.standard_normal((2, 64))
        search = _search.Search(Problem(W, CDDLayout(W.shape, 5), W.dtype), Control(10, 1e-7, restarts), rng)
        search._best = _search.Candidate("low-rank", np.zeros(320), known, history=(known,))
        found = search._explored(rng, len(errors), 4, read_off)
        return [list(one.history) for one in found], set(rates), counts

    return explore


FALLING = [0.9, 0.8, 0.6, 0.5], [0.9, 0.7, 0.5, 0.4], [0.9, 0.6, 0.6, 0.6]


@pytest.mark.parametrize(("read_off", "rate"), [(0.32, 0.5), (0.72, 0.5), (0.31, 1.0), (0.74, 1.0), (math.inf, 1.0)])
def test_steps_are_smaller_where_the_matrix_is_nearly_of_low_rank(explored, read_off, rate):
    """Five of 64 are 8 per cent, and six times as much is 0.47, which an error of 0.73 leaves to what was read off."""
    assert explored(*FALLING, read_off=read_off)[1] == {rate}


def test_the_best_chain_after_half_of_the_steps_goes_on_where_the_matrix_is_nearly_of_low_rank(explored):
    assert explored(*FALLING, read_off=0.5) == ([FALLING[2]], {0.5}, [2, 2, 4])
    assert explored(*FALLING, read_off=0.5, restarts=2) == ([FALLING[1]], {0.5}, [2, 4])
    assert explored(*FALLING) == ([*FALLING], {1.0}, [4, 4, 4])


@pytest.mark.parametrize(
    ("first", "restarts", "counts"), [(0.5, None, [4, 4]), (0.6, None, [4]), (0.6, 2, [4, 4]), (math.nan, None, [4])]
)
def test_after_a_chain_that_explains_far_less_than_what_is_known_there_are_no_more(explored, first, restarts, counts):
    """What is known explains 0.8 of the square norm, the chains 0.75, 0.64 or nothing at all."""
    errors = [[first] * 4, [0.5] * 4]
    found, _, steps = explored(*errors, known=0.2**0.5, restarts=restarts)
    assert [count for count in steps if count] == counts
    assert len(found) == (len(counts) if first == 0.5 or restarts else 0)


def test_a_race_ends_with_a_first_chain_that_is_hopeless(explored):
    assert explored(*FALLING, read_off=0.5, known=0.5) == ([], {0.5}, [2])
    assert explored(*FALLING[::-1], read_off=0.5, known=0.59) == ([FALLING[2]], {0.5}, [4, 2])


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(3, 9),
    n_factors=st.sampled_from([5, 6, 9]),
    real=st.booleans(),
    seed=st.integers(0, 2**16),
    endless=st.booleans(),
)
def test_five_factors_are_never_worse_than_rank_two(n, n_factors, real, seed, endless):
    W = matrix(n, real=real, seed=seed)
    fit = fit_cdd(W, n_factors, rng=3, **({"time_limit": 0.3} if endless else QUICK))
    assert fit.error <= svd_error(W, 2) + 1e-10


@settings(max_examples=12, deadline=None)
@given(
    W=st.integers(1, 5).flatmap(
        lambda n: st.lists(st.sampled_from([0.0, 0.0, 1.0, -1.0, 1e-8, 3.0]), min_size=n * n, max_size=n * n).map(
            lambda entries: np.reshape(entries, (n, n))
        )
    ),
    n_factors=st.integers(1, 5),
)
def test_adversarial_entries(W, n_factors):
    check(W, fit_cdd(W, n_factors, rng=0, max_iter=30, restarts=1), n_factors)


@pytest.mark.parametrize("real", [True, False])
def test_few_factors_of_structured_members_are_exact(real):
    n = 8
    rng = np.random.default_rng(5)
    u, v = rng.standard_normal((2, n)) if real else matrix(n, real=False)[:2]
    members = {1: np.diag(u), 2: circulant(v), 3: np.outer(u, v)}
    for n_factors, W in members.items():
        for more in (0, 1, 3):
            assert fit_cdd(W, n_factors + more, rng=0, **QUICK).error < 1e-12


@pytest.mark.parametrize("first", ["diagonal", "circulant"])
def test_a_member_given_as_the_start_is_returned(first):
    product = CDDProduct.from_vectors(*np.random.default_rng(0).uniform(0.5, 1.5, (4, 10)), first=first)
    W = np.asarray(product.to_dense())
    for n_factors in (5, 6, 8):
        assert fit_cdd(W, n_factors, start=product, rng=0, **QUICK).error < 1e-12


@pytest.mark.parametrize("real", [True, False])
def test_two_factors_are_found(real):
    W, _ = planted("uniform" if real else "phases", np.random.default_rng(1), (8, 8), n_factors=2)
    assert fit_cdd(W, 2, rng=0, tol=1e-12).error < 1e-6


def test_exploration_beats_one_descent():
    """The figure of the reference, reached in two seconds: L-BFGS alone ends at 0.861."""
    assert fit_cdd(matrix(48, seed=31), 5, rng=0).error < 0.858


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision_and_extreme_scales(dtype):
    W = matrix(8, real=dtype is np.float32).astype(dtype)
    errors = []
    for scale in (1.0, 1e-30, 1e30):
        fit = fit_cdd(W * dtype(scale), 5, rng=0, **QUICK)
        assert relative(W, np.asarray(fit.operator.to_dense()).astype(np.complex128) / scale) < fit.error + 1e-5
        errors.append(fit.error)
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-2)


def test_little_time_goes_to_the_whole_chain_first():
    seen = []
    fit = fit_cdd(matrix(32, seed=5), 9, rng=0, time_limit=2.0, callback=lambda state: seen.append(state.start))
    assert "random" in seen
    assert fit.error < fit_cdd(matrix(32, seed=5), 9, rng=0, time_limit=0).error


def test_zero():
    fit = fit_cdd(np.zeros((4, 4)), 5)
    assert fit.error == 0.0
    assert not fit.operator.to_dense().any()


def test_the_same_seed_gives_the_same_fit():
    W = matrix(16)
    first, again = (fit_cdd(W, 5, rng=np.random.default_rng(8), **QUICK) for _ in range(2))
    assert first.to_dict() == again.to_dict() == fit_cdd(W, 5, rng=8, **QUICK).to_dict()
    assert np.array_equal(first.operator.to_dense(), again.operator.to_dense())


def test_chains_are_explored_alike_together_and_one_by_one(monkeypatch):
    W = matrix(16)
    together = fit_cdd(W, 5, rng=0, **QUICK)
    monkeypatch.setattr(_search, "_TOGETHER_SIDE", 0)  # as for larger matrices
    assert fit_cdd(W, 5, rng=0, **QUICK).error == pytest.approx(together.error, rel=1e-4)


@pytest.mark.parametrize("n_factors", [1, 2, 3, 5, 8])
def test_no_time_gives_the_best_closed_form(n_factors):
    W = matrix(12)
    fit = fit_cdd(W, n_factors, time_limit=0, rng=0)
    bounds = closed_form_errors(W, 12)
    held = {1: ["diagonal"], 2: ["diagonal", "circulant"]}.get(n_factors, list(bounds))
    assert fit.error <= min(bounds[name] for name in held) + 1e-12
    assert fit.status == ("completed" if n_factors == 1 else "time limit")


@pytest.mark.parametrize("n_factors", [3, 7])
def test_a_time_limit_is_kept_and_used(n_factors):
    W = matrix(40)
    began = time.process_time()  # not of others on the machine
    fit = fit_cdd(W, n_factors, time_limit=1.0, rng=0, tol=0.0, max_iter=10**6)
    assert time.process_time() - began < 2.0
    assert fit.error < fit_cdd(W, n_factors, time_limit=0, rng=0).error
    # The steps of three factors end by themselves, the search for more goes on.
    assert fit.status == {3: "completed", 7: "time limit"}[n_factors]


def test_the_callback_hears_of_every_kind_of_start():
    seen = []
    fit_cdd(matrix(10), 7, rng=0, callback=seen.append, **QUICK)
    assert {"random", "low-rank"} <= {state.start for state in seen}
    assert all(1 <= state.iteration <= state.max_iter <= 150 for state in seen)
    assert {"screening", "exploration", "polish"} <= {state.phase for state in seen}
    assert {3, 5, 7} == {state.n_factors for state in seen}
    # An exploration is counted to its end.
    last = [now for now, after in pairwise(seen) if now.phase == "exploration" and after.phase != "exploration"]
    assert all(state.iteration == state.max_iter for state in last)


def test_the_callback_hears_the_time_left_of_the_whole_fit():
    seen = []
    fit_cdd(matrix(10), 5, rng=0, time_limit=0.4, callback=seen.append)
    left = [state.remaining for state in seen]
    assert left == sorted(left, reverse=True)
    assert 0.2 <= left[0] <= 0.4


@pytest.mark.parametrize("n_factors", [3, 5])
@pytest.mark.parametrize("full", [False, True])
def test_the_best_error_of_weighted_fits_is_not_that_of_their_start_without_weights(n_factors, full):
    S = np.linspace(1.0, 1e-4, 10)
    moment, seen = np.diag(S) if full else S, []
    fit = fit_cdd(matrix(10), n_factors, rng=0, input_second_moment=moment, callback=seen.append, **QUICK)
    assert seen[-1].best == pytest.approx(fit.error, rel=1e-3)
    assert any(after.best > now.best for now, after in pairwise(seen))


@pytest.mark.parametrize(
    ("shape", "n_factors", "dtype", "options"),
    [
        ((8, 8), 11, np.complex128, {}),
        ((8, 8), 11, np.complex64, {}),
        ((6, 6), 9, np.complex128, {"input_second_moment": np.linspace(0.1, 1.0, 6)}),
        ((6, 6), 9, np.complex128, {"input_second_moment": np.diag(np.linspace(0.1, 1.0, 6))}),
        ((6, 4), 11, np.complex128, {}),
        ((4, 6), 9, np.complex128, {}),
        ((6, 6), 5, np.complex128, {"block_size": 2}),
    ],
)
def test_a_fit_that_is_exact_ends_long_before_its_limit(shape, n_factors, dtype, options):
    W = matrix(shape, real=False, seed=8).astype(dtype)
    fit = fit_cdd(W, n_factors, rng=0, time_limit=60.0, **options)
    assert (fit.status, fit.converged) == ("completed", True)
    assert fit.message == "the product is the matrix to rounding"
    assert fit.error <= 200 * np.finfo(dtype).eps


@pytest.mark.parametrize(("n", "n_factors"), [(8, 7), (12, 9)])
@pytest.mark.parametrize("kind", ["signs", "permutation", "low rank"])
def test_more_factors_are_never_worse_than_fewer(kind, n, n_factors):
    """A search begins with the one for fewer factors, from the same seed."""
    W = matrix_of(kind, (n, n), np.float64, np.random.default_rng(1))
    fits = [fit_cdd(W, count, rng=0, **QUICK) for count in (5, n_factors)]
    assert fits[1].error <= fits[0].error * (1 + 1e-9) + 1e-14  # Of rank two both are exact up to rounding.


def test_a_search_that_knows_fewer_factors_does_not_look_for_them():
    W, heard = matrix(12, real=True), []
    start = fit_cdd(W, 5, rng=0, **QUICK)
    fit_cdd(W, 7, rng=0, start=start, callback=lambda state: heard.append(state.n_factors), **QUICK)
    assert 5 not in heard
    fit_cdd(W, 7, rng=0, callback=lambda state: heard.append(state.n_factors), **QUICK)
    assert 5 in heard


@pytest.mark.parametrize("stop", [StopIteration, KeyboardInterrupt])
def test_the_search_for_fewer_factors_is_stopped_with_all(stop):
    def callback(state):
        heard.append(state)
        if state.n_factors == 5:
            raise stop

    heard = []
    fit = fit_cdd(matrix(12, real=True), 7, rng=0, callback=callback, on_interrupt="return", **QUICK)
    assert fit.status == ("callback" if stop is StopIteration else "interrupted")
    assert sum(state.n_factors == 5 for state in heard) == 1
    assert heard[-1].n_factors == 5


def test_a_matrix_that_three_factors_hold_asks_for_no_search():
    """Their product has rounded a little; longer searches would find nothing better."""
    W, heard = np.fft.fft(np.eye(8)) / math.sqrt(8), []
    assert fit_cdd(W, 7, rng=0, callback=lambda state: heard.append(state.n_factors)).error <= 1e-14
    assert set(heard) == {3}
