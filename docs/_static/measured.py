"""Draw `measured.png`, the plot of the first page, from `benchmarks/results/growth.csv`: times of SciPy over ours.

Run ``python docs/_static/measured.py`` after a new measurement. All is of the default install.
"""

import csv
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "benchmarks/results/growth.csv"
PRIME = "1013"
"""A length that is left out, as it lies beside 1,024: the table has both."""
LINES = {
    ("product", "decaying", "prepared"): ("product, prepared", "#1b6ca8", "-", "o"),
    ("product", "decaying", "structmat"): ("product, one-off", "#1b6ca8", "--", "o"),
    ("solve", "0.99^k", "structmat"): ("system, 0.99^k", "#c4561a", "-", "s"),
    ("solve", "decaying", "structmat"): ("system, decaying", "#c4561a", "--", "s"),
    ("solve", "random, positive definite", "structmat"): ("system, random, definite", "#c4561a", "-.", "s"),
    ("solve", "random", "structmat"): ("system, random", "#c4561a", ":", "s"),
}


def main() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with rc_context({"font.size": 18, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        axes = figure.subplots()
        axes.axhspan(1e-3, 1, color="0.93")
        axes.axhline(1, color="0.4")
        for (task, matrix, column), (label, colour, style, marker) in LINES.items():
            here = [row for row in rows if (row["task"], row["matrix"]) == (task, matrix) and row["scipy"]]
            here = [row for row in here if row["n"] != PRIME]
            points = [(int(row["n"]), float(row["scipy"]) / float(row[column])) for row in here if row[column]]
            axes.plot(*zip(*points, strict=True), style, marker=marker, color=colour, label=label, linewidth=2.5)
        low = min(min(line.get_ydata()) for line in axes.lines[1:])
        axes.set(xscale="log", yscale="log", xlabel="rows of the Toeplitz matrix", ylim=(low / 2, None))
        axes.set_ylabel("time of SciPy / time of structmat")
        axes.text(0.99, 0.03, "SciPy is faster", transform=axes.transAxes, ha="right", color="0.3")
        figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=15, labelspacing=0.2)
        figure.savefig(HERE / "measured.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
