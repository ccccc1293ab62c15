"""Batches in which every row has an adapter of its own: the part "bank" of `adapter_layers.py`."""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import peft
import torch
from _common import Times, in_turns, ratio, shown, table
from torch import nn
from transformers import BertConfig, BertModel

from structmat.peft import CDDConfig
from structmat.torch import AdapterBank, adapt, save_adapter

RANK = 8
QUERY_VALUE = ["query", "value"]
ALL_LINEAR = ["query", "key", "value", "dense"]


class Case(NamedTuple):
    """An encoder with random weights, which layers are adapted, and a batch whose rows have adapters of their own."""

    features: int
    blocks: int
    targets: Sequence[str]
    rows: int
    tokens: int

    @property
    def name(self) -> str:
        layers = "all linear" if len(self.targets) > 2 else "query, value"
        return f"{self.blocks} x {self.features}, {layers}, {self.rows} rows of {self.tokens}"

    def model(self) -> BertModel:
        torch.manual_seed(0)
        size = {"hidden_size": self.features, "intermediate_size": 4 * self.features}
        config = BertConfig(**size, num_hidden_layers=self.blocks, vocab_size=1000, num_attention_heads=12)
        return BertModel(config, add_pooling_layer=False).eval().requires_grad_(requires_grad=False)

    def ids(self) -> torch.Tensor:
        torch.manual_seed(1)
        return torch.randint(0, 1000, (self.rows, self.tokens))


CASES = (
    Case(768, 12, QUERY_VALUE, 64, 1),
    Case(384, 6, QUERY_VALUE, 64, 1),
    Case(384, 6, QUERY_VALUE, 32, 16),
    Case(384, 6, ALL_LINEAR, 32, 16),
    Case(384, 6, QUERY_VALUE, 32, 32),
    Case(384, 6, ALL_LINEAR, 32, 32),
)
TRAINED = (Case(384, 6, QUERY_VALUE, 32, 16), Case(384, 6, ALL_LINEAR, 32, 16))
TENANTS = 8
"""Adapters that are trained in one step, each by as many rows."""


