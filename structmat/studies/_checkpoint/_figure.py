"""The figure of a fit of a checkpoint."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from structmat._files.text import figure_text
from structmat.plot import method_style, series_style

__all__ = ["layers_figure"]

_KINDS = 7  # that can be told apart


def layers_figure(layers: list[dict[str, Any]]) -> Figure:
    """Draw the errors of all layers, beside those of truncated SVDs, and by depth and kind of layer."""
    changed = [layer for layer in layers if layer["norm"]]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, method in (("svd_error", "truncated-svd"), ("error", "cdd")):
        values, style = sorted(layer[name] for layer in changed), method_style(method)
        left.plot(
            range(1, len(values) + 1),
            values,
            style.marker,
            color=style.color,
            label=style.label,
            markersize=4,
            markerfacecolor="none",
        )
    left.set(xlabel="layers, sorted by error", ylabel="relative error of the change", ylim=(-0.02, 1.05))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title("CDD and truncated SVD, as many parameters")
    kinds: dict[str, list[tuple[int, float]]] = {}
    for layer in changed:
        depth, kind = _place(layer["name"])
        kinds.setdefault(kind, []).append((depth, layer["error"]))
    largest = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))[:_KINDS]
    for index, kind in enumerate(sorted(largest)):
        points, (_, colour, dashes, marker) = sorted(kinds[kind]), series_style(index)
        right.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle=dashes,
            marker=marker,
            label=figure_text(kind),
            markersize=4,
            linewidth=1,
        )
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
