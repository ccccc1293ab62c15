"""Sweeps: equal parameters, rows that are what they say, and that nothing done is lost or done otherwise."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat.fit import fit_cdd
from structmat.studies import (
    MatrixSource,
    Study,
    StudyRow,
    SweepConfig,
    WorkFolder,
    example_config,
    load_study,
    read_config,
    sweep,
)
from structmat.studies._sweep._methods import METHODS, budget

RNG = np.random.default_rng(0)
LAYERS = {"a": RNG.standard_normal((12, 12)), "b": RNG.standard_normal((12, 8)), "c": RNG.standard_normal((6, 9))}
FAST = {"max_iter": 20, "restarts": 1}


def timeless(study):
    return [row._replace(seconds=0.0) for row in study.rows]


# Rows are what they say


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    n_factors=st.sampled_from([1, 2, 3, 5]),
    block_size=st.integers(1, 10),
)
def test_the_budget_is_the_size_of_the_product(shape, n_factors, block_size):
    options = {"block_size": block_size, "max_iter": 1, "restarts": 0, "growth": False, "rng": 0}
    try:
        allowed = budget(shape, n_factors, block_size)
    except ValueError:
        with pytest.raises(ValueError):
            fit_cdd(np.ones(shape), n_factors, **options)
    else:
        assert fit_cdd(np.ones(shape), n_factors, **options).n_parameters == allowed


def test_rows_hold_the_fit_and_its_rivals_at_no_more_parameters(tmp_path):
    study = sweep(SweepConfig(LAYERS, n_factors=[3, 5], block_sizes=["min", 3], seeds=[1], **FAST), tmp_path / "out")
    assert study.complete
    assert len(study.rows) == len(LAYERS) * 2 * 2 * len(METHODS)
    assert not study.left_out
    for row in study.rows:
        W = LAYERS[row.layer]
        assert (row.rows, row.cols) == W.shape
        assert row.norm == pytest.approx(np.linalg.norm(W))
        assert row.n_parameters <= row.budget == budget(W.shape, row.n_factors, row.block_size)
        assert 0 <= row.error <= 1
        assert row.status == "completed"
        if row.method == "cdd":
            fit = fit_cdd(W, row.n_factors, block_size=row.block_size, rng=1, **FAST)
            assert (row.n_parameters, row.seed) == (row.budget, 1)
            assert (row.error, row.start, row.solver, row.n_iter) == (fit.error, fit.start, fit.solver, fit.n_iter)
        elif row.method == "truncated-svd":
            rank = row.n_parameters // sum(W.shape)
            u, s, vh = np.linalg.svd(W)
            P = (u[:, :rank] * s[:rank]) @ vh[:rank]
            assert row.error == pytest.approx(np.linalg.norm(W - P) / np.linalg.norm(W), abs=1e-14)
            assert (rank + 1) * sum(W.shape) > row.budget or rank == min(W.shape)
            assert row.seed is None
    assert {row.block_size for row in study.rows if row.layer == "a"} == {12, 3}


def test_weighted_rows_are_those_of_weighted_errors(tmp_path):
    X = RNG.standard_normal((9, 40)) * np.geomspace(1, 0.1, 9)[:, None]
    np.save(tmp_path / "W.npy", LAYERS["c"])
    np.save(tmp_path / "S.npy", X @ X.T)
    source = MatrixSource(files=[str(tmp_path / "W.npy")], input_second_moment=str(tmp_path / "S.npy"))
    study = sweep(SweepConfig([source], **FAST), tmp_path / "out")
    cdd, svd = study.rows
    fit = fit_cdd(LAYERS["c"], input_second_moment=X @ X.T, rng=0, **FAST)
    values = np.linalg.svd(LAYERS["c"] @ X, compute_uv=False)
    assert (cdd.method, cdd.error, cdd.weighted) == ("cdd", fit.error, True)
    rank = svd.n_parameters // 15
    assert svd.error == pytest.approx(np.linalg.norm(values[rank:]) / np.linalg.norm(values))
    assert cdd.norm == svd.norm == pytest.approx(np.linalg.norm(values))
    assert len(study.left_out) == 3
    assert all("weighted" in reason for reason in study.left_out)


def test_what_no_fit_offers_is_told(tmp_path):
    config = SweepConfig(LAYERS, n_factors=[2, 3], block_sizes=["min", 15], methods=["cdd"], seeds=[0, 1], **FAST)
    study = sweep(config, tmp_path / "out")
    assert study.complete
    assert sum(study.left_out.values()) + study.n_planned == 3 * 2 * 2 * 2
    assert study.left_out["block_size must be at most rows + cols - 1 = 14, got 15"] == 4
    assert [row.layer for row in study.rows if row.n_factors == 2] == ["a", "a"]


def test_a_zero_matrix_and_extreme_numbers(tmp_path):
    layers = {"zero": np.zeros((4, 4)), "tiny": 1e-300 * np.eye(4), "huge": 1e300 * np.ones((3, 4))}
    study = sweep(SweepConfig(layers | {"half": np.eye(4, dtype="float16")}), tmp_path / "out")
    assert study.complete
    assert all(row.error < 1e-6 for row in study.rows if row.method == "cdd")
    norms = {row.layer: row.norm for row in study.rows}
    assert norms == pytest.approx({"zero": 0, "tiny": 2e-300, "huge": 12**0.5 * 1e300, "half": 2})


# Sources


def test_files_of_all_kinds_are_found(tmp_path, monkeypatch):
    save_file = pytest.importorskip("safetensors.numpy").save_file

    monkeypatch.chdir(tmp_path)
    np.save("one.npy", LAYERS["a"])
    np.savez("two.npz", x=LAYERS["b"], y=LAYERS["c"], vector=np.ones(3))
    save_file({"q.weight": LAYERS["c"], "v.weight": LAYERS["c"] + 1}, "three.safetensors")
    sources = [MatrixSource(files=["*.np?"]), MatrixSource(files=["three.safetensors"], targets="^q", name="model")]
    study = sweep(SweepConfig(sources, methods=["truncated-svd"]), "out")
    assert study.layers() == ["one", "two/x", "two/y", "model/three/q.weight"]
    arrays = sweep(SweepConfig({"y": LAYERS["c"]}, methods=["truncated-svd"]), "arrays")
    assert study.rows[2]._replace(layer="y", seconds=0.0) == timeless(arrays)[0]


def test_brackets_in_the_names_of_folders_are_no_pattern(tmp_path, monkeypatch):
    folder = tmp_path / "br[1]"
    (folder / "sub[2]").mkdir(parents=True)
    for name in ("a", "sub[2]/b"):
        np.save(folder / f"{name}.npy", LAYERS["a"])
    monkeypatch.chdir(folder)
    for files in (["*.npy"], [f"{folder}/*.npy"], ["a.npy"], ["[a].npy"]):
        study = sweep(SweepConfig([MatrixSource(files=files)], methods=["truncated-svd"]), tmp_path / "out")
        assert study.layers() == ["a"]
    Path("study.toml").write_text("methods = ['truncated-svd']\n[[sources]]\nfiles = ['**/*.npy']")
    monkeypatch.chdir(tmp_path)
    assert sweep("br[1]/study.toml", tmp_path / "out").layers() == ["a", "b"]


def test_changes_between_checkpoints_are_found_in_the_order_of_their_numbers(tmp_path, monkeypatch):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    monkeypatch.chdir(tmp_path)
    base = {f"model.{k}.{name}": RNG.standard_normal((6, 9)).astype("f4") for k in (2, 10) for name in "qkv"}
    base = {f"{name}.weight": value for name, value in base.items()} | {"model.2.q.bias": np.ones(6, "f4")}
    tuned = {name: value + np.float32(0.1) * value[::-1] for name, value in base.items() if "k" not in name}
    tuned |= {name: value for name, value in base.items() if "k" in name}
    save_file(base, "base.safetensors")
    save_file(tuned, "tuned.safetensors")
    source = {"base": "base.safetensors", "tuned": "tuned.safetensors"}
    study = sweep(SweepConfig([MatrixSource(**source, targets="[qk]")], methods=["truncated-svd"]), "out")
    assert study.layers() == ["model.2.q", "model.10.q"]
    assert study.left_out == {"a weight does not change": 2}
    for row in study.rows:
        change = tuned[f"{row.layer}.weight"] - base[f"{row.layer}.weight"]
        assert row.norm == pytest.approx(np.linalg.norm(change))
        assert row.error == sweep(SweepConfig({"x": change}, methods=["truncated-svd"]), row.layer).rows[0].error

    save_file({name: value for name, value in base.items() if name != "model.2.v.weight"}, "lacks.safetensors")
    with pytest.raises(ValueError, match=r"model.2.v.weight: .*lacks.safetensors has no such weight"):
        sweep(SweepConfig([MatrixSource(**source | {"base": "lacks.safetensors"})]), "new")
    save_file(base | {"model.2.v.weight": np.ones((9, 6), "f4")}, "other.safetensors")
    with pytest.raises(ValueError, match=r"model.2.v.weight has shape \(6, 9\), but .*other.* has \(9, 6\)"):
        sweep(SweepConfig([MatrixSource(**source | {"base": "other.safetensors"})]), "new")
    Path("other.safetensors").write_bytes(Path("base.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"other.safetensors"):
        sweep(SweepConfig([MatrixSource(**source | {"tuned": "other.safetensors"})]), "new")
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"files": ["none.npy"]}, "no such file"),
        ({"files": ["*.txt"]}, "no such file"),
        ({"files": ["vector.npy"]}, "vector.npy must hold a matrix, got shape (3,)"),
        ({"files": ["two.npz"], "targets": "zz"}, "no matrix has a name in which targets, 'zz', is found"),
        ({"files": ["W.npy"], "targets": "zz"}, "no matrix has a name in which targets, 'zz', is found"),
        ({"files": ["text.npy"]}, "no .npy, .npz or .safetensors"),
        ({"files": ["W.npy", "folder/W.npy"]}, "two layers are called W: give one of the sources a name"),
    ],
)
def test_bad_sources_are_named(tmp_path, monkeypatch, source, text):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    np.save("W.npy", np.eye(3))
    np.save("folder/W.npy", np.eye(3))
    np.save("vector.npy", np.ones(3))
    np.savez("two.npz", a=np.eye(3), b=np.eye(4))
    Path("text.npy").write_text("text")
    with pytest.raises((ValueError, OSError)) as caught:
        sweep(SweepConfig([MatrixSource(**source)]), "out")
    assert text in str(caught.value)
    assert not Path("out").exists()


def test_paths_of_sources_are_texts():
    names = {"base": "b", "tuned": "t", "input_second_moment": "S"}
    assert MatrixSource(**{key: Path(name) for key, name in names.items()}) == MatrixSource(**names)
    for key in (*names, "targets"):
        with pytest.raises(TypeError, match=f"{key} must be text, got 3"):
            MatrixSource(**names | {key: 3})


# Going on


def test_an_extended_study_keeps_what_it_has(tmp_path):
    first = sweep(SweepConfig({"a": LAYERS["a"]}, **FAST), tmp_path / "out")
    more = sweep(SweepConfig(LAYERS, n_factors=[3, 5], seeds=[0, 1], **FAST), tmp_path / "out")
    assert set(first.rows) < set(more.rows)  # the times too: nothing was done again
    fresh = sweep(SweepConfig(LAYERS, n_factors=[3, 5], seeds=[0, 1], **FAST), tmp_path / "fresh")
    assert timeless(more) == timeless(fresh)
    again = sweep(SweepConfig({"a": LAYERS["a"]}, **FAST), tmp_path / "out")
    assert again.rows == first.rows
    assert load_study(tmp_path / "out").rows == first.rows


def test_other_fits_in_an_old_folder_are_refused(tmp_path):
    sweep(SweepConfig(LAYERS, **FAST), tmp_path / "out")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for change in ({"max_iter": 21}, {"restarts": 2}, {"growth": False}, {"time_limit": 5}):
        name = next(iter(change))
        with pytest.raises(ValueError, match=f"begun with other settings: {name} .* there, .* now; choose another"):
            sweep(SweepConfig(LAYERS, **FAST | change), tmp_path / "out")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_changed_matrix_is_another_one(tmp_path):
    np.save(tmp_path / "W.npy", LAYERS["a"])
    config = SweepConfig([MatrixSource(files=[str(tmp_path / "W.npy")])], methods=["truncated-svd"])
    first = sweep(config, tmp_path / "out")
    np.save(tmp_path / "W.npy", LAYERS["a"] + 1)
    second = sweep(config, tmp_path / "out")
    assert len(second.rows) == 1
    assert first.rows[0].error != second.rows[0].error


def test_a_matrix_of_another_dtype_ends_no_sweep(tmp_path):
    for name, dtype in (("bad", np.longdouble), ("good", np.float64)):
        np.save(tmp_path / f"{name}.npy", LAYERS["a"].astype(dtype))
    files = [str(tmp_path / f"{name}.npy") for name in ("bad", "good")]
    study = sweep(SweepConfig([MatrixSource(files=files)], methods=["truncated-svd"]), tmp_path / "out")
    assert [row.layer for row in study.rows] == ["good"]
    ((key, text),) = study.failed.items()
    assert key.startswith("bad truncated-svd")
    assert "must hold numbers of a standard dtype" in text


def test_other_second_moments_of_a_matrix_make_it_another_one(tmp_path):
    np.save(tmp_path / "W.npy", LAYERS["c"])
    source = MatrixSource(files=[str(tmp_path / "W.npy")], input_second_moment=str(tmp_path / "S.npy"))
    found = []
    for moment in (np.ones(9), np.arange(1.0, 10.0) ** 2):
        np.save(tmp_path / "S.npy", moment)
        study = sweep(SweepConfig([source], methods=["truncated-svd"]), tmp_path / "out")
        assert len(study.rows) == 1
        found.append(study.rows[0].error)
    assert found[0] != found[1]


def test_what_fails_is_told_and_tried_again(tmp_path):
    bad = LAYERS["b"].copy()
    bad[0, 0] = np.nan
    study = sweep(SweepConfig({"a": LAYERS["a"], "bad": bad}, methods=["truncated-svd"]), tmp_path / "out")
    assert [row.layer for row in study.rows] == ["a"]
    assert not study.complete
    ((key, text),) = study.failed.items()
    assert key.startswith("bad truncated-svd")
    assert text == "sweep: bad must be finite, got NaN or infinity"
    study = sweep(SweepConfig({"a": LAYERS["a"], "bad": LAYERS["b"]}, methods=["truncated-svd"]), tmp_path / "out")
    assert study.complete
    assert not study.failed


def test_two_sweeps_cannot_share_a_folder_but_anyone_may_look(tmp_path):
    config = SweepConfig(LAYERS, methods=["truncated-svd"])
    seen = []

    def look(state):
        if state.n_done == 2:
            seen.append(load_study(tmp_path / "out"))
            with pytest.raises(BlockingIOError, match="another run"):
                sweep(config, tmp_path / "out")

    done = sweep(config, tmp_path / "out", callback=look)
    assert set(seen[0].rows) < set(done.rows)
    assert (len(seen[0].rows), seen[0].n_planned, seen[0].complete) == (2, 3, False)


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 2, "scheduler": "local"}])
def test_workers_give_the_same_rows(tmp_path, options):
    if "scheduler" in options:
        pytest.importorskip("distributed")
    config = SweepConfig(LAYERS, n_factors=[3, 5], **FAST)
    alone = sweep(config, tmp_path / "alone")
    assert timeless(sweep(config, tmp_path / "workers", **options)) == timeless(alone)


SCRIPT = """
import sys
import numpy as np
from structmat.studies import SweepConfig, sweep

