"""A curve says of each point what it is, in every output, how far independent searches spread, and what is possible."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import structmat as sm
from structmat.fit import _error_curve as module
from structmat.fit import error_curve
from structmat.fit._curve_bounds import degrees_of_freedom, factors_by_counting
from tests.cases import in_one_test

W = np.random.default_rng(0).standard_normal((8, 8))
LARGER = np.random.default_rng(0).standard_normal((12, 12))
NUMBERS = [3, 5, 7, 9]


def interrupted():
    """Return a curve that Ctrl-C has ended while five factors were fitted."""

    def hear(state):
        if state.n_factors == 5:
            raise KeyboardInterrupt

    return error_curve(W, NUMBERS, rng=0, restarts=0, callback=hear, on_interrupt="return")


def out_of_time():
    """Return a curve that a limit of time has ended after three factors."""
    return error_curve(W, NUMBERS, rng=0, time_limit=0.0)


CUT = {
    interrupted: ["completed", "stopped: interrupted", "not made", "not made"],
    out_of_time: ["stopped: time limit", "not made", "not made", "not made"],
}


@pytest.fixture(params=CUT, ids=lambda make: make.__name__)
def cut(request):
    curve = request.param()
    assert list(curve.status) == CUT[request.param]
    return curve


def n_made(curve):
    return sum(each != "not made" for each in curve.status)


def test_points_that_were_not_made_have_no_error(cut):
    k = n_made(cut)
    assert np.isfinite(cut.error[:k]).all()
    assert np.isnan(cut.error[k:]).all()
    assert cut.results[k:] == (None,) * (4 - k)
    assert cut.ended in {"interrupted", "time limit"}


def test_print_has_a_dash_and_the_word(cut):
    lines = repr(cut).splitlines()[2:6]
    for line, status, error in zip(lines, cut.status, cut.error, strict=True):
        assert status in line
        assert f" {'-' if status == 'not made' else format(error, '.4g')} " in line
    assert {"processor s", "clock s"} <= set(re.split(r" {2,}", repr(cut).splitlines()[1]))


def test_tables_of_pandas_and_csv_have_nan(cut, tmp_path):
    pandas = pytest.importorskip("pandas")
    cut.to_csv(tmp_path / "curve.csv")
    with pytest.raises(FileExistsError):
        cut.to_csv(tmp_path / "curve.csv")
    for table in (cut.to_pandas(), pandas.read_csv(tmp_path / "curve.csv")):
        assert table["status"].tolist() == list(cut.status)
        np.testing.assert_array_equal(table["error"], cut.error)
        assert (
            table.loc[table["status"] == "not made", ["error", "median_error", "largest_error"]].isna().to_numpy().all()
        )


def test_json_has_null(cut):
    held = json.loads(json.dumps(cut.to_dict(), allow_nan=False))
    assert held["status"] == list(cut.status)
    assert [error is None for error in held["error"]] == [status == "not made" for status in cut.status]
    assert {"processor_seconds", "clock_seconds", "versions"} <= set(held)


def test_latex_has_a_dash_and_versions(cut):
    text = cut.to_latex(command="structmat curve W_1.npy")
    rows = [line.split(" & ") for line in text.splitlines() if line[:1].isdigit()]
    assert [row[4].strip() for row in rows] == list(cut.status)
    assert [row[3] == "--" for row in rows] == [status == "not made" for status in cut.status]
    assert text.startswith(f"% structmat {sm.__version__}, python ")
    assert "% structmat curve W_1.npy\n" in text
    assert {len(row) for row in rows} == {text[text.index("{tabular}{") :].split("}")[1].count("r")}


@pytest.mark.parametrize("x", ["share", "parameters", "factors"])
def test_figures_have_hollow_markers_with_a_word_and_nothing_for_points_not_made(cut, x):
    pytest.importorskip("matplotlib")
    ax = cut.plot(x=x)
    unit = {"share": cut.n_parameters / 0.64, "parameters": cut.n_parameters, "factors": cut.n_factors}[x]
    k = n_made(cut)
    dots = [line for line in ax.lines if line.get_color() == ax.lines[0].get_color()]
    for dot in dots:
        assert set(np.round(dot.get_xdata(), 9)) <= set(np.round(unit[:k], 9))
    hollow = {line.get_label() for line in dots if line.get_markerfacecolor() == "white"}
    assert hollow == {status for status in cut.status if status.startswith("stopped")}
    assert hollow <= {text.get_text() for text in ax.get_legend().get_texts()}


def test_iterations_that_ended_too_early_are_said():
    curve = error_curve(W, [5], rng=0, restarts=1, max_iter=10)
    assert curve.status == ("stopped: iteration limit",)
    assert curve.ended == "completed"


def test_the_callback_ends_a_curve():
    def hear(state):
        raise StopIteration

    assert error_curve(W, NUMBERS, rng=0, callback=hear).status == ("stopped: callback", *["not made"] * 3)


# Spread


SHORT = {"rng": 5, "restarts": 1, "max_iter": 40}


def test_searches_are_independent_and_the_best_is_kept():
    options = {"restarts": 1, "max_iter": 60}
    curve = error_curve(LARGER, [3, 5], seeds=3, rng=5, **options)
    generators = [np.random.default_rng(5), *np.random.default_rng(5).spawn(2)]
    alone = [error_curve(LARGER, [3, 5], rng=each, **options) for each in generators]
    np.testing.assert_array_equal(curve.errors, [each.error for each in alone])
    np.testing.assert_array_equal(curve.error, np.min(curve.errors, axis=0))
    np.testing.assert_array_equal(curve.median_error, np.median(curve.errors, axis=0))
    np.testing.assert_array_equal(curve.largest_error, np.max(curve.errors, axis=0))
    assert curve.n_searches.tolist() == [3, 3]
    assert (curve.largest_error > curve.error).any()
    for error, result in zip(curve.error, curve.results, strict=True):
        left = np.linalg.norm(LARGER - result.operator.to_dense())
        assert error == pytest.approx(left / np.linalg.norm(LARGER), rel=1e-9)


def test_one_search_is_the_curve_of_the_seed_itself():
    one, plain = error_curve(W, [3, 5], seeds=1, **SHORT), error_curve(W, [3, 5], **SHORT)
    np.testing.assert_array_equal(one.error, plain.error)


def test_every_output_has_the_spread():
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    curve = error_curve(W, [3, 5], seeds=2, **SHORT)
    assert curve.to_pandas()["largest_error"].tolist() == curve.largest_error.tolist()
    assert json.loads(json.dumps(curve.to_dict()))["errors"] == curve.errors.tolist()
    for text in (repr(curve), curve.to_latex()):
        assert all(word in text for word in ("median", "largest", "searches"))
        assert f"{curve.largest_error[1]:.4g}" in text
    ax = curve.plot()
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert {heights.min(), heights.max()} == {curve.error.min(), curve.largest_error.max()}
    assert "range of 2 searches" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_an_interrupt_keeps_the_best_of_the_searches_so_far():
    def hear(state):
        if (state.search, state.n_factors) == (2, 5):
            raise KeyboardInterrupt

    curve = error_curve(W, [3, 5, 7], seeds=3, callback=hear, on_interrupt="return", **SHORT)
    assert curve.n_searches.tolist() == [2, 2, 1]
    assert curve.status == ("stopped: iteration limit",) * 3
    assert (np.diff(curve.error) <= 0).all()
    assert curve.ended == "interrupted"


def test_the_limit_is_shared_among_searches(monkeypatch):
    limits = []
    inner = module._Path

    def path(search, time_limit):
        limits.append(time_limit)
        return inner(search, time_limit)

    monkeypatch.setattr(module, "_Path", path)
    error_curve(W, [3], seeds=4, rng=0, time_limit=0.4)
    assert len(limits) == 4
    assert 0.0 < limits[0] <= 0.1
    assert all(0.0 <= limit <= 0.4 for limit in limits)


def test_processes_give_the_same_curve():
    pytest.importorskip("joblib")
    here, apart = (error_curve(W, [3, 5], seeds=2, workers=workers, **SHORT) for workers in (1, 2))
    np.testing.assert_array_equal(here.errors, apart.errors)
    assert here.status == apart.status


# What is possible


@in_one_test(
    "shape, block_size, n_factors",
    [((6, 6), "min", 2), ((6, 6), "min", 5), ((6, 6), 3, 3), ((6, 4), 2, 3), ((4, 8), "min", 5), ((5, 5), 3, 3)],
)
@in_one_test("dtype", [float, complex])
def test_degrees_of_freedom_are_the_rank_of_the_derivative(shape, block_size, n_factors, dtype):
    """Over the real and the complex numbers; where the blocks do not divide the sides it is only a bound."""
    rng = np.random.default_rng(1)
    layout = sm.CDDLayout(shape, n_factors, block_size)
    sizes = [int(np.prod(each)) for each in layout.vector_shapes]
    point = rng.standard_normal(sum(sizes)) + (1j * rng.standard_normal(sum(sizes)) if dtype is complex else 0.0)

    def product(values):
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return layout.product([v.reshape(s) for v, s in zip(parts, layout.vector_shapes, strict=True)]).to_dense()

    # The product is linear in each factor, so that steps along one entry are exact.
    steps = np.eye(len(point))
    derivative = np.array([(product(point + step) - product(point)).ravel() for step in steps])
    rank = np.linalg.matrix_rank(derivative, tol=1e-9 * np.linalg.norm(derivative))
    divides = all(side % layout.block_size == 0 for side in shape)
    wanted = min(degrees_of_freedom(layout), shape[0] * shape[1])
    assert rank == wanted if divides else rank <= wanted


def test_the_fewest_factors_by_counting():
    for n in (2, 5, 16):
        assert factors_by_counting(sm.CDDLayout((n, n), 3)) == n + 1
    assert factors_by_counting(sm.CDDLayout((6, 6), 3, 1)) == 3
    wide = factors_by_counting(sm.CDDLayout((4, 8), 3))
    assert degrees_of_freedom(sm.CDDLayout((4, 8), wide)) >= 32 > degrees_of_freedom(sm.CDDLayout((4, 8), wide - 2))


def test_the_bounds_are_in_the_picture_and_in_the_tables():
    pytest.importorskip("matplotlib")
    tiny = np.random.default_rng(3).standard_normal((2, 2))
    curve = error_curve(tiny, [1, 2, 3, 5], rng=0)
    assert (curve.counting_bound, curve.exact_factors) == (3, 5)
    held = curve.to_dict()
    assert (held["counting_bound"], held["exact_factors"]) == (3, 5)
    labels = [text.get_text() for text in curve.plot(x="factors").get_legend().get_texts()]
    assert {"fewest by counting, 3", "exact by construction, 5"} <= set(labels)
    assert error_curve(W[:4], [3], rng=0, max_iter=5).exact_factors is None


def test_fits_that_are_stuck_are_told_by_name(monkeypatch):
    """They have the product of a fit with fewer factors, or gain nothing, or lie above the truncated SVD."""
    inner = module.fit_cdd
    first = inner(W, 3, rng=0, max_iter=3)

    def fit(matrix, n_factors, *, start=None, **options):
        if start is None:
            return first
        layout = sm.CDDLayout.of(start.operator)
        longer = replace(layout, n_factors=n_factors)
        product = longer.product(longer.extended(layout.vectors_of(start.operator)))
        gain = {5: 1.0, 7: 1.0, 9: 0.9995}[n_factors]  # warm starts that did not move, and one that hardly did
        said = "warm start" if gain == 1.0 else "random"
        return replace(start, operator=product, error=start.error * gain, start=said)

    monkeypatch.setattr(module, "fit_cdd", fit)
    curve = error_curve(W, NUMBERS, rng=0)
    assert curve.product_factors.tolist() == [3, 3, 3, 9]
    assert curve.notes[:2] == (
        "5, 7 factors: no better than 3 factors, whose product it is",
        "9 factors: stuck, less than 0.1% below the point before",
    )
    assert any(note.endswith("factors: above the truncated SVD of no more parameters") for note in curve.notes)
    assert "a product of 17 complex factors is exact: factorize_cdd" in curve.notes
    assert all(note in repr(curve) for note in curve.notes)
    assert curve.to_dict()["notes"] == list(curve.notes)


def test_nothing_is_stuck_at_an_exact_product():
    curve = error_curve(np.outer(np.arange(1.0, 6.0), np.ones(5)), [3, 5, 7], rng=0)
    assert not any("stuck" in note or "is exact" in note for note in curve.notes)


def test_a_product_that_alternation_finds_exactly_is_not_told_of_a_longer_one():
    """Three factors of the discrete Fourier transform end at a few more roundings than closed forms."""
    i = np.arange(32)
    curve = error_curve(np.exp(-2j * np.pi * i * i[:, None] / 32), [3, 5, 7], rng=0, baselines=False)
    assert curve.error[0] < 1e-14
    assert not any("is exact" in note for note in curve.notes)


@pytest.mark.parametrize(("width", "inches"), [("column", 3.4), ("page", 7.0)])
def test_figures_of_a_paper_have_its_size(width, inches):
    pytest.importorskip("matplotlib")
    ax = error_curve(W, [3, 5], seeds=2, **SHORT).plot(width=width)
    assert ax.figure.get_figwidth() == inches
    assert max(label.get_fontsize() for label in ax.get_xticklabels()) == 8.0
    with pytest.raises(ValueError, match='width must be one of "column", "page", got \'wide\''):
        interrupted().plot(width="wide")


def test_progress_is_shown_in_python(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr("structmat._progress._PATIENCE", 0.0)
    error_curve(W, [3, 5], seeds=2, progress=True, **SHORT)
    assert capsys.readouterr().err.startswith("structmat: 0:00:00: search 1 of 2, 3 factors (1 of 2), best error ")
