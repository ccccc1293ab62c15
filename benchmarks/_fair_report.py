"""The report of `fair_adapters.py`: means, standard errors and paired differences, from the table of runs."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from math import log, sqrt
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import NamedTuple

import numpy as np
from _common import table
from _fair_plan import CASE, PROTOCOLS, RUN, Case, cases
from scipy.stats import t

Row = dict[str, str]

LABELS = {
    "head": "head only",
    "full": "everything",
    "lora": "LoRA r = {}",
    "adalora": "AdaLoRA r = {}",
    "c3a-corrected": "C3A, blocks of {}",
    "fourierft": "FourierFT, {} coefficients",
    "cdd": "CDD, {} factors",
    "cdd-shared": "CDD, {} factors, shared circulants",
    "cdd-blocks": "CDD, 3 factors, blocks of {}",
}
TASKS = {
    "goemotions": "GoEmotions",
    "goemotions-more": "GoEmotions with more rows",
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "banking77": "BANKING77",
    "mean": "Mean of all tasks",
}
PLACES = {
    "query-value": "query and value layers",
    "intermediate": "intermediate layers",
    "all-linear": "all linear layers",
}
METRICS = {"accuracy": "accuracy, %", "matthews": "Matthews correlation x 100", "mean": "score, %"}


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def metric(task: str) -> str:
    """Return what the scores of a task are; those of several are averaged as they are."""
    return "mean" if task == "mean" else PROTOCOLS[task].metric


@dataclass(frozen=True, eq=False)
class Result:
    """The last runs of one case, seed by seed."""

    case: Case
    lr: str
    parameters: int
    scores: np.ndarray
    """In per cent, by the metric of the task."""
    f1: float | None

    @property
    def label(self) -> str:
        return LABELS[self.case.method].format(self.case.size)

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def error(self) -> float:
        return standard_error(self.scores)


class Difference(NamedTuple):
    """Of two results, seed by seed."""

    mean: float
    error: float
    half: float
    """Half the width of the interval of 95 % by Student's t."""

    def __str__(self) -> str:
        mean = f"{self.mean:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")
        return f"{mean} ± {self.error:.1f}{'*' if abs(self.mean) > self.half else ''}"


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / sqrt(len(values))


def minus(a: Result, b: Result) -> Difference:
    """Return how far one result is above another."""
    values = a.scores - b.scores
    error = standard_error(values)
    return Difference(fmean(values), error, error * float(t.ppf(0.975, len(values) - 1)))


def results(rows: list[Row]) -> list[Result]:
    """Return what has all its last runs, in the order of the plan; where one diverged, there is no mean to return."""
    found = []
    for case in cases():
        wanted = ["" if value is None else str(value) for value in vars(case).values()]
        final = [row for row in rows if row["stage"] == "final" and [row[name] for name in CASE] == wanted]
        final.sort(key=lambda row: int(row["seed"]))
        done = [int(row["seed"]) for row in final if row["accuracy"]]
        if done == list(PROTOCOLS[case.task].final_seeds):
            values = np.array([100 * float(row[metric(case.task)]) for row in final])
            f1 = fmean(100 * float(row["f1"]) for row in final) if case.task == "mrpc" else None
            found.append(Result(case, final[0]["lr"], int(final[0]["parameters"]), values, f1))
    return found


def averaged(found: list[Result]) -> list[Result]:
    """Return the means over all tasks, seed by seed, of what was run on each; tasks with other rows do not count."""
    tasks = {r.case.task for r in found if PROTOCOLS[r.case.task].data is None}
    groups: dict[tuple[str, str, int | None], list[Result]] = {}
    for r in found:
        if r.case.task in tasks:
            groups.setdefault((r.case.places, r.case.method, r.case.size), []).append(r)
    return [
        Result(Case("mean", *of), "", group[0].parameters, np.mean([r.scores for r in group], axis=0), None)
        for of, group in groups.items()
        if len(group) == len(tasks) > 1
    ]


def pick(found: list[Result], task: str, places: str, method: str | None = None) -> list[Result]:
    here = [r for r in found if (r.case.task, r.case.places) == (task, places)]
    return [r for r in here if method in {None, r.case.method}]


def nearest_lora(result: Result, found: list[Result]) -> Result | None:
    """Return the LoRA on the same layers whose number of parameters is nearest, as a ratio."""
    lora = pick(found, result.case.task, result.case.places, "lora")
    return min(lora, key=lambda r: abs(log(r.parameters / result.parameters)), default=None)


