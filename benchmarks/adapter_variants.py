"""Which variants of the adapter learn more: places, starts, rates by factor, sums, longer and other products.

    python benchmarks/adapter_variants.py --data FOLDER [--variants NAME ...] [--lr 0.06] [--seeds 0 1 2] [--out FOLDER]

Each variant fine-tunes all-MiniLM-L6-v2 on GoEmotions, as `docs/examples/finetune_minilm.py` does but in bfloat16, for
2 epochs of 1,500 rows of the training file, other rows for each seed; the accuracy and the cross entropy are those of
its last 2,000 rows. The test file is not read. FOLDER holds the data as published; `--task cola` and `--task sst2` read
`cola_train.tsv.gz` and `sst2_train.tsv.gz` there, and CoLA adds Matthews' correlation. `--variants` lists what there is
if it is given a name that does not exist. New results are added to `adapter_variants.csv` in the folder `--out`, and
`adapter_variants.md` is written again from all of them: means over the seeds, and differences from D C D on query and
value at its best rate and at the same rate, with their standard errors over the same seeds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs/examples"))

from _adapter_changes import Folded, LowRank, Products, wrap
from _common import table

from finetune.data import SHIPPED, Rows, batches, load_task
from finetune.encoder import Classifier, load_encoder, load_tokenizer
from finetune.train import rising_then_falling
from structmat.torch import CDDAdapter

Prepare = Callable[[Classifier, Rows], list[Folded]]
BASELINE = "D C D"
SETTING = ("variant", "task", "rows", "held", "epochs", "lr", "seed")
FIELDS = (*SETTING, "parameters", "accuracy", "cross_entropy", "matthews")


def products(letters: str = "qv", first: int = 0, **options) -> Prepare:
    """Adapt by products, in layers of these letters from one block on."""
    return lambda model, _: wrap(
        model.encoder, letters, lambda base, _: Products(base.out_features, base.in_features, **options), first
    )


def multiplied(letters: str, **options) -> Prepare:
    """Change weights by W (I + D C D), or (I + D C D) W where that is smaller."""

    def make(base: nn.Linear, _: str) -> Products:
        m, n = base.out_features, base.in_features
        return Products(min(m, n), min(m, n), side="right" if n <= m else "left", **options)

    return lambda model, _: wrap(model.encoder, letters, make)


def low_rank(letters: str, rank: int) -> Prepare:
    return lambda model, _: wrap(
        model.encoder, letters, lambda base, _: LowRank(base.out_features, base.in_features, rank)
    )


def with_biases(prepare: Prepare) -> Prepare:
    """Train the biases of the adapted layers too, at a tenth of the rate."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        layers = prepare(model, rows)
        for layer in layers:
            layer.bias = nn.Parameter(torch.zeros_like(layer.base.bias))
        return layers

    return prepared


def shared(prepare: Prepare, factor: int) -> Prepare:
    """Let all layers of a kind share one factor."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        owners: dict[str, Folded] = {}
        layers = prepare(model, rows)
        names = [name for name, module in model.encoder.named_modules() if isinstance(module, Folded)]
        for name, layer in zip(names, layers, strict=True):
            owner = owners.setdefault(name.rpartition(".")[2], layer)
            layer.change.factors[factor] = owner.change.factors[factor]
        return layers

    return prepared


def from_gradient(letters: str = "qv", n_batches: int = 4) -> Prepare:
    """Start with the factors nearest to the gradient of four batches."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        weights = [p for name, p in model.encoder.named_parameters() if name.endswith(".weight") and p.ndim == 2]
        for weight in weights:
            weight.requires_grad_(requires_grad=True)
        model.eval()
        drawn = batches(rows, 32, torch.Generator().manual_seed(5))
        for (tokens, index), _ in zip(drawn, range(n_batches), strict=False):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(tokens)
            cross_entropy(logits.float(), rows.labels[index]).backward()

        def make(base: nn.Linear, _: str) -> Products:
            options = {"init": "gradient", "gradient": base.weight.grad}
            vectors = CDDAdapter(base.in_features, base.out_features, **options).factors
            return Products(base.out_features, base.in_features, start=[v.detach().clone() for v in vectors])

        layers = wrap(model.encoder, letters, make)
        model.zero_grad()
        model.encoder.requires_grad_(requires_grad=False)
        for layer in layers:
            layer.change.requires_grad_(requires_grad=True)
        return layers

    return prepared


