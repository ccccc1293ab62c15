"""`sweep`: the table has what each method gives by itself, at no more parameters than the CDD product."""

from __future__ import annotations

import csv
import json
from functools import cache, partial

import numpy as np
import pytest
from safetensors.numpy import save_file

import structmat as sm
from structmat.cli import main
from structmat.fit import baseline_errors, error_curve, fit_cdd
from structmat.studies import Study, _units, changes, load_study, matrices, sweep
from structmat.studies import _sweep as module
from structmat.studies._study import COLUMNS
from tests.studies.outcomes import rows

RNG = np.random.default_rng(0)
LAYERS = {"square": RNG.standard_normal((8, 8)), "wide": RNG.standard_normal((4, 12)).astype("float32")}
OPTIONS = {"block_sizes": ["min", 2], "seeds": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return sweep(LAYERS, tmp_path_factory.mktemp("sweep") / "out", **OPTIONS)


@cache
def fitted(layer, numbers, block_size):
    return error_curve(LAYERS[layer], numbers, block_size=block_size, rng=0, seeds=2)


def test_rows_have_what_each_method_gives_by_itself(study):
    """The CDD products of a layer are those of its error curve, search by search."""
    assert not study.failed
    for row in study.rows:
        assert set(row) == set(COLUMNS)
        W = LAYERS[row["layer"]]
        assert (row["rows"], row["cols"], row["status"]) == (*W.shape, "completed")
        assert row["norm"] == pytest.approx(np.linalg.norm(W))
        curve = fitted(row["layer"], (3,), row["block_size"])
        if row["method"] == "cdd":
            found = (row["error"], row["n_parameters"], row["product_factors"])
            assert found == (curve.errors[row["search"] - 1, 0], curve.n_parameters[0], 3)
        else:
            ((used, error),) = baseline_errors(W, curve.n_parameters, names=[row["method"]]).values()
            assert (row["error"], row["n_parameters"], row["search"]) == (error[0], used[0], None)
            assert row["n_parameters"] <= curve.n_parameters[0]
    settings = {(row["layer"], row["block_size"], row["method"]) for row in study.rows}
    assert len(study.rows) == len(settings) + 2 * 2  # a second search of each setting of CDD


@pytest.fixture
def short(monkeypatch):
    """Fits of few steps, in this process."""
    made = partial(error_curve, max_iter=8, restarts=1)
    monkeypatch.setattr(_units, "error_curve", made)
    return made


def test_a_curve_of_a_layer_is_its_error_curve(tmp_path, short):
    study = sweep(LAYERS, tmp_path, n_factors=[5, 3], seeds=2)
    for layer, W in LAYERS.items():
        found, expected = study.curve(layer).to_dict(), short(W, (3, 5), rng=0, seeds=2).to_dict()
        families = {name: of for name, of in expected.pop("baselines").items() if any(of["n_parameters"])}
        assert found.pop("baselines") == families
        # Notes on single fits are those of the fits, which a study does not keep.
        left_out = {"notes", "processor_seconds", "clock_seconds"}
        assert {k: found[k] for k in found.keys() - left_out} == {k: expected[k] for k in expected.keys() - left_out}
    with pytest.raises(ValueError, match="layer must be one with blocks of 4, got 'wide'; there are square, wide"):
        study.curve("wide", 4)


def test_searches_are_a_spread_in_every_output(tmp_path, short):
    """The best of the searches counts, and is no worse than that of fewer; median and range stand beside it."""
    layers = {name: np.random.default_rng(k).standard_normal((7, 7)) for k, name in enumerate("ab")}
    one, several = (sweep(layers, tmp_path / f"{n}", n_factors=[3, 5], methods=["cdd"], seeds=n) for n in (1, 3))
    assert {row["search"] for row in several.rows} == {1, 2, 3}
    assert [row for row in rows(several) if row["search"] == 1] == rows(one)
    # Searches of so few steps may end alike.
    apart = ({**row, "error": row["error"] * (0.9, 0.7, 1.0)[row["search"] - 1]} for row in several.rows)
    several = Study(tuple(apart))
    means = several.means()
    assert (means["error"] < means["median_error"]).all()
    for k, number in enumerate((3, 5)):
        errors = np.array([several.curve(name).errors[:, k] for name in layers])
        expected = [f(errors, axis=1).mean() for f in (np.min, np.median, np.max)]
        found = means[means["n_factors"] == number][["error", "median_error", "largest_error"]]
        np.testing.assert_allclose(found.to_numpy()[0], expected)
    assert means["n_searches"].tolist() == [3, 3]
    assert (means["error"].to_numpy() <= one.means()["error"].to_numpy()).all()
    for text in (repr(several), several.to_latex()):
        assert all(word in text for word in ("median", "largest", "searches", f"{means['largest_error'][1]:.4g}"))
        assert "searches" not in repr(one)
    ax = several.plot()
    assert "range of 3 searches" in [text.get_text() for text in ax.get_legend().get_texts()]
    pale, dark = (band.get_paths()[0].vertices[:, 1] for band in ax.collections)
    assert {pale.min(), pale.max()} == {means["least"].min(), means["most"].max()}
    assert {dark.min(), dark.max()} == {means["error"].min(), means["largest_error"].max()}


def test_workers_give_the_same_rows_and_a_study_can_be_extended(tmp_path, study):
    first = sweep(LAYERS, tmp_path / "out", methods=["cdd"], workers=2)
    assert {row["method"] for row in first.rows} == {"cdd"}
    more = sweep(LAYERS, tmp_path / "out", **OPTIONS, workers=2)
    assert rows(more) == rows(study)
    assert {str(row) for row in first.rows} <= {str(row) for row in more.rows}  # with the time that they took
    assert rows(sweep({"square": LAYERS["square"]}, tmp_path / "out")) == [
        row
        for row in rows(study)
        if (row["layer"], row["block_size"]) == ("square", "min") and row["search"] in {1, None}
    ]
    five = sweep({"square": LAYERS["square"]}, tmp_path / "out", methods=["cdd"], n_factors=[1, 3])
    assert [row["error"] for row in five.rows] == fitted("square", (1, 3), "min").errors[0].tolist()
    kept = load_study(tmp_path / "out").rows  # what was done anew counts once
    assert len(
        {(row["layer"], row["method"], row["n_factors"], row["block_size"], row["search"]) for row in kept}
    ) == len(kept)
    changed = sweep({"square": LAYERS["square"] + 1}, tmp_path / "out", methods=["cdd"])  # another matrix
    assert changed.rows[0]["error"] != first.rows[0]["error"]
    with pytest.raises(ValueError, match=r"other settings: time_limit null there, 9\.0 now"):
        sweep(LAYERS, tmp_path / "out", time_limit=9)


def grouped(chosen):
    return [[row for row in chosen if row["layer"] == name] for name in LAYERS]


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
        by_layer = [min(row["error"] for row in own) for own in grouped(chosen) if own]
        assert mean.error == pytest.approx(np.mean(by_layer))
        assert mean.layers < 2 or mean.deviation == pytest.approx(np.std(by_layer, ddof=1))
        norms = [own[0]["norm"] for own in grouped(chosen) if own]
        left = np.linalg.norm(np.multiply(by_layer, norms))
        assert mean.together == pytest.approx(left / np.linalg.norm(norms))
        assert mean.share == pytest.approx(np.mean([row["n_parameters"] / row["rows"] / row["cols"] for row in chosen]))
    assert f"Study of 2 layers, {len(study.rows)} rows" in repr(study)


def test_families_that_cannot_compete_are_missing(study):
    """They are no point of error 1.0 with no parameters, which would pull means up."""
    assert all(row["n_parameters"] > 0 for row in study.rows)
    assert any("has no member with so few parameters" in text for text in study.left_out)
    nothing = {**study.rows[0], "method": "monarch", "n_parameters": 0, "error": 1.0}
    assert "monarch" not in set(Study((study.rows[0], nothing)).means()["method"])


def test_a_limit_is_said_in_every_output_and_points_not_made_stand_in_none(tmp_path):
    """No time is left for five factors."""
    W = np.random.default_rng(0).standard_normal((8, 8))
    study = sweep({"W": W}, tmp_path / "out", n_factors=[3, 5], methods=["cdd", "truncated-svd"], time_limit=0)
    said = [(row["method"], row["n_factors"], row["status"]) for row in study.rows]
    assert said == [
        ("cdd", 3, "stopped: time limit"), ("truncated-svd", 3, "completed"), ("truncated-svd", 5, "completed")
    ]  # fmt: skip
    assert study.left_out == ("5 factors of W were not made",)
    assert rows(load_study(tmp_path / "out")) == rows(study)
    assert all(row["processor_seconds"] >= 0.0 and row["clock_seconds"] > 0.0 for row in study.rows)
    lines = [*csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())]
    assert [line["status"] for line in lines] == [status for *_, status in said]
    assert study.to_pandas()["status"].tolist() == [status for *_, status in said]
    means = study.means()
    assert means["stopped"].tolist() == [1, 0, 0]
    assert means["error"].notna().all()
    for table in (repr(study).splitlines()[2:], study.to_latex().splitlines()[6:-2]):
        assert [line.split()[0] for line in table] == ["cdd", "truncated-svd", "truncated-svd"]
    assert study.curve("W").n_factors.tolist() == [3]
    ax = study.plot(x="factors")
    hollow = [line for line in ax.get_lines() if line.get_markerfacecolor() == "white"]
    assert [(line.get_label(), line.get_xdata().tolist()) for line in hollow] == [("stopped: time limit", [3])]
    of_one = Study(tuple(row for row in study.rows if row["n_factors"] == 3))
    assert "stopped: time limit" in [line.get_label() for line in of_one.plot().get_lines()]


