"""The figures of docs/reproduction.md are those of the files of results, or follow from them."""

from __future__ import annotations

import re

from tests.pages import ROOT, lines, stated

PAGE = "docs/reproduction.md"
METHODS = ("structmat, recompute", "LoRA r = 8", "AdaLoRA", "FourierFT", "C3A")
"""In the order of the columns of the first table."""


def row(beginning: str) -> list[str]:
    """The cells of the first line that begins so, without those of the first column and of the paper."""
    return next(cells for cells in lines(PAGE) if cells[0].startswith(beginning))[2:]


def added() -> dict[str, dict[str, str]]:
    """Milliseconds by layer and dtype, then by method."""
    found: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for cells in lines("benchmarks/results/adapter_layers_time.md"):
        if cells[0] == "layer":
            header = [name.removeprefix("+ ") for name in cells]
        elif " x " in cells[0]:
            dtype = "bfloat16" if f"{cells[0]}, float32" in found else "float32"
            found[f"{cells[0]}, {dtype}"] = dict(zip(header, cells, strict=True))
    return found


def peaks(tokens: str) -> dict[str, list[str]]:
    """KiB kept and MiB at the peak, by method."""
    table = lines(f"benchmarks/results/adapter_layers_float32{tokens}_memory.md")
    return {cells[0]: cells[1:3] for cells in table if cells[-1].replace(",", "").isdigit()}


def test_times():
    measured = added()
    table = [cells for cells in lines(PAGE) if re.fullmatch(r"\d+ x \d+, b?float\d+", cells[0])]
    assert len(table) == 6
    for layer, *cells in table:
        assert cells == [measured[layer][method] for method in METHODS]
    assert row("[time]") == [measured["768 x 768, float32"][method] for method in METHODS]
    found = stated(PAGE, r"bfloat16: ([\d.]+) times LoRA's added time at 768 x 768, and ([\d.]+) times at 768 x 3072")
    assert found == [float(measured[f"{layer}, bfloat16"]["recompute / LoRA"]) for layer in ("768 x 768", "768 x 3072")]
    steps = {cells[0]: cells[-1] for cells in lines("benchmarks/results/adapter_layers_time.md") if len(cells) == 5}
    found = stated(PAGE, r"takes ([\d.]+) times as long as with LoRA, ([\d.]+) times with query and value alone")
    assert found == [float(steps[layers]) for layers in ("all linear", "query and value")]


def test_memory():
    many, few = peaks(""), peaks("_64")
    names = {"frozen layers, nothing trained": "frozen", "D C D by plain autograd": "D C D, plain autograd"}
    table = [cells for cells in lines(PAGE) if len(cells) == 4 and re.fullmatch(r"\d+\.\d\d", cells[3])]
    assert len(table) == 7
    for name, *cells in table:
        method = names.get(name, name.partition(", 1,000")[0])
        assert cells == [*many[method], few[method][1]]
    for beginning, measured in (("[peak memory]", many), ("peak memory, 64", few)):
        assert row(beginning) == [measured[method][1] for method in METHODS]
    ours, *others = ([float(measured[method][1]) for measured in (many, few)] for method in METHODS)
    saved = [[f"{100 * (1 - a / b):.0f} %" for a, b in zip(ours, other, strict=True)] for other in others]
    assert row("reduction of peak memory")[1:] == [", ".join(cells) for cells in saved]


def test_peaks_of_fine_tuning():
    peak = {
        cells[1]: float(cells[7]) for cells in lines("benchmarks/results/finetune_memory.md") if cells[0] == "banking77"
    }
    ours, *others = (peak[method] for method in ("CDD", "LoRA r = 8", "AdaLoRA", "FourierFT", "C3A, corrected"))
    assert list(map(float, row("peak of fine-tuning"))) == [ours, *others]
    saved = [f"{100 * (1 - ours / other):.0f} %" if ours < other else "none" for other in others]
    assert row("reduction of it")[1:] == saved
    text = r"MiniLM peaked at (\d+) MB on BANKING77, with LoRA at (\d+) MB and with FourierFT at (\d+) MB"
    assert stated(PAGE, text) == [ours, others[0], others[2]]


def test_parameters():
    """RoBERTa-base: query and value in 12 layers of side 768; the page's example counts those of D C D and LoRA."""
    layers, n = 24, 768
    counts = {
        "here": layers * 3 * n,
        "r = 8": layers * 8 * 2 * n,
        "r = 16": layers * 16 * 2 * n,
        "AdaLoRA": layers * 12 * (2 * n + 1),
        "FourierFT": layers * 1000,
        "C3A": layers * n,
    }
    here, eight, sixteen, adalora, fourier, c3a = counts.values()
    assert row("[parameters]") == [
        f"{here:,}", f"{eight:,} (r = 8), {sixteen:,} (r = 16)", f"{adalora:,} (rank 12)", f"{fourier:,}", f"{c3a:,}",
    ]  # fmt: skip
    ratios = [f"{count / here:.2f}" for count in (eight, sixteen, adalora, fourier, c3a)]
    assert row("parameters / those") == ["1", "{} (r = 8), {} (r = 16)".format(*ratios[:2]), *ratios[2:]]
    saved = [f"{100 * (1 - here / count):.0f} %" for count in (eight, sixteen, adalora)]
    assert row("reduction of parameters")[1:] == [
        "{} (r = 8), {} (r = 16)".format(*saved[:2]),
        saved[2],
        "none",
        "none",
    ]
    assert min(fourier, c3a) < max(fourier, c3a) < here


def test_the_operations_in_the_first_table():
    first = re.search(r"^768 \[([\d., ]+)\]$", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)
    assert first is not None
    ratios = [float(value) for value in first[1].split(", ")]
    assert row("[operations]")[0] == f"{round(ratios[-1])} to {round(ratios[0], -1):,.0f}"