VARIANTS: dict[str, Prepare] = {
    BASELINE: products(),
    "LoRA r = 8": low_rank("qv", 8),
    "LoRA r = 2, intermediate": low_rank("i", 2),
    "rate of the first diagonal x 3": products(rates=(3, 1, 1)),
    "rate of the circulant x 3": products(rates=(1, 3, 1)),
    "rates of circulant and last diagonal x 0.3": products(rates=(1, 0.3, 0.3)),
    "rate of the last diagonal x 0.3": products(rates=(1, 1, 0.3)),
    "start from the gradient": from_gradient(),
    "start with a zero circulant": products(zero=1),
    "start with ones as diagonals": products(ones=(0, 2)),
    "spectra trained": products(spectral=True),
    "five factors": products(factors=5),
    "sum of two products": products(terms=2),
    "blocks of 128": products(block=128),
    "W (I + D C D)": products(side="right"),
    "random permutations": products(permuted=True),
    "biases too": with_biases(products()),
    "value": products("v"),
    "value and attention output": products("vo"),
    "intermediate": products("i"),
    "intermediate, last four blocks": products("i", 2),
    "intermediate, shared circulant": shared(products("i"), 1),
    "intermediate, W (I + D C D)": multiplied("i"),
    "intermediate, W (I + sum of two products)": multiplied("i", terms=2),
    "output": products("f"),
    "output, last four blocks": products("f", 2),
    "intermediate and output": products("if"),
    "intermediate and output, W (I + D C D) or (I + D C D) W": multiplied("if"),
    "all linear layers": products("qkvoif"),
}
"""Of query and value unless other layers are named."""

OPTIMISERS = {
    "warm-up over 20 % of the steps": {"warmup": 0.2},
    "second moments over 50 steps": {"betas": (0.9, 0.98)},
    "weight decay 0.3": {"weight_decay": 0.3},
}
"""What differs from `train`, with the baseline's products."""
VARIANTS |= dict.fromkeys(OPTIMISERS, products())


def load_rows(task: str, folder: Path) -> Rows:
    """Return the training rows in one random order."""
    tokenizer = load_tokenizer(None)
    if task not in {"cola", "sst2"}:
        return load_task(task, folder, tokenizer, 64)[0]
    with gzip.open(folder / f"{task}_train.tsv.gz", "rt", encoding="utf-8") as file:
        cells = [line.rstrip("\n").split("\t") for line in file]
    texts, labels = zip(*((c[3], int(c[1])) if task == "cola" else (c[0], int(c[1])) for c in cells), strict=True)
    tokens = tokenizer(list(texts), truncation=True, max_length=64)["input_ids"]
    rows = Rows([torch.tensor(row) for row in tokens], torch.tensor(labels))
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


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
    options = {"warmup": 0.06, "betas": (0.9, 0.999), "weight_decay": 0.0} | OPTIMISERS.get(variant, {})
    decay = options["weight_decay"]
    groups = [{"params": params, "lr": rate, "weight_decay": decay} for rate, params in rates.items()]
    n_parameters = sum(p.numel() for group in groups for p in group["params"])
    groups.append({"params": list(model.head.parameters()), "lr": 0.01, "weight_decay": 0.01})
    optimizer = torch.optim.AdamW(groups, betas=options["betas"])
    train(model, optimizer, rows, seed, epochs, options["warmup"])
    return {"parameters": n_parameters, **scores(model, held)}