def lora_eight(found: list[Result], task: str, places: str) -> Result | None:
    return next((r for r in pick(found, task, places, "lora") if r.case.size == 8), None)


def quality_table(found: list[Result], task: str, places: str) -> str:
    """Return the table of one task, by the number of parameters."""
    here = sorted(pick(found, task, places), key=lambda r: r.parameters)
    columns = {"minus LoRA r = 8": lora_eight(found, task, places)}
    if places != "query-value":
        columns["minus LoRA r = 8, query and value"] = lora_eight(found, task, "query-value")
    lines = []
    for r in here:
        score = f"{r.mean:.1f} ± {r.error:.1f}"
        if r.f1 is not None:
            score += f" (F1 {r.f1:.1f})"
        cells = [r.label, f"{r.parameters:,}", *([r.lr] if task != "mean" else []), score]
        cells += ["" if other in {None, r} else str(minus(r, other)) for other in columns.values()]
        near = None if r.case.method in {"head", "full", "lora"} else nearest_lora(r, found)
        cells.append("" if near is None else f"{minus(r, near)} (r = {near.case.size})")
        lines.append(cells)
    head = ["trained", "parameters", *(["rate"] if task != "mean" else []), METRICS[metric(task)], *columns]
    return table([*head, "minus the LoRA of nearest size"], lines)


def tables(found: list[Result]) -> str:
    """Return all tables, those of the means first."""
    found = averaged(found) + found
    places = dict.fromkeys((r.case.task, r.case.places) for r in found)
    return "\n\n".join(f"**{TASKS[t]}, {PLACES[p]}**\n\n{quality_table(found, t, p)}" for t, p in places)


def protocol_text(rows: list[Row], found: list[Result]) -> str:
    """Return what was run, and what it took."""
    trials = sum(row["stage"] == "trial" for row in rows)
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    usual = PROTOCOLS["goemotions"]
    others = ", ".join(f"{p.rows:,} for {TASKS[task]}" for task, p in PROTOCOLS.items() if p.rows != usual.rows)
    return (
        "Every method and size has the same budget for its learning rate: four rates a factor of about three apart, "
        f"{len(usual.trial_seeds)} seeds each, and one rate further where the best is the first or the last. A run "
        f"trains on {usual.rows:,} rows ({others}) for {usual.epochs} epochs. A trial is scored on {usual.held_back:,} "
        f"other training rows, and the best mean wins. {len(usual.final_seeds)} runs with new seeds follow, scored on "
        f"at most {usual.test_rows:,} test rows, which are touched only here. A seed draws the rows, the head's start, "
        "the batches and the dropout, the same for all methods; the head's rate is "
        f"{usual.head_lr} beside all adapters. ± is the standard error over the seeds. Differences are paired by seed, "
        "and * marks those whose interval of 95 % (Student's t) leaves out zero: these are called sure, each by itself "
        "with no correction for their number, and on these test rows, whose choice is not counted. "
        f"{len(found)} of {len(cases())} methods, sizes and tasks are done: {trials:,} trials and "
        f"{len(rows) - trials:,} last runs, {hours:.1f} hours of one core."
    )


def processors_text(rows: list[Row], again: list[Row]) -> str:
    """Return which processors the runs are of, and how far last runs that were repeated on another one differ."""
    used = ", ".join(f"{count:,} of {name}" for name, count in Counter(map(processor_of, rows)).items())
    first = {tuple(row[name] for name in RUN): row for row in rows}
    pairs = [(row, first[tuple(row[name] for name in RUN)]) for row in again if row["stage"] == "final"]
    off = [
        100 * (float(row[metric(row["task"])]) - float(other[metric(row["task"])]))
        for row, other in pairs
        if processor_of(row) != processor_of(other)
    ]
    return (
        f"Runs: {used}. These round differently: {len(off)} last runs that were repeated on another one differ by "
        f"{sqrt(fmean(value**2 for value in off)):.1f} points (root mean square)."
    )


def processor_of(row: Row) -> str:
    return re.split(r", \d+ cores?,", row["machine"])[0]


def page(rows: list[Row], again: list[Row]) -> str:
    """Return the page of results: the protocol, the processors, and all tables, from the runs and those repeated."""
    found = results(rows)
    parts = ("# Adapters on real tasks", "`python benchmarks/fair_adapters.py --report`", protocol_text(rows, found))
    text = "\n\n".join((*parts, processors_text(rows, again), tables(found)))
    kept = ("#", "`", "|", "**")
    filled = (p if p.startswith(kept) else fill(p, 118, break_on_hyphens=False) for p in text.split("\n\n"))
    return "\n\n".join(filled) + "\n"
