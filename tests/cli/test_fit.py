"""`structmat fit`: its tables, its JSON, its files."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

import structmat as sm
from structmat import io, plot
from structmat.cli import _fit, _fit_comparison
from structmat.cli._progress import fit_progress
from structmat.fit import FitProgress, fit_cdd
from tests.cli.common import BASELINES, W, fitted


def test_the_table_holds_the_numbers_of_the_fit_and_its_baselines(cli):
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
    assert f"start {result.start}, {result.n_iter} iterations of als, converged, " in out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


def test_json_is_one_object_alone_with_all_fields(cli, folder):
    got = fitted(cli, "W.npy", "--out", "fit.safetensors", "--plot", "fit.png")
    want = fit_cdd(W, rng=0).to_dict()
    assert {key: got[key] for key in want} == want
    assert got["operator"] == {"kind": "CDDProduct", "shape": [9, 6], "block_size": 6}
    assert [row["method"] for row in got["comparison"]] == BASELINES
    assert got["comparison"][0]["error"] == got["error"]
    assert got["seconds"] > 0
    assert (got["out"], got["plot"]) == ("fit.safetensors", "fit.png")
    assert (folder / "fit.png").read_bytes().startswith(b"\x89PNG")
    saved = io.describe("fit.safetensors")
    assert saved["fit"]["error"] == got["error"]
    assert saved["metadata"]["source"] == "W.npy"
    fit = io.load("fit.safetensors").operator.to_dense()
    assert np.linalg.norm(W - fit) / np.linalg.norm(W) == pytest.approx(got["error"], rel=1e-12)


@pytest.mark.parametrize("kind", ["float32", "float64", "complex128", "int64", ">f8"])
@pytest.mark.parametrize(
    ("shape", "block_size"), [((7, 7), None), ((9, 6), None), ((9, 6), 4), ((1, 5), None), ((12, 30), 2)]
)
def test_baselines_have_the_errors_of_their_definitions(cli, kind, shape, block_size):
    A = np.random.default_rng(1).standard_normal(shape) * 5
    A = (A + 1j * A[::-1] if kind == "complex128" else A).astype(kind)
    np.save("A.npy", A)
    got = fitted(cli, "A.npy", *(() if block_size is None else ("--block-size", block_size)), "--max-iter", 3)
    rank = min(got["n_parameters"] // sum(shape), *shape)
    u, s, vh = np.linalg.svd(A.astype(complex if kind == "complex128" else float), full_matrices=False)
    diagonal = np.zeros_like(A)
    np.fill_diagonal(diagonal[: min(shape), : min(shape)], np.diagonal(A))
    b = block_size or min(shape)
    baselines = {
        "truncated-svd": ((u[:, :rank] * s[:rank]) @ vh[:rank], rank * sum(shape)),
        "nearest-circulant": (sm.BlockCirculant.nearest(A.astype(A.dtype.newbyteorder("=")), b).to_dense(), None),
        "nearest-diagonal": (diagonal, min(shape)),
    }
    rows = {row["method"]: row for row in got["comparison"]}
    for name, (approximation, n_parameters) in baselines.items():
        error = np.linalg.norm(A - approximation) / np.linalg.norm(A)
        assert rows[name]["error"] == pytest.approx(error, rel=1e-5, abs=1e-6)
        assert rows[name]["explained"] == pytest.approx(1 - error**2, rel=1e-4, abs=1e-6)
        assert n_parameters is None or rows[name]["n_parameters"] == n_parameters
    assert rows["nearest-circulant"]["n_parameters"] == -(-shape[0] // b) * -(-shape[1] // b) * b
    assert f"rank {rank}" in rows["truncated-svd"]["label"]


def test_the_svd_of_large_matrices_is_found_by_iterations(monkeypatch):
    svd = importlib.import_module("structmat.fit._baselines.truncated_svd")  # a function there hides the file
    A = np.random.default_rng(2).standard_normal((40, 50)).astype("float32")
    result = fit_cdd(A, rng=0, max_iter=2)
    want = _fit_comparison.comparison(A, result)[1]
    monkeypatch.setattr(svd, "_DENSE_SVD_SIDE", 10)
    monkeypatch.setattr(svd.scipy.linalg, "svdvals", None)
    got = _fit_comparison.comparison(A, result)[1]
    assert got.label == want.label
    assert got.error == pytest.approx(want.error, rel=1e-5)


def test_too_few_parameters_for_rank_one_are_told():
    row = _fit_comparison._truncated_svd(W, 14)
    assert (row.error, row.to_dict()["explained"], row.label) == (None, None, "truncated SVD (rank 1 needs more)")


@pytest.mark.parametrize("A", [np.zeros((4, 6)), np.eye(5), 1e-300 * np.eye(4), 1e300 * np.ones((3, 4))])
def test_extreme_matrices_are_compared_without_a_warning(cli, A):
    np.save("A.npy", A)
    got = fitted(cli, "A.npy", "--plot", "A.png")
    assert got["error"] < 1e-12
    assert all(0 <= row["error"] <= 1 for row in got["comparison"])


def test_the_rank_of_the_svd_is_at_most_that_of_the_matrix(cli):
    """However many parameters the fit has."""
    status, out, _ = cli("fit", "square.npy", "--n-factors", 11, "--max-iter", 1)
    assert status == 0
    assert "truncated SVD (rank 4)" in out


def test_an_error_of_zero_is_written_as_that(cli):
    np.save("zero.npy", np.zeros((4, 4)))
    status, out, _ = cli("fit", "zero.npy")
    row = next(line for line in out.splitlines() if "CDD fit" in line)
    assert (status, "0.0000" in row, "0.0e+00" in row) == (0, True, False)


def test_the_figure_leaves_blank_what_is_missing(cli, monkeypatch):
    shown = []
    monkeypatch.setattr(plot, "fit_figure", lambda matrix, _: shown.append(matrix) or Figure())
    weights = np.maximum(np.abs(W) - 0.3, 0)
    np.save("M.npy", weights)
    for options, wanted in (([], W), (["--entry-weights", "M.npy"], np.where(weights > 0, W, np.nan))):
        status, _, _ = cli("fit", "W.npy", *options, "--plot", "fit.png", "--force")
        assert status == 0
        np.testing.assert_array_equal(shown.pop(), wanted)


def test_other_numbers_of_factors(cli):
    options = ("--n-factors", 2, "--first", "circulant", "--time-limit", 0.2)
    got = fitted(cli, "square.npy", *options, "--out", "fit.safetensors")
    assert (got["n_factors"], got["n_parameters"]) == (2, 8)
    assert io.load("fit.safetensors").operator.factors[0].shape == (4, 4)
    assert "CDD fit (C D)" in cli("fit", "square.npy", *options)[1]


def test_an_interrupted_fit_prints_and_writes_the_best_so_far(cli, monkeypatch):
    def interrupted(*arguments, **options):
        return dataclasses.replace(fit_cdd(*arguments, **options), stopped="interrupted")

    monkeypatch.setattr(_fit, "fit_cdd", interrupted)
    status, out, err = cli("fit", "W.npy", "--out", "fit.safetensors")
    assert (status, err) == (130, "structmat fit: interrupted\n")
    assert ", interrupted, " in out
    assert io.load("fit.safetensors").operator.shape == (9, 6)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (KeyboardInterrupt, 130, "structmat fit: interrupted"),
        (MemoryError, 1, "not enough memory for it; the fit"),
    ],
)
def test_a_comparison_that_ends_early_loses_no_fit(cli, monkeypatch, error, status, text):
    def ending(*arguments, **options):
        raise error

    monkeypatch.setattr(_fit, "comparison", ending)
    got, out, err = cli("fit", "W.npy", "--out", "fit.safetensors", "--plot", "fit.png")
    assert got == status
    assert text in err
    assert "CDD fit (D C D)" in out
    assert "truncated SVD" not in out
    assert io.load("fit.safetensors").error == fit_cdd(W, rng=0).error


def test_ctrl_c_counts_though_memory_ends_the_comparison(cli, monkeypatch):
    def interrupted(*arguments, **options):
        return dataclasses.replace(fit_cdd(*arguments, **options), stopped="interrupted")

    def ending(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(_fit, "fit_cdd", interrupted)
    monkeypatch.setattr(_fit, "comparison", ending)
    status, out, err = cli("fit", "W.npy", "--json")
    assert (status, err) == (130, "structmat fit: interrupted\n")
    assert [row["method"] for row in json.loads(out)["comparison"]] == ["cdd-fit"]


def test_the_same_seed_gives_the_same_fit(cli, monkeypatch):
    first, second = (fitted(cli, "W.npy", "--seed", 3) for _ in range(2))
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second
    seen = []
    monkeypatch.setattr(_fit, "fit_cdd", lambda *a, **options: (seen.append(options["rng"]), fit_cdd(*a, **options))[1])
    for arguments in ((), ("--seed", 0), ("--seed", 3)):
        fitted(cli, "W.npy", *arguments)
    assert seen == [0, 0, 3]


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [(["two.npz", "--key", "b"], [6, 9]), (["plain.safetensors"], [9, 6]), (["W.npy", "--max-iter=1"], [9, 6])],
)
def test_other_formats_and_options(cli, arguments, shape):
    got = fitted(cli, *arguments)
    assert got["shape"] == shape
    assert "--max-iter=1" not in arguments or got["n_iter"] == 1


def test_progress_tells_phase_iteration_and_errors_on_a_terminal(cli, terminal):
    terminal(120)
    status, out, err = cli("fit", "W.npy", "--max-iter", 40)
    assert status == 0
    phases = r"(screening|alternation) from [a-z-]+"
    assert re.search(rf"3 factors, {phases}, iteration \d+, error 0\.\d{{6}}, least 0\.\d{{6}}", err)
    assert "left" not in err
    assert "CDD fit" in out
    status, _, err = cli("fit", "W.npy", "--time-limit", 3000)
    assert re.search(r"0:(50:00|49:5\d) left", err)


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        (140, ["exploration 50%, iteration 750, error 0.25", "5 factors by way of 3, polish from growth, iteration 1"]),
        (82, ["5 factors, exploration 50%, least 0.250000", "polish from growth, least 0.250000"]),
        (62, ["5 factors, exploration, least 0.250000", "5 factors, polish, least 0.250000"]),
        (40, ["0.250000"]),
    ],
)
def test_progress_shows_what_there_is_room_for_and_never_cuts_digits(terminal, capfd, columns, texts):
    terminal(columns)
    for state in (
        FitProgress("random", 750, 1500, 0.25, "exploration", 5, 0.25, 3000.0),
        FitProgress("growth", 1, 1000, 0.5, "polish", 3, 0.25, 3000.0),
    ):
        with fit_progress(5, quiet=False) as report:
            report(state)
    err = capfd.readouterr().err
    assert all(text in err for text in [*texts, "0:50:00 left"])
    assert "…" not in err
    assert not re.search(r"0\.\d{1,5}(?!\d)", err)


@pytest.mark.parametrize("columns", [20, 40])
def test_narrow_terminals_lose_no_names_and_digits(cli, monkeypatch, columns):
    wide = cli("fit", "W.npy")[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = cli("fit", "W.npy")[1]
    assert "…" not in narrow
    assert re.findall(r"\d\.\d{4}", narrow) == re.findall(r"\d\.\d{4}", wide)
    assert all(word in narrow for word in ("CDD fit", "truncated", "nearest"))


def test_nothing_but_json_with_json(cli):
    status, out, err = cli("fit", "W.npy", "--json")
    assert (status, err) == (0, "")
    json.loads(out)
