"""Draw `exact_by_search.svg`, the figure of `docs/exact_products.md`, from `benchmarks/results/exact_by_search.csv`.

Run ``python docs/_static/exact_by_search.py`` after a new measurement.
"""

import csv
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "benchmarks/results/exact_by_search.csv"


def main() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sides = sorted({int(row["n"]) for row in rows})
    lines = {"2n + 1, construction": [2 * n + 1 for n in sides], "2n - 1, theorem": [2 * n - 1 for n in sides]}
    lines["n + 1, count of numbers"] = [n + 1 for n in sides]
    with rc_context({"font.size": 14, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "exact"}):
        figure = Figure(figsize=(10, 5.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, field in zip(panels, ("complex", "real"), strict=True):
            for (label, counts), style in zip(lines.items(), ("-", "--", ":"), strict=True):
                axes.plot(sides, counts, style, color="#2f7fc8", label=label, linewidth=2)
            own = [row for row in rows if row["field"] == field]
            shares = [int(row["exact"]) / int(row["matrices"]) for row in own]
            x, y = ([int(row[name]) for row in own] for name in ("n", "factors"))
            points = axes.scatter(x, y, c=shares, cmap="viridis", vmin=0.0, vmax=1.0, edgecolors="#4a4f57", zorder=3)
            axes.set(xlabel="n", xticks=sides, title=f"{field} matrices")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("factors")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        figure.colorbar(points, ax=panels, label="share of exact fits")
        figure.savefig(HERE / "exact_by_search.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
