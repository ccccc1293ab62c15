"""The runs of `fair_adapters.py`, and the table of their results, which keeps what a killed run had written."""

from __future__ import annotations

import base64
import csv
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from _common import commit, processor
from _fair_forms import FORMS
from _fair_plan import RUN, Case, Protocol, beyond

from finetune.data import TASKS, ExampleError, Rows, load_task
from finetune.encoder import load_tokenizer
from finetune.methods import METHODS
from finetune.train import DivergedError, Run, Settings, fit, predict, prepare
from structmat._adapter_format import FACTOR_SCALE

METHODS |= FORMS

COLUMNS = (
    *RUN, "rows", "epochs", "tested", "parameters", "accuracy", "matthews", "f1", "seconds", "machine", "right",
    "commit",
)  # fmt: skip
"""`seconds` are the processor's; `right` has one bit for each test row, packed and in base64; `commit` is that of the
code, and empty for runs that are older than this column."""


class Table:
    """The file, which grows by whole lines. One process at a time may have it open."""

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        self.columns = columns
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+", newline="", encoding="utf-8")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{path} is being written by another process")
        self.file.seek(0)
        text = self.file.read()
        whole = text[: text.rfind("\n") + 1]
        lines = csv.DictReader(whole.splitlines())
        if whole and tuple(lines.fieldnames or ()) != tuple(columns):
            sys.exit(f"{path} has other columns: {', '.join(lines.fieldnames or ())}")
        self.rows = {place(row): row for row in lines}
        if whole != text:  # killed in the middle of a line
            self.file.truncate(len(whole.encode()))
        if not whole:
            self._write(columns)

    def append(self, row: Mapping[str, object]) -> None:
        texts = {name: _text(row.get(name)) for name in self.columns}
        self.rows[place(texts)] = texts
        self._write(texts.values())

    def _write(self, cells: Iterable[str]) -> None:
        csv.writer(self.file, lineterminator="\n").writerow(cells)
        self.file.flush()
        os.fsync(self.file.fileno())


def machine() -> str:
    """Return the processor, and the versions of what trains on it."""
    return f"{processor()}; {', '.join(f'{name} {version(name)}' for name in ('torch', 'peft'))}"


def place(row: Mapping[str, object]) -> tuple[str, ...]:
    """Return what says which run a row is of."""
    return tuple(_text(row[name]) for name in RUN)


def _text(value: object) -> str:
    return "" if value is None else str(value)


