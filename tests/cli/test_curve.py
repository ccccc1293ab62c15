"""`structmat curve`."""

from __future__ import annotations

import dataclasses
import json
import re

import structmat as sm
from structmat.cli import _curve
from structmat.fit import error_curve
from tests.cli.common import W


def test_the_table_of_a_curve_holds_its_numbers(cli):
    want = error_curve(W, 3, rng=0)
    status, out, err = cli("curve", "W.npy", "--max-factors", 3)
    assert (status, err) == (0, "")
    title, *_, row, end = (line for line in out.splitlines() if line.strip())
    assert title.startswith("W.npy: 9 x 6, float64")
    cells = row.split()
    assert cells[:4] == ["3", "27", "50%", f"{want.error[0]:.4f}"]
    baselines = ["-" if not used[0] else f"{error[0]:.4f}" for used, error in want.baselines.values()]
    assert cells[5:] == baselines
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
    assert (status, out.endswith("wrote curve.csv\nwrote curve.png\n")) == (0, True)


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
    assert re.search(r"1/1 .*3 factors, .*least 0\.\d{6}", err)
    assert re.search(r"about 0:(50:00|49:5\d) left", err)


def test_an_interrupted_curve_prints_and_writes_what_there_is(cli, monkeypatch, folder):
    def interrupted(*arguments, **options):
        return dataclasses.replace(error_curve(*arguments, **options), stopped="interrupted")

    monkeypatch.setattr(_curve, "error_curve", interrupted)
    status, out, err = cli("curve", "W.npy", "--max-factors", 3, "--csv", "curve.csv")
    assert (status, err) == (130, "structmat curve: interrupted\n")
    assert ", interrupted\n" in out
    assert sm.ErrorCurve.load("curve.csv").stopped == "interrupted"


def test_a_curve_of_some_numbers_of_factors(cli):
    status, out, _ = cli("curve", "square.npy", "--n-factors", "3, 1", "--json")
    want = error_curve(W[:4, :4], n_factors=[1, 3], rng=0)
    assert (status, json.loads(out)["n_factors"], json.loads(out)["error"]) == (0, [1, 3], want.error.tolist())
    for arguments, text in [
        (("--n-factors", "3,x"), "--n-factors: must be integers with commas, got 'x'"),
        (("--n-factors", "0"), "--n-factors: must be at least 1, got 0"),
        (("--n-factors", "3", "--max-factors", "5"), "--max-factors: --n-factors names all numbers of factors"),
    ]:
        status, out, err = cli("curve", "square.npy", *arguments)
        assert (status, out, err) == (2, "", f"structmat curve: error: {text}\n")
