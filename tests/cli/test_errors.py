"""Errors: one line that names the argument, and no file is damaged."""

from __future__ import annotations

import os
import sys
import zipfile

import pytest

import structmat as sm
from structmat import io
from structmat.cli import _fit, _outputs
from structmat.fit import FitProgress
from tests.cli.common import snapshot

CHECKPOINT = ["fit-checkpoint", "--out", "no"]
USAGE = [
    (["fit"], "W"),
    (["fit", "W.npy", "more"], "more"),
    (["fit", "W.npy", "--unknown"], "--unknown"),
    (["unknown"], "unknown"),
    (["info"], "FILE"),
    (["curve"], "W"),
    (["curve", "W.npy", "--max-factors", "0"], "--max-factors"),
    (["curve", "W.npy", "--max-factors", "2"], "--max-factors: must be at least 3, got 2"),
    (["curve", "W.npy", "--max-factors", "1000000000"], "--max-factors: must be at most 1,000 for this matrix, got 10"),
    (["curve", "W.npy", "--first", "x"], "--first"),
    (["curve", "W.npy", "--time-limit", "-1"], "--time-limit"),
    (["curve", "W.npy", "--time-limit", "nan"], "--time-limit"),
    (["curve", "W.npy", "--block-size", "15"], "--block-size"),
    (["curve", "two.npz"], "--key: must be one of a, b"),
    (["curve", "W.npy", "--csv", "old.csv"], "--csv: old.csv exists; --force"),
    (["curve", "W.npy", "--csv", "curve.txt"], "--csv: curve.txt must end in .csv"),
    (["curve", "W.npy", "--plot", "curve.gif"], "--plot: curve.gif must end in .png or"),
    (["fit", "W.npy", "--block-size"], "--block-size"),
    (["fit", "W.npy", "--block-size", "0"], "--block-size"),
    (["fit", "W.npy", "--block-size", "x"], "--block-size"),
    (["fit", "W.npy", "--block-size", "15"], "--block-size"),
    (["fit", "W.npy", "--n-factors", "2"], "--n-factors"),
    (["fit", "W.npy", "--n-factors", "-3"], "--n-factors"),
    (["fit", "W.npy", "--n-factors", "1000000001"], "--n-factors: must be at most 1,000 for a product of shape (9, 6)"),
    (
        [*CHECKPOINT, "--delta", "plain.safetensors", "--n-factors", "1000000001"],
        "--n-factors: must be at most 1,000 for these layers",
    ),
    (
        [*CHECKPOINT, "--delta", "plain.safetensors", "--workers", "1000000000"],
        "--workers: must be at most 1,024, got 1000000000",
    ),
    (
        [*CHECKPOINT, "--delta", "plain.safetensors", "--threads", "1000000000"],
        "--threads: must be at most 1,024, got 1000000000",
    ),
    ([*CHECKPOINT, "--delta", "plain.safetensors", "--time-limit", "inf"], "--time-limit: must be finite"),
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
        "--out: plain.safetensors is the file of W, which is never overwritten",
    ),
    (
        ["fit", "W.npy", "--input-second-moment", "plain.safetensors", "--out", "link.safetensors", "--force"],
        "--out: link.safetensors is the file of --input-second-moment, which is never overwritten",
    ),
    (
        ["fit", "W.npy", "--entry-weights", "plain.safetensors", "--out", "plain.safetensors", "--force"],
        "--out: plain.safetensors is the file of --entry-weights, which is never overwritten",
    ),
    (
        ["fit", "plain.safetensors", "--out", "./link.safetensors", "--force"],
        "--out: link.safetensors is the file of W, which is never overwritten",
    ),
]
FAILURES = [
    (["fit", "W.npy", "--input-second-moment", "two.npz"], "--input-second-moment: two.npz must hold a single array"),
    (["fit", "W.npy", "--entry-weights", "two.npz"], "--entry-weights: two.npz must hold a single array"),
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
    (["fit", "torch.pt"], "W: torch.pt was written by torch.save: only checkpoints are read from such files"),
    (["info", "torch.pt"], "FILE: torch.pt was written by torch.save"),
    (["fit", "/dev/null"], "W: /dev/null: not a regular file"),
    (["info", "/dev/null"], "FILE: /dev/null: not a regular file"),
    (["sweep", "--out", "no", "/dev/null"], "SOURCES: /dev/null: not a regular file"),
    ([*CHECKPOINT, "--delta", "/dev/null"], "--delta: /dev/null: not a regular file"),
    ([*CHECKPOINT, "--delta", "plain.safetensors", "--input-second-moment", "/dev/null"], "--input-second-moment: "),
    (["fit", "W.npy", "--out", f"{'x' * 300}.safetensors"], ": File name too long"),
    (["sweep", "W.npy", "--out", "x" * 300], "--out: xxx"),
    ([*CHECKPOINT, "--delta", "x" * 300], "--delta: xxx"),
    (["fit", "nothing.npz"], "W: must lead to an array, but nothing.npz holds none"),
    ([*CHECKPOINT, "--base", "none.npy", "--tuned", "plain.safetensors"], "--base: "),
    ([*CHECKPOINT, "--base", "plain.safetensors", "--tuned", "none.npy"], "--tuned: "),
    ([*CHECKPOINT, "--delta", "plain.safetensors", "--input-second-moment", "missing.npy"], "--input-second-moment: "),
    ([*CHECKPOINT, "--delta", "plain.safetensors", "--input-second-moment", "none.npy"], "--input-second-moment: "),
    (["sweep", "--out", "no", "--base", "none.npy", "--tuned", "plain.safetensors"], "--base: "),
    (["sweep", "--out", "no", "--base", "plain.safetensors", "--tuned", "missing"], "--tuned: "),
    (["sweep", "--out", "no", "W.npy", "--input-second-moment", "missing.npy"], "--input-second-moment: "),
    (["sweep", "--out", "no", "missing.npy"], "SOURCES: "),
    (["sweep", "--out", "W.npy/no", "W.npy"], "--out: W.npy/no: "),
    (["info", "missing.npy"], "FILE: missing.npy: No such file"),
    (["info", "truncated.npy"], "FILE: truncated.npy is no complete"),
]


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize(
    ("arguments", "text", "status"),
    [(*case, 2) for case in USAGE] + [(*case, 1) for case in FAILURES],
    ids=lambda v: " ".join(v).replace("x" * 300, "long") if isinstance(v, list) else "",
)
def test_errors_are_one_line_that_names_the_argument(cli, folder, arguments, text, status, json_flag):
    (folder / "link.safetensors").symlink_to("plain.safetensors")
    with zipfile.ZipFile("torch.pt", "w") as archive:
        archive.writestr("torch/data.pkl", b"\x80\x02.")
    before = snapshot(folder)
    got, out, err = cli(*arguments, *(json_flag if len(arguments) > 1 else []))
    assert got == status
    assert out == ""
    owner = " ".join(["structmat", *(a for a in arguments[:1] if a != "unknown")])
    assert err.startswith(f"{owner}: error: ")
    assert err.count("\n") == 1
    assert text in err
    assert snapshot(folder) == before


