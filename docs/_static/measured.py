"""Draw `measured.png`, the plot of README, from the committed files in `benchmarks/results`.

Run ``python docs/_static/measured.py`` after a new measurement.
"""

import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"
sys.path.insert(0, str(BENCHMARKS))

from _fair_plot import FILLS
from _fair_results import PLACES, averaged, pick, results
from _results_table import Row, drawn_from, read

SPEED, SPEED_FAST, ERRORS, SCORES = SOURCES = (
    "scaling_scipy_float64_1.csv",
    "scaling_auto_float64_1.csv",
    "more_factors.csv",
    "fair_adapters.csv",
)
ORANGE, YELLOW, BLUE, GREY = "#e07b24", "#f2b134", "#2f7fc8", "#7a828e"


def rows(name: str) -> list[Row]:
    return read(RESULTS / name)


def draw_speed(axes: Axes) -> None:
    for name, label, colour in ((SPEED, "default", BLUE), (SPEED_FAST, "with the extra fast", ORANGE)):
        table = rows(name)
        ratios = [float(row["seconds"]) / float(row["floor_seconds"]) for row in table]
        axes.plot([int(row["n"]) for row in table], ratios, "o-", color=colour, label=label, markersize=4)
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes.annotate(
        "plain SciPy transforms", (1.0, 1.0), (0, 3), ("axes fraction", "data"), "offset points", ha="right", color=GREY
    )
    axes.set(xscale="log", ylim=(0, 1.15), xlabel="n", ylabel="time of a product, relative")
    axes.set_title("Circulant times vector: how fast?")
    axes.legend(loc="lower center")


def draw_error(axes: Axes) -> None:
    table = [row for row in rows(ERRORS) if row["side"] == "64"]
    cdd = [64 * int(row["factors"]) for row in table]
    svd = [2 * 64 * int(row["rank"]) for row in table]
    axes.plot(svd, [float(row["svd_error"]) for row in table], "s-", color=GREY, label="low rank (truncated SVD)")
    axes.plot(cdd, [float(row["error"]) for row in table], "o-", color=ORANGE, label="CDD product")
    for row, x in zip(table, cdd, strict=True):
        axes.annotate(
            f"{row['factors']} factors", (x, float(row["error"])), (-8, -8), "data", "offset points", ha="right"
        )
    axes.set(xlim=(0, 1250), ylim=(0.5, 1), xlabel="parameters (4,096 dense)", ylabel="relative error")
    axes.set_title("Random 64 x 64 matrix: how close?")
    axes.legend(loc="upper right")


def draw_accuracy(axes: Axes) -> None:
    """Draw the means of all tasks, LoRA and CDD in every place that was run on each of them."""
    means = averaged(results(rows(SCORES)))
    styles = {"lora": ("LoRA", BLUE, "s"), "cdd": ("CDD", ORANGE, "o"), "cdd-shared": ("CDD with one C", YELLOW, "o")}
    for method, (label, colour, marker) in styles.items():
        for place, (fill, line) in FILLS.items():
            points = sorted(pick(means, method=method, places=place), key=lambda r: r.parameters)
            if points:
                axes.errorbar(
                    [r.parameters for r in points],
                    [r.mean for r in points],
                    [r.error for r in points],
                    fmt=f"{marker}{line}",
                    color=colour,
                    fillstyle=fill,
                    capsize=3,
                    markersize=6,
                    label=f"{label}, {PLACES[place]}",
                )
    for method, label, line in (("full", "all weights", "-"), ("head", "head alone", (0, (8, 3)))):
        for result in pick(means, method=method):
            axes.axhline(result.mean, color=GREY, linestyle=line, linewidth=1, label=label)
    axes.set(xscale="log", xlim=(4e3, 5e5), xlabel="trained parameters of the layers", ylabel="score, %")
    axes.set_ylim(bottom=axes.get_ylim()[0] - 2.5)  # room for the legend
    axes.set_title("Fine-tuning, mean of five tasks: how small?")
    axes.legend(loc="lower right", fontsize=7.5)


def main() -> None:
    with rc_context({"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12.6, 3.7), layout="constrained")
        for axes, draw in zip(figure.subplots(1, 3), (draw_speed, draw_error, draw_accuracy), strict=True):
            draw(axes)
            axes.grid(alpha=0.3)
        comment = drawn_from(*(RESULTS / name for name in SOURCES))
        figure.savefig(HERE / "measured.png", dpi=100, metadata={"Software": None, "Comment": comment})


if __name__ == "__main__":
    main()
