"""The figure of scores against numbers of parameters: every method, with its interval, in every place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from _fair_report import LABELS, TASKS, Result, mean_of

COLORS = {
    "query-value": ("tab:blue", "query and value layers"),
    "intermediate": ("tab:orange", "first feed-forward layers"),
    "all-linear": ("tab:green", "all linear layers"),
    "own": ("tab:gray", "layers of the method's own"),
}
Means = dict[tuple[str, str, int | None], tuple[int, np.ndarray]]
"""The parameters and the scores of the seeds, by place, method and size."""


def means(found: list[Result], tasks: Sequence[str]) -> Means:
    """Return the scores in the mean of the tasks, of what was run on each of them; of two runs the first counts."""
    runs: dict[tuple[str, str, int | None], dict[str, Result]] = {}
    for r in found:
        if r.case.task in tasks:
            runs.setdefault((r.case.places, r.case.method, r.case.size), {}).setdefault(r.case.task, r)
    return {
        key: (next(iter(of.values())).parameters, np.mean([of[task].scores for task in tasks], axis=0))
        for key, of in runs.items()
        if len(of) == len(tasks)
    }


def figure(named: list[Result], others: list[Result], tasks: Sequence[str], path: Path) -> None:
    """Draw a dot for each method and place, with 95 % of its difference to D C D on query and value.

    Dots of `named`, the runs of one commit, are filled, and those of others are not.
    """
    of_named, of_others = means(named, tasks), means(others, tasks)
    of_all = of_others | of_named
    _, ours = of_all["query-value", "cdd", 3]
    drawing, (axes, names) = plt.subplots(
        1, 2, figsize=(10, 5.4), layout="constrained", gridspec_kw={"width_ratios": [3, 1]}
    )
    shown = sorted((key for key, (count, _) in of_all.items() if 0 < count < 1e6), key=lambda key: of_all[key][0])
    for place, (color, text) in COLORS.items():
        line = [of_all[key] for key in shown if key[:2] == (place, "lora")]
        if line:
            axes.plot([count for count, _ in line], [scores.mean() for _, scores in line], color=color, linewidth=0.8)
        if any(key[0] == place for key in shown):
            axes.plot([], [], "o", color=color, label=text)
    axes.plot([], [], "o", color="black", markerfacecolor="white", label="runs of earlier days")
    for number, key in enumerate(shown, 1):
        place, method, size = key
        count, scores = of_all[key]
        color = COLORS[place][0]
        half = mean_of(scores - ours).half
        look = {
            "fmt": "D" if method == "cdd" else "o",
            "markersize": 6,
            "capsize": 2,
            "alpha": 0.8,
            "zorder": 3 if key in of_named else 2,
        }
        filled = color if key in of_named else "white"
        axes.errorbar(count, scores.mean(), half or None, color=color, markerfacecolor=filled, **look)
        axes.annotate(str(number), (count, scores.mean()), (5, 3), textcoords="offset points", fontsize=8)
        text = f"{number}  {'D C D' if method == 'cdd' else LABELS[method].format(size)}"
        weight = "bold" if key in of_named else "normal"
        spot = (0, 1 - number / (len(shown) + 1))
        names.text(*spot, text, color=color, weight=weight, fontsize=8, transform=names.transAxes)
    axes.axhline(ours.mean(), color=COLORS["query-value"][0], linestyle=":", linewidth=0.8)
    axes.legend(loc="lower right", fontsize=8)
    axes.set(xscale="log", xlabel="parameters of the adapters")
    axes.set_ylabel(fill(f"mean score, %: {', '.join(TASKS[task] for task in tasks)}", 60))
    axes.set_title("Diamonds: D C D. Lines: LoRA. Bars: 95 % of the difference to D C D on query and value", fontsize=9)
    names.set_axis_off()
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