def test_a_link_that_leads_nowhere_is_no_folder_to_write_to(cli, folder):
    (folder / "link").symlink_to("nowhere")
    for command in (["sweep", "W.npy"], ["fit-checkpoint", "--delta", "plain.safetensors"]):
        status, out, err = cli(*command, "--out", "link")
        assert (status, out) == (2, "")
        assert "--out: link: File exists" in err


def test_outputs_are_checked_before_the_fit(cli, monkeypatch):
    monkeypatch.setattr(_fit, "fit_cdd", None)  # calling it would be an unexpected error
    monkeypatch.setattr(os, "access", lambda *_: False)
    status, _, err = cli("fit", "W.npy", "--out", "fit.safetensors")
    assert (status, err.count("not writable")) == (1, 1)
    assert cli("fit", "W.npy", "--out", "old.safetensors")[0] == 2


def test_out_and_plot_must_differ(cli, monkeypatch):
    monkeypatch.setitem(_outputs._SUFFIXES, "--plot", (".safetensors",))
    status, _, err = cli("fit", "W.npy", "--out", "f.safetensors", "--plot", "./f.safetensors")
    assert (status, "is the file of --out" in err) == (2, True)


def test_force_replaces_old_outputs(cli, folder):
    status, out, err = cli("fit", "W.npy", "--out", "old.safetensors", "--plot", "old.png", "--force")
    assert (status, err) == (0, "")
    assert "wrote old.safetensors\nwrote old.png\n" in out
    assert io.load("old.safetensors").operator.shape == (9, 6)
    assert (folder / "old.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_full_disk_leaves_the_old_files(cli, folder, monkeypatch, option):
    before = snapshot(folder)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    path = "old.safetensors" if option == "--out" else "old.png"
    status, out, err = cli("fit", "W.npy", option, path, "--force")
    assert (status, err) == (1, f"structmat fit: error: {option}: {path}: No space left on device\n")
    assert "CDD fit" in out  # what was found is not lost
    assert "wrote" not in out
    monkeypatch.undo()
    assert snapshot(folder) == before


def test_interruption_is_one_line_and_leaves_no_file(cli, folder, monkeypatch):
    def interrupted(*_, callback, **__):
        callback(FitProgress("rank-one", 1, 5, 0.5, "screening", 3, 0.5, None))
        raise KeyboardInterrupt

    before = snapshot(folder)
    monkeypatch.setattr(_fit, "fit_cdd", interrupted)
    assert cli("fit", "W.npy", "--out", "fit.safetensors") == (130, "", "structmat fit: interrupted\n")
    assert snapshot(folder) == before


def test_debug_shows_the_traceback(cli):
    for given, shown in (("--debug", True), ("--debug=true", True), ("--debug=false", False)):
        assert ("Traceback" in cli("fit", "missing.npy", given)[2]) == shown
    status, out, err = cli("fit", "missing.npy", "--debug")
    assert (status, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert err.endswith("structmat fit: error: W: missing.npy: No such file or directory\n")


def test_the_unexpected_is_one_line_too(cli, monkeypatch):
    monkeypatch.setattr(_fit, "comparison", lambda *_, **__: 1 / 0)
    status, out, err = cli("fit", "W.npy")
    assert (status, out) == (1, "")
    assert err == "structmat fit: error: ZeroDivisionError: division by zero (--debug shows where)\n"


def test_missing_extras_are_told(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name in [name for name in sys.modules if name.startswith("structmat.plot")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sm, "plot", raising=False)
    status, _, err = cli("fit", "W.npy", "--plot", "fit.png")
    assert (status, 'pip install "structmat[plot]"' in err, err.count("\n")) == (1, True, 1)
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    monkeypatch.delitem(sys.modules, "structmat.cli._app")
    status, _, err = cli("fit", "W.npy")
    assert (status, err) == (1, 'structmat: error: the command needs cyclopts: pip install "structmat[cli]"\n')
