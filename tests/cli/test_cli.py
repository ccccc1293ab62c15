"""Every command as a user runs it: what is printed and written, what is refused, and the exit status."""

from __future__ import annotations

import errno
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.io import savemat

import structmat as sm
from structmat import _progress
from structmat.cli import _output, main
from structmat.fit import error_curve, fit_cdd
from structmat.studies import load_study

W = np.random.default_rng(0).standard_normal((9, 6))
PNG, PDF = b"\x89PNG", b"%PDF"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of all kinds, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    np.save("W.npy", W)
    np.savez("two.npz", a=W, b=W.T)
    save_file({"layer.weight": W.astype("float32")}, "plain.safetensors")
    sm.io.save(sm.Circulant(np.ones(5, "float32")), "operator.safetensors", metadata={"note": "hello"})
    np.save("square.npy", W[:4, :4])
    np.save("nan.npy", np.where(W > 1, np.nan, W))
    np.save("three.npy", W[None])
    np.save("text.npy", W.astype(str))
    np.save("object.npy", W.astype(object), allow_pickle=True)
    content = (tmp_path / "W.npy").read_bytes()
    (tmp_path / "truncated.npy").write_bytes(content[:-1])
    (tmp_path / "foreign.npy").write_text("not a matrix")
    np.savetxt("W.csv", W, delimiter=",")
    np.savetxt("header.csv", W, delimiter=",", header="a,b,c,d,e,f", comments="")
    (tmp_path / "word.csv").write_text("1,2\n3,four\n")
    np.savetxt("blanks.csv", np.ones((3, 1000)))
    savemat("W.mat", {"W": W, "title": "a matrix"})
    savemat("two.mat", {"a": W, "b": W.T, "title": "two"})
    (tmp_path / "none.npy").touch()
    (tmp_path / "old.safetensors").write_text("old")
    for path in (tmp_path / "lora/adapter_config.json", tmp_path / "mine/results.csv"):
        path.parent.mkdir()
        path.write_text("of others")
    return tmp_path


@pytest.fixture
def cli(capfd, monkeypatch):
    """Run the command; give its exit status, stdout and stderr, which does not depend on how busy the machine is."""
    monkeypatch.setattr(_progress, "_PATIENCE", np.inf)

    def run(*arguments):
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        return status, *capfd.readouterr()

    return run


