"""`sweep`: the table has what each method gives by itself, at no more parameters than the CDD product."""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import save_file

import structmat as sm
from structmat.fit import baseline_errors, fit_cdd
from structmat.studies import Study, changes, matrices, sweep
from structmat.studies._study import COLUMNS
from tests.studies.outcomes import rows

RNG = np.random.default_rng(0)
LAYERS = {"square": RNG.standard_normal((8, 8)), "wide": RNG.standard_normal((4, 12)).astype("float32")}
OPTIONS = {"block_sizes": ["min", 2], "seeds": [0, 1]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return sweep(LAYERS, tmp_path_factory.mktemp("sweep") / "out", **OPTIONS)


@cache
def fitted(layer, n_factors, block_size, seed):
    return fit_cdd(LAYERS[layer], n_factors, block_size=block_size, rng=seed)


def test_rows_have_what_each_method_gives_by_itself(study):
    assert not study.failed
    for row in study.rows:
        assert set(row) == set(COLUMNS)
        W = LAYERS[row["layer"]]
        assert (row["rows"], row["cols"], row["status"]) == (*W.shape, "completed")
        assert row["norm"] == pytest.approx(np.linalg.norm(W))
        fit = fitted(row["layer"], row["n_factors"], row["block_size"], row["seed"] or 0)
        if row["method"] == "cdd":
            assert (row["error"], row["n_parameters"]) == (fit.error, fit.n_parameters)
        else:
            ((used, error),) = baseline_errors(W, [fit.n_parameters], names=[row["method"]]).values()
            assert (row["error"], row["n_parameters"], row["seed"]) == (error[0], used[0], None)
            assert row["n_parameters"] <= fit.n_parameters
    settings = {(row["layer"], row["block_size"], row["method"]) for row in study.rows}
    assert len(study.rows) == len(settings) + 2 * 2  # a second seed of each setting of CDD


def test_workers_give_the_same_rows_and_a_study_can_be_extended(tmp_path, study):
    first = sweep(LAYERS, tmp_path / "out", methods=["cdd"], workers=2)
    assert {row["method"] for row in first.rows} == {"cdd"}
    more = sweep(LAYERS, tmp_path / "out", **OPTIONS, workers=2)
    assert rows(more) == rows(study)
    assert {str(row) for row in first.rows} <= {str(row) for row in more.rows}  # with the time that they took
    assert rows(sweep({"square": LAYERS["square"]}, tmp_path / "out")) == [
        row
        for row in rows(study)
        if row["layer"] == "square" and (row["n_factors"], row["block_size"]) == (3, "min") and row["seed"] in {0, None}
    ]
    five = sweep({"square": LAYERS["square"]}, tmp_path / "out", methods=["cdd"], n_factors=[3, 5])
    assert [row["error"] for row in five.rows] == [fitted("square", k, "min", 0).error for k in (3, 5)]
    changed = sweep({"square": LAYERS["square"] + 1}, tmp_path / "out", methods=["cdd"])  # another matrix
    assert changed.rows[0]["error"] != first.rows[0]["error"]
    with pytest.raises(ValueError, match=r"other settings: time_limit null there, 9\.0 now"):
        sweep(LAYERS, tmp_path / "out", time_limit=9)


def test_tables_and_means_agree_with_the_rows(tmp_path, study):
    table = study.to_pandas()
    assert len(table) == len(study.rows)
    assert table["error"].tolist() == [row["error"] for row in study.rows]
    study.to_csv(tmp_path / "t.csv")
    with pytest.raises(FileExistsError):
        study.to_csv(tmp_path / "t.csv")
    lines = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert [float(line["error"]) for line in lines] == table["error"].tolist()
    for mean in study.means().itertuples():
        chosen = [row for row in study.rows if (row["method"], row["block_size"], row["n_factors"]) == mean[1:4]]
        assert mean.layers == len({row["layer"] for row in chosen})
        assert mean.error == pytest.approx(np.mean([row["error"] for row in chosen]))
        by_layer = [np.mean([row["error"] for row in chosen if row["layer"] == name]) for name in LAYERS]
        assert mean.layers < 2 or mean.deviation == pytest.approx(np.std(by_layer, ddof=1))
        assert mean.share == pytest.approx(np.mean([row["n_parameters"] / row["rows"] / row["cols"] for row in chosen]))
    norms = [np.linalg.norm(W) for W in LAYERS.values()]
    one = Study(tuple(row for row in study.rows if row["method"] == "truncated-svd")[::2])
    left = np.hypot(*(row["error"] * row["norm"] for row in one.rows))
    assert one.total_error("truncated-svd") == pytest.approx(left / np.hypot(*norms))
    assert f"Study of 2 layers, {len(study.rows)} rows" in repr(study)


def test_families_that_cannot_compete_are_missing(study):
    """They are no point of error 1.0 with no parameters, which would pull means up."""
    assert all(row["n_parameters"] > 0 for row in study.rows)
    assert any("has no member with so few parameters" in text for text in study.left_out)
    nothing = {**study.rows[0], "method": "monarch", "n_parameters": 0, "error": 1.0}
    assert "monarch" not in set(Study((study.rows[0], nothing)).means()["method"])


def test_stopped_fits_are_said_in_every_output(tmp_path):
    """Their status and both times stand in rows, CSV, means, print and figure."""
    W = np.random.default_rng(0).standard_normal((8, 8))
    study = sweep({"W": W}, tmp_path / "out", n_factors=[3, 5], methods=["cdd", "truncated-svd"], time_limit=0)
    stopped = [row for row in study.rows if row["status"] == "time limit"]
    assert {row["method"] for row in stopped} == {"cdd"}
    assert all(row["processor_seconds"] >= 0.0 and row["clock_seconds"] > 0.0 for row in study.rows)
    lines = [*csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())]
    assert [line["status"] for line in lines] == [row["status"] for row in study.rows]
    assert study.means()["stopped"].tolist() == [1, 1, 0, 0]
    assert {"stopped", "processor_seconds", "clock_seconds", "deviation"} <= set(repr(study).splitlines()[1].split())
    hollow = [line for line in study.plot().get_lines() if line.get_label() == "stopped"]
    assert [len(line.get_xdata()) for line in hollow] == [2]
    assert hollow[0].get_markerfacecolor() == "white"
    of_one = Study(tuple(row for row in study.rows if row["n_factors"] == 3))
    assert "stopped" in [line.get_label() for line in of_one.plot().get_lines()]


