"""The report of `fair_adapters.py`: tables, plot, and the figures in README and docs, all from the table of runs."""

from __future__ import annotations

import base64
import csv
import re
from collections import Counter
from dataclasses import dataclass
from math import log, sqrt
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill, indent

import numpy as np
from _common import table
from _fair_plan import PROTOCOLS, Case, cases
from scipy.stats import t

ROOT = Path(__file__).parent.parent
LABELS = {
    "head": "head only",
    "full": "everything",
    "lora": "LoRA r = {}",
    "adalora": "AdaLoRA r = {}",
    "c3a-corrected": "C3A, blocks of {}",
    "fourierft": "FourierFT, {} coefficients",
    "cdd": "CDD, {} factors",
    "cdd-blocks": "CDD, 3 factors, blocks of {}",
}
TASKS = {
    "goemotions": "GoEmotions",
    "goemotions-more": "GoEmotions with more rows",
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "banking77": "BANKING77",
}
PLACES = {
    "query-value": "query and value layers",
    "intermediate": "intermediate layers",
    "all-linear": "all linear layers",
}
CASE = ("task", "places", "method", "size")
RUN = (*CASE, "stage", "lr", "seed")
"""What a run depends on, beside the processor."""
ELSEWHERE = {
    "intermediate": "the intermediate layers, with 20,736",
    "all-linear": "all linear layers, with 69,120",
}
"""Places beside query and value, with the parameters of the usual CDD adapter."""
METRICS = {"accuracy": "accuracy, %", "matthews": "Matthews correlation x 100"}


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
    return stdev(values) / sqrt(len(values))


def minus(a: Result, b: Result) -> Difference:
    """Return how far one result is above another."""
    values = a.scores - b.scores
    error = standard_error(values)
    return Difference(fmean(values), error, error * float(t.ppf(0.975, len(values) - 1)))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(case: Case) -> dict[str, str]:
    """Return what the table has in a case's columns."""
    return {name: "" if value is None else str(value) for name, value in vars(case).items()}