def test_help_fits_one_screen(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("fit", "curve", "sweep", "info"):
        status, out, err = cli(name, "--help")
        assert (status, err) == (0, "")
        assert len(out.splitlines()) <= (60 if name == "sweep" else 40)
        assert "--json" in out
        assert "--no-" not in out
    assert cli("--version") == (0, f"structmat {sm.__version__}\n", "")
    status, out, _ = cli()
    assert status == 0
    assert all(name in out for name in ("fit", "curve", "sweep", "info", "--install-completion"))


def test_fit(cli, folder):
    status, out, err = cli("fit", "W.npy", "--out", "fit.safetensors", "--plot", "fit.png")
    assert (status, err) == (0, "")
    want = fit_cdd(W, rng=0)
    got = sm.io.load("fit.safetensors")
    assert got.error == want.error
    assert np.array_equal(got.operator.to_dense(), want.operator.to_dense())
    assert Path("fit.png").read_bytes().startswith(PNG)
    for text in ("W.npy", f"{want.error:.4g}", "truncated-svd", "block-circulant"):
        assert text in out
    assert out.endswith("\nfit: fit.safetensors\nfigure: fit.png\n")
    _, out, _ = cli("fit", "W.npy", "--block-size", "toeplitz", "--json")
    assert json.loads(out)["error"] == fit_cdd(W, block_size="toeplitz", rng=0).error
    status, out, _ = cli("fit", "two.npz", "--key", "b", "--n-factors", 3, "--block-size", 3, "--rng", 1, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["error"] == fit_cdd(W.T, 3, block_size=3, rng=1).error
    values = np.linalg.svd(W, compute_uv=False)
    rank = found["n_parameters"] // sum(W.shape)
    svd = found["comparison"]["truncated-svd"]
    assert svd["error"] == pytest.approx(np.linalg.norm(values[rank:]) / np.linalg.norm(values))


def test_weights_are_read_from_files(cli, folder):
    moment, weights = np.geomspace(1.0, 0.1, 6), np.abs(W) > 0.3
    np.save("S.npy", moment)
    np.save("M.npy", weights)
    np.save("missing-entries.npy", np.where(weights, W, np.nan))
    status, out, _ = cli("fit", "W.npy", "--input-second-moment", "S.npy", "--json")
    assert (status, json.loads(out)["error"]) == (0, fit_cdd(W, input_second_moment=moment, rng=0).error)
    status, out, _ = cli("fit", "missing-entries.npy", "--entry-weights", "M.npy", "--plot", "f.pdf", "--json")
    assert (status, json.loads(out)["error"]) == (0, fit_cdd(W, entry_weights=weights, rng=0).error)
    assert json.loads(out)["comparison"] == {}
    assert Path("f.pdf").read_bytes().startswith(PDF)
    status, _, err = cli("fit", "W.npy", "--input-second-moment", "square.npy")
    assert status == 2
    assert "--input-second-moment: must have shape (6,) or (6, 6), got (4, 4)" in err


@pytest.mark.parametrize("name", ["W.csv", "W.mat"])
def test_tables_and_files_of_matlab_are_read(cli, folder, name):
    status, out, err = cli("fit", name, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["error"] == pytest.approx(fit_cdd(W, rng=0).error, rel=1e-9)
    np.savetxt("S.csv", np.geomspace(1.0, 0.1, 6), delimiter=",")
    savemat("S.mat", {"S": np.geomspace(1.0, 0.1, 6)})
    for moment in ("S.csv", "S.mat"):
        status, out, _ = cli("fit", name, "--input-second-moment", moment, "--json")
        want = fit_cdd(W, input_second_moment=np.geomspace(1.0, 0.1, 6), rng=0).error
        assert (status, json.loads(out)["error"]) == (0, pytest.approx(want, rel=1e-9))
    assert cli("sweep", name, "--out", "study")[::2] == (0, "")
    assert {row["layer"] for row in load_study("study").rows} == {"W" if name == "W.csv" else "W/W"}


def test_curve(cli, folder):
    options = ("--n-factors", "1,3", "--time-limit", "1m", "--plot", "c.svg")
    status, out, err = cli("curve", "square.npy", *options)
    want = error_curve(W[:4, :4], n_factors=[1, 3], rng=0)
    assert (status, err) == (0, "")
    assert out.rstrip("\n").splitlines()[0] == repr(want).splitlines()[0]
    assert b"<svg" in Path("c.svg").read_bytes()
    status, out, _ = cli("curve", "W.npy", "--json", "--n-factors", "3")
    assert (status, json.loads(out)["n_factors"]) == (0, [3])


@pytest.mark.parametrize(
    ("suffix", "form"), [("png", b"Description\0"), ("pdf", b"/Subject ("), ("svg", b"description")]
)
def test_a_curve_says_what_made_it(cli, folder, suffix, form):
    options = ("--n-factors", "3", "--seeds", "2", "--restarts", "0", "--width", "column", "--x", "factors")
    command = ("curve", "square.npy", *options, "--table", "c.tex", "--plot", f"c.{suffix}")
    status, out, _ = cli(*command, "--json")
    assert status == 0
    held = json.loads(out)
    text = f"structmat {' '.join(command)} --json"
    assert held["command"] == text
    assert (len(held["errors"]), held["versions"]["structmat"]) == (2, sm.__version__)
    assert f"% {text}\n" in Path("c.tex").read_text()
    content = Path(f"c.{suffix}").read_bytes()
    assert form in content
    assert b"--seeds 2" in content


def test_a_curve_is_written_as_a_table(cli, folder):
    assert cli("curve", "square.npy", "--n-factors", "3", "--restarts", "0", "--table", "c.csv")[0] == 0
    head, *lines = Path("c.csv").read_text().splitlines()
    assert head.split(",")[:5] == ["n_factors", "n_parameters", "share", "error", "status"]
    assert len(lines) == 1
    status, _, err = cli("curve", "square.npy", "--table", "c.xlsx")
    assert (status, err) == (2, "structmat curve: error: --table: c.xlsx must end in .csv or .tex\n")


@pytest.mark.filterwarnings("default")
def test_a_sweep_over_a_checkpoint_writes_adapters(cli, folder):
    rng = np.random.default_rng(0)
    base = {f"layers.{i}.up.weight": rng.standard_normal((6, 4)) for i in range(5)} | {"norm.weight": np.ones(4)}
    tuned = {key: weight + rng.standard_normal(weight.shape) for key, weight in base.items()}
    tuned["layers.3.up.weight"] = base["layers.3.up.weight"]
    save_file(base, "base.safetensors")
    save_file(tuned, "tuned.safetensors")
    sources = ("--base", "base.safetensors", "--tuned", "tuned.safetensors", "--write-adapters", "--out", "study")
    status, out, err = cli("sweep", *sources)
    assert (status, err) == (0, "")
    for text in (
        "Study of 4 layers",
        "layers.3.up does not change",
        "norm.weight was tuned too",
        "adapter: study/adapter-3",
    ):
        assert text in out
    names = ["adapter-3", "results.csv", "results.jsonl", "results.png", "results.tex"]
    assert sorted(path.name for path in Path("study").glob("[ar]*")) == names
    assert {path.name for path in Path("study/adapter-3").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    status, out, _ = cli("sweep", *sources, "--json")  # all of it is there
    assert (status, json.loads(out)["adapters"]) == (0, ["study/adapter-3"])
    assert json.loads(out)["rows"] == [dict(row) for row in load_study("study").rows]
    Path("config.json").write_text('{"model_type": "unheard"}')
    status, out, err = cli("sweep", *sources[:-1], "other", "--targets", "layers.0.up")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("structmat sweep: warning: changes: the modules of unheard are not known")
    Path("config.json").unlink()
    Path("tuned.safetensors").write_bytes(b"x" * 99)
    status, out, err = cli("sweep", *sources)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("structmat sweep: error: ")
    assert "tuned.safetensors is no complete safetensors file" in err


def test_sweep(cli, folder):
    status, out, err = cli("sweep", "two.npz", "--n-factors", "3,4", "--block-sizes", "min,3", "--out", "study")
    assert (status, err) == (0, "")
    count = len(load_study("study").rows)
    assert f"Study of 2 layers, {count} rows" in out
    assert "has no member with so few parameters" in out
    assert Path("study/results.png").read_bytes().startswith(PNG)
    command = b"structmat sweep two.npz --n-factors 3,4 --block-sizes min,3 --out study"
    assert command in Path("study/results.png").read_bytes()
    assert Path("study/results.tex").read_bytes().splitlines()[2] == b"% " + command
    np.save("zero.npy", np.zeros((4, 4)))
    assert cli("sweep", "zero.npy", "--out", "zero")[1].endswith("tables: zero\n")  # nothing to draw
    weighted = ("sweep", "W.npy", "square.npy", "--out", "other", "--json", "--input-second-moment", "S6.npy")
    assert cli(*weighted)[0] == 1
    np.save("S6.npy", np.ones(6))
    status, out, err = cli(*weighted)
    assert {row["layer"] for row in json.loads(out)["rows"]} == {"W"}
    assert (status, err.startswith("structmat sweep: error: 2 of 4 units failed: square cdd, 3 factors")) == (1, True)


@pytest.mark.parametrize(
    "name", ["W.npy", "two.npz", "two.mat", "W.csv", "plain.safetensors", "operator.safetensors", "fit.safetensors"]
)
def test_info(cli, folder, name):
    sm.io.save(fit_cdd(W, rng=0), "fit.safetensors")
    status, out, err = cli("info", name, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == sm.io.describe(name)
    status, out, _ = cli("info", name)
    assert status == 0
    assert all(array in out for array in sm.io.describe(name)["tensors"])


def test_info_of_the_folders_that_a_sweep_writes(cli, folder):
    save_file({"up.weight": W}, "delta.safetensors")
    assert cli("sweep", "--delta", "delta.safetensors", "--write-adapters", "--out", "study")[0] == 0
    status, out, err = cli("info", "study")
    assert (status, err) == (0, "")
    assert out.splitlines()[:5] == repr(load_study("study")).splitlines()[:5]
    status, out, _ = cli("info", "study", "--json")
    assert (status, json.loads(out)["rows"]) == (0, [dict(row) for row in load_study("study").rows])
    status, out, _ = cli("info", "study/adapter-3")
    assert (status, "up.cdd_adapters.vectors.0" in out, "n factors" in out) == (0, True, True)
    status, _, err = cli("info", "mine")
    assert (status, err.count("\n")) == (1, 1)


def test_numbers_of_factors_are_lists_with_commas_or_spaces(cli, folder):
    for numbers in (("3,5",), ("3", "5"), ("3,", "5"), ("3", ",5")):
        status, out, err = cli("curve", "square.npy", "--n-factors", *numbers, "--restarts", 0, "--json")
        assert (status, err, json.loads(out)["n_factors"]) == (0, "", [3, 5])
    for before, after in (((), ("W.npy",)), (("W.npy",), ())):
        status, out, _ = cli(
            "sweep", *before, "--block-sizes", "min", "2", "--n-factors", "3", *after, "--out", "study", "--json"
        )
        assert (status, {row["block_size"] for row in json.loads(out)["rows"]}) == (0, {"min", 2})


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_takes_no_more_of_a_user_or_no_larger_file_is_full_too(cli, folder, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = cli("fit", "W.npy", "--out", "f.safetensors")
    told = f"structmat fit: error: f.safetensors: {os.strerror(number)}; nothing of it is written"
    assert (status, err[: len(told)]) == (1, told)
    assert not Path("f.safetensors").exists()


def test_a_full_disk_says_which_files_are_whole(cli, folder, monkeypatch):
    """And of a sweep that what is done is kept."""
    inner = os.fsync
    left = [1]

    def full(number):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        inner(number)

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = cli("fit", "W.npy", "--out", "f.safetensors", "--plot", "f.png")
    told = (
        "structmat fit: error: f.png: No space left on device; nothing of it is written, and f.safetensors is whole\n"
    )
    assert (status, err) == (1, told)
    assert sm.io.load("f.safetensors").error > 0
    assert not Path("f.png").exists()
    left[0] = 3
    status, _, err = cli("sweep", "W.npy", "--out", "study")
    kept = "results that are done are whole, and the same command continues"
    assert (status, err) == (1, f"structmat sweep: error: study/results.jsonl: No space left on device; {kept}\n")
    assert len(load_study("study").rows) == 2
    left[0] = 100
    assert cli("sweep", "W.npy", "--out", "study")[0] == 0


# What is refused

REFUSED = [
    ("fit W.npy --nonsense", 2, "--nonsense"),
    ("fit", 2, "requires an argument"),
    ("fit W.npy --n-factors 0", 2, "--n-factors"),
    ("fit W.npy --n-factors 4", 2, "--n-factors: must be odd"),
    ("fit W.npy --block-size 99", 2, "--block-size: must be at most"),
    ("fit W.npy --first middle", 2, "--first"),
    *[(f"fit W.npy --time-limit {value}", 2, "--time-limit") for value in ("nan", "inf", "ten", "-1")],
    ("fit W.npy --time-limit 1d", 2, "--time-limit: must be a number of seconds, or one with s, m or h behind it"),
    *[(f"fit W.npy --n-factors {n}", 2, f"must be an integer, got '{n}'") for n in ("2.5", "3.0", "1e1", "three")],
    ("fit W.npy --block-size 2.5", 2, "--block-size: must be an integer or min or toeplitz, got '2.5'"),
    ("sweep W.npy --block-sizes toeplitz --out o", 2, "--block-sizes: must be an integer or min, got 'toeplitz'"),
    ("fit W.npy --rng 1e1", 2, "--rng: must be an integer, got '1e1'"),
    ("fit W.npy --out f.npy", 2, "--out: f.npy must end in .safetensors"),
    ("fit W.npy --plot f.jpg", 2, "--plot: f.jpg must end in .png or .pdf or .svg"),
    ("fit W.npy --out old.safetensors", 2, "old.safetensors exists; --force replaces it"),
    ("fit plain.safetensors --out plain.safetensors --force", 2, "--out: plain.safetensors is another file of this"),
    ("fit W.npy --out no/f.safetensors", 1, "no/f.safetensors: its folder"),
    ("fit missing.npy", 1, "missing.npy: No such file or directory"),
    ("fit .", 1, ".: Is a directory"),
    ("fit two.npz", 2, "--key: must name one of 2 arrays in two.npz, such as a, b; got None"),
    ("fit two.npz --key c", 2, "--key: must name one of 2 arrays"),
    ("fit nan.npy", 1, "W: must be finite"),
    ("fit three.npy", 1, "W: must be a non-empty matrix"),
    ("fit text.npy", 1, "text.npy holds no numbers"),
    ("fit object.npy", 1, "object.npy holds Python objects, which are not read: they could run code"),
    ("fit truncated.npy", 1, "truncated.npy is no complete .npy file"),
    ("fit foreign.npy", 1, "foreign.npy is no .npy, .npz, .mat, .csv or .safetensors file"),
    ("fit none.npy", 1, "none.npy is empty"),
    ("fit header.csv", 1, "line 1 holds 'a'; remove the line if it is a header"),
    ("fit word.csv", 1, "word.csv is no table of numbers with commas between: line 2 holds 'four'"),
    ("fit blanks.csv", 1, "line 1 holds '1.000000000000000000e+00 1.0000000000000...'"),
    ("fit two.mat", 2, "--key: must name one of 2 arrays in two.mat, such as a, b; got None"),
    ("fit two.mat --key title", 2, "--key: must name numbers, but title in two.mat is char"),
    ("fit operator.safetensors", 1, "operator.safetensors holds a structmat operator"),
    ("curve W.npy --n-factors 3,,5", 2, "--n-factors: must be an integer, got ''"),
    ("curve W.npy --n-factors 3.0", 2, "--n-factors: must be an integer, got '3.0'"),
    ("curve W.npy --n-factors 3,4", 2, "--n-factors: must be odd"),
    ("info foreign.npy", 1, "foreign.npy is no .npy"),
    ("sweep --base a --out out", 1, "base and tuned, or delta alone, must be given, got base"),
    ("sweep --delta plain.safetensors --out out --targets (", 2, "--targets: must be a regular expression"),
    ("sweep --delta plain.safetensors --out out --workers three", 2, "--workers: must be an integer"),
    ("sweep W.npy --out mine", 1, "mine/results.csv: the file exists, and no results.jsonl says that a run wrote it"),
    ("sweep --delta none.npy --out out", 1, "none.npy"),
    ("sweep --delta plain.safetensors --out W.npy", 1, "W.npy: File exists"),
    ("sweep W.npy --write-adapters --out out", 1, "layers: must be changes of a checkpoint"),
    ("sweep --out out", 2, "name files of matrices, or --base and --tuned, or --delta"),
    ("sweep W.npy --base a --tuned b --out out", 2, "name files of matrices, or --base and --tuned, or --delta"),
    ("sweep zz.npz --out out", 1, "zz.npz: No such file"),
    ("sweep W.npy --n-factors 4 --out out", 1, "there is nothing to do"),
    ("sweep W.npy --out out --block-sizes 1x", 2, "--block-sizes: must be an integer or min, got '1x'"),
    ("sweep W.npy", 2, "--out"),
]


@pytest.mark.parametrize(("line", "status", "text"), REFUSED, ids=[line for line, *_ in REFUSED])
def test_what_is_refused_is_one_line_and_changes_nothing(cli, folder, line, status, text):
    content = lambda: {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    before = content()
    got, out, err = cli(*line.split())
    assert (got, out, err.count("\n")) == (status, "", 1), err
    assert len(err) < 300
    assert err.startswith(f"structmat {line.split()[0]}: error: ")
    assert text in err
    assert content() == before


@pytest.mark.parametrize("option", ["--out", "--plot", "--key", "--input-second-moment"])
@pytest.mark.parametrize("form", ["apart", "="])
def test_empty_values_are_refused_by_name(cli, folder, option, form):
    status, out, err = cli("fit", "W.npy", *([option, ""] if form == "apart" else [f"{option}="]))
    assert (status, out, err) == (2, "", f"structmat fit: error: {option}: must not be empty\n")


# Streams, terminals and Ctrl-C


FIT = "import sys, structmat.cli as c; sys.exit(c.main(['fit', 'W.npy', '--out', 'o.safetensors']))"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_printed_is_written_all_the_same(folder, unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        [sys.executable, "-c", FIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        process.stdout.close()  # the reader leaves
        err = process.stderr.read()
        assert (process.wait(), err) == (1, b"")
    assert sm.io.load("o.safetensors").error > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # output that is buffered fails once more at the end of Python
def test_what_finds_no_room_in_the_output_is_written_all_the_same(folder, unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", FIT], stdout=full, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"structmat fit: error: ")
    assert done.stderr.count(b"\n") == 1
    assert sm.io.load("o.safetensors").error > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_finds_no_room_is_not_written_again_as_python_ends(folder, monkeypatch):
    with open("/dev/full", "w") as full:  # noqa: PTH123, SIM117 - closing it writes what is left, as the end of Python does
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            assert main(["fit", "W.npy", "--out", "o.safetensors"]) == 1
    assert sm.io.load("o.safetensors").error > 0


def test_letters_that_the_terminal_lacks_are_escaped(folder, monkeypatch):
    np.save("\xe9\u6f22\x1b[2J.npy", np.eye(2))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
        assert main(["info", "\xe9\u6f22\x1b[2J.npy"]) == 0
        assert rb"\xe9\u6f22\x1b[2J.npy" in sys.stdout.buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_kept_readable(folder, cli):
    name = os.fsdecode(b"\xff W.npy")
    np.save(name, np.eye(3))
    assert cli("fit", name, "--out", "o.safetensors")[0] == 0
    assert r"\udcff W.npy" in cli("info", "o.safetensors")[1]
    assert cli("sweep", name, "--out", "study")[::2] == (0, "")
    assert r"\udcff W" in Path("study/results.csv").read_text()


def test_progress_is_one_line_that_goes_away(folder):
    pty = pytest.importorskip("pty")
    # Of such a size that the fits are not all done before the line is drawn again.
    np.savez(
        folder / "larger.npz", a=np.random.default_rng(0).standard_normal((96, 96)), b=np.eye(96) + np.ones((96, 96))
    )
    parent, child = pty.openpty()
    arguments = ["sweep", "larger.npz", "--block-sizes", "min,3", "--out", "study"]
    environment = {**os.environ, "COLUMNS": "70", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "structmat", *arguments], stdout=subprocess.PIPE, stderr=child, env=environment,
        cwd=folder,
    ) as process:  # fmt: skip
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        process.stdout.read()
    os.close(parent)
    text = shown.decode()
    assert re.search(r"of 24 \(\d+ ?%\), error 0\.", text)
    assert "factors" in text
    assert text.count("\n") <= 2


def test_without_a_terminal_long_work_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: clock[0])
    with _output.progress_line(quiet=False) as show:
        for clock[0] in (0.0, 4.0, 5.0, 30.0, 66.0, 125.0):
            show("3 factors", 65.0)
    said = [f"structmat: {when}: 3 factors, 0:01:05 left\n" for when in ("0:00:05", "0:01:06")]
    assert capsys.readouterr() == ("", "".join(said))
    with _output.progress_line(quiet=True) as show:
        show("3 factors", None)
    assert capsys.readouterr() == ("", "")


def test_a_line_of_a_sweep_says_case_share_and_time(cli, folder, monkeypatch):
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(_progress, "_INTERVAL", 0.0)
    _, _, err = cli("sweep", "square.npy", "--out", "study")
    first, *_, last = err.splitlines()
    assert first == "structmat: 0:00:00: 0 of 6 (0%)"
    assert re.fullmatch(
        r"structmat: \d:\d\d:\d\d: 6 of 6 \(100%\),.* square [a-z-]+, 3 factors, blocks of min, 0:00:00 left", last
    )


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("command", "options", "of_output"),
    [
        ("fit", ["--n-factors", "9", "--out", "o.safetensors"], lambda path: sm.io.load(path).status == "interrupted"),
        ("curve", ["--plot", "o.png"], lambda path: path.read_bytes().startswith(PNG)),
    ],
)
def test_ctrl_c_ends_a_search_with_its_best(cli, folder, command, options, of_output):
    np.save("big.npy", np.random.default_rng(0).standard_normal((96, 96)))
    ctrl_c = threading.Timer(2, signal.raise_signal, [signal.SIGINT])
    ctrl_c.start()
    status, out, err = cli(command, "big.npy", *options)
    ctrl_c.cancel()
    assert (status, err) == (130, f"structmat {command}: interrupted\n")
    assert "interrupted" in out
    assert of_output(Path(options[-1]))


INTERRUPTED = """
import signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from structmat.cli import main
sys.exit(main(["fit", "W.npy", "--out", "o.safetensors"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["numpy", "array_api_compat", "structmat.operators", "cyclopts", "rich.console"])
def test_ctrl_c_during_an_import_is_one_line(folder, name):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.format(name=name)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (130, b"", 1), done.stderr
    assert done.stderr.endswith(b": interrupted\n")
    assert not Path("o.safetensors").exists()


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from structmat.cli import main
sys.exit(main({arguments!r}))
"""
ENDS_WITH = [
    ("fit missing.npy --out o.safetensors", "safetensors", "files"),
    ("fit missing.npy --out o.safetensors", "ml_dtypes", "files"),
    ("fit missing.npy --plot o.png", "matplotlib", "files"),
    ("curve missing.npy --plot o.png", "matplotlib", "files"),
    *[
        (f"{command} --out o", library, "files" if library == "matplotlib" else "studies")
        for command in ("sweep missing.npy",)
        for library in ("pandas", "matplotlib", "safetensors", "joblib", "filelock", "threadpoolctl")
    ],
    ("sweep W.npy --out o --scheduler tcp://localhost:1", "distributed", "studies"),
]


@pytest.mark.parametrize(("line", "library", "extra"), ENDS_WITH)
def test_what_a_command_ends_with_is_asked_for_before_it_reads(folder, line, library, extra):
    code = WITHOUT.format(library=library, arguments=line.split())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert done.stderr.endswith(f'pip install "structmat[{extra}]"\n')
    assert not any(folder.glob("o*/*"))
    assert not any(folder.glob("o.*"))


def test_a_missing_extra_is_told(monkeypatch, capsys):
    for name in {"cyclopts", *(name for name in sys.modules if name.startswith("cyclopts."))}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "structmat.cli._app", None)  # which is put back afterwards, if it is there
    monkeypatch.delitem(sys.modules, "structmat.cli._app")
    assert main(["info", "x"]) == 1
    assert capsys.readouterr().err.endswith('pip install "structmat[studies]"\n')


def test_defaults_are_those_of_the_functions():
    from structmat.cli import _app

    for name, function in (("fit", fit_cdd), ("curve", error_curve)):
        own, theirs = inspect.signature(getattr(_app, name)).parameters, inspect.signature(function).parameters
        options = vars(own["options"].default) | {n: p.default for n, p in own.items()}
        for option in ("block_size", "input_second_moment", "time_limit"):
            assert options[option] == theirs[option].default