def test_errors_weighted_by_the_inputs(tmp_path):
    moment = RNG.uniform(0.1, 2.0, 8)
    study = sweep({"W": LAYERS["square"]}, tmp_path / "out", input_second_moment=moment)
    found = {row["method"]: row for row in study.rows}
    assert set(found) == {"cdd", "truncated-svd"}
    assert found["cdd"]["error"] == fit_cdd(LAYERS["square"], input_second_moment=moment, rng=0).error
    assert found["cdd"]["norm"] == pytest.approx(np.linalg.norm(LAYERS["square"] * np.sqrt(moment)))
    assert min(study.left_out).endswith("has no closed form for weighted errors")


def test_matrices_in_files(tmp_path):
    np.save(tmp_path / "one.npy", LAYERS["square"])
    np.savez(tmp_path / "two.npz", q=LAYERS["wide"], k=LAYERS["wide"] + 1, vector=np.ones(3))
    save_file({"up.weight": LAYERS["wide"]}, tmp_path / "three[1].safetensors")
    found = matrices(*tmp_path.glob("*.np[yz]"), tmp_path / "three[1].safetensors")
    assert set(found) == {"one", "two/q", "two/k", "three[1]/up.weight"}
    np.testing.assert_array_equal(found["two/k"].matrix(), LAYERS["wide"] + 1)
    assert [*matrices(*tmp_path.glob("*.np?"), targets="^q")] == ["two/q"]
    study = sweep(found, tmp_path / "out", methods=["truncated-svd"], workers=2)
    assert [row["layer"] for row in study.rows] == [*found]
    sm.io.save(sm.Identity(3), tmp_path / "o.safetensors")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npy").read_bytes()[:-1])
    for files, kind, text in (
        (["o.safetensors"], ValueError, "holds a structmat operator"),
        (["cut.npy"], ValueError, r"cut\.npy is no complete \.npy file"),
        (["no.npy"], FileNotFoundError, "No such file"),
        (["one.npy", "one.npy"], ValueError, "two matrices are called one"),
    ):
        with pytest.raises(kind, match=text):
            matrices(*(tmp_path / name for name in files))
    with pytest.raises(ValueError, match="no matrix has a name in which 'nowhere' is found"):
        matrices(tmp_path / "one.npy", targets="nowhere")


