"""The tasks, their rows, and batches of sentences of like length."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["SHIPPED", "TASKS", "ExampleError", "Rows", "Task", "batches", "load_task"]

SHIPPED = Path(__file__).parent.parent / "data"
"""The data sets that come with this example; the README there names their authors and licences."""


class ExampleError(Exception):
    """What stops the example, told in one line."""


@dataclass(frozen=True)
class Task:
    """A data set for the classification of sentences or of pairs of them, as its authors publish it."""

    files: tuple[str, ...]
    """The first for training, the others for the test, each with or without `.gz` and the task's name before it."""
    header: tuple[str, ...] | None
    """The first line, if it is none of the rows."""
    classes: int
    source: str
    licence: str
    text: tuple[int, ...] = (0,)
    """The columns of the sentence, or of both sentences of a pair."""
    label: int = 1
    """The column of the class."""
    quoted: bool = False
    """Whether quotes enclose a cell; else they mean nothing."""


TASKS = {
    "banking77": Task(
        files=("banking77_train.csv", "banking77_test.csv"),
        header=("text", "category"),
        quoted=True,
        classes=77,
        source="https://github.com/PolyAI-LDN/task-specific-datasets",
        licence="CC BY 4.0",
    ),
    "goemotions": Task(
        files=("train.tsv", "test.tsv"),
        header=None,
        classes=28,
        source="https://github.com/google-research/google-research/tree/master/goemotions/data",
        licence="CC BY 4.0",
    ),
    "counterfactual": Task(
        files=("EN-ext_train.tsv", "EN-ext_test.tsv"),
        header=("sentence", "is_counterfactual"),
        quoted=True,
        classes=2,
        source="https://github.com/amazon-science/amazon-multilingual-counterfactual-dataset/tree/main/data",
        licence="its LICENSE is CC BY-NC 4.0",
    ),
    "cola": Task(
        files=("train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv"),
        header=None,
        text=(3,),
        classes=2,
        source="https://nyu-mll.github.io/CoLA/",
        licence="for research",
    ),
    "mrpc": Task(
        files=("train.txt", "test.txt"),
        header=("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        text=(3, 4),
        label=0,
        classes=2,
        source="https://www.microsoft.com/en-us/download/details.aspx?id=52398",
        licence="for research",
    ),
    "sick": Task(
        files=("SICK_train.txt", "SICK_test_annotated.txt"),
        header=("pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment"),
        text=(1, 2),
        label=4,
        classes=3,
        source="https://marcobaroni.org/composes/sick.html",
        licence="CC BY-NC-SA 3.0",
    ),
    "trec": Task(
        files=("train_5500.label", "TREC_10.label"),
        header=None,
        classes=6,
        source="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        licence="none is named",
    ),
    "sst2": Task(
        files=("train.tsv", "test.tsv"),
        header=None,
        classes=2,
        source="https://nlp.stanford.edu/sentiment/",
        licence="none is named",
    ),
}
"""Each with the folder that holds its files. Of GoEmotions the rows with one emotion, of 28 with the neutral one."""


@dataclass(frozen=True)
class Rows:
    """Sentences as token numbers, each with its class."""

    tokens: list[Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: slice | Tensor) -> Rows:
        chosen = torch.arange(len(self))[index]
        return Rows([self.tokens[i] for i in chosen], self.labels[chosen])

    def padded(self, index: Tensor) -> Tensor:
        """Return the rows of these places as one batch; 0 is padding in BERT's vocabulary."""
        return torch.nn.utils.rnn.pad_sequence([self.tokens[i] for i in index], batch_first=True)


def load_task(name: str, folder: Path, tokenizer, max_tokens: int) -> tuple[Rows, Rows]:
    """Read and tokenise the training and the test rows, each in one random order that is always the same."""
    task = TASKS[name]
    training, *tests = (_read(name, task, folder, file) for file in task.files)
    number = {label: i for i, label in enumerate(sorted({row[-1] for row in training}))}
    parts = []
    for lines in (training, [row for test in tests for row in test]):
        *texts, labels = map(list, zip(*lines, strict=True))
        if unknown := set(labels) - set(number):
            raise ExampleError(f"--task {name}: the test has classes that the training lacks: {sorted(unknown)}")
        tokens = tokenizer(*texts, truncation=True, max_length=max_tokens)["input_ids"]
        rows = Rows([torch.tensor(row) for row in tokens], torch.tensor([number[label] for label in labels]))
        parts.append(rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))])
    return parts[0], parts[1]


def _read(name: str, task: Task, folder: Path, file: str) -> list[tuple[str, ...]]:
    """Return the rows: the sentence, or both of a pair, and the class."""
    names = [f"{prefix}{file}{end}" for prefix in (f"{name}_", "") for end in ("", ".gz")]
    path = next((p / n for p in (folder, SHIPPED) for n in names if (p / n).is_file()), None)
    if path is None:
        raise ExampleError(
            f"--task {name}: there is no {file} in {folder}. It is published at {task.source} ({task.licence}); "
            "get it from there and name its folder by --data"
        )
    open_text = gzip.open if path.suffix == ".gz" else open
    delimiter = "," if file.endswith(".csv") else "\t"
    quoting = csv.QUOTE_MINIMAL if task.quoted else csv.QUOTE_NONE
    if file.endswith(".label"):  # "CLASS:subclass sentence"
        with open_text(path, "rt", encoding="latin-1") as opened:
            return [(line.partition(" ")[2].strip(), line.partition(":")[0]) for line in opened]
    with open_text(path, "rt", encoding="utf-8-sig", newline="") as opened:
        lines = csv.reader(opened, delimiter=delimiter, quoting=quoting)
        if task.header and (first := tuple(next(lines, ()))) != task.header:
            raise ExampleError(f"--task {name}: {path} must begin with the columns {task.header}, got {first}")
        rows = [tuple(line[i] for i in (*task.text, task.label)) for line in lines]
    return rows if task.header else [row for row in rows if "," not in row[-1]]  # of several classes


def batches(rows: Rows, size: int, rng: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield padded token numbers and the places of their rows.

    Sentences of like length share a batch, so that few tokens are padding. With `rng` the order is random: rows
    are drawn into groups of 16 batches, sorted by length in each group, and all batches are shuffled in the end.
    """
    lengths = torch.tensor([len(row) for row in rows.tokens])
    order = torch.arange(len(rows)) if rng is None else torch.randperm(len(rows), generator=rng)
    groups = [order] if rng is None else order.split(16 * size)
    chosen = [batch for group in groups for batch in group[lengths[group].argsort(stable=True)].split(size)]
    if rng is not None:
        chosen = [chosen[i] for i in torch.randperm(len(chosen), generator=rng)]
    for index in chosen:
        yield rows.padded(index), index
