"""The exact likelihood of 100,000 noisy measurements with gaps, and its gradient: the example of README, with a figure.

Run ``python docs/examples/likelihood_with_gaps.py``. It takes about 15 seconds of one core, says what it computes
and writes ``likelihood.png``: a part of the series with what is inferred from it, and the log-likelihood for several
length scales with its slopes. ``--out`` names another file, ``--points`` another length of the series.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from matplotlib.figure import Figure

import structmat as sm

LENGTH = 50.0
"""The length scale of the series, in steps of its grid."""
SHOWN = 400
"""How many points the figure shows of the series."""


def main() -> None:
    options = parsed()
    n = options.points
    rng = np.random.default_rng(0)

    # A sample of the Gaussian process, of which nine tenths are measured, with known noise that differs from point to
    # point. The tail of its covariance is long, so that the circulant embedding, by which it is drawn, needs many.
    drawn = sm.sampling.sample_stationary(lambda steps: 1 / (1 + 0.5 * (steps / LENGTH) ** 2), max(n, 20_000), rng=rng)
    truth = drawn[0, :n]
    seen = rng.random(n) < 0.9
    deviations = rng.uniform(0.2, 0.6, n)
    measured = truth + deviations * rng.standard_normal(n)
    y = torch.as_tensor(measured[seen])
    noise = torch.as_tensor(deviations**2)
    mask = torch.as_tensor(seen)

    def log_likelihood(length: torch.Tensor) -> torch.Tensor:
        k = 1 / (1 + 0.5 * (torch.arange(n) / length) ** 2)
        K = (sm.Toeplitz(k) + sm.Diagonal(noise))[mask][:, mask].prepare()
        x = sm.solve(K, y).x
        return -0.5 * (y @ x + sm.slogdet(K).logabsdet + len(y) * math.log(2 * math.pi))

    print(f"{len(y):,} of {n:,} points are measured; a dense covariance matrix of them would take {size(len(y))}")
    lengths = LENGTH * np.geomspace(0.94, 1.065, 5)
    values, slopes = [], []
    for length in lengths:
        start = time.perf_counter()
        leaf = torch.tensor(length, requires_grad=True)
        value = log_likelihood(leaf)
        value.backward()
        values.append(value.item())
        slopes.append(leaf.grad.item())
        seconds = time.perf_counter() - start
        found = f"log-likelihood {values[-1]:,.2f}, derivative {slopes[-1]:+.2f}"
        print(f"length scale {length:.1f}: {found}, {seconds:.1f} s")

    k = 1 / (1 + 0.5 * (np.arange(n) / LENGTH) ** 2)
    covariance = sm.Toeplitz(k)
    weights = sm.solve((covariance + sm.Diagonal(deviations**2))[seen][:, seen], measured[seen]).x
    mean = covariance[:, seen] @ weights
    draw(options.out, truth, measured, seen, mean, lengths, values, slopes)
    print(f"wrote {options.out}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--points", type=int, default=100_000, metavar="N", help="length of the series (default: 100,000)"
    )
    parser.add_argument("--out", default="likelihood.png", metavar="FILE", help="the figure (default: %(default)s)")
    options = parser.parse_args()
    if options.points < SHOWN:
        parser.error(f"--points must be at least {SHOWN}, got {options.points}")
    return options


def size(rows: int) -> str:
    """Return the memory of a square matrix of numbers in double precision."""
    return f"{rows**2 * 8 / 1e9:.1f} GB"


def draw(out, truth, measured, seen, mean, lengths, values, slopes) -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    step = np.arange(SHOWN)
    there = np.flatnonzero(seen[:SHOWN])
    top.plot(there, measured[there], ".", color="0.75", markersize=4, label="measured")
    top.plot(step, truth[:SHOWN], color="black", label="truth")
    top.plot(step, mean[:SHOWN], "--", color="#D55E00", linewidth=2, label="posterior mean of all points")
    top.set(xlabel=f"the first {SHOWN} points", ylabel="value")
    top.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    best = max(values)
    bottom.plot(lengths, np.array(values) - best, "o", color="#0072B2", label="log-likelihood")
    width = (lengths[-1] - lengths[0]) / 24
    for length, value, slope in zip(lengths, values, slopes, strict=True):
        ends = np.array([-width, width])
        bottom.plot(length + ends, value - best + slope * ends, color="#D55E00")
    bottom.plot([], [], color="#D55E00", label="its derivative, drawn as a slope")
    bottom.axvline(LENGTH, color="0.6", linestyle=":", label="length scale that the series was drawn with")
    bottom.set(xlabel="length scale, in steps of the grid", ylabel="log-likelihood\nminus the largest")
    bottom.legend(frameon=False)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
