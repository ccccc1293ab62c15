"""Options: what several commands share, and numbers that are taken as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from structmat.cli import _app
from structmat.cli._options import option_names
from structmat.fit import error_curve, fit_cdd
from tests.cli.common import W


@pytest.mark.parametrize("option", ["--n-factors", "--block-size", "--max-iter", "--seed"])
@pytest.mark.parametrize("value", ["2.5", "3.0", "1e1", "three"])
def test_integers_are_never_rounded(cli, option, value):
    status, out, err = cli("fit", "W.npy", option, value)
    assert (status, out, err.count("\n")) == (2, "", 1)
    kinds = "an integer, min or toeplitz" if option == "--block-size" else "an integer"
    assert f"{option}: must be {kinds}, got {value!r}" in err


@pytest.mark.parametrize("option", ["--workers", "--threads", "--seed", "--n-factors", "--block-size"])
def test_integers_of_checkpoints_are_never_rounded(cli, folder, option):
    status, out, err = cli("fit-checkpoint", "--delta", "plain.safetensors", "--out", "out", option, "2.5")
    assert (status, out) == (2, "")
    assert f"{option}: must be an integer" in err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("option", ["--workers", "--max-iter", "--restarts", "--n-factors", "--seeds", "--block-sizes"])
def test_integers_of_sweeps_are_never_rounded(cli, folder, option):
    status, out, err = cli("sweep", "W.npy", "--out", "out", option, "2.5")
    assert (status, out) == (2, "")
    assert f"{option}: must be " in err
    assert "got '2.5'" in err
    assert not (folder / "out").exists()


def test_moments_and_weights_of_entries_are_read_from_files(cli):
    moment, weights = np.geomspace(1.0, 0.1, 6), np.abs(W) > 0.3
    np.save("S.npy", moment)
    np.save("M.npy", weights)
    for option, file, want in (
        ("--input-second-moment", "S.npy", fit_cdd(W, input_second_moment=moment, rng=0)),
        ("--entry-weights", "M.npy", fit_cdd(W, entry_weights=weights, rng=0)),
    ):
        status, out, _ = cli("fit", "W.npy", option, file, "--json")
        assert status == 0
        assert json.loads(out)["error"] == want.error
    status, out, _ = cli("curve", "W.npy", "--max-factors", 3, "--input-second-moment", "S.npy", "--json")
    curve = error_curve(W, 3, input_second_moment=moment, rng=0)
    assert (status, json.loads(out)["error"]) == (0, curve.error.tolist())
    status, _, err = cli("fit", "W.npy", "--input-second-moment", "square.npy")
    assert (status, "--input-second-moment: must have shape (6,) or (6, 6), got (4, 4)" in err) == (2, True)
    status, out, _ = cli("fit", "W.npy", "--input-second-moment", "S.npy", "--json")
    methods = {row["method"]: row["error"] for row in json.loads(out)["comparison"]}
    assert list(methods) == ["cdd-fit", "truncated-svd"]
    values = np.linalg.svd(W * np.sqrt(moment), compute_uv=False)
    assert methods["truncated-svd"] == pytest.approx(np.linalg.norm(values[1:]) / np.linalg.norm(values))
    missing = np.where(weights, W, np.nan)
    np.save("missing-entries.npy", missing)
    status, out, _ = cli("fit", "missing-entries.npy", "--entry-weights", "M.npy")
    assert status == 0
    assert "weighted errors" in out
    assert "truncated SVD" not in out
    status, _, err = cli("fit", "missing-entries.npy", "--entry-weights", "M.npy", "--plot", "fit.png")
    assert (status, err) == (0, "")
    assert Path("fit.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = cli("fit", "W.npy", "--entry-weights", "missing.npy")
    assert (status, "--entry-weights: missing.npy: No such file" in err) == (1, True)


def test_every_command_can_print_json_and_tracebacks():
    for command in (_app.fit, _app.curve, _app.fit_checkpoint, _app.sweep, _app.report, _app.info):
        assert {"json", "debug"} <= option_names(command)
    shared = {"base", "tuned", "targets", "workers", "scheduler", "log_level", "time_limit", "input_second_moment"}
    for command in (_app.fit_checkpoint, _app.sweep):
        assert shared <= option_names(command)
