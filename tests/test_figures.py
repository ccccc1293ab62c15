"""Figures that README and docs state are those of the committed result files."""

from __future__ import annotations

import re
from statistics import fmean, median

import pytest

from tests.pages import RESULTS, ROOT, lines, rows, stated

METHODS = ("cdd", "truncated-svd", "block-circulant", "sparse-fourier", "monarch")


def range_of(values: list[float]) -> list[float]:
    return [round(min(values), 2), round(max(values), 2)]


def test_the_protocol_of_fine_tuning_that_was_given_up():
    last = [row for row in rows("fair_adapters_given_up.csv") if row["stage"] == "final"]
    assert [row["method"] for row in last] == ["head"] * 5 + ["lora"]
    assert stated("docs/measured.md", r"ended at ([\d.]+) %") == [round(100 * float(last[-1]["accuracy"]), 1)]


def test_rates_of_methods():
    chosen: dict[str, list[float]] = {}
    for row in rows("fair_adapters.csv"):
        if row["stage"] == "final":
            chosen.setdefault(row["method"].removesuffix("-blocks"), []).append(float(row["lr"]))
    names = {"LoRA": "lora", "AdaLoRA": "adalora", "FourierFT": "fourierft", "C3A": "c3a-corrected", "CDD": "cdd"}
    table = {cells[0].partition(",")[0]: cells[-1] for cells in lines("docs/guide/peft.md") if len(cells) == 6}
    for name, method in names.items():
        assert table[name] == f"{min(chosen[method]):g} to {max(chosen[method]):g}", name
    lora = next(cells[0] for cells in lines("docs/guide/from_lora.md") if cells[0].startswith("learning rate"))
    assert lora == f"learning rate {table['LoRA']}"


def test_learning_rates():
    measured = lines("benchmarks/results/learning_rates.md")
    shown = [cells for cells in lines("docs/guide/fine_tuning.md") if cells[1] in {"LoRA r = 8", "CDD"}]
    assert len(shown) == 4
    assert [cells for cells in shown if cells not in measured] == []


def test_speed_in_the_readme():
    for engine, pattern in (
        ("", r"product takes ([\d.]+) \(one vector\) and ([\d.]+) \(64 vectors\) of the time"),
        ("fast-", r"SciPy transforms, ([\d.]+) and ([\d.]+) with the extra"),
    ):
        groups = [
            [float(row["ratio"]) for row in rows("floor.csv") if row["group"] == f"{engine}{group}"]
            for group in ("vectors", "batches")
        ]
        assert stated("README.md", pattern) == [round(median(group), 2) for group in groups]


def test_toeplitz_systems_in_the_readme():
    table = lines("benchmarks/results/toeplitz_solves.md")
    row = next(cells for cells in table if cells[:3] == ["16,384", "positive definite", "1"])
    assert stated("README.md", r"takes (\d+) ms, (\d+) times less") == [round(float(row[3])), round(float(row[6]))]


def test_the_faster_engine():
    ratio = {(row["group"], row["case"]): float(row["ratio"]) for row in rows("floor.csv")}
    for group, pattern in (("vectors", r"takes ([\d.]+) of the time, a batch"), ("batches", r"a batch ([\d.]+),")):
        gains = [ratio[f"fast-{group}", case] / value for (of, case), value in ratio.items() if of == group]
        assert stated("docs/guide/conventions.md", pattern) == [round(median(gains), 2)]


def test_other_libraries():
    ratio = {
        (row["name"], int(row["n"]), row["dtype"]): float(row["ratio"])
        for row in rows("peers.csv")
        if row["batch"] == "64" and row["ratio"]
    }

    def beside(other: str, dtype: str, sizes: tuple[int, ...], ours: str = "structmat") -> list[float]:
        return range_of([ratio[other, n, dtype] / ratio[ours, n, dtype] for n in sizes])

    usual = (256, 1000, 1024, 4096, 16384)
    name = "docs/performance.md"
    assert stated(name, r"plain torch takes ([\d.]+) to ([\d.]+) of our") == beside("torch, plain", "float32", usual)
    assert stated(name, r"cola on top of it ([\d.]+) to ([\d.]+);") == beside("cola", "float32", usual)
    odd = (64, 1021, 4095)
    assert min(beside("torch, plain", "float32", odd) + beside("cola", "float32", odd)) > 1
    smooth, every = (1000, 1024, 4095, 4096, 16384), (1000, 1021, 1024, 4095, 4096, 16384)
    assert stated(name, r"takes ([\d.]+) to ([\d.]+) of our time from") == beside("lineax", "float64", smooth)
    assert stated(name, r"and ([\d.]+) times as long at the prime") * 2 == beside("lineax", "float64", (1021,))
    found = beside("lineax", "float64", every, "structmat, fast")
    assert stated(name, r"With `fast` it takes ([\d.]+) to ([\d.]+) times our") == found
    unprepared = [
        float(row["ratio"])
        for row in rows("peers.csv")
        if row["name"] == "structmat, unprepared" and row["batch"] == "1"
    ]
    assert stated(name, r"arguments: ([\d.]+) to ([\d.]+) times the floor") == range_of(unprepared)


