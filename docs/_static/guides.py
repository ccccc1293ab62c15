"""Draw the pictures of the quickstart and of the guides: `python docs/_static/guides.py`, or with names of pictures."""

import runpy
import sys
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import structmat as sm

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.55"


def kinds():
    """Return four kinds of matrices, each cell coloured by the number it holds."""
    n = 12
    rng = np.random.default_rng(3)
    circulant, toeplitz = sm.Circulant(rng.standard_normal(n)), sm.Toeplitz(*rng.standard_normal((2, n)))
    left, right = (sm.Diagonal(rng.uniform(0.2, 2, n) * rng.choice((-1, 1), n)) for _ in range(2))
    shown = {
        "Diagonal: n numbers": left,
        "Circulant: n": circulant,
        "Toeplitz: 2 n - 1": toeplitz,
        "CDDProduct, D C D: 3 n": left @ circulant @ right,
    }
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    for axes, (title, operator) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        dense = operator.to_dense()
        largest = np.abs(dense).max()
        axes.imshow(dense, cmap="RdBu", vmin=-largest, vmax=largest)
        axes.set_title(title, fontsize=12)
        axes.set_axis_off()
    return figure


def of_the_gallery(page):
    """Return the last figure of a page of the gallery."""
    return runpy.run_path(str(HERE.parent / "examples" / page))["figure"]


def box(axes, middle, text, colour, width=1.0):
    """Draw a labelled box."""
    x, y = middle
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.25), width, 0.5, boxstyle="round,pad=0.04", fc="white", ec=colour, lw=2
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color=colour if colour != GREY else "0.3")


def arrow(axes, start, end):
    """Draw an arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color="0.3", shrinkA=0, shrinkB=0))


def where():
    """Return how an adapted layer computes its output."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.text(0, 0.5, "x", ha="center", va="center", fontsize=18)
    box(axes, (4, 1), "W and bias, frozen: n² numbers", GREY, 4.4)
    for x, text in ((2, "D: n numbers"), (4, "C: n, by the FFT"), (6, "D: n, zero at first")):
        box(axes, (x, 0), text, BLUE, 1.7)
    arrow(axes, (0.2, 0.6), (1.7, 1))
    arrow(axes, (0.2, 0.4), (1.1, 0))
    arrow(axes, (2.9, 0), (3.1, 0))
    arrow(axes, (4.9, 0), (5.1, 0))
    arrow(axes, (6.3, 1), (7.75, 0.58))
    arrow(axes, (6.9, 0), (7.75, 0.42))
    axes.text(7.5, 0.08, "times alpha", color=BLUE, fontsize=10)
    axes.text(8, 0.5, "+", ha="center", va="center", fontsize=20)
    arrow(axes, (8.2, 0.5), (8.7, 0.5))
    axes.text(8.9, 0.5, "y", ha="center", va="center", fontsize=18)
    axes.set(xlim=(-0.4, 9.2), ylim=(-0.4, 1.4))
    axes.set_axis_off()
    return figure


def batch():
    """Return how each sample of a batch gets the change of its own."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    colours = {"ben": ORANGE, "None": GREY, "anna": BLUE}
    for y, (name, colour) in zip((2, 1, 0), colours.items(), strict=True):
        box(axes, (0.7, y), f"sample for {name}", colour, 1.7)
        arrow(axes, (1.6, y), (3.3, y))
        arrow(axes, (6.7, y), (7.4, y))
        change = "W x" if name == "None" else f"W x + D C D of {name}"
        box(axes, (8.6, y), change, colour, 2.3)
    box(axes, (5, 2.2), "all vectors of the bank, stacked", GREEN, 3.2)
    box(axes, (5, 1.1), "transforms of the whole batch", GREEN, 3.2)
    box(axes, (5, 0), "one product with W, frozen", GREY, 3.2)
    axes.text(2.45, 1.5, "gathered\nby names", ha="center", va="center", color=GREEN, fontsize=10)
    axes.set(xlim=(-0.3, 9.9), ylim=(-0.4, 2.6))
    axes.set_axis_off()
    return figure


def series():
    """Return the posterior mean of a series with missing data and its forecast, with bands of two deviations."""
    n, ahead = 300, 40
    rng = np.random.default_rng(2)
    covariance = sm.Toeplitz(np.exp(-((np.arange(n + ahead) / 12) ** 2) / 2))
    truth = sm.sampling.sample_stationary(lambda lag: np.exp(-((lag / 12) ** 2) / 2), n + ahead, rng=7)[0]
    seen = rng.random(n + ahead) < 0.9
    seen[100:140] = seen[n:] = False
    y = truth[seen] + 0.3 * rng.standard_normal(seen.sum())
    A = (covariance + 0.3**2 * sm.Identity(n + ahead))[seen][:, seen]
    mean = covariance[:, seen] @ sm.solve(A, y).x
    deviation = np.sqrt(sm.posterior_variances(covariance, 0.3**2, seen).variances)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(n + ahead)
    axes.fill_between(
        places, mean - 2 * deviation, mean + 2 * deviation, color=BLUE, alpha=0.2, lw=0, label="confidence band, 95 %"
    )
    axes.plot(places[seen], y, ".", color=GREY, markersize=4, label="measured")
    axes.plot(places, truth, color="black", linewidth=1, label="truth")
    axes.plot(places, mean, color=ORANGE, linewidth=2, linestyle="--", label="posterior mean")
    axes.axvspan(100, 140, color="0.93", zorder=0)
    axes.axvspan(n, n + ahead, color="0.93", zorder=0)
    axes.text(120, 2.9, "missing", ha="center")
    axes.text(n + ahead / 2, 2.9, "forecast", ha="center")
    axes.set(xlabel="steps of the grid", xlim=(0, n + ahead), ylim=(-3.2, 3.4))
    figure.legend(frameon=False, ncols=4, loc="outside upper center")
    return figure


PICTURES = {
    "kinds": kinds,
    "starts": partial(of_the_gallery, "products/plot_starts.py"),
    "where": where,
    "learning": partial(of_the_gallery, "products/plot_train_beside_lora.py"),
    "batch": batch,
    "series": series,
}


def main():
    for name in sys.argv[1:] or PICTURES:
        with rc_context({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False}):
            figure = PICTURES[name]()
            figure.savefig(HERE / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
