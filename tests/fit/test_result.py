"""The result, its printed form, and the reports on the way."""

import json

import numpy as np
import pytest

from structmat import BlockCirculant, Circulant, Diagonal
from structmat.fit import FitProgress, FitResult, fit_cdd
from structmat.operators import CDDProduct


@pytest.fixture(scope="module")
def W():
    return np.random.default_rng(0).standard_normal((12, 20))


@pytest.fixture(scope="module")
def fit(W):
    return fit_cdd(W, block_size=8, rng=0)


def kinds(operator):
    return tuple(type(factor) for factor in operator.factors)


def test_operator_of_a_rectangle(fit):
    assert isinstance(fit, FitResult)
    assert isinstance(fit.operator, CDDProduct)
    assert kinds(fit.operator) == (Diagonal, BlockCirculant, Diagonal)
    assert fit.block_size == 8
    assert fit.n_parameters == 12 + 20 + 2 * 3 * 8


@pytest.mark.parametrize(("block_size", "middle"), [("min", Circulant), (9, Circulant), (3, BlockCirculant)])
def test_operator_of_a_square(block_size, middle):
    fit = fit_cdd(np.random.default_rng(1).standard_normal((9, 9)), block_size=block_size, rng=0)
    assert kinds(fit.operator) == (Diagonal, middle, Diagonal)
    assert fit.n_parameters == 18 + 9 * 9 // (9 if block_size == "min" else block_size)


def test_the_default_block_is_the_smaller_side(W):
    assert fit_cdd(W, rng=0).block_size == 12


def test_to_dict_is_json(fit):
    read = json.loads(json.dumps(fit.to_dict()))
    assert read == fit.to_dict()
    assert read["shape"] == [12, 20]
    assert read["n_factors"] == 3
    assert read["history"][-1] == pytest.approx(fit.error)
    assert read["explained"] == pytest.approx(1 - fit.error**2)


def test_repr_fits_one_screen_and_says_what_matters(fit):
    text = repr(fit)
    lines = text.splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 80
    share = 80 / (12 * 20)
    for part in (
        "12 x 20",
        "8 (2 x 3 blocks)",
        f"{fit.error:.6g}",
        f"{fit.explained:.2%}",
        f"80 ({share:.3%}",
        fit.start,
    ):
        assert part in text
    assert ("not converged" in text) is not fit.converged


def test_an_unfinished_fit_says_so(W):
    fit = fit_cdd(W, rng=0, max_iter=1, tol=0.0)
    assert not fit.converged
    assert "not converged" in repr(fit)


def test_a_result_is_frozen(fit):
    with pytest.raises(AttributeError):
        fit.error = 0.0


@pytest.mark.parametrize("shape", [(12, 20), (14, 14)])
def test_the_callback_sees_every_iteration(shape):
    """Without random starts, which share one name, the reports of the winner tell its history."""
    seen = []
    W = np.random.default_rng(0).standard_normal(shape)
    fit = fit_cdd(W, rng=0, max_iter=30, restarts=0, callback=seen.append)
    assert all(isinstance(state, FitProgress) and state.iteration <= state.max_iter for state in seen)
    assert {(state.phase, state.max_iter) for state in seen} <= {("screening", 15), ("alternation", 30)}
    assert {(state.n_factors, state.remaining) for state in seen} == {(3, None)}
    assert [state.best for state in seen] == np.minimum.accumulate([state.error for state in seen]).tolist()
    assert {state.start for state in seen} == {"circulant", "diagonal", "rank-one", "shift-synchronisation"}
    errors = {state.iteration: state.error for state in seen if state.start == fit.start}
    assert fit.n_iter == 30
    # The last one is the error of the operator as it is returned.
    assert [errors[k] for k in range(1, 31)] == pytest.approx(fit.history[1:].tolist(), rel=1e-9)
    assert [errors[k] for k in range(1, 30)] == fit.history[1:-1].tolist()
    assert min(state.error for state in seen) == pytest.approx(fit.error)


def test_the_callback_hears_of_random_starts(W):
    seen = []
    fit_cdd(W, rng=0, max_iter=30, restarts=2, callback=seen.append)
    assert [state.start for state in seen if state.iteration == 1].count("random") == 2


def test_the_history_of_a_random_start_is_what_was_reported_of_it(W):
    """With one of them its reports are alone under their name."""
    seen = []
    fit = fit_cdd(W, rng=0, max_iter=30, restarts=1, callback=seen.append)
    assert fit.start == "random"
    errors = [state.error for state in seen if state.start == "random"]
    assert errors == pytest.approx(fit.history[1:].tolist(), rel=1e-9)


def test_a_looser_tolerance_stops_earlier():
    W = np.random.default_rng(2).standard_normal((40, 40))
    loose, tight = (fit_cdd(W, rng=0, tol=tol) for tol in (1e-2, 1e-9))
    assert loose.n_iter < tight.n_iter
    assert tight.error < loose.error


def test_a_fit_that_ran_out_of_time_says_so(W):
    fit = fit_cdd(W, 5, rng=0, time_limit=0.01)
    assert fit.status == "time limit"
    assert "stopped: time limit" in repr(fit)


def exact_matrices():
    rng = np.random.default_rng(5)
    diagonal, (u, v) = np.diag(rng.standard_normal(8)), rng.standard_normal((2, 8))
    vectors = rng.standard_normal((5, 16)) + 1j * rng.standard_normal((5, 16))
    yield from (("diagonal", diagonal, n) for n in (1, 2, 3, 4, 5))
    yield from (("single precision", diagonal.astype("float32"), n) for n in (1, 4))
    yield from (("rank one", np.outer(u, v), n) for n in (3, 4, 5))
    yield from (("circulant", Circulant(u).to_dense(), n) for n in (2, 3, 5))
    yield "five factors", CDDProduct.from_vectors(*vectors).to_dense(), 5


def test_exact_fits_have_converged_and_say_so():
    for name, W, n_factors in exact_matrices():
        fit = fit_cdd(W, n_factors, rng=0)
        assert fit.error <= 8 * np.finfo(W.dtype).eps, name
        assert fit.converged, (name, n_factors)
        assert fit.to_dict()["converged"]
        assert "not converged" not in repr(fit)
        assert "planned iterations" not in fit.message


def test_one_factor_without_weights_is_the_minimum():
    W = np.random.default_rng(3).standard_normal((7, 7))
    fit = fit_cdd(W, 1, rng=0)
    np.testing.assert_allclose(fit.operator.to_dense(), np.diag(np.diag(W)), atol=1e-14)
    assert (fit.converged, fit.message) == (True, "the nearest matrix of one factor, in closed form")


def test_a_search_that_was_cut_short_has_not_converged(W):
    fit = fit_cdd(W[:, :12], 5, rng=0, restarts=1, max_iter=9)
    assert not fit.converged
    assert fit.message == "all planned iterations made"


def test_the_state_of_a_fit_is_a_line_that_begins_with_what_matters():
    state = FitProgress("random", 3, 15, 0.75, "exploration", 5, 0.5, None)
    assert str(state) == "best error 0.500000, 5 factors, exploration from random, iteration 3"


def test_a_fit_ends_where_an_iteration_hardly_lowers_the_error():
    W = np.random.default_rng(0).standard_normal((6, 6))
    lengths = []
    for tol in (1e-1, 1e-2, 1e-4):
        history = np.asarray(fit_cdd(W, tol=tol, rng=0, restarts=1).history)
        assert history[-2] - history[-1] <= tol * history[-1]
        lengths.append(len(history))
    assert lengths[0] < lengths[1] < lengths[2] < 500