def test_size():
    text = (RESULTS / "scaling_scipy_float64_1.md").read_text("utf-8")
    line = {int(e): float(v) for e, v in re.findall(r"^\| 2\^(\d+) \|[^|]+\|[^|]+\| ([\d.]+) \|", text, re.MULTILINE)}
    (within,) = stated("docs/performance.md", r"stays within (\d+) per cent of a line")
    assert max(abs(line[e] - 1) for e in range(10, 23)) == pytest.approx(within / 100, abs=0.005)
    assert all(line[e] < 1 for e in (14, 15, 16, 17, 20))
    assert all(line[e] > 1 for e in (18, 19, 21, 22))
    assert [line[e] for e in (12, 13)] == [1.05, 1.05]


@pytest.mark.parametrize("study", ["study_minilm", "study_five"])
def test_means_of_a_study(study):
    errors: dict[tuple[str, int], list[float]] = {}
    for row in rows(f"{study}.csv"):
        errors.setdefault((row["method"], int(row["n_factors"])), []).append(float(row["error"]))
    text = (ROOT / "docs/what_cdd_represents.md").read_text("utf-8")
    part = text.partition("## Five changes")[2 * (study == "study_five")]
    found = re.findall(r"^\| ([359]) \| [\d.]+ \| (.+) \|$", part, re.MULTILINE)
    assert len(found) == 3
    for n_factors, cells in found:
        for method, cell in zip(METHODS, cells.split("|"), strict=True):
            if cell.strip():
                assert float(cell.split()[0]) == pytest.approx(fmean(errors[method, int(n_factors)]), abs=0.00051)


def test_one_weight_change():
    errors = {
        (row["method"], row["n_factors"]): float(row["error"])
        for row in rows("study_five.csv")
        if row["layer"] == "minilm_banking77_l3_value"
    }
    order = ("cdd", "truncated-svd", "monarch", "sparse-fourier", "block-circulant")
    table = [cells for cells in lines("docs/theory.md") if cells[0] in {"3", "5", "9"}]
    assert len(table) == 3
    for cells in table:
        for method, cell in zip(order, cells[2:], strict=True):
            assert not cell or float(cell) == pytest.approx(errors[method, cells[0]], abs=0.00051)
    found = stated(
        "docs/guide/fitting.md", r"9 factors leave ([\d.]+), a truncated SVD with at most as many parameters ([\d.]+)"
    )
    assert found == [pytest.approx(errors[method, "9"], abs=0.00051) for method in ("cdd", "truncated-svd")]


def test_products_on_grids():
    found = stated(
        "docs/performance.md",
        r"NumPy, ([\d.]+) of the time of .* of 25 .* and ([\d.]+) at .* CPU ([\d.]+) and ([\d.]+)",
    )
    ratios = [
        [float(r["ratio"]) for r in rows("multilevel.csv") if r["library"] == name] for name in ("numpy", "torch")
    ]
    assert [len(group) for group in ratios] == [25, 25]
    assert found == [figure for group in ratios for figure in (median(group), max(group))]


def test_exact_products():
    measured = {(row["n"], row["matrix"]): row for row in rows("exact_products.csv")}
    table = [cells for cells in lines("docs/exact_products.md") if cells[0].replace(",", "").isdigit()]
    assert len(table) > 5
    for n, matrix, factors, error, seconds in table:
        row = measured[n.replace(",", ""), matrix]
        assert [factors, error, seconds] == [row["factors"], row["error"], row["seconds"]]
    # Aims, as README says; few real factors lose digits.
    for most, error in ((256, 1e-12), (512, 1.05e-11), (1024, 5e-11)):
        stable = [row for (n, kind), row in measured.items() if int(n) <= most and "real factors" not in kind]
        assert max(float(row["error"]) for row in stable) <= error


def test_more_factors():
    measured = {(row["side"], row["factors"]): row for row in rows("more_factors.csv")}
    table = [cells for cells in lines("docs/guide/fitting.md") if len(cells) == 5 and "rank" in cells[3]]
    assert table
    for side, factors, error, svd, seconds in table:
        row = measured[side, factors]
        assert float(error) == pytest.approx(float(row["error"]), abs=0.00051)
        assert svd == f"{float(row['svd_error']):.3f} (rank {row['rank']})"
        assert float(seconds) == pytest.approx(float(row["seconds"]), rel=0.05, abs=0.5)


def test_races():
    reached = [
        float(cells[-1]) for cells in lines("benchmarks/results/fit_race.md") if re.match(r"\d+.*, \d+, \d+", cells[0])
    ]
    assert stated("docs/measured.md", r"in ([\d.]+) to ([\d.]+) of the time of Adam") == range_of(reached)
    assert len(reached) == 4  # "four held-out matrices"


def test_scipy_vocabulary():
    measured: dict[str, list[str]] = {}
    for row in rows("scipy_vocabulary.csv"):
        figures = [row["times_as_fast"], row["prepared_times"]]
        measured.setdefault(row["scipy"], []).append(", ".join(filter(None, figures)))
    table = [cells for cells in lines("docs/guide/scipy_vocabulary.md") if cells[0].startswith("`")]
    assert {cells[0].replace("`", ""): cells[2:] for cells in table} == measured
