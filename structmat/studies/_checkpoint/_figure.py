"""The figure of a fit of a checkpoint."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["layers_figure"]

# Okabe and Ito's colours, told apart in all common kinds of colour blindness; markers tell them apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_KINDS = len(_COLOURS)


def layers_figure(layers: list[dict[str, Any]]) -> Figure:
    """Draw the errors of all layers, beside those of truncated SVDs, and by depth and kind of layer."""
    changed = [layer for layer in layers if layer["norm"]]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, label, colour, marker in (
        ("svd_error", "truncated SVD", "#000000", "x"),
        ("error", "CDD", _COLOURS[0], "o"),
    ):
        values = sorted(layer[name] for layer in changed)
        left.plot(
            range(1, len(values) + 1), values, marker, color=colour, label=label, markersize=4, markerfacecolor="none"
        )
    left.set(xlabel="layers, sorted by error", ylabel="relative error of the change", ylim=(-0.02, 1.05))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title("CDD and truncated SVD, as many parameters")
    kinds: dict[str, list[tuple[int, float]]] = {}
    for layer in changed:
        depth, kind = _place(layer["name"])
        kinds.setdefault(kind, []).append((depth, layer["error"]))
    largest = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))[:_KINDS]
    for kind, colour, marker in zip(sorted(largest), _COLOURS, _MARKERS, strict=False):
        points = sorted(kinds[kind])
        right.plot(*zip(*points, strict=True), marker + "-", color=colour, label=kind, markersize=4, linewidth=1)
    right.set(xlabel="layer of the model")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_title("CDD by depth and kind" + (f" ({_KINDS} of {len(kinds)} kinds)" if len(kinds) > _KINDS else ""))
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def _place(name: str) -> tuple[int, str]:
    """Return the first number in the path of a module, and the rest of the path behind it."""
    match = re.search(r"(?:^|\.)(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else (0, name)