def test_ctrl_c_leaves_no_point_that_was_not_made_in_any_output(tmp_path, capsys, monkeypatch, short):
    """A run that ended early has the rows of what is done, and the table is that of the run before or is missing."""
    np.savez(tmp_path / "w.npz", **LAYERS)
    inner = module.run

    def interrupted(*args, callback, **options):
        def hear(state):
            callback(state)
            if state.n_done == 2:
                raise KeyboardInterrupt

        return inner(*args, callback=hear, **options)

    monkeypatch.setattr(module, "run", interrupted)
    command = ["sweep", str(tmp_path / "w.npz"), "--n-factors", "3,5", "--out", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 130
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in (tmp_path / "out").glob("r*")) == ["results.jsonl"]
    study = load_study(tmp_path / "out")
    assert {(row["layer"], row["method"]) for row in study.rows} == {("w/square", "cdd"), ("w/square", "truncated-svd")}
    assert np.isfinite([row["error"] for row in study.rows]).all()
    means = study.means()
    assert set(means["method"]) == {"cdd", "truncated-svd"}
    assert set(study.to_pandas()["layer"]) == {"w/square"}
    assert study.to_latex().count(r"\\") == 1 + len(means)
    for x in ("share", "factors"):
        lines = [line for line in study.plot(x=x).lines if line.get_label()[0] != "_"]
        assert {line.get_label() for line in lines} == {"CDD product", "stopped: iteration limit", "truncated SVD"}


