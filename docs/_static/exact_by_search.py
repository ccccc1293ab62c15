"""Draw `exact_by_search.svg`, the figure of `docs/exact_products.md`, from `benchmarks/results/exact_by_search.csv`.

Run ``python docs/_static/exact_by_search.py`` after a new measurement.
"""

import csv
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "benchmarks/results/exact_by_search.csv"
EXACT = 1e-12


def main() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [(int(row["n"]), int(row["factors"]), float(row["error"])) for row in csv.DictReader(file)]
    sides = sorted({n for n, _, _ in rows})
    lines = {"2n + 1, construction": [2 * n + 1 for n in sides], "2n - 1, theorem": [2 * n - 1 for n in sides]}
    lines["n + 1, count of parameters"] = [n + 1 for n in sides]
    points = {"exact by search": ("o", "#e07b24", True), "not exact in time": ("x", "#7a828e", False)}
    with rc_context({"font.size": 16, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "exact"}):
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        for (label, counts), colour in zip(lines.items(), ("#2f7fc8", "#4a4f57", "#4a4f57"), strict=True):
            style = ":" if label.startswith("n") else "-"
            axes.plot(sides, counts, style, color=colour, label=label, linewidth=2)
        for label, (marker, colour, exact) in points.items():
            chosen = [(n, count) for n, count, error in rows if (error <= EXACT) == exact]
            axes.plot(*zip(*chosen, strict=True), marker, color=colour, label=label)
        axes.set(xlabel="n", ylabel="factors", xticks=sides)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(HERE / "exact_by_search.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
