"""Figures of a study; drawn as in `structmat.plot`, whose colours they share."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._files.text import figure_text
from structmat.plot import method_style, series_style, set_error_axis
from structmat.studies._sweep._methods import METHODS
from structmat.studies._sweep._study import Study

try:
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
except ModuleNotFoundError as error:
    raise ImportError('structmat.studies needs the extra "plot" for figures: pip install "structmat[plot]"') from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from structmat.studies._sweep._study import StudyMean, StudyRow

__all__ = ["layers_figure", "means_figure", "ratio_figure"]

_TICKS = ((1.0, 2.0, 5.0), (1.0, 1.2, 1.5), (1.0, 1.05, 1.1, 1.2), (1.0, 1.02, 1.05), (1.0, 1.01, 1.02))
"""Of quotients: the coarsest that fall into the scale, and their inverses."""
_PANELS = 48  # of one layer each
_COLUMNS = 6
_ROUNDING = 1e-17  # the foot of an axis of errors


def means_figure(study: Study) -> Figure:
    """Draw the means over the layers: against parameters, of all methods, and of CDD against the number of factors."""
    figure = Figure(figsize=(11.0, 4.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.45, 1.0))
    figure.suptitle(_title(study), fontsize=13)
    for name, means in _by_method(study).items():
        for index, points in enumerate(_lines(name, means)):
            share = [100 * point.share for point in points]
            label, colour, dashes, marker = method_style(name)
            style = {"color": colour, "linestyle": dashes, "zorder": 3 if name == "cdd" else 2}
            left.plot(
                share,
                [max(point.error, _ROUNDING) for point in points],
                marker=marker,
                markersize=5,
                linewidth=2.2 if name == "cdd" else 1.5,
                label=label if index == 0 else None,
                **style,
            )
            if name == "cdd":
                if len({mean.block for mean in means}) > 1:
                    left.annotate(
                        _block_name(points[-1].block),
                        (share[-1], max(points[-1].error, _ROUNDING)),
                        xytext=(4, 3),
                        textcoords="offset points",
                        color=colour,
                        fontsize=8,
                    )
                low, high = [max(p.least, _ROUNDING) for p in points], [max(p.most, _ROUNDING) for p in points]
                left.fill_between(share, low, high, color=colour, alpha=0.12, linewidth=0)
    left.set_xlabel("parameters, % of dense")
    left.set_ylabel(_error_name(study))
    left.set_xlim(left=0)
    left.legend(frameon=False, fontsize=9)
    _draw_factors(right, study)
    for ax in (left, right):
        set_error_axis(ax, [mean.least for mean in study.means()])
    return figure


def layers_figure(study: Study) -> Figure:
    """Draw a panel for each layer: the error of every method against the number of parameters."""
    layers = study.layers()
    shown = layers[:_PANELS]
    columns = min(_COLUMNS, len(shown)) or 1
    lines = -(-len(shown) // columns) or 1
    width = max(1.95 * columns, 5.0)
    figure = Figure(figsize=(width, 1.65 * lines + 0.9), dpi=120, layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    of_layer: dict[str, list[StudyRow]] = defaultdict(list)
    for row in study.rows:
        of_layer[row.layer].append(row)
    for ax, layer, title in zip(axes.flat, shown, _short_names(shown), strict=False):
        ax.set_title(title, fontsize=7)
        for name, means in _by_method(Study(tuple(of_layer[layer]), 0, block_sizes=study.block_sizes)).items():
            label, colour, dashes, _ = method_style(name)
            for index, points in enumerate(_lines(name, means)):
                ax.plot(
                    [100 * point.share for point in points],
                    [max(point.error, _ROUNDING) for point in points],
                    color=colour,
                    linestyle=dashes,
                    linewidth=1.8 if name == "cdd" else 1.1,
                    marker="o",
                    markersize=2.2,
                    label=label if index == 0 else None,
                )
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for ax in axes.flat[: len(shown)]:
        ax.tick_params(labelsize=7)
        set_error_axis(ax, [row.error for row in study.rows])
    handles: dict[str, Any] = {}
    for ax in axes.flat[: len(shown)]:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    left_out = f"; the first {len(shown)} of {len(layers)} layers" if len(shown) < len(layers) else ""
    figure.supxlabel(f"parameters, % of dense{left_out}", fontsize=9)
    figure.supylabel(_error_name(study), fontsize=9)
    if handles:
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def ratio_figure(study: Study) -> Figure | None:
    """Draw the error of CDD over that of the truncated SVD, layer by setting; None where there are no two to compare.

    Where the truncated SVD has no error at all there is no ratio, and the field is white.
    """
    errors: dict[tuple[str, str, Any, int], list[float]] = defaultdict(list)
    for row in study.rows:
        for block in filter(row.has_blocks, study.block_sizes):
            errors[row.method, row.layer, block, row.n_factors].append(row.error)
    ratios = {
        (layer, block, n_factors): fmean(values) / svd
        for (method, layer, block, n_factors), values in errors.items()
        if method == "cdd" and (svd := fmean(errors.get(("truncated-svd", layer, block, n_factors), [0.0]))) > 0
    }
    if not ratios:
        return None
    layers = [layer for layer in study.layers() if any(layer == key[0] for key in ratios)]
    named = {"toeplitz": -1.0, "min": 0.0}
    settings = sorted({key[1:] for key in ratios}, key=lambda s: (named[s[0]] if s[0] in named else 1 / s[0], s[1]))
    table = np.full((len(layers), len(settings)), np.nan)
    for key, value in ratios.items():
        table[layers.index(key[0]), settings.index(key[1:])] = value
    names = _short_names(layers)
    width = 2.6 + max(0.62 * len(settings), 2.4) + 0.05 * max(map(len, names))
    figure = Figure(figsize=(width, max(0.9 + 0.2 * len(layers), 2.2)), dpi=120, layout="constrained")
    ax = figure.subplots()
    reach = max(float(np.nanmax(np.abs(np.log2(np.maximum(table, 1e-3))))), 0.05)
    image = ax.imshow(
        np.log2(np.maximum(table, 1e-3)),
        cmap="RdBu_r",
        norm=TwoSlopeNorm(0.0, -reach, reach),
        aspect="auto",
        interpolation="nearest",
    )
    if len(layers) <= _PANELS:
        for (i, j), value in np.ndenumerate(table):
            if math.isfinite(value):
                dark = abs(math.log2(max(value, 1e-3))) > 0.65 * reach
                ax.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=6, color="white" if dark else "black")
        ax.set_yticks(range(len(layers)), names, fontsize=7)
    else:
        ax.set_ylabel("layer")
    labels = [
        f"{n_factors}" if block == "min" else f"{n_factors}\n{block}" if block in named else f"{n_factors}\nb={block}"
        for block, n_factors in settings
    ]
    ax.set_xticks(range(len(settings)), labels, fontsize=8)
    ax.set_xlabel("number of factors", fontsize=8)
    ax.set_title("error of CDD / error of the truncated SVD", fontsize=9)
    bar = figure.colorbar(image, ax=ax)
    steps = next(s for s in _TICKS if len([t for t in s if math.log2(t) <= reach]) > 1)
    ticks = [t for step in steps for t in (1 / step, step) if math.log2(step) <= reach]
    bar.set_ticks([math.log2(t) for t in ticks], labels=[f"{t:.3g}" for t in ticks])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_factors(ax: Axes, study: Study) -> None:
    means = _by_method(study).get("cdd", [])
    by_block: dict[Any, list[StudyMean]] = defaultdict(list)
    for mean in means:
        by_block[mean.block].append(mean)
    for index, (block, points) in enumerate(by_block.items()):
        colour = series_style(index).color
        of_block = defaultdict(lambda: defaultdict(list))  # type: ignore[var-annotated]
        for row in study.rows:
            if row.method == "cdd" and row.has_blocks(block):
                of_block[row.layer][row.n_factors].append(max(row.error, _ROUNDING))
        for errors in of_block.values():
            ax.plot(sorted(errors), [fmean(errors[n]) for n in sorted(errors)], color=colour, linewidth=0.6, alpha=0.35)
        numbers, error = [p.n_factors for p in points], [max(p.error, _ROUNDING) for p in points]
        ax.plot(numbers, error, color=colour, marker="o", markersize=5, linewidth=2.2, label=_block_name(block))
    numbers = sorted({mean.n_factors for mean in means})
    ax.xaxis.set_major_locator(FixedLocator(numbers) if len(numbers) <= 12 else MaxNLocator(nbins=9, integer=True))
    ax.set_xlabel("number of factors (CDD; thin lines are layers)")
    if by_block:
        ax.legend(frameon=False, fontsize=9)


def _block_name(block: int | str) -> str:
    named = {"min": "largest blocks", "toeplitz": "Toeplitz matrices"}
    return named.get(str(block), f"blocks of {block}")


def _by_method(study: Study) -> dict[str, list[StudyMean]]:
    """Return the means of each method that has any parameters, in the order of the legend."""
    found: dict[str, list[StudyMean]] = {name: [] for name in METHODS}
    for mean in study.means():
        if mean.share:
            found[mean.method].append(mean)
    return {name: means for name, means in found.items() if means}


def _lines(name: str, means: list[StudyMean]) -> list[list[StudyMean]]:
    """Return the points of each line: of CDD one for each block size, of the others one in all."""
    if name != "cdd":
        return [sorted(means, key=lambda mean: mean.share)]
    blocks = dict.fromkeys(mean.block for mean in means)
    return [sorted((m for m in means if m.block == block), key=lambda mean: mean.share) for block in blocks]


def _error_name(study: Study) -> str:
    kinds = {row.weighted for row in study.rows}
    if kinds == {True}:
        return "weighted relative error"
    return "relative error, some weighted" if True in kinds else "relative error"


def _title(study: Study) -> str:
    state = "" if study.complete else f", {len(study.rows)} of {study.n_planned} results so far"
    count = len(study.layers())
    return f"Mean over {count} layers{state}" if count != 1 else f"{figure_text(study.layers()[0])}{state}"


def _short_names(layers: list[str]) -> list[str]:
    """Return names without what all of them begin with, as in ``encoder.layer.``, and cut on the left."""
    parts = [re.split(r"(?<=[./])", layer) for layer in layers]
    common = 0
    while len(layers) > 1 and all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    names = ["".join(part[common:]) for part in parts]
    return [figure_text(name) for name in names]
