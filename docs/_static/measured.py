"""Draw `measured.png`, the plot of README, from `benchmarks/results/growth.csv`: times of the default install.

Run ``python docs/_static/measured.py`` after a new measurement.
"""

import csv
from itertools import product
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "benchmarks/results/growth.csv"
LINES = {
    "dense": ("dense", "#7a828e", "^"),
    "scipy": ("SciPy", "#2f7fc8", "s"),
    "structmat": ("structmat", "#e07b24", "o"),
}
STYLES = {"symmetric": "-", "general": "--", "random": ":"}
PANELS = {
    ("product", "structmat"): "Toeplitz matrix times vector, one-off",
    ("product", "prepared"): "the same, structmat prepared",
    ("solve", "structmat"): "Toeplitz system, one right-hand side",
}


def main() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        for axes, ((task, ours), title) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
            for (column, (label, colour, marker)), (matrix, style) in product(LINES.items(), STYLES.items()):
                here = [row for row in rows if (row["task"], row["matrix"]) == (task, matrix)]
                name = ours if column == "structmat" else column
                points = [(int(row["n"]), float(row[name])) for row in here if row[name]]
                axes.plot(*zip(*points, strict=True), style, marker=marker, color=colour, markersize=4)
                if matrix == "symmetric":
                    axes.annotate(f" {label}", points[-1], color=colour, va="center", weight="bold")
            axes.set(xscale="log", yscale="log", xlim=(50, 2e6), xlabel="n", ylabel="seconds", title=title)
            axes.grid(alpha=0.3)
        lines = [Line2D([], [], linestyle=style, color="black", label=matrix) for matrix, style in STYLES.items()]
        axes.legend(handles=lines, loc="lower right", fontsize=9)
        figure.savefig(HERE / "measured.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
