"""Draw `measured.png`, the plot of README, from `benchmarks/results/growth.csv`.

Run ``python docs/_static/measured.py`` after a new measurement.
"""

import csv
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "benchmarks/results/growth.csv"
LINES = {
    "dense": ("dense", "#7a828e", "^"),
    "scipy": ("SciPy", "#2f7fc8", "s"),
    "structmat": ("structmat", "#e07b24", "o"),
}
PANELS = {"product": "Toeplitz matrix times vector", "solve": "Toeplitz system, one right-hand side"}


def main() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["matrix"] == "symmetric"]
    with rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        for axes, (task, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
            for column, (label, colour, marker) in LINES.items():
                points = [(int(r["n"]), float(r[column])) for r in rows if r["task"] == task and r[column]]
                axes.plot(*zip(*points, strict=True), marker=marker, color=colour, markersize=5)
                axes.annotate(f" {label}", points[-1], color=colour, va="center", weight="bold")
            axes.set(xscale="log", yscale="log", xlim=(50, 2e7), xlabel="n", ylabel="seconds", title=title)
            axes.grid(alpha=0.3)
        figure.savefig(HERE / "measured.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