def test_a_folder_of_another_version_is_told(tmp_path, study):
    old = {k: v for k, v in study.rows[0].items() if k not in {"search", "clock_seconds"}} | {"seed": 0, "seconds": 1.0}
    lines = [{"settings": {}}, {"key": "a", "record": {"rows": [old]}}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = r"path holds rows of another version of structmat, without search, clock_seconds: run it anew elsewhere"
    with pytest.raises(ValueError, match=text):
        load_study(tmp_path)


def test_progress_is_shown_in_python(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr("structmat._progress._PATIENCE", 0.0)
    sweep(LAYERS, tmp_path, methods=["truncated-svd"], progress=True)
    assert capsys.readouterr().err.startswith("structmat: 0:00:00: 0 of 2")


@pytest.mark.parametrize(("width", "inches"), [("column", 3.4), ("page", 7.0)])
def test_figures_of_a_paper_have_its_size(study, width, inches):
    for x, label in (("share", "parameters, % of dense"), ("factors", "factors"), ("parameters", "parameters")):
        ax = study.plot(x=x, width=width)
        assert (ax.figure.get_figwidth(), ax.get_xlabel()) == (inches, label)
    with pytest.raises(ValueError, match="x must be one of"):
        study.plot(x="rank")


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
    for wrong, text in (("x", "targets must match a layer, got 'x'"), ("(", "must be a regular expression")):
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
        ({"seeds": 0}, ValueError, "seeds must be at least 1"),
        ({"rng": -1}, ValueError, "rng must be at least 0"),
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
    ("block_sizes", "label"), [({"min", 2}, "parameters, % of dense"), ({"min"}, "matrices, sorted by error")]
)
def test_a_study_is_drawn(tmp_path, study, block_sizes, label):
    """Of several settings against the number of parameters, of a single one by layers."""
    drawn = Study(tuple(row for row in study.rows if row["block_size"] in block_sizes))
    ax = drawn.plot()
    assert ax.get_xlabel() == label
    cdd = {"CDD product"} if block_sizes == {"min"} else {"CDD, blocks of min", "CDD, blocks of 2"}
    assert {*cdd, "truncated SVD"} <= {text.get_text() for text in ax.get_legend().get_texts()}
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