def test_changes_between_checkpoints(tmp_path):
    base = {"0.up.weight": LAYERS["wide"], "0.same.weight": LAYERS["wide"], "norm.weight": np.ones(3)}
    save_file(base, tmp_path / "base.safetensors")
    save_file(base | {"0.up.weight": LAYERS["wide"] * 3}, tmp_path / "tuned.safetensors")
    found = changes(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors")
    np.testing.assert_array_equal(found["0.up"].matrix(), LAYERS["wide"] * 3 - LAYERS["wide"])
    study = sweep(found, tmp_path / "out", methods=["cdd"])
    assert ([row["layer"] for row in study.rows], study.left_out) == (["0.up"], ("0.same does not change",))
    for wrong, text in (("x", "no matrix has a name in which 'x' is found"), ("(", "must be a regular expression")):
        with pytest.raises(ValueError, match=text):
            changes(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", wrong)


def test_bad_entries_fail_by_name_and_the_rest_is_done(tmp_path):
    study = sweep({"bad": np.full((4, 4), np.nan), "good": np.eye(4)}, tmp_path / "out", methods=["cdd"])
    assert [row["layer"] for row in study.rows] == ["good"]
    ((key, text),) = study.failed.items()
    assert key.startswith("bad cdd")
    assert "got NaN or infinity" in text


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"n_factors": []}, ValueError, "n_factors must not be empty"),
        ({"n_factors": 3}, TypeError, "n_factors must be a list, got 3"),
        ({"n_factors": [1.5]}, TypeError, "n_factors must be an integer"),
        ({"methods": ["monark"]}, ValueError, "methods must be one of"),
        ({"block_sizes": ["max"]}, TypeError, "block_sizes must be"),
        ({"seeds": [-1]}, ValueError, "seeds"),
        ({"workers": 0}, ValueError, "workers must be at least 1"),
        ({"n_factors": [4], "block_sizes": [2], "methods": ["cdd"]}, ValueError, "there is nothing to do"),
    ],
)
def test_wrong_arguments_are_told_before_any_work(tmp_path, options, kind, text):
    with pytest.raises(kind, match=text):
        sweep({"W": np.eye(4)}, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_matrices_without_names_are_refused(tmp_path):
    with pytest.raises(TypeError, match="layers must be a dict of matrices by name, got a list"):
        sweep([np.eye(4)], tmp_path / "out")


@pytest.mark.parametrize(
    ("block_sizes", "label"), [({"min", 2}, "parameters, % of dense"), ({"min"}, "layers, sorted by error")]
)
def test_a_study_is_drawn(tmp_path, study, block_sizes, label):
    """Of several settings against the number of parameters, of a single one by layers."""
    drawn = Study(tuple(row for row in study.rows if row["block_size"] in block_sizes))
    ax = drawn.plot()
    assert ax.get_xlabel() == label
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["CDD product", "truncated SVD"]
    assert drawn.plot(ax) is ax
    ax.figure.savefig(tmp_path / "f.png")


def test_a_study_without_rows_is_not_drawn():
    with pytest.raises(ValueError, match="must have rows to draw"):
        Study(()).plot()


def test_a_figure_has_all_points_and_no_mean_over_fewer_layers(study):
    by_svd = [row for row in study.rows if row["method"] == "truncated-svd"]
    made = [{**row, "method": "cdd-in-blocks"} for row in by_svd]
    made = [row | {"n_parameters": 0, "error": 1.0} if row["layer"] == "wide" else row for row in made]
    wider = [{**row, "method": "monarch", "n_parameters": 2 * row["n_parameters"]} for row in by_svd]
    ax = Study((*by_svd, *made, *wider)).plot()
    assert [line.get_label() for line in ax.get_lines()] == ["truncated SVD", "Monarch"]
    assert all(max(line.get_xdata()) < ax.get_xlim()[1] for line in ax.get_lines())


def test_another_matrix_of_the_same_name_is_another_unit(tmp_path):
    """What is done is kept in the folder; a matrix that has changed since then is not."""
    first, second = np.random.default_rng(0).standard_normal((2, 4, 4))
    for matrix in (first, second):
        study = sweep({"layer": matrix}, n_factors=[1], methods=["cdd"], out=tmp_path)
        assert rows(study)[-1]["error"] == pytest.approx(fit_cdd(matrix, 1).error)
