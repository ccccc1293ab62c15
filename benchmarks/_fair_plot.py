"""The plot of `fair_adapters.py`: scores against parameters, one panel a task, and the mean over the tasks."""

from __future__ import annotations

from pathlib import Path

from _fair_results import METRICS, PLACES, TASKS, Result, averaged, metric, pick
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

STYLES = {
    "lora": ("LoRA", "#2f7fc8", "o"),
    "adalora": ("AdaLoRA", "#6fc3df", "v"),
    "c3a-corrected": ("C3A", "#3f9b4f", "s"),
    "fourierft": ("FourierFT", "#8f5fbf", "^"),
    "cdd": ("CDD, 3 to 7 factors", "#e07b24", "D"),
    "cdd-shared": ("CDD, shared circulants", "#f2b134", "p"),
    "cdd-blocks": ("CDD, 3 factors in blocks", "#b23a2e", "P"),
}
LEVELS = {"head": ("head only", (0, (8, 3))), "full": ("everything", "-")}
"""Methods without a size are drawn as lines across, with a band of one standard error."""

FILLS = {"query-value": ("full", "-"), "intermediate": ("left", ":"), "all-linear": ("none", "--")}
"""How markers are filled and lines drawn for each place."""

ASIDE = {"c3a-corrected": 0.93, "fourierft": 1.07, "cdd-blocks": 1.07}
"""Factors that draw methods with equal numbers of parameters side by side."""


def draw(panel: Axes, shown: list[Result]) -> None:
    for method, (label, style) in LEVELS.items():
        for result in pick(shown, method=method, places="query-value"):
            panel.axhline(result.mean, color="#555555", linestyle=style, linewidth=1, label=label)
            low, high = result.mean - result.error, result.mean + result.error
            panel.axhspan(low, high, color="#555555", alpha=0.12, linewidth=0)
    for method, (label, colour, marker) in STYLES.items():
        for places in PLACES:
            results = sorted(pick(shown, method=method, places=places), key=lambda r: r.parameters)
            if not results:
                continue
            fill, line = FILLS[places]
            panel.errorbar(
                [r.parameters * ASIDE.get(method, 1.0) for r in results],
                [r.mean for r in results],
                [r.error for r in results],
                color=colour,
                marker=marker,
                markersize=6,
                fillstyle=fill,
                linestyle=line,
                linewidth=1,
                capsize=2,
                label=label,
            )
    panel.set(xscale="log", xlim=(3.5e3, 5e5), xlabel="adapter parameters")
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(alpha=0.3)


def plot(found: list[Result], path: Path, comment: str) -> None:
    """Draw one panel for each task that has an adapter's result, and one for the mean where there are several."""
    found = found + averaged(found)
    tasks = [task for task in TASKS if any(result.case.method in STYLES for result in pick(found, task=task))]
    columns = {4: 2, 7: 4, 8: 4}.get(len(tasks), min(3, len(tasks)))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.2 * columns + 2.4, 3.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, task in zip(panels, tasks, strict=False):
        draw(panel, pick(found, task=task))
        panel.set(title=TASKS[task], ylabel=METRICS[metric(task)])
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    labels = {}
    for panel in panels:
        for mark, text in zip(*panel.get_legend_handles_labels(), strict=True):
            labels.setdefault(text, mark)  # the first is of query and value, with filled marks
    shown = {r.case.places for r in found}
    for places, (fill, line) in FILLS.items():
        if places in shown and len(shown) > 1:
            style = {"marker": "o", "fillstyle": fill, "linestyle": line, "linewidth": 1}
            labels[PLACES[places]] = Line2D([], [], color="#555555", **style)
    figure.legend(labels.values(), labels, loc="outside center right", frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None, "Comment": comment})
