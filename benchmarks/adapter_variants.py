"""Which variants of the adapter learn more: places, starts, rates by factor, sums, longer and other products.

    python benchmarks/adapter_variants.py --data FOLDER [--variants NAME ...] [--lr 0.06] [--seeds 0 1 2] [--out FOLDER]

Each variant fine-tunes all-MiniLM-L6-v2 on GoEmotions, as `docs/examples/finetune_minilm.py` does but in bfloat16, for
2 epochs of 1,500 rows of the training file, other rows for each seed; the accuracy and the cross entropy are those of
its last 2,000 rows. Test rows are not used. FOLDER holds the data of the other tasks as published; tasks with two
classes add Matthews' correlation. `--variants` lists what there is if it is given a name that does not exist. New
results are added to `adapter_variants.csv` in the folder `--out`, and `adapter_variants.md` is written again from all
of them: means over the seeds, and differences from D C D on query and value at its best rate and at the same rate, with
their standard errors over the same seeds; then some variants beside one another. A run that the folder holds already is
left out.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs/examples"))

from _adapter_plans import BASELINE, OPTIMISERS, VARIANTS
from _common import table
from _fair_plan import PROTOCOLS
from _results_table import Row, Table

from finetune.data import SHIPPED, ExampleError, Rows, batches, load_task
from finetune.encoder import Classifier, load_encoder, load_tokenizer
from finetune.train import rising_then_falling

RESULTS = Path(__file__).parent / "results"
SETTING = ("variant", "task", "rows", "held", "epochs", "lr", "seed")
VALUES = ("parameters", "accuracy", "cross_entropy", "matthews")
PAIRS = (
    ("intermediate", "LoRA r = 2, intermediate"),
    ("intermediate", "LoRA r = 1, intermediate"),
    ("intermediate, shared circulant", "LoRA r = 1, intermediate"),
    ("intermediate, shared circulant", "intermediate"),
    ("intermediate, shared circulant", "LoRA r = 8"),
    ("LoRA r = 2, intermediate", "LoRA r = 8"),
    ("LoRA r = 1, intermediate", "LoRA r = 8"),
    ("all linear layers", "LoRA r = 8, all linear layers"),
    ("all linear layers but output", "LoRA r = 8, all linear layers"),
    ("all linear layers but output", "all linear layers"),
    ("all linear layers but output", "intermediate"),
)
"""Variants that are compared with one another, besides with the baseline."""

Runs = dict[tuple[str, float], dict[int, Row]]
"""The results of every variant and rate, by seed."""


def load_rows(task: str, folder: Path) -> Rows:
    """Return the training rows in one random order."""
    return load_task(task, folder, load_tokenizer(None), PROTOCOLS[task].max_tokens)[0]


def trial(variant: str, lr: float, seed: int, rows: Rows, held: Rows, epochs: int, classes: int) -> dict[str, float]:
    """Train and return what was reached on the held-back rows."""
    encoder = load_encoder(None)
    torch.manual_seed(seed)
    model = Classifier(encoder, classes)
    encoder.requires_grad_(requires_grad=False)
    torch.manual_seed(1000 + seed)
    layers = VARIANTS[variant](model, rows)
    rates: dict[float, list[nn.Parameter]] = defaultdict(list)
    for parameter, rate in {pair[0]: pair for layer in layers for pair in layer.change.groups(lr)}.values():
        rates[rate].append(parameter)
    if biases := [layer.bias for layer in layers if layer.bias is not None]:
        rates[0.1 * lr] += biases
    options = {"warmup": 0.06, "betas": (0.9, 0.999), "weight_decay": 0.0, "clipped": "all"}
    options |= OPTIMISERS.get(variant, {})
    decay = options["weight_decay"]
    groups = [{"params": params, "lr": rate, "weight_decay": decay} for rate, params in rates.items()]
    n_parameters = sum(p.numel() for group in groups for p in group["params"])
    groups.append({"params": list(model.head.parameters()), "lr": 0.01, "weight_decay": 0.01})
    optimizer = torch.optim.AdamW(groups, betas=options["betas"])
    clipped = {"all": groups, "adapter": groups[:-1], "none": []}[options["clipped"]]
    train(model, optimizer, rows, seed, epochs, options["warmup"], [p for group in clipped for p in group["params"]])
    return {"parameters": n_parameters, **scores(model, held)}


def train(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    seed: int,
    epochs: int,
    share: float,
    clipped: list[nn.Parameter],
) -> None:
    """Train as `finetune.train` does: rates rise over a share of the steps, then fall to zero."""
    steps = epochs * math.ceil(len(rows) / 32)
    schedule = rising_then_falling(optimizer, steps, share)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for tokens, index in batches(rows, 32, order):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(tokens)
            optimizer.zero_grad()
            cross_entropy(logits.float(), rows.labels[index]).backward()
            nn.utils.clip_grad_norm_(clipped, 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def scores(model: Classifier, rows: Rows) -> dict[str, float]:
    """Return accuracy in per cent, cross entropy, and Matthews' correlation in per cent of two classes."""
    model.eval()
    logits = torch.empty(len(rows), model.head.out_features)
    for tokens, index in batches(rows, 64):
        with torch.autocast("cpu", torch.bfloat16):
            logits[index] = model(tokens).float()
    found, labels = logits.argmax(1), rows.labels
    result = {
        "accuracy": round(100 * (found == labels).double().mean().item(), 2),
        "cross_entropy": round(cross_entropy(logits, labels).item(), 4),
    }
    if logits.shape[1] == 2:
        both = torch.corrcoef(torch.stack([found, labels]).double())[0, 1].nan_to_num()
        result["matthews"] = round(100 * both.item(), 2)
    return result


