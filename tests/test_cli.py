"""The `structmat` command: its tables, its JSON, its errors, and that it never damages a file."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import structmat as sm
from structmat import io
from structmat.cli import _app, _compare, _curve, main
from structmat.fit import error_curve, fit_cdd
from structmat.fit._baselines import low_rank

RNG = np.random.default_rng(0)
W = RNG.standard_normal((9, 6))
RIVALS = ["cdd-fit", "truncated-svd", "nearest-circulant", "nearest-diagonal"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with files of all kinds, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    np.save("W.npy", W)
    np.savez("two.npz", a=W, b=W.T)
    save_file({"layer.weight": W.astype("float32")}, "plain.safetensors")
    io.save(sm.Circulant(np.ones(5, "float32")), "operator.safetensors", metadata={"note": "hello"})
    np.save("square.npy", W[:4, :4])
    np.save("nan.npy", np.where(W > 1, np.nan, W))
    np.save("infinite.npy", np.where(W > 1, np.inf, W))
    np.save("empty.npy", W[:0])
    np.save("three.npy", W[None])
    np.save("text.npy", W.astype(str))
    np.save("object.npy", W.astype(object), allow_pickle=True)
    content = (tmp_path / "W.npy").read_bytes()
    (tmp_path / "truncated.npy").write_bytes(content[:-1])
    (tmp_path / "foreign.npy").write_text("not a matrix")
    (tmp_path / "none.npy").touch()
    for name in ("old.safetensors", "old.png", "old.csv"):
        (tmp_path / name).write_text("old")
    return tmp_path


@pytest.fixture
def cli(capfd):
    """Run the command; give its exit status, stdout and stderr."""

    def run(*arguments):
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        return status, *capfd.readouterr()

    return run


def snapshot(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def fitted(cli, *arguments):
    status, out, err = cli("fit", *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


# What it prints


def test_the_table_holds_the_numbers_of_the_fit_and_its_rivals(cli):
    result = fit_cdd(W, rng=0)
    status, out, err = cli("fit", "W.npy")
    assert (status, err) == (0, "")
    assert out.startswith("W.npy: 9 x 6, float64")
    rows = {cells[0]: cells[1:] for line in out.splitlines() if len(cells := re.split(r"\s*│\s*", line)[1:-1]) == 5}
    assert list(rows) == [
        "CDD fit (D C D)",
        "truncated SVD (rank 1)",
        "nearest block circulant, b=6",
        "nearest diagonal",
    ]
    parameters = [9 + 6 + 12, 9 + 6, 12, 6]
    assert [row[0] for row in rows.values()] == [str(n) for n in parameters]
    assert [row[1] for row in rows.values()] == [f"{100 * n / 54:.3g}%" for n in parameters]
    assert rows["CDD fit (D C D)"][2:] == [f"{result.error:.4f}", f"{result.explained:.2%}"]
    assert f"start {result.start}, {result.n_iter} iterations of sweep, converged, " in out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


def test_json_is_one_object_alone_with_all_fields(cli, folder):
    got = fitted(cli, "W.npy", "--out", "fit.safetensors", "--plot", "fit.png")
    want = fit_cdd(W, rng=0).to_dict()
    assert {key: got[key] for key in want} == want
    assert got["operator"] == {"kind": "CDDProduct", "shape": [9, 6], "block_size": 6}
    assert [row["method"] for row in got["comparison"]] == RIVALS
    assert got["comparison"][0]["error"] == got["error"]
    assert got["seconds"] > 0
    assert (got["out"], got["plot"]) == ("fit.safetensors", "fit.png")
    assert (folder / "fit.png").read_bytes().startswith(b"\x89PNG")
    saved = io.describe("fit.safetensors")
    assert float(saved["metadata"]["error"]) == got["error"]
    assert saved["metadata"]["source"] == "W.npy"
    fit = io.load("fit.safetensors").to_dense()
    assert np.linalg.norm(W - fit) / np.linalg.norm(W) == pytest.approx(got["error"], rel=1e-12)


@pytest.mark.parametrize("kind", ["float32", "float64", "complex128", "int64", ">f8"])
@pytest.mark.parametrize(
    ("shape", "block_size"), [((7, 7), None), ((9, 6), None), ((9, 6), 4), ((1, 5), None), ((12, 30), 2)]
)
def test_rivals_have_the_errors_of_their_definitions(cli, kind, shape, block_size):
    A = np.random.default_rng(1).standard_normal(shape) * 5
    A = (A + 1j * A[::-1] if kind == "complex128" else A).astype(kind)
    np.save("A.npy", A)
    got = fitted(cli, "A.npy", *(() if block_size is None else ("--block-size", block_size)), "--max-iter", 3)
    rank = min(got["n_parameters"] // sum(shape), *shape)
    u, s, vh = np.linalg.svd(A.astype(complex if kind == "complex128" else float), full_matrices=False)
    diagonal = np.zeros_like(A)
    np.fill_diagonal(diagonal[: min(shape), : min(shape)], np.diagonal(A))
    b = block_size or min(shape)
    rivals = {
        "truncated-svd": ((u[:, :rank] * s[:rank]) @ vh[:rank], rank * sum(shape)),
        "nearest-circulant": (sm.BlockCirculant.nearest(A.astype(A.dtype.newbyteorder("=")), b).to_dense(), None),
        "nearest-diagonal": (diagonal, min(shape)),
    }
    rows = {row["method"]: row for row in got["comparison"]}
    for name, (approximation, n_parameters) in rivals.items():
        error = np.linalg.norm(A - approximation) / np.linalg.norm(A)
        assert rows[name]["error"] == pytest.approx(error, rel=1e-5, abs=1e-6)
        assert rows[name]["explained"] == pytest.approx(1 - error**2, rel=1e-4, abs=1e-6)
        assert n_parameters is None or rows[name]["n_parameters"] == n_parameters
    assert rows["nearest-circulant"]["n_parameters"] == -(-shape[0] // b) * -(-shape[1] // b) * b
    assert f"rank {rank}" in rows["truncated-svd"]["label"]


def test_the_svd_of_large_matrices_is_found_by_iterations(monkeypatch):
    A = np.random.default_rng(2).standard_normal((40, 50)).astype("float32")
    result = fit_cdd(A, rng=0, max_iter=2)
    want = _compare.comparison(A, result)[1]
    monkeypatch.setattr(low_rank, "_DENSE_SVD_SIDE", 10)
    monkeypatch.setattr(low_rank, "svdvals", None)
    got = _compare.comparison(A, result)[1]
    assert got.label == want.label
    assert got.error == pytest.approx(want.error, rel=1e-5)


def test_too_few_parameters_for_rank_one_are_told():
    row = _compare._truncated_svd(W, 14)
    assert (row.error, row.to_dict()["explained"], row.label) == (None, None, "truncated SVD (rank 1 needs more)")


@pytest.mark.parametrize("A", [np.zeros((4, 6)), np.eye(5), 1e-300 * np.eye(4), 1e300 * np.ones((3, 4))])
def test_extreme_matrices_are_compared_without_a_warning(cli, A):
    np.save("A.npy", A)
    got = fitted(cli, "A.npy", "--plot", "A.png")
    assert got["error"] < 1e-12
    assert all(0 <= row["error"] <= 1 for row in got["comparison"])


def test_other_numbers_of_factors(cli):
    options = ("--n-factors", 2, "--first", "circulant", "--time-limit", 0.2)
    got = fitted(cli, "square.npy", *options, "--out", "fit.safetensors")
    assert (got["n_factors"], got["n_parameters"]) == (2, 8)
    assert io.load("fit.safetensors").factors[0].shape == (4, 4)
    assert "CDD fit (C D)" in cli("fit", "square.npy", *options)[1]


def test_an_interrupted_fit_prints_and_writes_the_best_so_far(cli, monkeypatch):
    def interrupted(*arguments, **options):
        return dataclasses.replace(fit_cdd(*arguments, **options), message="interrupted: the best so far")

    monkeypatch.setattr(_app, "fit_cdd", interrupted)
    status, out, err = cli("fit", "W.npy", "--out", "fit.safetensors")
    assert (status, err) == (130, "structmat fit: interrupted\n")
    assert ", interrupted, " in out
    assert io.load("fit.safetensors").shape == (9, 6)


def test_the_same_seed_gives_the_same_fit(cli):
    first, second = (fitted(cli, "W.npy", "--seed", 3) for _ in range(2))
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [(["two.npz", "--key", "b"], [6, 9]), (["plain.safetensors"], [9, 6]), (["W.npy", "--max-iter=1"], [9, 6])],
)
def test_other_formats_and_options(cli, arguments, shape):
    got = fitted(cli, *arguments)
    assert got["shape"] == shape
    assert "--max-iter=1" not in arguments or got["n_iter"] == 1


def test_progress_shows_every_start_on_a_terminal(cli, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    status, out, err = cli("fit", "W.npy", "--max-iter", 40)
    assert status == 0
    assert "iterations" in err
    assert "error 0." in err
    assert "rank-one" in err
    assert "CDD fit" in out
    status, out, err = cli("fit", "W.npy", "--json")
    assert err == ""
    json.loads(out)


# curve


def test_the_table_of_a_curve_holds_its_numbers(cli):
    want = error_curve(W, 3, rng=0)
    status, out, err = cli("curve", "W.npy", "--max-factors", 3)
    assert (status, err) == (0, "")
    title, *_, row, end = (line for line in out.splitlines() if line.strip())
    assert title.startswith("W.npy: 9 x 6, float64")
    cells = row.split()
    assert cells[:4] == ["3", "27", "50%", f"{want.error[0]:.4f}"]
    rivals = ["-" if not used[0] else f"{error[0]:.4f}" for used, error in want.rivals.values()]
    assert cells[5:] == rivals
    assert end.startswith("blocks of 6, diagonal first, ")
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


def test_a_curve_in_json_and_its_files(cli, folder):
    status, out, err = cli(
        *("curve", "square.npy", "--max-factors", 2, "--block-size", 4, "--seed", 5, "--first", "circulant", "--json"),
        *("--csv", "curve.csv", "--plot", "curve.png"),
    )
    assert (status, err) == (0, "")
    got = json.loads(out)
    want = error_curve(W[:4, :4], 2, block_size=4, first="circulant", rng=5).to_dict()
    assert {key: got[key] for key in want if key != "seconds"} == {k: v for k, v in want.items() if k != "seconds"}
    assert (got["csv"], got["plot"]) == ("curve.csv", "curve.png")
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert {**sm.ErrorCurve.load("curve.csv").to_dict(), "csv": "curve.csv", "plot": "curve.png"} == got
    status, out, _ = cli("curve", "W.npy", "--max-factors", 3, "--csv", "curve.csv", "--plot", "curve.png", "--force")
    assert (status, out.endswith("wrote curve.png\nwrote curve.csv\n")) == (0, True)


def test_a_curve_out_of_time_says_so(cli):
    status, out, err = cli("curve", "square.npy", "--max-factors", 5, "--time-limit", 0)
    assert (status, err) == (0, "")
    assert "s, stopped by the time limit; fits of 0.0 s repeat the best of fewer factors" in out


def test_progress_of_a_curve_shows_the_time_left(cli, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    status, _, err = cli("curve", "W.npy", "--max-factors", 3, "--time-limit", 3000)
    assert status == 0
    assert "3 factors (1 of 1), " in err
    assert "error 0." in err
    assert re.search(r"about 0:(50:00|49:5\d) left", err)


def test_an_interrupted_curve_prints_and_writes_what_there_is(cli, monkeypatch, folder):
    def interrupted(*arguments, **options):
        return dataclasses.replace(error_curve(*arguments, **options), stopped="interrupted")

    monkeypatch.setattr(_curve, "error_curve", interrupted)
    status, out, err = cli("curve", "W.npy", "--max-factors", 3, "--csv", "curve.csv")
    assert (status, err) == (130, "structmat curve: interrupted\n")
    assert ", interrupted; fits of 0.0 s" in out
    assert sm.ErrorCurve.load("curve.csv").stopped == "interrupted"


# info


def test_info_describes_a_saved_fit(cli):
    cli("fit", "W.npy", "--out", "fit.safetensors", "--block-size", 3)
    status, out, err = cli("info", "fit.safetensors")
    assert (status, err) == (0, "")
    for pattern in (
        r"operator +CDDProduct",
        r"shape +9 x 6",
        r"dtype +float64",
        r"block size +3",
        r"parameters +33 \(61\.111% of dense\)",
    ):
        assert re.search(pattern, out)
    for pattern in (
        r"factors\.0\.d │ 9 ",
        r"factors\.1\.c │ 3 x 2 x 3 ",
        r"factors\.2\.d │ 6 ",
        r"source: W\.npy",
        r"  start: ",
    ):
        assert re.search(pattern, out)


@pytest.mark.parametrize("name", ["W.npy", "two.npz", "plain.safetensors", "operator.safetensors"])
def test_info_in_json_is_the_description(cli, name):
    status, out, err = cli("info", name, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == io.describe(name)
    status, out, _ = cli("info", name)
    assert status == 0
    assert all(array in out for array in io.describe(name)["tensors"])


# Help


def test_help_names_every_option_with_its_default(cli):
    status, out, err = cli("fit", "--help")
    assert (status, err) == (0, "")
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", out).split())
    for option in (
        "key",
        "n-factors",
        "block-size",
        "first",
        "max-iter",
        "time-limit",
        "tol",
        "seed",
        "out",
        "plot",
        "json",
        "force",
        "debug",
    ):
        assert f"--{option}" in text
    options = inspect.signature(fit_cdd).parameters
    for default in (*(options[name].default for name in ("n_factors", "first", "max_iter", "tol")), 0, False):
        assert f"[default: {default}]" in text
    assert "--plot fit.png" in text
    assert "--no-" not in text


def test_version_and_no_arguments(cli):
    assert cli("--version") == (0, f"structmat {sm.__version__}\n", "")
    status, out, _ = cli()
    assert status == 0
    assert all(name in out for name in ("fit", "curve", "info", "--help", "--version"))


# Errors

USAGE = [
    (["fit"], "W"),
    (["fit", "W.npy", "more"], "more"),
    (["fit", "W.npy", "--unknown"], "--unknown"),
    (["unknown"], "unknown"),
    (["info"], "FILE"),
    (["curve"], "W"),
    (["curve", "W.npy", "--max-factors", "0"], "--max-factors"),
    (["curve", "W.npy", "--max-factors", "2"], "--max-factors: must be at least 3, got 2"),
    (["curve", "W.npy", "--first", "x"], "--first"),
    (["curve", "W.npy", "--time-limit", "-1"], "--time-limit"),
    (["curve", "W.npy", "--time-limit", "nan"], "--time-limit"),
    (["curve", "W.npy", "--block-size", "10"], "--block-size"),
    (["curve", "two.npz"], "--key: must be one of a, b"),
    (["curve", "W.npy", "--csv", "old.csv"], "--csv: old.csv exists; --force"),
    (["curve", "W.npy", "--csv", "curve.txt"], "--csv: curve.txt must end in .csv"),
    (["curve", "W.npy", "--plot", "curve.gif"], "--plot: curve.gif must end in .png or"),
    (["fit", "W.npy", "--block-size"], "--block-size"),
    (["fit", "W.npy", "--block-size", "0"], "--block-size"),
    (["fit", "W.npy", "--block-size", "x"], "--block-size"),
    (["fit", "W.npy", "--block-size", "10"], "--block-size"),
    (["fit", "W.npy", "--n-factors", "2"], "--n-factors"),
    (["fit", "W.npy", "--n-factors", "-3"], "--n-factors"),
    (["fit", "W.npy", "--max-iter", "0"], "--max-iter"),
    (["fit", "W.npy", "--tol", "-1"], "--tol"),
    (["fit", "W.npy", "--tol", "nan"], "--tol"),
    (["fit", "W.npy", "--seed", "-1"], "--seed"),
    (["fit", "two.npz"], "--key: must be one of a, b"),
    (["fit", "two.npz", "--key", "c"], "--key: must be one of a, b"),
    (["fit", "plain.safetensors", "--key", "c"], "--key: must be one of layer.weight"),
    (["fit", "W.npy", "--out", "old.safetensors"], "--out: old.safetensors exists; --force"),
    (["fit", "W.npy", "--plot", "old.png"], "--plot: old.png exists; --force"),
    (["fit", "W.npy", "--out", "fit.npy"], "--out: fit.npy must end in .safetensors"),
    (["fit", "W.npy", "--plot", "fit.gif"], "--plot: fit.gif must end in .png or"),
    (
        ["fit", "plain.safetensors", "--out", "plain.safetensors", "--force"],
        "--out: plain.safetensors is the matrix itself",
    ),
    (
        ["fit", "plain.safetensors", "--out", "./link.safetensors", "--force"],
        "--out: link.safetensors is the matrix itself",
    ),
]
FAILURES = [
    (["fit", "missing.npy"], "W: missing.npy: No such file"),
    (["fit", "."], "W: .: Is a directory"),
    (["fit", "nan.npy"], "W: must be finite"),
    (["fit", "infinite.npy"], "W: must be finite"),
    (["fit", "empty.npy"], "W: must be a non-empty matrix"),
    (["fit", "three.npy"], "W: must be a non-empty matrix (2-D array), got shape (1, 9, 6)"),
    (["fit", "text.npy"], "W: text.npy holds no numbers"),
    (["fit", "object.npy"], "W: object.npy holds Python objects"),
    (["fit", "truncated.npy"], "W: truncated.npy is no complete"),
    (["fit", "foreign.npy"], "W: foreign.npy is no .npy, .npz or .safetensors file"),
    (["fit", "none.npy"], "W: none.npy is empty"),
    (["fit", "operator.safetensors"], "W: operator.safetensors holds a structmat operator"),
    (["fit", "W.npy", "--out", "no/fit.safetensors"], "--out: no/fit.safetensors: its folder"),
    (["curve", "missing.npy"], "W: missing.npy: No such file"),
    (["curve", "nan.npy"], "W: must be finite"),
    (["curve", "three.npy"], "W: must be a non-empty matrix"),
    (["curve", "W.npy", "--csv", "no/curve.csv"], "--csv: no/curve.csv: its folder"),
    (["info", "missing.npy"], "FILE: missing.npy: No such file"),
    (["info", "truncated.npy"], "FILE: truncated.npy is no complete"),
]


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize(
    ("arguments", "text", "status"),
    [(*case, 2) for case in USAGE] + [(*case, 1) for case in FAILURES],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_errors_are_one_line_that_names_the_argument(cli, folder, arguments, text, status, json_flag):
    (folder / "link.safetensors").symlink_to("plain.safetensors")
    before = snapshot(folder)
    got, out, err = cli(*arguments, *(json_flag if len(arguments) > 1 else []))
    assert got == status
    assert out == ""
    owner = " ".join(["structmat", *(a for a in arguments[:1] if a != "unknown")])
    assert err.startswith(f"{owner}: error: ")
    assert err.count("\n") == 1
    assert text in err
    assert snapshot(folder) == before


def test_outputs_are_checked_before_the_fit(cli, monkeypatch):
    monkeypatch.setattr(_app, "fit_cdd", None)  # calling it would be an unexpected error
    monkeypatch.setattr(os, "access", lambda *_: False)
    status, _, err = cli("fit", "W.npy", "--out", "fit.safetensors")
    assert (status, err.count("not writable")) == (1, 1)
    assert cli("fit", "W.npy", "--out", "old.safetensors")[0] == 2


def test_out_and_plot_must_differ(cli, monkeypatch):
    monkeypatch.setattr("structmat.plot.SUFFIXES", (".safetensors",))
    status, _, err = cli("fit", "W.npy", "--out", "f.safetensors", "--plot", "./f.safetensors")
    assert (status, "is the file of --out" in err) == (2, True)


def test_force_replaces_old_outputs(cli, folder):
    status, out, err = cli("fit", "W.npy", "--out", "old.safetensors", "--plot", "old.png", "--force")
    assert (status, err) == (0, "")
    assert "wrote old.safetensors\nwrote old.png\n" in out
    assert io.load("old.safetensors").shape == (9, 6)
    assert (folder / "old.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_full_disk_leaves_the_old_files(cli, folder, monkeypatch, option):
    before = snapshot(folder)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    path = "old.safetensors" if option == "--out" else "old.png"
    status, out, err = cli("fit", "W.npy", option, path, "--force")
    assert (status, out, err) == (1, "", f"structmat fit: error: {option}: {path}: No space left on device\n")
    monkeypatch.undo()
    assert snapshot(folder) == before


def test_interruption_is_one_line_and_leaves_no_file(cli, folder, monkeypatch):
    def interrupted(*_, callback, **__):
        callback(type("Progress", (), {"start": "rank-one", "max_iter": 5, "iteration": 1, "error": 0.5}))
        raise KeyboardInterrupt

    before = snapshot(folder)
    monkeypatch.setattr(_app, "fit_cdd", interrupted)
    assert cli("fit", "W.npy", "--out", "fit.safetensors") == (130, "", "structmat fit: interrupted\n")
    assert snapshot(folder) == before


def test_debug_shows_the_traceback(cli):
    status, out, err = cli("fit", "missing.npy", "--debug")
    assert (status, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert err.endswith("structmat fit: error: W: missing.npy: No such file or directory\n")


def test_the_unexpected_is_one_line_too(cli, monkeypatch):
    monkeypatch.setattr(_app, "comparison", lambda *_: 1 / 0)
    status, out, err = cli("fit", "W.npy")
    assert (status, out) == (1, "")
    assert err == "structmat fit: error: ZeroDivisionError: division by zero (--debug shows where)\n"


def test_missing_extras_are_told(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "structmat.plot", raising=False)
    monkeypatch.delattr(sm, "plot", raising=False)
    status, _, err = cli("fit", "W.npy", "--plot", "fit.png")
    assert (status, 'pip install "structmat[plot]"' in err, err.count("\n")) == (1, True, 1)
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    monkeypatch.delitem(sys.modules, "structmat.cli._app")
    status, _, err = cli("fit", "W.npy")
    assert (status, err) == (1, 'structmat: error: the command needs cyclopts: pip install "structmat[cli]"\n')


# As a process


def process(*arguments):
    return subprocess.run([sys.executable, "-m", "structmat", *arguments], capture_output=True, text=True, check=False)


def test_as_a_module():
    done = process("fit", "W.npy", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["n_parameters"] == 27
    done = process("fit", "W.npy", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("structmat fit: error: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "structmat", "info", "W.npy"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_the_installed_script_and_a_light_import():
    if script := shutil.which("structmat", path=os.path.dirname(sys.executable)):  # noqa: PTH120
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"structmat {sm.__version__}\n"
    heavy = [name for name in ("torch", "jax", "matplotlib") if importlib.util.find_spec(name)]
    code = f"import sys, structmat.cli._app; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