def right_rows(row: dict[str, str]) -> np.ndarray:
    """Return 1 for each test row that is classified right, and 0 for the others."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(row["right"]), np.uint8))[: int(row["tested"])]
    return bits.astype(float) if len(bits) else np.zeros(int(row["tested"]))  # none of a run that diverged


def results(rows: list[dict[str, str]]) -> list[Result]:
    """Return what has all its last runs, in the order of the plan."""
    found = []
    for case in cases():
        protocol, wanted = PROTOCOLS[case.task], names(case).items()
        final = [row for row in rows if row["stage"] == "final" and all(row[k] == v for k, v in wanted)]
        final.sort(key=lambda row: int(row["seed"]))
        if [int(row["seed"]) for row in final] != list(protocol.final_seeds):
            continue
        values = {
            name: np.array([100 * float(row[name] or "nan") for row in final]) for name in (protocol.metric, "f1")
        }
        right = np.array([right_rows(row) for row in final])
        f1 = values["f1"] if case.task == "mrpc" else None
        found.append(Result(case, final[0]["lr"], int(final[0]["parameters"]), values[protocol.metric], f1, right))
    return found


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


def quality_table(found: list[Result], task: str, places: str) -> str:
    """Return the table of one task, by the number of parameters."""
    here = sorted(pick(found, task=task, places=places), key=lambda r: r.parameters)
    columns = {"minus LoRA r = 8": lora_eight(found, task, places)}
    if places != "query-value":
        columns["minus LoRA r = 8, query and value"] = lora_eight(found, task, "query-value")
    lines = []
    for r in here:
        score = f"{r.mean:.1f} ± {r.error:.1f}"
        if r.f1 is not None:
            score += f" (F1 {fmean(r.f1):.1f})"
        cells = [r.label, f"{r.parameters:,}", r.lr, score]
        cells += ["" if other in {None, r} else str(minus(r, other)) for other in columns.values()]
        near = nearest_lora(r, found) if is_adapter(r) else None
        cells.append("" if near is None else f"{minus(r, near)} (r = {near.case.size})")
        lines.append(cells)
    heading = METRICS[PROTOCOLS[task].metric]
    head = ("trained", "parameters", "rate", heading, *columns, "minus the LoRA of nearest size")
    return table(head, lines)


def test_rows_error(a: Result, b: Result) -> float:
    """Return the standard error of the difference that the choice of test rows brings, in points of accuracy."""
    values = 100 * (a.right.mean(0) - b.right.mean(0))
    return float(values.std(ddof=1) / sqrt(len(values)))


def verdict(found: list[Result], task: str, places: str) -> str:
    """Return what a table says on CDD beside LoRA."""
    here = pick(found, task=task, places=places)
    ours = [r for r in here if r.case.method in {"cdd", "cdd-blocks"}]
    eight = lora_eight(found, task, places)
    if eight is None or not ours:
        return "CDD or LoRA r = 8 is still missing here."
    parts = []
    for name, other in (("LoRA r = 8", lambda _: eight), ("the LoRA of nearest size", lambda r: nearest_lora(r, here))):
        differences = [(r, minus(r, other(r))) for r in ours]
        some = {
            "loses": [(r, d) for r, d in differences if d.sure and d.mean < 0],
            "wins": [(r, d) for r, d in differences if d.sure and d.mean > 0],
        }
        said = [
            f"{word} by {', '.join(f'{abs(d.mean):.1f} ± {d.error:.1f} points ({short(r)})' for r, d in those)}"
            for word, those in some.items()
            if those
        ]
        if rest := [r for r, d in differences if not d.sure]:
            said.append(f"shows no sure difference with {', '.join(map(short, rest))}")
        parts.append(f"Beside {name}, CDD {'; it '.join(said)}.")
    three = next((r for r in ours if (r.case.method, r.case.size) == ("cdd", 3)), None)
    if three is not None:
        d = minus(three, eight)
        parts.append(
            "The interval of 95 % for 3 factors minus LoRA r = 8 is "
            f"{signed(d.mean - d.half)} to {signed(d.mean + d.half)} points."
        )
        if PROTOCOLS[task].metric == "accuracy":
            error = test_rows_error(three, eight)
            parts.append(f"The choice of test rows, which the seeds share, adds a standard error of {error:.1f} to it.")
    return " ".join(parts)


def short(result: Result) -> str:
    return f"blocks of {result.case.size}" if result.case.method == "cdd-blocks" else f"{result.case.size} factors"


def tables(found: list[Result]) -> str:
    """Return all tables, each with its verdict."""
    parts = []
    for task, places in dict.fromkeys((r.case.task, r.case.places) for r in found):
        parts += [
            f"**{TASKS[task]}, {PLACES[places]}**",
            quality_table(found, task, places),
            verdict(found, task, places),
        ]
    return "\n\n".join(parts)


def complete(rows: list[dict[str, str]], found: list[Result]) -> list[dict[str, str]]:
    """Return all runs of what is complete, trials included."""
    done = {tuple(names(r.case).values()) for r in found}
    return [row for row in rows if tuple(row[name] for name in CASE) in done]


def protocol_text(rows: list[dict[str, str]], found: list[Result]) -> str:
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
        "and * marks those whose interval of 95 % (Student's t) leaves out zero, each by itself, with no correction "
        "for their number. "
        f"{len(found)} of {len(cases())} methods, sizes and tasks are done: {trials:,} trials and "
        f"{len(rows) - trials:,} last runs, {hours:.1f} hours of one core."
    )


def processors_text(rows: list[dict[str, str]], again: list[dict[str, str]]) -> str:
    """Return which processors the runs are of, and how far runs that were repeated on another one differ."""
    used = Counter(map(processor, rows))
    if len(used) == 1:
        return f"The runs are of {next(iter(used))}, which gives the same numbers again."
    text = f"Of the runs, {joined([f'{count:,} are of {name}' for name, count in used.items()])}"
    first = {tuple(row[name] for name in RUN): row for row in rows}
    differences: dict[tuple[str, ...], list[float]] = {}
    for row in again:
        other = first.get(tuple(row[name] for name in RUN))
        if row["stage"] == "final" and other is not None and processor(other) != processor(row):
            metric = PROTOCOLS[row["task"]].metric
            case = tuple(row[name] for name in CASE)
            differences.setdefault(case, []).append(100 * (float(row[metric]) - float(other[metric])))
    if not differences:
        return f"{text}; each gives the same numbers again."
    every = np.concatenate([np.array(values) for values in differences.values()])
    means = [abs(fmean(values)) for values in differences.values()]
    return (
        f"{text}. Each gives the same numbers again, but they round differently: {len(every)} last runs of "
        f"{len(differences)} methods, repeated on another one, differ by {sqrt(fmean(every**2)):.1f} points (root "
        f"mean square) each, and the methods' means by at most {max(means):.1f}."
    )


def processor(row: dict[str, str]) -> str:
    return re.split(r", \d+ cores?,", row["machine"])[0]


def readme_text(found: list[Result]) -> str:
    """Return the sentences of README: the usual CDD adapter beside LoRA on every task, and in other places."""
    parts: dict[str, list[str]] = {"level with": [], "ahead of": [], "behind": []}
    elsewhere: dict[str, dict[str, list[str]]] = {places: {word: [] for word in parts} for places in ELSEWHERE}
    for task in dict.fromkeys(r.case.task for r in found):
        here = {(r.case.method, r.case.size): r for r in pick(found, task=task, places="query-value")}
        ours, lora, head = (here.get(name) for name in (("cdd", 3), ("lora", 8), ("head", None)))
        if None in {ours, lora, head}:
            continue
        unit = "%" if PROTOCOLS[task].metric == "accuracy" else "Matthews x 100"
        parts[_beside(ours, lora)].append(
            f"{TASKS[task]} ({ours.mean:.1f} ± {ours.error:.1f} and {lora.mean:.1f} ± {lora.error:.1f} {unit}; "
            f"the head alone {head.mean:.1f})"
        )
        for places in ELSEWHERE:
            for r in pick(found, task=task, places=places, method="cdd", size=3):
                elsewhere[places][_beside(r, lora)].append(f"{TASKS[task]} ({r.mean:.1f} ± {r.error:.1f} {unit})")
    if not any(parts.values()):
        return "a D C D adapter of an n x n layer has 3 n parameters, LoRA of rank r has 2 r n"
    text = (
        f"a D C D adapter of query and value, with 13,824 parameters, is {_said(parts, 'LoRA of rank 8 with 73,728')}"
    )
    for places, said in elsewhere.items():
        if any(said.values()):
            text += f". In {ELSEWHERE[places]}, it is {_said(said, 'LoRA of rank 8 on query and value')}"
    return text


def _beside(ours: Result, other: Result) -> str:
    d = minus(ours, other)
    return ("ahead of" if d.mean > 0 else "behind") if d.sure else "level with"


def _said(parts: dict[str, list[str]], other: str) -> str:
    some = [(word, tasks) for word, tasks in parts.items() if tasks]
    return joined([f"{word} {'it' if i else other} on {joined(tasks)}" for i, (word, tasks) in enumerate(some)])


def joined(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def replaced(text: str, name: str, inner: str) -> str:
    """Return a page with the part between the markers of a name replaced, indented as they are."""
    begin, end = f"<!-- {name}: written by benchmarks/fair_adapters.py --report -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"^( *){re.escape(begin)}$.*?^ *{re.escape(end)}$", re.DOTALL | re.MULTILINE)
    if len(found := pattern.findall(text)) != 1:
        raise ValueError(f"a page must have the markers of {name} once")
    paragraphs = [p if p.startswith(("|", "**")) else fill(p, 118, break_on_hyphens=False) for p in inner.split("\n\n")]
    part = indent("\n".join((begin, "\n\n".join(paragraphs), end)), found[0])
    return pattern.sub(lambda _: part, text)


def pages(found: list[Result], rows: list[dict[str, str]], again: list[dict[str, str]]) -> dict[Path, str]:
    """Return README and the page of measurements with the figures of the runs, and of those that were repeated."""
    rows = complete(rows, found)
    measured = (protocol_text(rows, found), processors_text(rows, again), tables(found))
    inner = {
        ROOT / "README.md": ("fair-readme", readme_text(found)),
        ROOT / "docs/measured.md": ("fair-tables", "\n\n".join(measured)),
    }
    return {path: replaced(path.read_text("utf-8"), *what) for path, what in inner.items()}