class Bench:
    """Does what is missing in the table."""

    def __init__(
        self,
        table: Table,
        data: Path,
        rates: Mapping[str, tuple[float, ...]],
        model: str | None = None,
        trials: Iterable[Mapping[str, str]] = (),
    ) -> None:
        self.table, self.data, self.rates, self.model = table, data, rates, model
        self.trials = {place(row): row for row in trials if row["stage"] == "trial"}
        """Of earlier days, which are not done again."""
        self.parts: dict[str, tuple[Rows, Rows]] = {}
        self.machine, self.commit = machine(), commit()

    def require_one_commit(self) -> None:
        """Exit where the table has runs of other code than this."""
        others = {row["commit"] for row in self.table.rows.values()} - {self.commit}
        if others:
            sys.exit(
                f"the table has runs of {', '.join(sorted(others))}, and this is {self.commit}: name another --out"
            )

    def choose(self, case: Case, protocol: Protocol) -> float:
        """Return the best rate of a case, by its trials."""
        rates, seeds = self.rates[case.method], protocol.trial_seeds
        best = self.best(case, protocol, rates, seeds)
        further = beyond(rates, best)
        return best if further is None else self.best(case, protocol, (*rates, further), seeds)

    def do(self, case: Case, protocol: Protocol) -> None:
        """Choose the rate of a case and run it to the end."""
        for seed in protocol.final_seeds:
            self.last(case, protocol, seed)

    def last(self, case: Case, protocol: Protocol, seed: int) -> None:
        """Choose the rate of a case and do one of its last runs."""
        self.run(case, protocol, "final", self.choose(case, protocol), seed)

    def best(self, case: Case, protocol: Protocol, rates: Sequence[float], seeds: Sequence[int]) -> float:
        """Return the rate with the best mean score of the trials with these seeds, the smallest of equal ones."""
        scores = {rate: [self.run(case, protocol, "trial", rate, seed) for seed in seeds] for rate in rates}
        return max(sorted(rates), key=lambda rate: fmean(scores[rate]))

    def run(self, case: Case, protocol: Protocol, stage: str, lr: float, seed: int) -> float:
        """Return the score of one run, minus infinity where the loss was not finite any more."""
        names = {**vars(case), "stage": stage, "lr": f"{lr:g}", "seed": seed}
        done = self.trials.get(place(names)) or self.table.rows.get(place(names))
        if done is None:
            self.table.append(names | self._train(case, protocol, lr, seed, test=stage == "final"))
            done = self.table.rows[place(names)]
        if (int(done["rows"]), int(done["epochs"])) != (protocol.rows, protocol.epochs):
            sys.exit(f"{' '.join(place(names))} was run by another protocol")
        return self._score(done, protocol)

    def _score(self, row: Mapping[str, str], protocol: Protocol) -> float:
        return float(row[protocol.metric] or "-inf")

    def _train(self, case: Case, protocol: Protocol, lr: float, seed: int, *, test: bool) -> dict[str, object]:
        task = protocol.data or case.task
        rows, tested = self._parts(task, protocol)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        if not test:  # never the test rows
            tested = rows[order[protocol.rows :]]
        rows, tested = rows[order[: protocol.rows]], tested[: protocol.test_rows if test else protocol.held_back]
        same = {name: getattr(protocol, name) for name in ("epochs", "batch", "head_lr", "max_tokens")}
        usual = {"test_rows": None, "device": "cpu", "autocast": True, "clipped_apart": False}
        settings = Settings(**same, **usual, model=self.model)
        if case.method.startswith(("cdd", "scales", "product")):  # rates are those of factors, not of trained vectors
            lr /= FACTOR_SCALE
        run = Run(task, case.method, lr, seed, protocol.rows, size=case.size, places=case.places)
        begun = time.process_time()
        model, prepared = prepare(run, settings, len(rows), TASKS[task].classes)
        parameters = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
        embeddings = None
        if parameters == 0:
            with settings.precision():
                embeddings = model.embed_all(rows, torch.device("cpu"), lambda _: None)
        result: dict[str, object] = {"rows": protocol.rows, "epochs": protocol.epochs, "tested": len(tested)}
        result |= {"parameters": parameters, "machine": self.machine, "commit": self.commit}
        try:
            fit(model, prepared, run, settings, rows=rows, embeddings=embeddings, advance=lambda *_: None)
            result |= scores(predict(model, tested, settings, lambda _: None).numpy(), tested.labels.numpy(), bits=test)
        except DivergedError as error:
            print(error, file=sys.stderr)
        return result | {"seconds": f"{time.process_time() - begun:.1f}"}

    def _parts(self, task: str, protocol: Protocol) -> tuple[Rows, Rows]:
        if task not in self.parts:
            self.parts[task] = load_task(task, self.data, load_tokenizer(self.model), protocol.max_tokens)
        return self.parts[task]


def work_through(
    todo: list[tuple[Callable[[Case, Protocol], object], Case]], protocols: Mapping[str, Protocol]
) -> None:
    """Do what is to be done for each case, in order, and say how far it is."""
    begun = time.monotonic()
    for i, (way, case) in enumerate(todo, 1):
        try:
            way(case, protocols[case.task])
        except ExampleError as error:  # data or model are missing
            sys.exit(str(error))
        print(f"{i} of {len(todo)}, {(time.monotonic() - begun) / 3600:.2f} h: {case}", flush=True)


def scores(predicted: np.ndarray, labels: np.ndarray, *, bits: bool) -> dict[str, str]:
    """Return the accuracy; of two classes Matthews' correlation and F1 too."""
    right = predicted == labels
    found = {"accuracy": f"{right.mean():.6f}"}
    if labels.max() == 1 and predicted.max() <= 1:
        constant = predicted.min() == predicted.max() or labels.min() == labels.max()
        matthews = 0.0 if constant else np.corrcoef(predicted, labels)[0, 1]  # of 0 and 1 Pearson's is Matthews'
        f1 = 2 * (predicted * labels).sum() / max(1, (predicted + labels).sum())
        found |= {"matthews": f"{matthews:.6f}", "f1": f"{f1:.6f}"}
    if bits:
        found["right"] = base64.b64encode(np.packbits(right)).decode()
    return found
