"""Which learning rate suits layers of which size: with and without the scaling of `structmat.torch.param_groups`.

    python benchmarks/learning_rates.py [--sizes 64 256 1024] [--steps 400] [--out FOLDER] [--quick] [--moves]

A layer of n x n is to learn a planted change D C D from batches of 64 normal inputs, by Adam at a rate that falls to
zero along a cosine. The figure is the loss at the end, relative to that without a change: the mean over the last tenth
of the steps and three seeds. "normal" is a layer without a base that learns the planted product alone.

`--moves` writes instead how far outputs move in the first steps at the rate 0.01, by the number of factors, the size of
the layer and the side of its blocks: the root mean square over 256 normal inputs, the mean of four seeds.
"""

from __future__ import annotations

import argparse
from math import cos, pi
from pathlib import Path
from statistics import mean

import torch

from structmat.torch import CDDAdapter, param_groups

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
CASES = (("zero", True), ("zero", False), ("gradient", True), ("normal", True), ("normal", False))
BATCH = 64


def final_loss(n: int, init: str, rate: float, seed: int, steps: int, *, scaled: bool) -> float:
    """Return the relative loss that training ends with."""
    torch.manual_seed(seed)
    planted = CDDAdapter(n, n, init="normal")
    gradient = None
    if init == "gradient":  # of the first batches' loss, with respect to the weight of a layer without a change
        x = torch.randn(16 * BATCH, n)
        with torch.no_grad():
            gradient = -planted(x).T @ x / len(x)
    learner = CDDAdapter(n, n, init=init, gradient=gradient)
    groups = param_groups(learner, rate) if scaled else [{"params": list(learner.parameters()), "lr": rate}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 + 0.5 * cos(pi * k / steps))
    losses = []
    for _ in range(steps):
        x = torch.randn(BATCH, n)
        with torch.no_grad():
            target = planted(x)
        loss = (learner(x) - target).square().mean() / target.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return mean(losses[-steps // 10 :])


def move(n: int, n_factors: int, block_size: int, init: str, seed: int, steps: int) -> float:
    """Return how far outputs move while they learn to point along those of a random matrix."""
    torch.manual_seed(seed)
    learner = CDDAdapter(n, n, n_factors=n_factors, block_size=block_size, init=init)
    optimizer = torch.optim.Adam(param_groups(learner, 0.01))
    x = torch.randn(256, n)
    wanted = x @ torch.randn(n, n) / n**0.5
    before = learner(x).detach()
    for _ in range(steps):
        optimizer.zero_grad()
        (-learner(x) * wanted).mean().backward()
        optimizer.step()
    return (learner(x) - before).square().mean().sqrt().item()


def moves(*, quick: bool) -> list[str]:
    """Return the rows of a table of moves."""
    rows = {
        "3, 5, 9, 13 factors, n = 64": [(64, k, 64) for k in (3, 5, 9, 13)],
        "n = 16, 64, 256, 1,024": [(n, 3, n) for n in (16, 64, 256, 1024)],
        "n = 256, blocks of 256, 64, 16, 4": [(256, 3, b) for b in (256, 64, 16, 4)],
    }
    lines = [f"| start | steps | {' | '.join(rows)} |", "|---|---:|---|---|---|"]
    for init in ("zero", "normal"):
        for steps in (1,) if quick else (1, 30):
            cells = [
                ", ".join(f"{mean(move(*form, init, seed, steps) for seed in range(4)):.2g}" for form in forms)
                for forms in rows.values()
            ]
            lines.append(f"| {init} | {steps} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=(64, 256, 1024))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the table")
    parser.add_argument("--quick", action="store_true", help="few steps of a tiny layer, to see that it runs")
    parser.add_argument("--moves", action="store_true", help="how far the first steps go")
    options = parser.parse_args()
    if options.moves:
        table = "\n".join(moves(quick=options.quick))
        print(table)
        if options.out:
            (options.out / "first_steps.md").write_text(table + "\n")
        return
    if options.quick:
        options.sizes, options.steps, options.seeds = (8,), 2, 1
    lines = ["| start | rates | n | " + " | ".join(map(str, RATES)) + " |", "|---|---|---:|" + "---:|" * len(RATES)]
    print("\n".join(lines))
    for init, scaled in CASES:
        for n in options.sizes:
            cells = []
            for rate in RATES:
                runs = [final_loss(n, init, rate, seed, options.steps, scaled=scaled) for seed in range(options.seeds)]
                cells.append(f"{mean(runs):.3f}")
            lines.append(f"| {init} | {'scaled' if scaled else 'one rate'} | {n} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if options.out:
        (options.out / "learning_rates.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