class OwnLoRA(nn.Module):
    """A linear layer with stacked pairs of LoRA, one for each row: by two batched products, or in a loop over rows."""

    def __init__(self, base: nn.Linear, count: int, *, loops: bool) -> None:
        super().__init__()
        self.base, self.loops = base, loops
        self.down = nn.Parameter(torch.randn(count, RANK, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.randn(count, base.out_features, RANK) / 100)
        self.numbers = torch.arange(count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if not self.loops:
            down, up = self.down[self.numbers], self.up[self.numbers]
            return y + torch.bmm(torch.bmm(x, down.mT), up.mT)
        for i, number in enumerate(self.numbers.tolist()):
            if x.shape[1] == 1:
                y[i, 0] += torch.mv(self.up[number], torch.mv(self.down[number], x[i, 0]))
            else:
                y[i] += x[i] @ self.down[number].T @ self.up[number].T
        return y


class ChangesInALoop(nn.Module):
    """A linear layer with CDD changes in a loop over adapters, each of which copies all outputs.

    So mixed batches were computed before they were computed at once.
    """

    def __init__(self, layer: Any, count: int) -> None:
        super().__init__()
        self.base = layer.base
        self.adapters = nn.ModuleList(copy.deepcopy(layer.adapter) for _ in range(count))
        self.numbers = torch.arange(count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        for number, adapter in enumerate(self.adapters):
            rows = (self.numbers == number).nonzero().flatten()
            y = y.index_copy(0, rows, adapter.add_to(y[rows], x[rows]))
        return y


def replaced(model: nn.Module, targets: Sequence[str], make: Callable[[Any], nn.Module]) -> nn.Module:
    """Return the model with other modules in the places of the targets."""
    for path, module in list(model.named_modules()):
        if path.rpartition(".")[2] in targets:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, make(module))
    return model


def adapted(case: Case) -> nn.Module:
    model = case.model()
    adapt(model, list(case.targets), init="normal")
    return model.eval()


def banked(case: Case, count: int) -> tuple[nn.Module, AdapterBank]:
    model = adapted(case)
    bank = AdapterBank(model, capacity=count)
    for i in range(count):
        bank.add(f"tenant {i}")
    return model, bank


def mixed(case: Case, config: peft.PeftConfig, count: int) -> nn.Module:
    """Return a model of PEFT with so many adapters."""
    model = peft.get_peft_model(case.model(), config, "tenant 0")
    for i in range(1, count):
        model.add_adapter(f"tenant {i}", config)
    return model.eval()


def forwards(case: Case) -> dict[str, Callable[[], object]]:
    """Return the forward passes of a batch in which every row has its own adapter; and of two for comparison."""
    ids, count = case.ids(), case.rows
    names = [f"tenant {i}" for i in range(count)]
    model, bank = banked(case, count)
    lora = peft.LoraConfig(r=RANK, target_modules=list(case.targets), init_lora_weights=False)
    cdd = CDDConfig(target_modules=list(case.targets), init_weights=False)
    by_lora, by_cdd = mixed(case, lora, count), mixed(case, cdd, count)
    at_once = replaced(case.model(), case.targets, partial(OwnLoRA, count=count, loops=False))
    by_rows = replaced(case.model(), case.targets, partial(OwnLoRA, count=count, loops=True))
    looped = replaced(adapted(case), case.targets, partial(ChangesInALoop, count=count))
    frozen, one = case.model(), adapted(case)

    def by_bank() -> None:
        with bank.use(names):
            model(ids)

    return {
        "frozen": partial(frozen, ids),
        "one": partial(one, ids),
        "bank": by_bank,
        "adapter_names": partial(by_cdd, ids, adapter_names=names),
        "loop": partial(looped, ids),
        "LoRA, PEFT": partial(by_lora, ids, adapter_names=names),
        "LoRA, bmm": partial(at_once, ids),
        "LoRA, loop": partial(by_rows, ids),
    }


METHODS = ("one", "bank", "adapter_names", "loop", "LoRA, PEFT", "LoRA, bmm", "LoRA, loop")


def added(seen: Times, name: str) -> float:
    """Return the median over the rounds of the milliseconds that a method adds to the frozen encoder."""
    return 1e3 * median(own - base for own, base in zip(seen[name], seen["frozen"], strict=False))


def serving_row(case: Case, repeats: int) -> list[str]:
    with torch.no_grad():
        seen = in_turns(forwards(case), repeats, sample=0.0, limit=30.0)
    base = 1e3 * median(seen["frozen"])
    throughput = 100 * ratio(seen, "one", "bank")
    cells = [f"{added(seen, name):.1f}" if name in seen else "" for name in METHODS]
    return [case.name, f"{base:.0f}", *cells, f"{throughput:.0f} %"]


def trainings(case: Case) -> dict[str, Callable[[], object]]:
    """Return training steps of eight adapters, each with its own rows: all at once, and one after the other."""
    ids = case.ids()
    names = [f"tenant {i % TENANTS}" for i in range(case.rows)]
    numbers = torch.arange(case.rows) % TENANTS
    model, bank = banked(case, TENANTS)
    at_once = replaced(case.model(), case.targets, partial(OwnLoRA, count=TENANTS, loops=False))
    for module in at_once.modules():
        if isinstance(module, OwnLoRA):
            module.numbers = numbers
    cdd = CDDConfig(target_modules=list(case.targets), init_weights=False)
    by_cdd = mixed(case, cdd, TENANTS).train()
    by_cdd.base_model.set_adapter([f"tenant {i}" for i in range(TENANTS)])
    lora = peft.LoraConfig(r=RANK, target_modules=list(case.targets), init_lora_weights=False)
    single = {"one run after the other": adapted(case), "LoRA, one after the other": mixed(case, lora, 1)}
    optimizers = {each: torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-4)
                  for each in (model, at_once, by_cdd, *single.values())}  # fmt: skip

    def step(own: nn.Module, context: Any = None, parts: Sequence[torch.Tensor] = (ids,), **more: Any) -> None:
        for part in parts:
            with nullcontext() if context is None else context():
                loss = own(part, **more).last_hidden_state.square().mean((1, 2)).sum()
            loss.backward()
            optimizers[own].step()
            optimizers[own].zero_grad()

    parts = [ids[numbers == i] for i in range(TENANTS)]
    return {
        "bank": partial(step, model, partial(bank.use, names)),
        "adapter_names": partial(step, by_cdd, adapter_names=names),
        "LoRA, bmm": partial(step, at_once),
        **{name: partial(step, each, parts=parts) for name, each in single.items()},
    }


def training_row(case: Case, repeats: int) -> list[str]:
    seen = in_turns(trainings(case), repeats, sample=0.0, limit=30.0)
    return [case.name, *(f"{1e3 * median(values):.0f}" for values in seen.values())]


def memory_lines(count: int, case: Case) -> Iterator[str]:
    """Yield what many adapters of a small encoder take, and how long they take to read."""
    with tempfile.TemporaryDirectory() as folder:
        alone = adapted(case)
        save_adapter(alone, Path(folder, "one"))
        bank = AdapterBank(alone, capacity=count)
        (seconds,) = in_turns({"read": partial(fill, bank, count, Path(folder, "one"))}, 1, limit=0.0).values()
    lora = 2 * RANK * case.features * 4 * len(case.targets) * case.blocks
    yield (
        f"{count:,} adapters of query and value of {case.blocks} layers of {case.features} features take "
        f"{bank.n_bytes / 1e6:.0f} MB, those of LoRA (r = {RANK}) {count * lora / 1e6:.0f} MB. Reading one from its "
        f"folder into the bank takes {1e3 * seconds[0] / count:.1f} ms."
    )


def fill(bank: AdapterBank, count: int, folder: Path) -> None:
    for name in list(bank):
        bank.evict(name)
    for i in range(count):
        bank.add(f"tenant {i}", folder)


def bank_part(options: argparse.Namespace) -> str:
    """Return the tables of batches in which every row has an adapter of its own."""
    small = Case(24, 1, QUERY_VALUE, 4, 1)
    cases = (small, small._replace(tokens=3)) if options.quick else CASES
    trained = (small._replace(rows=TENANTS, tokens=3),) if options.quick else TRAINED
    count, of = (4, small) if options.quick else (1024, Case(384, 6, QUERY_VALUE, 1, 1))
    head = ["encoder", "frozen", *(f"+ {name}" for name in METHODS), "throughput"]
    serving = table(head, shown(serving_row(case, options.repeats) for case in cases))
    steps = ["encoder", "bank", "adapter_names", "LoRA, bmm", "D C D, one run after the other",
             "LoRA, PEFT, one after the other"]  # fmt: skip
    training = table(steps, shown(training_row(case, options.repeats) for case in trained))
    return "\n\n".join([
        "\n".join(memory_lines(count, of)),
        f"A forward pass, every row with its own adapter, in ms; what each adds to the frozen encoder:\n\n{serving}",
        f"A training step of {TENANTS} adapters, each with as many rows, in ms:\n\n{training}",
    ])  # fmt: skip