def train(
    model: Classifier, optimizer: torch.optim.Optimizer, rows: Rows, seed: int, epochs: int, share: float
) -> None:
    """Train as `finetune.train` does: rates rise over a share of the steps, then fall to zero."""
    trained = [p for group in optimizer.param_groups for p in group["params"]]
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
            nn.utils.clip_grad_norm_(trained, 1.0)
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


def summary(results: list[dict[str, str]]) -> str:
    """Return a table for each task: means over seeds, and differences from the baseline's best rate."""
    parts = []
    for task in dict.fromkeys(row["task"] for row in results):
        runs: dict[tuple[str, float], dict[int, dict[str, str]]] = defaultdict(dict)
        for row in results:
            if row["task"] == task:
                runs[row["variant"], float(row["lr"])][int(row["seed"])] = row
        measure = "matthews" if task == "cola" else "accuracy"
        bases = [by_seed for (name, _), by_seed in runs.items() if name == BASELINE]
        base = min(bases, key=lambda by_seed: (-len(by_seed), _mean(by_seed, "cross_entropy")))
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
        parts.append(f"## {task}\n\n{table(header, lines)}")
    return "\n\n".join(parts)


def _mean(runs: dict[int, dict[str, str]], measure: str) -> float:
    return mean(float(row[measure]) for row in runs.values())


def _difference(runs: dict[int, dict[str, str]], base: dict[int, dict[str, str]], measure: str, digits: int) -> str:
    both = [float(runs[seed][measure]) - float(base[seed][measure]) for seed in runs.keys() & base.keys()]
    if not both or runs is base:  # nothing to compare with
        return "-"
    error = f" ± {stdev(both) / len(both) ** 0.5:.{digits}f}" if len(both) > 1 else ""
    return f"{mean(both):+.{digits}f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHIPPED, help="folder of the data sets")
    parser.add_argument("--task", default="goemotions", choices=("goemotions", "cola", "sst2", "banking77"))
    parser.add_argument("--variants", nargs="+", default=[BASELINE], choices=VARIANTS, metavar="NAME")
    parser.add_argument("--lr", nargs="+", type=float, default=[0.06])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, default=1500, help="for training")
    parser.add_argument("--held", type=int, default=2000, help="rows held back")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a tiny run of the baseline, to see that it works")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.task, options.rows, options.held, options.epochs = "banking77", 32, 32, 1
    every = load_rows(options.task, options.data)
    held, classes = every[len(every) - options.held :], int(every.labels.max()) + 1
    results = []
    for name in options.variants:
        for lr in options.lr:
            for seed in options.seeds:
                first = seed * options.rows
                chosen = (torch.arange(options.rows) + first) % (len(every) - options.held)
                found = trial(name, lr, seed, every[chosen], held, options.epochs, classes)
                setting = (name, options.task, options.rows, options.held, options.epochs, lr, seed)
                results.append(dict(zip(SETTING, setting, strict=True)) | found)
                print(results[-1], flush=True)
    if options.out:
        write(options.out, results)


def write(folder: Path, results: list[dict]) -> None:
    """Add results to the file of all, and write the table again."""
    path = folder / "adapter_variants.csv"
    old = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = list(csv.DictReader(file))
    every = [{field: str(row.get(field, "")) for field in FIELDS} for row in [*old, *results]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
    head = (
        "# Variants of the adapter\n\n"
        "`python benchmarks/adapter_variants.py --data FOLDER --variants NAME ... --lr RATE --seeds SEED ...`, whose\n"
        "`--help` says what was trained. ± is the standard error of the mean difference over the seeds, itself rough\n"
        "with two or three; with one seed it is unknown, and one accuracy has a standard error of 1.1 points.\n"
        "Best is D C D at the rate of its lowest entropy, among the rates with most seeds."
    )
    (folder / "adapter_variants.md").write_text(f"{head}\n\n{summary(every)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
