"""The error curve: monotone on every input, honest about time, written as tables; its own parts with a fake fit."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._files import shown_error
from structmat.fit import CurveProgress, FitProgress, error_curve, fit_cdd
from structmat.fit import _error_curve as module
from structmat.fit._search import GAINS_LITTLE
from tests.cases import in_one_test

RNG = np.random.default_rng(0)
SQUARE, WIDE = RNG.standard_normal((6, 6)), RNG.standard_normal((4, 6))


def random_product(W, n_factors, block_size, rng):
    """A product of that many random factors, scaled to fit best, and its error."""
    rows, cols = W.shape
    size = min(rows, cols) if block_size == "min" else block_size

    def factor(k):
        # One circulant has the shape of the matrix: the first if it is tall, the last if it is wide.
        main = 1 if rows >= cols else n_factors - (2 if n_factors % 2 else 1)
        if k % 2 == 0:
            return sm.Diagonal(rng.standard_normal(rows if k < main else cols).astype(W.dtype))
        height, width = rows if k <= main else cols, rows if k < main else cols
        c = rng.standard_normal((-(-height // size), -(-width // size), size)).astype(W.dtype)
        return sm.Circulant(c[0, 0]) if height == width == size else sm.BlockCirculant(c, (height, width))

    product = sm.CDDProduct(tuple(factor(k) for k in range(n_factors)))
    dense = product.to_dense()
    product = product * (np.vdot(dense, W) / np.vdot(dense, dense))
    return product, float(np.linalg.norm(W - product.to_dense()) / np.linalg.norm(W)), size


TEMPLATE = fit_cdd(np.eye(3))


def random_fit(W, n_factors, *, block_size="min", rng=None, callback=None, **_):
    """In the place of `fit_cdd`: a random product, which is often worse than one of fewer factors."""
    product, error, size = random_product(np.asarray(W), n_factors, block_size, np.random.default_rng(rng))
    if callback is not None:
        callback(FitProgress("random", 1, 5, error, "polish", n_factors, error, None))
    fields = {"operator": product, "error": error, "block_size": size, "n_parameters": product.n_parameters}
    return replace(TEMPLATE, **fields, start="random")


@pytest.fixture
def fake(monkeypatch):
    """Replace the fit by random products; record the calls."""
    calls = []

    def fit(W, n_factors, **options):
        calls.append(SimpleNamespace(n_factors=n_factors, **options))
        return random_fit(W, n_factors, **options)

    monkeypatch.setattr(module, "fit_cdd", fit)
    return calls


@pytest.fixture
def curve(fake):
    return error_curve(SQUARE, 5, rng=0)


# Monotone, on every input


@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kind=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_fit_that_is_worse_gives_way_to_the_one_with_fewer_factors(shape, kind, seed, data):
    rng = np.random.default_rng(seed)
    W = (rng.standard_normal(shape) + (1j if "complex" in kind else 0) * rng.standard_normal(shape)).astype(kind)
    size = data.draw(st.just("min") | st.integers(1, max(shape)))
    single = shape[0] == shape[1] and size in {"min", shape[0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fit_cdd", random_fit)
        numbers = range(1, 8) if single else range(3, 8, 2)
        found = error_curve(W, n_factors=numbers, block_size=size, rng=seed, baselines=False)
    np.testing.assert_array_equal(found.n_factors, numbers)
    assert (np.diff(found.error) <= 0).all()
    assert (np.diff(found.n_parameters) > 0).all()
    for number, count, error, result in zip(
        found.n_factors, found.n_parameters, found.error, found.results, strict=True
    ):
        operator = result.operator
        assert (operator.n_factors, operator.n_parameters, operator.shape) == (number, count, shape)
        assert isinstance(operator.factors[0], sm.Diagonal)
        assert operator.dtype == W.dtype
        want = np.linalg.norm(W - operator.to_dense()) / np.linalg.norm(W)
        assert error == pytest.approx(want, rel=1e-4, abs=1e-5)


# Baselines


def test_baselines_are_left_out_on_request(fake):
    assert error_curve(SQUARE, 3, baselines=False).baselines == {}


@pytest.mark.parametrize("weights", [np.arange(6), np.diag(np.arange(6.0)), (WIDE.T @ WIDE).tolist()])
def test_with_weights_truncated_svd_is_the_only_baseline(fake, weights):
    curve = error_curve(SQUARE, 4, input_second_moment=weights)
    assert all(call.input_second_moment is weights for call in fake)
    assert curve.weighted
    assert list(curve.baselines) == ["truncated-svd"]
    S = np.diag(weights) if np.ndim(weights) == 1 else np.array(weights)
    values, vectors = np.linalg.eigh(S)
    s = np.linalg.svd(SQUARE @ (vectors * np.sqrt(np.maximum(values, 0))), compute_uv=False)
    used, error = curve.baselines["truncated-svd"]
    want = [np.linalg.norm(s[u // 12 :]) / np.linalg.norm(s) if u else np.nan for u in used]
    np.testing.assert_allclose(error, want)


# Numbers of factors


def test_numbers_are_sorted_and_unique(fake):
    found = error_curve(SQUARE, n_factors=iter([5, np.int64(2), 5]), baselines=False)
    assert found.n_factors.tolist() == [2, 5]
    assert [call.n_factors for call in fake] == [2, 5]


def test_by_default_curves_go_to_nine_factors(fake):
    assert error_curve(SQUARE).n_factors.tolist() == list(range(1, 10))
    assert error_curve(WIDE).n_factors.tolist() == error_curve(SQUARE, block_size=3).n_factors.tolist() == [3, 5, 7, 9]


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"n_factors": 0}, ValueError, "error_curve: n_factors must be at least 1, got 0"),
        ({"n_factors": 2.5}, TypeError, "error_curve: n_factors must be an integer, got 2.5"),
        ({"n_factors": []}, ValueError, "error_curve: n_factors must not be empty"),
        ({"n_factors": [3, "5"]}, TypeError, "error_curve: n_factors must be an integer, got '5'"),
        ({"n_factors": 3, "time_limit": -1}, ValueError, "error_curve: time_limit must be .* not negative, got -1"),
        ({"n_factors": 3, "time_limit": "x"}, TypeError, "error_curve: time_limit must be a number"),
        ({"n_factors": 3, "callback": 1}, TypeError, "error_curve: callback must be callable, got 1"),
        ({"n_factors": 3, "rng": "x"}, TypeError, "error_curve: rng must be .*, got 'x'"),
        ({"n_factors": [3], "entry_weights": SQUARE}, ValueError, "error_curve: entry_weights must be None"),
        ({"seeds": 0}, ValueError, "error_curve: seeds must be at least 1, got 0"),
        ({"seeds": [1, 2]}, TypeError, "error_curve: seeds must be an integer"),
        ({"workers": 0}, ValueError, "error_curve: workers must be at least 1"),
        ({"baselines": ["svd"]}, ValueError, "error_curve: baselines must .* did you mean 'truncated-svd'"),
        ({"baselines": "monarch"}, TypeError, "error_curve: baselines must be True, False or a list of names"),
        ({"baselines": 1}, TypeError, "error_curve: baselines must be True, False or a list of names"),
        ({"W": np.ones(3)}, ValueError, "error_curve: W must"),
        ({"W": np.ones((0, 3))}, ValueError, "error_curve: W must"),
        ({"W": [["a"]]}, TypeError, "error_curve: W must"),
    ],
)
def test_wrong_arguments_are_named(fake, arguments, kind, text):
    with pytest.raises(kind, match=text):
        error_curve(**{"W": SQUARE, **arguments})
    assert fake == []


@in_one_test(
    "arguments",
    [
        {"n_factors": [2]},
        {"n_factors": [3, 4]},
        {"n_factors": [3, 10**6]},
        {"n_factors": 3, "block_size": 3.5},
        {"n_factors": 3, "block_size": 99},
        {"n_factors": 3, "input_second_moment": np.ones(3)},
        {"n_factors": 3, "max_iter": 0},
        {"n_factors": 3, "tol": -1.0},
        {"n_factors": 3, "restarts": "many"},
    ],
)
def test_errors_name_the_function_that_was_called(arguments):
    """Also those of arguments that it passes on to the fits; before any of them has begun."""
    states = []
    with pytest.raises((TypeError, ValueError), match=f"^error_curve: {[*arguments][-1]} must "):
        error_curve(WIDE, callback=states.append, **arguments)
    assert states == []


@pytest.mark.parametrize(("W", "block_size"), [(WIDE, "min"), (SQUARE, 3)])
def test_rectangles_and_several_blocks_have_odd_numbers_from_three_on(W, block_size):
    with pytest.raises(ValueError, match="error_curve: n_factors must be at least 3, got 2"):
        error_curve(W, 2, block_size=block_size)
    found = error_curve(W, 8, block_size=block_size, rng=0, max_iter=60, restarts=1)
    assert found.n_factors.tolist() == [3, 5, 7]
    assert found.error[0] == fit_cdd(W, block_size=block_size, rng=0, max_iter=60, restarts=1).error
    assert (np.diff(found.error) <= 0.0).all()
    cut = error_curve(W, 7, block_size=block_size, rng=0, time_limit=0)
    assert cut.status[1:] == ("not made", "not made")


def test_each_fit_starts_from_the_one_before(fake):
    found = error_curve(SQUARE, 4, rng=0, baselines=False, restarts=2)
    assert fake[0].start is None
    assert [call.start for call in fake[1:]] == list(found.results[:-1])
    assert {call.restarts for call in fake} == {2}


@pytest.mark.parametrize("options", [{"rng": 1, "restarts": 1, "max_iter": 20}, {"time_limit": 0.0}, {}])
def test_a_curve_that_goes_on_from_another_is_never_above_it(options):
    W = RNG.standard_normal((8, 8))
    first = error_curve(W, [3, 5, 6], rng=0, restarts=1, max_iter=200)
    again = error_curve(W, [4, 5, 7], start=first, **{"rng": 1, "restarts": 0, "max_iter": 20, **options})
    assert again.error[0] <= first.error[0] * (1 + 1e-12)
    assert again.error[1] <= first.error[1] * (1 + 1e-12)
    assert again.error[2] <= first.error[2] * (1 + 1e-12)
    assert again.error[2] == pytest.approx(relative_error(W, again.results[2].operator), rel=1e-9)


def test_errors_are_those_of_the_matrix_whatever_curve_it_goes_on_from():
    """A curve of another matrix has other errors, which say nothing about this one."""
    other = error_curve(np.eye(6), [3, 5], rng=0)
    found = error_curve(SQUARE, [3, 5], start=other, rng=0, restarts=1, max_iter=5)
    for error, result in zip(found.error, found.results, strict=True):
        assert error == pytest.approx(relative_error(SQUARE, result.operator), rel=1e-9)


def relative_error(W, operator):
    return np.linalg.norm(W - operator.to_dense()) / np.linalg.norm(W)


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        (TEMPLATE, TypeError, "error_curve: start must be an ErrorCurve, got FitResult"),
        ("curve", ValueError, r"start must be a curve of a matrix of shape \(6, 6\), got one of shape \(4, 6\)"),
    ],
)
def test_only_a_curve_of_the_same_shape_can_be_gone_on_from(start, error, words):
    start = error_curve(WIDE, 3, rng=0, restarts=1, max_iter=3) if start == "curve" else start
    with pytest.raises(error, match=words):
        error_curve(SQUARE, 3, start=start)


def test_a_curve_says_which_fits_would_gain_from_more_time(fake):
    curve = error_curve(SQUARE, [3, 5], rng=0, baselines=False)
    assert "a time limit" not in repr(curve)
    results = (curve.results[0], replace(curve.results[1], message=GAINS_LITTLE))
    assert repr(replace(curve, results=results)).endswith(
        "\n5 factors: ended where iterations gained little; a time limit lets the search go on"
    )


def test_a_family_without_a_member_in_the_budget_is_a_dash(fake):
    curve = error_curve(SQUARE, [1, 3], rng=0)
    assert curve.baselines["truncated-svd"][0].tolist() == [0, 12]
    titles, *lines = repr(curve).splitlines()[1:4]
    place = titles.replace("of dense", "share").replace(" s ", "_s ").split().index("truncated-svd")
    rows = [line.split() for line in lines]
    assert rows[0][place] == "-"
    assert float(rows[1][place]) == pytest.approx(curve.baselines["truncated-svd"][1][1], rel=1e-3)
    assert shown_error(0, 0.0) == "0"  # Of a zero matrix the zero matrix is a member, without an error.


# Time


class FakeTime:
    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def perf_counter(self):
        return self.now

    process_time = perf_counter


@pytest.fixture
def timed(fake, monkeypatch):
    """Let every fit take as many seconds as the square of its number of factors."""
    clock = FakeTime(0.0)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_COST_POWER", 2)
    inner = module.fit_cdd

    def fit(W, n_factors, *, callback=None, **options):
        clock.now += n_factors**2 / 2
        result = inner(W, n_factors, callback=callback, **options)
        clock.now += n_factors**2 / 2
        return result

    monkeypatch.setattr(module, "fit_cdd", fit)
    return fake


def test_seconds_and_progress(timed):
    states = []
    found = error_curve(SQUARE, n_factors=[2, 4, 6], rng=0, callback=states.append)
    np.testing.assert_allclose(found.processor_seconds, [4, 16, 36])
    np.testing.assert_allclose(found.clock_seconds, [4, 16, 36])
    assert all(isinstance(s, CurveProgress) and s.fit.start == "random" for s in states)
    assert [(s.n_factors, s.point, s.n_points) for s in states] == [(2, 1, 3), (4, 2, 3), (6, 3, 3)]
    assert [s.elapsed for s in states] == [2.0, 12.0, 38.0]
    assert [s.remaining for s in states] == [None, None, 18.0]  # up to three factors tell nothing of others
    assert str(states[1]) == f"4 factors (2 of 3), best error {states[1].fit.best:.6f}, polish from random"


def test_a_fit_that_takes_longer_than_expected_has_no_estimate(timed, monkeypatch):
    """After four factors in 16 seconds as if 40 seconds were left; the middle of this fit is at 50."""
    monkeypatch.setattr(module, "_COST_POWER", 1)
    states = []
    error_curve(SQUARE, n_factors=[4, 10], rng=0, callback=states.append)
    assert [s.remaining for s in states] == [None, None]


@pytest.mark.parametrize("which", [0, 1])
def test_a_curve_whose_fits_were_cut_is_not_complete(monkeypatch, which):
    def fit(*arguments, **options):
        result = fit_cdd(*arguments, **options | {"time_limit": None, "max_iter": 2})
        results.append(replace(result, status="time limit") if len(results) == which else result)
        return results[-1]

    results = []
    monkeypatch.setattr(module, "fit_cdd", fit)
    curve = error_curve(SQUARE, n_factors=[1, 3], rng=0, time_limit=1000.0)
    assert curve.ended == "time limit"
    assert curve.clock_seconds.all()
    assert curve.status[which] == "stopped: time limit"
    assert ", ended early: time limit" in repr(curve)


def test_a_time_limit_is_shared_out_and_kept(timed):
    states = []
    found = error_curve(SQUARE, n_factors=[1, 2, 4, 8], rng=0, time_limit=20.0, callback=states.append)
    assert [call.time_limit for call in timed] == [20 / 85, pytest.approx(19 * 4 / 84), pytest.approx(15 * 16 / 80)]
    assert states[0].remaining == 19.5
    assert states[1].remaining == 17.0
    assert found.ended == "time limit"
    assert found.processor_seconds.tolist() == [1, 4, 16, 0]
    assert found.status == ("completed", "completed", "completed", "not made")
    assert np.isnan(found.error[3])
    assert found.results[3] is None


def test_no_time_at_all_still_looks_at_the_closed_forms_of_three_factors(timed):
    found = error_curve(SQUARE, 5, rng=0, time_limit=0)
    assert [(call.n_factors, call.time_limit) for call in timed] == [(1, 0.0), (2, 0.0), (3, 0.0)]
    assert found.n_factors.tolist() == [1, 2, 3, 4, 5]
    assert found.status[3:] == ("not made", "not made")
    assert found.ended == "time limit"


# With the fit itself


SPECIAL = {
    "zero": np.zeros((4, 4)),
    "identity": np.eye(4),
    "constant": np.ones((4, 4)),
    "rank one": np.outer(np.arange(4.0), np.ones(4)),
    "permutation": np.eye(4)[[2, 0, 3, 1]],
    "nilpotent": np.diag(np.ones(3), 1),
    "integers": np.arange(16).reshape(4, 4),
    "huge": 1e300 * SQUARE[:4, :4],
    "tiny": (1e-40 * SQUARE[:4, :4]).astype("float32"),
    "one entry": np.array([[3.0]]),
}


@pytest.mark.parametrize("name", SPECIAL)
@in_one_test("limits", [{"restarts": 1, "max_iter": 10}, {"time_limit": 0.0}])
def test_curves_of_special_matrices_are_sound(name, limits):
    W = SPECIAL[name]
    curve = error_curve(W, 4, rng=0, **limits)
    unit = float(np.abs(W).max()) or 1.0
    scaled = W / unit
    made = np.isfinite(curve.error)
    assert made.tolist() == [each != "not made" for each in curve.status]
    assert (np.diff(curve.error[made]) <= 0).all()
    for error, result in zip(curve.error[made], filter(None, curve.results), strict=True):
        left = np.linalg.norm(scaled - result.operator.to_dense() / unit) / (np.linalg.norm(scaled) or 1.0)
        assert error == pytest.approx(left, rel=1e-4, abs=1e-5)
    if name in {"zero", "identity", "constant", "rank one"}:
        assert curve.error[made][-1] < 1e-6


@given(
    n=st.integers(1, 5),
    kind=st.sampled_from(["float32", "float64", "complex128"]),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=15, deadline=None)
def test_curves_never_rise(n, kind, weighted, seed):
    rng = np.random.default_rng(seed)
    W = (rng.standard_normal((n, n)) + (1j if "complex" in kind else 0) * rng.standard_normal((n, n))).astype(kind)
    weights = rng.random(n) if weighted else None
    curve = error_curve(W, 4, input_second_moment=weights, rng=seed, restarts=1, max_iter=8)
    assert (np.diff(curve.error) <= 0).all()
    root = np.ones(n) if weights is None else np.sqrt(weights)
    for error, result in zip(curve.error, curve.results, strict=True):
        left = np.linalg.norm((W - result.operator.to_dense()) * root) / np.linalg.norm(W * root)
        assert error == pytest.approx(left, rel=1e-4, abs=1e-5)


def test_curves_keep_the_library_of_the_matrix():
    torch = pytest.importorskip("torch")
    W = torch.from_numpy(SQUARE)
    curve = error_curve(W, 4, rng=0, time_limit=0.0)
    for result in filter(None, curve.results):
        assert isinstance(result.operator.to_dense(), torch.Tensor)
    want = error_curve(SQUARE, 4, rng=0, time_limit=0.0)
    np.testing.assert_allclose(curve.error, want.error)
    np.testing.assert_allclose(curve.baselines["monarch"][1], want.baselines["monarch"][1])


def test_the_same_seed_gives_the_same_curve():
    first, second = (error_curve(SQUARE, n_factors=[2, 3, 4], rng=3, restarts=1, max_iter=20) for _ in range(2))
    np.testing.assert_array_equal(first.error, second.error)
    assert isinstance(first.results[0].operator, sm.CDDProduct)


# Files, tables


def test_tables_hold_all_digits(curve, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = curve.to_pandas()
    table.to_csv(tmp_path / "curve.csv")
    assert list(table)[:5] == ["n_factors", "n_parameters", "share", "error", "status"]
    names = ("n_factors", "n_parameters", "error", "status", "processor_seconds", "clock_seconds", "median_error")
    columns = {name: getattr(curve, name) for name in names}
    columns |= dict(zip(("monarch_n_parameters", "monarch_error"), curve.baselines["monarch"], strict=True))
    for read in (table, pandas.read_csv(tmp_path / "curve.csv")):
        for name, values in columns.items():
            np.testing.assert_array_equal(read[name], values)
    assert json.loads(json.dumps(curve.to_dict()))["error"] == curve.error.tolist()


def test_the_printed_form_is_a_table(curve):
    lines = repr(curve).splitlines()[:7]
    assert lines[0] == "ErrorCurve of a 6 x 6 matrix, blocks of 6"
    assert lines[1].split()[:2] == ["factors", "parameters"]
    assert lines[2].split()[:4] == ["1", "6", "16.7%", f"{curve.error[0]:.4g}"]
    assert len({len(line) for line in lines[1:]}) == 1
    weighted = repr(replace(curve, weighted=True, ended="time limit")).splitlines()
    assert weighted[0].endswith("blocks of 6, ended early: time limit")
    assert "weighted error" in weighted[1]
    assert "weighted" not in "".join(lines)


def test_data_frames_need_pandas(curve, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        curve.to_pandas()