def summary(results: list[Row]) -> str:
    """Return two tables for each task: all variants beside the baseline's best rate, and some beside one another."""
    parts = []
    for task, rows, epochs in dict.fromkeys((row["task"], row["rows"], row["epochs"]) for row in results):
        runs: Runs = defaultdict(dict)
        for row in results:
            if (row["task"], row["rows"], row["epochs"]) == (task, rows, epochs):
                runs[row["variant"], float(row["lr"])][int(row["seed"])] = row
        measure = PROTOCOLS[task].metric
        base = runs[_best(runs, BASELINE)] if any(name == BASELINE for name, _ in runs) else {}
        lines = [
            (
                name,
                f"{int(next(iter(by_seed.values()))['parameters']):,}",
                f"{lr:g}",
                len(by_seed),
                f"{_mean(by_seed, measure):.2f}",
                f"{_mean(by_seed, 'cross_entropy'):.3f}",
                _difference(by_seed, base, measure, 2),
                _difference(by_seed, base, "cross_entropy", 3),
                _difference(by_seed, runs.get((BASELINE, lr), {}), "cross_entropy", 3),
            )
            for (name, lr), by_seed in sorted(
                runs.items(), key=lambda pair: (list(VARIANTS).index(pair[0][0]), pair[0])
            )
        ]
        of = "Matthews, %" if measure == "matthews" else "accuracy, %"
        header = ("variant", "parameters", "rate", "seeds", of, "cross entropy")
        header += ("against best", "entropy against best", "against the same rate")
        parts.append(f"## {task}, {int(rows):,} rows, {epochs} epochs\n\n{table(header, lines)}")
        if pairs := _pairs(runs, measure):
            parts.append(table(("first", "second", "seeds", of, "cross entropy"), pairs))
    return "\n\n".join(parts)


def _pairs(runs: Runs, measure: str) -> list[tuple]:
    """Compare the variants of `PAIRS`, each at its best rate."""
    names = {name for name, _ in runs}
    lines = []
    for pair in PAIRS:
        if names.issuperset(pair):
            (first, one), (second, other) = (_best(runs, name) for name in pair)
            these, those = runs[first, one], runs[second, other]
            differences = (_difference(these, those, measure, 2), _difference(these, those, "cross_entropy", 3))
            seeds = len(these.keys() & those.keys())
            lines.append((f"{first}, rate {one:g}", f"{second}, rate {other:g}", seeds, *differences))
    return lines


def _best(runs: Runs, variant: str) -> tuple[str, float]:
    """Return the rate of the lowest entropy among those with most seeds, with the variant."""
    of = [key for key in runs if key[0] == variant]
    return min(of, key=lambda key: (-len(runs[key]), _mean(runs[key], "cross_entropy")))


def _mean(runs: dict[int, Row], measure: str) -> float:
    return mean(float(row[measure]) for row in runs.values())


def _difference(runs: dict[int, Row], base: dict[int, Row], measure: str, digits: int) -> str:
    both = [float(runs[seed][measure]) - float(base[seed][measure]) for seed in runs.keys() & base.keys()]
    if not both or runs is base:  # nothing to compare with
        return "-"
    error = f" ± {stdev(both) / len(both) ** 0.5:.{digits}f}" if len(both) > 1 else ""
    return f"{mean(both):+.{digits}f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHIPPED, help="folder of the data sets")
    parser.add_argument("--task", default="goemotions", choices=("goemotions", "cola", "sst2", "banking77", "mrpc"))
    parser.add_argument("--variants", nargs="+", default=[BASELINE], choices=VARIANTS, metavar="NAME")
    parser.add_argument("--lr", nargs="+", type=float, default=[0.06])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, default=1500, help="for training")
    parser.add_argument("--held", type=int, default=2000, help="rows held back")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that it works; keeps nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.task, options.rows, options.held, options.epochs = "banking77", 32, 32, 1
        with TemporaryDirectory() as folder:
            options.out = Path(folder)
            run(options)
        return
    try:
        run(options)
    except ExampleError as error:  # data are missing
        sys.exit(str(error))


def run(options: argparse.Namespace) -> None:
    """Do what is asked for and not in the table yet."""
    every = load_rows(options.task, options.data)
    held, classes = every[len(every) - options.held :], int(every.labels.max()) + 1
    results = Table(options.out / "adapter_variants.csv", SETTING, VALUES)
    for name, lr, seed in product(options.variants, options.lr, options.seeds):
        setting = (name, options.task, options.rows, options.held, options.epochs, lr, seed)
        row: dict[str, object] = dict(zip(SETTING, setting, strict=True))
        if results.place(row) in results.rows:
            continue
        chosen = (torch.arange(options.rows) + seed * options.rows) % (len(every) - options.held)
        row |= trial(name, lr, seed, every[chosen], held, options.epochs, classes)
        print(row, flush=True)
        results.append(row)
    text = (
        "# Variants of the adapter\n\n"
        "`python benchmarks/adapter_variants.py --data FOLDER --variants NAME ... --lr RATE --seeds SEED ...`, whose\n"
        "`--help` says what was trained. ± is the standard error of the mean difference over the seeds, itself rough\n"
        "with two or three; with one seed it is unknown, and one accuracy has a standard error of 1.1 points.\n"
        "Best is D C D at the rate of its lowest entropy, among the rates with most seeds. The second table of a task\n"
        "has pairs, the first minus the second, at rates that were chosen in the same way."
    )
    page = f"{text}\n\n{summary(list(results.rows.values()))}\n"
    (options.out / "adapter_variants.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