rng = np.random.default_rng(0)
layers = {f"layer {k}": rng.standard_normal((16, 16)) for k in range(2)}
config = SweepConfig(layers, n_factors=[3, 5], max_iter=40, restarts=1)
sweep(config, sys.argv[1], callback=lambda state: print(state.n_done, flush=True))
"""


def test_a_sweep_killed_again_and_again_ends_with_the_same_rows(tmp_path):
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole = load_study(tmp_path / "whole")
    n_done = []
    for attempt in count():
        assert attempt < 30
        # After a few more units each time, at any point of the next one.
        with subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True) as process:
            for line, _ in zip(process.stdout, range(10), strict=False):
                n_done.append(int(line))
            time.sleep(0.003 * attempt)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert attempt >= 2
    assert max(n_done) == whole.n_planned
    killed = load_study(tmp_path / "killed")
    assert timeless(killed) == timeless(whole)
    names = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
    assert {path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*")} == names


def test_progress_counts_every_unit_and_estimates_the_time_left(tmp_path):
    states = []
    sweep(SweepConfig(LAYERS, **FAST), tmp_path / "out", callback=states.append)
    assert [state.name for state in states[:3]] == list(LAYERS)
    assert [state.n_done for state in states[3:]] == list(range(16))
    assert states[-1].remaining == 0.0
    assert all(state.remaining > 0 for state in states[4:-1])
    sweep(SweepConfig(LAYERS, **FAST), tmp_path / "out", callback=states.append)
    assert (states[-1].n_done, states[-1].n_units) == (15, 15)


def test_ctrl_c_keeps_what_is_done(tmp_path):
    def interrupt(state):
        if state.n_done == 4:
            raise KeyboardInterrupt

    config = SweepConfig(LAYERS, **FAST)
    with pytest.raises(KeyboardInterrupt):
        sweep(config, tmp_path / "out", callback=interrupt)
    assert len(load_study(tmp_path / "out").rows) == 4
    assert sweep(config, tmp_path / "out").complete


# Tables


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = SweepConfig(LAYERS, n_factors=[3, 5], seeds=[0, 1], **FAST)
    return sweep(config, tmp_path_factory.mktemp("study") / "out")


def test_means_are_over_layers_and_seeds(study):
    means = {(m.method, m.n_factors): m for m in study.means()}
    assert len(means) == 2 * len(METHODS)
    rows = [row for row in study.rows if (row.method, row.n_factors) == ("cdd", 5)]
    assert len(rows) == 6
    mean = means["cdd", 5]
    assert mean.error == pytest.approx(np.mean([row.error for row in rows]))
    by_layer = [np.mean([row.error for row in rows if row.layer == name]) for name in LAYERS]
    assert (mean.least, mean.most) == pytest.approx((min(by_layer), max(by_layer)))
    assert mean.share == pytest.approx(np.mean([5 * 12 / 144, (8 * 4 + 28) / 96, (6 * 4 + 18 + 3) / 54]), rel=0.2)
    assert (mean.n_layers, mean.block) == (3, "min")


def test_means_are_over_the_block_sizes_that_were_asked_for(tmp_path):
    """Also where one is the smaller side of a layer, and so what "min" would be."""
    rng = np.random.default_rng(0)
    layers = {"small": rng.standard_normal((4, 4)), "large": rng.standard_normal((8, 8))}
    one = sweep(SweepConfig(layers, block_sizes=[4], methods=["truncated-svd"]), tmp_path / "one")
    assert [(mean.block, mean.n_layers) for mean in one.means()] == [(4, 2)]
    assert one.means()[0].error == pytest.approx(np.mean([row.error for row in one.rows]))
    config = SweepConfig(layers, n_factors=[3, 5], block_sizes=["min", 4, 8], methods=["cdd", "truncated-svd"], **FAST)
    three = sweep(config, tmp_path / "three")
    found = [(mean.method, mean.block, mean.n_factors, mean.n_layers) for mean in three.means()]
    sizes = [("min", 2), (4, 2), (8, 1)]  # a product of 4 x 4 entries has no blocks of 8
    assert found == [(m, block, n, count) for m in config.methods for block, count in sizes for n in (3, 5)]
    assert load_study(tmp_path / "three").means() == three.means()


def test_the_table_is_written_and_read_back(study, tmp_path):
    study.save(tmp_path / "t.csv")
    study.save(tmp_path / "t.sqlite")
    study.save(tmp_path / "again.sqlite")
    assert (tmp_path / "t.sqlite").read_bytes() == (tmp_path / "again.sqlite").read_bytes()
    connection = sqlite3.connect(tmp_path / "t.sqlite")
    columns = [line[1] for line in connection.execute("PRAGMA table_info(results)")]
    rows = connection.execute("SELECT * FROM results").fetchall()
    connection.close()
    assert columns == list(StudyRow._fields)
    assert [StudyRow(*row) for row in rows] == list(study.rows)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [float(line["error"]) for line in lines] == [row.error for row in study.rows]
    assert [line["seed"] for line in lines] == ["" if row.seed is None else str(row.seed) for row in study.rows]
    frame = study.to_dataframe()
    assert list(frame.columns) == list(StudyRow._fields)
    assert frame["error"].tolist() == [row.error for row in study.rows]
    assert json.loads(json.dumps(study.to_dict(), allow_nan=False))["n_rows"] == len(study.rows)
    with pytest.raises(FileExistsError):
        study.save(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"must end in .csv or .json or .sqlite, got .*txt"):
        study.save(tmp_path / "t.txt")
    text = repr(study)
    assert text.startswith("Study of 3 layers, complete\n")
    assert len(text.splitlines()) == 2 + 2 * len(METHODS)


def test_the_table_in_the_folder_is_that_of_the_study(tmp_path):
    study = sweep(SweepConfig(LAYERS, methods=["truncated-svd"]), tmp_path / "out")
    study.save(tmp_path / "t.sqlite")
    assert (tmp_path / "t.sqlite").read_bytes() == (tmp_path / "out/study.sqlite").read_bytes()


def test_folders_without_a_sweep_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be the folder of a study"):
        load_study(tmp_path)
    with WorkFolder.open(tmp_path / "other", {"kind": "another"}):
        pass
    with pytest.raises(ValueError, match="must be the folder of a sweep"):
        load_study(tmp_path / "other")
    sweep(SweepConfig({"a": np.eye(3)}, methods=["truncated-svd"]), tmp_path / "sweep")
    assert len(load_study(tmp_path / "sweep").rows) == 1
    (plan,) = (tmp_path / "sweep/work/units").glob("plan.*")
    plan.unlink()
    with pytest.raises(ValueError, match="must be the folder of a sweep"):
        load_study(tmp_path / "sweep")
    # The plan alone does not make a sweep of another kind of study.
    with WorkFolder.open(tmp_path / "kind", {"kind": "another"}) as folder:
        folder.write("plan", {"units": [], "left_out": {}})
    with pytest.raises(ValueError, match="must be the folder of a sweep"):
        load_study(tmp_path / "kind")
    assert repr(Study((), 0)).startswith("Study of 0 layers")


# Configurations


def test_the_template_is_a_configuration(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(example_config())
    config = read_config(path, seeds=[4])
    assert config.sources == (MatrixSource(files=[str(tmp_path / "changes/*.npy")]),)
    assert (config.n_factors, config.methods, config.seeds) == ((3, 5, 9), METHODS, (4,))
    # What stands there as a comment is allowed as well.
    path.write_text("\n".join(line.removeprefix("# ") for line in example_config().splitlines()[1:]))
    config = read_config(path)
    assert len(config.sources) == 3
    assert config.sources[1].targets == "attention.*(query|value)$"
    assert config.sources[1].base == str(tmp_path / "base.safetensors")
    assert (config.time_limit, config.growth) == (60, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sources must not be empty"),
        ("n_factors = [3", "Unclosed array"),
        ("n_factrs = [3]", "unknown key n_factrs; did you mean n_factors? allowed are sources, n_factors, block_sizes"),
        ("n_factors = 3", "n_factors must be a list, got 3"),
        ("n_factors = []", "n_factors must not be empty"),
        ("n_factors = [0]", "n_factors must be at least 1, got 0"),
        ("n_factors = ['3']", "n_factors must be an integer, got '3'"),
        ("n_factors = [true]", "n_factors must be an integer, got True"),
        ("block_sizes = ['max']", 'block_sizes must be an integer, "min" or "toeplitz", got \'max\''),
        ("block_sizes = [2.5]", "block_sizes must be an integer, got 2.5"),
        (
            "methods = ['svd']",
            'methods must be one of "cdd", "truncated-svd", "block-circulant", "sparse-fourier", "mon',
        ),
        ("seeds = [-1]", "seeds must be at least 0, got -1"),
        ("seeds = [9223372036854775808]", "seeds must be below 2**63"),
        ("max_iter = 0", "max_iter must be at least 1, got 0"),
        ("growth = 0", "growth must be true or false, got 0"),
        ("time_limit = -1", "time_limit must be finite and not negative, got -1"),
        ("time_limit = 'long'", "time_limit must be a number, got 'long'"),
        ("sources = 'W.npy'", "sources must be tables, each beginning with [[sources]]"),
        ("[sources]\nfiles = ['W.npy']", "sources must be tables, each beginning with [[sources]]"),
        ("[[sources]]\nfile = ['W.npy']", "unknown key file in a table of sources; did you mean files?"),
        ("[[sources]]\nname = 'x'", "give either files, or base and tuned"),
        ("[[sources]]\nfiles = ['W.npy']\nbase = 'x'", "give either files, or base and tuned"),
        ("[[sources]]\nbase = 'x'", "tuned is missing"),
        ("[[sources]]\nfiles = ['W.npy']\ntargets = '('", "targets must be a regular expression, got '('"),
        ("[[sources]]\nfiles = [1]", "files must be text, got 1"),
    ],
)
def test_bad_configurations_are_refused_by_file_and_key(tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text if "ources" in text or not text else f"{text}\n[[sources]]\nfiles = ['W.npy']")
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {message}") or (
        message == "Unclosed array" and str(caught.value).startswith(f"{path}: ")
    )


def test_more_than_a_plan_can_hold_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="SweepConfig: seeds must have at most 100,000 values, got more"):
        SweepConfig(LAYERS, seeds=range(10**9))
    many = SweepConfig(LAYERS, n_factors=range(1, 1001), block_sizes=range(1, 1001), methods=["cdd"])
    with pytest.raises(ValueError, match="sweep: the configuration asks for 3,000,000 results, more than 1,000,000"):
        sweep(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="there is nothing to do: n_factors must be at most 1,000 for a product"):
        sweep(SweepConfig(LAYERS, n_factors=[10**9 + 1]), tmp_path / "factors")


@pytest.mark.parametrize(
    ("layers", "options", "reason"),
    [
        ({"a": np.eye(4)}, {"block_sizes": [100]}, r"block_size must be at most rows \+ cols - 1 = 7, got 100 \(5\)"),
        (
            {"a": np.ones((4, 6))},
            {"n_factors": [2, 4], "methods": ["cdd"]},
            "n_factors must be odd and at least .*; .*",
        ),
    ],
)
def test_a_sweep_of_nothing_is_an_error_that_says_why(tmp_path, layers, options, reason):
    for out in (tmp_path / "new", tmp_path / "there"):
        if out.name == "there":
            sweep(SweepConfig({"a": np.eye(4)}, methods=["cdd"], **FAST), out)
        before = sorted(out.rglob("*"))
        with pytest.raises(ValueError, match=f"^sweep: there is nothing to do: {reason}$"):
            sweep(SweepConfig(layers, **options, **FAST), out)
        assert sorted(out.rglob("*")) == before
        assert out.exists() == (out.name == "there")


def test_a_printed_study_counts_what_is_left_out(tmp_path):
    config = SweepConfig({"a": np.eye(4), "b": np.ones((4, 6))}, n_factors=[2, 3], methods=["cdd"], **FAST)
    whole = SweepConfig({"a": np.eye(4)}, methods=["cdd"], **FAST)
    assert repr(sweep(config, tmp_path / "some")).startswith("Study of 2 layers, complete; 1 combination not available")
    assert repr(sweep(whole, tmp_path / "all")).startswith("Study of 1 layer, complete\n")


def test_configurations_from_python_are_checked_too():
    with pytest.raises(TypeError, match="SweepConfig: sources must be MatrixSource objects"):
        SweepConfig(["W.npy"])
    with pytest.raises(ValueError, match="SweepConfig: sources must not be empty"):
        SweepConfig({})
    assert SweepConfig({"a": np.eye(3)}, n_factors=[3, 3, 5]).n_factors == (3, 5)
    with pytest.raises(TypeError, match="callback must be callable"):
        sweep(SweepConfig({"a": np.eye(3)}), "unused", callback=3)


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(PermissionError, match=r"the folder is not writable: .*out"):
        sweep(SweepConfig(LAYERS), tmp_path / "out")
