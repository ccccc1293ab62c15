"""What `fair_adapters.py` has found, read from its table of runs: means, standard errors, paired differences."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from math import log, sqrt
from statistics import fmean

import numpy as np
from _fair_plan import PROTOCOLS, Case, cases
from _results_table import Row
from scipy.stats import t

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
    f1: np.ndarray | None
    right: np.ndarray
    """Of seeds and test rows."""

    @property
    def label(self) -> str:
        return LABELS[self.case.method].format(self.case.size)

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def error(self) -> float:
        return standard_error(self.scores)


@dataclass(frozen=True)
class Difference:
    """Of two results, seed by seed."""

    mean: float
    error: float
    half: float
    """Half the width of the interval of 95 % by Student's t."""

    @property
    def sure(self) -> bool:
        return abs(self.mean) > self.half

    def __str__(self) -> str:
        return f"{signed(self.mean)} ± {self.error:.1f}{'*' if self.sure else ''}"


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / sqrt(len(values))


def minus(a: Result, b: Result) -> Difference:
    """Return how far one result is above another."""
    values = a.scores - b.scores
    error = standard_error(values)
    return Difference(fmean(values), error, error * float(t.ppf(0.975, len(values) - 1)))


def names(case: Case) -> dict[str, str]:
    """Return what the table has in a case's columns."""
    return {name: "" if value is None else str(value) for name, value in vars(case).items()}


def right_rows(row: Row) -> np.ndarray:
    """Return 1 for each test row that is classified right, and 0 for the others."""
    return np.unpackbits(np.frombuffer(base64.b64decode(row["right"]), np.uint8))[: int(row["tested"])].astype(float)


def results(rows: list[Row]) -> list[Result]:
    """Return what has all its last runs, in the order of the plan; where one diverged, there is no mean to return."""
    found = []
    for case in cases():
        protocol, wanted = PROTOCOLS[case.task], names(case).items()
        final = [row for row in rows if row["stage"] == "final" and all(row[k] == v for k, v in wanted)]
        final.sort(key=lambda row: int(row["seed"]))
        if [int(row["seed"]) for row in final] != list(protocol.final_seeds) or any(map(diverged, final)):
            continue
        values = {
            name: np.array([100 * float(row[name] or "nan") for row in final]) for name in (protocol.metric, "f1")
        }
        right = np.array([right_rows(row) for row in final])
        f1 = values["f1"] if case.task == "mrpc" else None
        found.append(Result(case, final[0]["lr"], int(final[0]["parameters"]), values[protocol.metric], f1, right))
    return found


def diverged(row: Row) -> bool:
    return not row["accuracy"]


def averaged(found: list[Result]) -> list[Result]:
    """Return the means over all tasks, seed by seed, of what was run on each; tasks with other rows do not count."""
    tasks = {r.case.task for r in found if PROTOCOLS[r.case.task].data is None}
    groups: dict[tuple[str, str, int | None], list[Result]] = {}
    for r in found:
        if r.case.task in tasks:
            groups.setdefault((r.case.places, r.case.method, r.case.size), []).append(r)
    return [
        Result(
            Case("mean", *of),
            "",
            group[0].parameters,
            np.mean([r.scores for r in group], axis=0),
            None,
            np.zeros((len(group[0].scores), 0)),
        )
        for of, group in groups.items()
        if len(group) == len(tasks) > 1
    ]


def pick(found: list[Result], **wanted: object) -> list[Result]:
    return [r for r in found if all(getattr(r.case, name) == value for name, value in wanted.items())]


def nearest_lora(result: Result, found: list[Result]) -> Result | None:
    """Return the LoRA on the same layers whose number of parameters is nearest, as a ratio."""
    lora = pick(found, task=result.case.task, places=result.case.places, method="lora")
    return min(lora, key=lambda r: abs(log(r.parameters / result.parameters)), default=None)


def lora_eight(found: list[Result], task: str, places: str) -> Result | None:
    return next(iter(pick(found, task=task, places=places, method="lora", size=8)), None)


def is_adapter(result: Result) -> bool:
    return result.case.method not in {"head", "full", "lora"}
