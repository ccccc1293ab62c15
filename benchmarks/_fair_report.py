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
from _fair_plan import FORMS, PROTOCOLS, RATES, RUN, Case, cases, tried
from scipy.stats import t

from structmat._adapter_format import FACTOR_SCALE

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
    "scales": "D W D",
    "cdd-scales": "D W D + D C D",
    "cdd-entries": "W * (D C D), entry by entry",
    "cdd-4-bits": "CDD, {} factors, 4 bits a number",
    "vera": "VeRA r = {}",
    "ia3": "IA3",
    "road": "RoAd {}",
    "waveft": "WaveFT, {} coefficients",
    "shira": "SHiRA r = {}",
    "randlora": "RandLoRA r = {}",
    "oft": "OFT, blocks of {}",
    "boft": "BOFT, blocks of {}",
    "ln-tuning": "LN tuning",
    "unilora": "UniLoRA, {} numbers",
    "miss": "MiSS r = {}",
    "vblora": "VB-LoRA, {} vectors",
}
TASKS = {
    "goemotions": "GoEmotions",
    "goemotions-more": "GoEmotions with more rows",
    "sst2-more": "SST-2 with more rows",
    "banking77-more": "BANKING77 with more rows",
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "banking77": "BANKING77",
    "trec": "TREC question types",
    "sick": "SICK entailment",
    "counterfactual": "Counterfactual statements",
    "mean": "Mean of all tasks",
}
PLACES = {
    "query-value": "query and value layers",
    "intermediate": "first feed-forward layers",
    "all-linear": "all linear layers",
}
METRICS = {"accuracy": "accuracy, %", "matthews": "Matthews correlation x 100", "mean": "score, %"}


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def merged(named: list[Row], earlier: list[Row]) -> list[Row]:
    """Return the runs that name their code, and those of earlier days that are in no place of one of these."""
    done = {tuple(row[name] for name in RUN) for row in named}
    return named + [row for row in earlier if tuple(row[name] for name in RUN) not in done]


def by_case(rows: list[Row], stage: str) -> dict[Case, list[Row]]:
    """Return the runs of one stage by what they are of."""
    found: dict[Case, list[Row]] = {}
    for row in rows:
        if row["stage"] == stage:
            size = int(row["size"]) if row["size"] else None
            found.setdefault(Case(row["task"], row["places"], row["method"], size), []).append(row)
    return found


def score(row: Row) -> float:
    """Return the score of a run in per cent, by the metric of the task; minus infinity where it diverged."""
    return 100 * float(row[PROTOCOLS[row["task"]].metric] or "-inf")


@dataclass(frozen=True, eq=False)
class Result:
    """The last runs of one case, seed by seed."""

    case: Case
    lr: str
    parameters: int
    scores: np.ndarray
    """In per cent, by the metric of the task."""
    seconds: float
    """The processor's, for a run; zero for a mean of tasks."""
    processors: tuple[str, ...] = ()
    """Of each run; none for a mean of tasks."""

    @property
    def label(self) -> str:
        return LABELS[self.case.method].format(self.case.size)

    @property
    def score(self) -> Mean:
        return mean_of(self.scores)


class Mean(NamedTuple):
    """The mean of scores, or of their differences, and how far off it may be."""

    mean: float
    error: float
    half: float
    """Half the width of the interval of 95 % by Student's t."""

    def __str__(self) -> str:
        mean = f"{self.mean:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")
        return f"{mean} ± {self.error:.1f}{'*' if abs(self.mean) > self.half else ''}"


def mean_of(values: np.ndarray) -> Mean:
    error = float(values.std(ddof=1)) / sqrt(len(values))
    return Mean(fmean(values), error, error * float(t.ppf(0.975, len(values) - 1)))


def results(rows: list[Row], planned: list[Case]) -> list[Result]:
    """Return what has all its last runs, in the order of the plan; where one diverged, there is no mean to return."""
    found, runs = [], by_case(rows, "final")
    for case in planned:
        final = sorted(runs.get(case, []), key=lambda row: int(row["seed"]))
        done = [int(row["seed"]) for row in final if row["accuracy"]]
        if done == list(PROTOCOLS[case.task].final_seeds):
            scores, seconds = np.array([score(row) for row in final]), fmean(float(row["seconds"]) for row in final)
            processors = tuple(map(processor_of, final))
            found.append(Result(case, final[0]["lr"], int(final[0]["parameters"]), scores, seconds, processors))
    return found


def averaged(found: list[Result]) -> list[Result]:
    """Return means over the common tasks that D C D was run on in a place, seed by seed, of what was run on each."""
    tasks = {
        (r.case.task, r.case.places)
        for r in found
        if PROTOCOLS[r.case.task].is_common and (r.case.method, r.case.size) == ("cdd", 3)
    }
    groups: dict[tuple[str, str, int | None], list[Result]] = {}
    for r in found:
        if (r.case.task, r.case.places) in tasks:
            groups.setdefault((r.case.places, r.case.method, r.case.size), []).append(r)
    return [
        Result(Case("mean", *of), "", group[0].parameters, np.mean([r.scores for r in group], axis=0), 0.0)
        for of, group in groups.items()
        if len(group) == sum(places == of[0] for _, places in tasks) > 1
    ]


def pick(found: list[Result], task: str, places: str, method: str | None = None) -> list[Result]:
    here = [r for r in found if (r.case.task, r.case.places) == (task, places)]
    return [r for r in here if method in {None, r.case.method}]


def nearest_lora(result: Result, found: list[Result]) -> Result | None:
    """Return the LoRA on the same layers whose number of parameters is nearest, as a ratio."""
    lora = pick(found, result.case.task, result.case.places, "lora")
    return min(lora, key=lambda r: abs(log(r.parameters / result.parameters)), default=None)


def lora_of_rank_eight(result: Result, found: list[Result]) -> Result | None:
    lora = pick(found, result.case.task, result.case.places, "lora")
    return next((r for r in lora if r.case.size == 8), None)


def quality_table(found: list[Result], task: str, places: str) -> str:
    """Return the table of one task, by the number of parameters."""
    here = sorted(pick(found, task, places), key=lambda r: r.parameters)
    eight = next((r for r in pick(found, task, places, "lora") if r.case.size == 8), None)
    lines = []
    for r in here:
        own = f"{r.score.mean:.1f} ± {r.score.error:.1f}"
        cells = [r.label, f"{r.parameters:,}", *([r.lr] if task != "mean" else []), own]
        cells.append("" if eight in {None, r} else str(mean_of(r.scores - eight.scores)))
        near = None if r.case.method in {"head", "full", "lora"} else nearest_lora(r, found)
        cells.append("" if near is None else f"{mean_of(r.scores - near.scores)} (r = {near.case.size})")
        lines.append(cells)
    metric = "mean" if task == "mean" else PROTOCOLS[task].metric
    head = ["trained", "parameters", *(["rate"] if task != "mean" else []), METRICS[metric]]
    return table([*head, "minus LoRA r = 8", "minus the LoRA of nearest size"], lines)


def tables(found: list[Result]) -> str:
    """Return all tables, those of the means first."""
    found = averaged(found) + found
    places = dict.fromkeys((r.case.task, r.case.places) for r in found)
    return "\n\n".join(f"**{TASKS[t]}, {PLACES[p]}**\n\n{quality_table(found, t, p)}" for t, p in places)


def comparison(found: list[Result]) -> str:
    """Return the table of D C D beside LoRA of rank one, of nearest size and of rank eight, by groups of tasks."""
    common = [task for task, protocol in PROTOCOLS.items() if protocol.is_common]
    held_out = [task for task, protocol in PROTOCOLS.items() if protocol.held_out]
    groups = {
        "common": common,
        "without CoLA": [task for task in common if task != "cola"],
        "held out": held_out,
        "all": common + held_out,
    }
    compared = [(group, tasks, nearest_lora) for group, tasks in groups.items()]
    compared.append(("common", common, lora_of_rank_eight))
    lines = []
    for places, name in PLACES.items():
        for group, tasks, peer in compared:
            ours = [r for task in tasks for r in pick(found, task, places, "cdd") if r.case.size == 3]
            pairs = [(r, lora) for r in ours if (lora := peer(r, found))]
            if not pairs:
                continue
            gaps = np.array([a.scores - b.scores for a, b in pairs])
            ones = [r for task in tasks for r in pick(found, task, places, "lora") if r.case.size == 1]
            one = ""
            if len(ones) == len(pairs):
                one = f"{fmean(r.score.mean for r in ones):.1f} ({ones[0].parameters:,})"
            means = [fmean(r.score.mean for r in side) for side in zip(*pairs, strict=True)]
            times = [fmean(r.seconds for r in side) for side in zip(*pairs, strict=True)]
            sizes = [f"{r.parameters:,}" for r in pairs[0]]
            lines.append([
                name, f"{group}: {len(pairs)}", f"{means[0]:.1f} ({sizes[0]})", one,
                f"{means[1]:.1f} (r = {pairs[0][1].case.size}: {sizes[1]})", str(mean_of(gaps.mean(0))),
                f"± {mean_of(gaps.mean(1)).half:.1f}" if len(pairs) > 2 else "",
                f"{sum(a.processors == b.processors for a, b in pairs)} of {len(pairs)}",
                f"{times[0] / times[1]:.2f}" if group == "held out" else "",
            ])  # fmt: skip
    head = ["layers", "tasks", "D C D (parameters)", "LoRA r = 1", "LoRA of nearest size, or r = 8"]
    head += ["difference ± over seeds", "95 % over tasks", "tasks on one processor", "time, D C D : LoRA"]
    return table(head, lines, left=2)


def place_table(found: list[Result]) -> str:
    """Return the table of D C D in the first feed-forward layers beside what is trained on query and value."""
    lines = []
    ours = {r.case.task: r for r in found if (r.case.places, r.case.method, r.case.size) == ("intermediate", "cdd", 3)}
    for method, size in (("cdd", 3), ("lora", 2), ("lora", 8)):
        others = [r for task in ours for r in pick(found, task, "query-value", method) if r.case.size == size]
        gaps = {r.case.task: ours[r.case.task].scores - r.scores for r in others}
        each = ", ".join(f"{TASKS[task]} {str(mean_of(gap)).split()[0]}" for task, gap in gaps.items())
        mean = np.array(list(gaps.values()))
        label = f"{others[0].label}, {others[0].parameters:,}"
        lines.append([label, each, str(len(gaps)), str(mean_of(mean.mean(0))), f"± {mean_of(mean.mean(1)).half:.1f}"])
    head = ["on query and value, parameters", "differences", "tasks", "mean ± over seeds", "95 % over tasks"]
    return table(head, lines, left=2)


def trial_scores(rows: list[Row]) -> dict[Case, dict[float, float]]:
    """Return the mean score of the trials of each rate."""
    found: dict[Case, dict[float, float]] = {}
    for case, trials in by_case(rows, "trial").items():
        rates = dict.fromkeys(float(row["lr"]) for row in trials)
        found[case] = {rate: fmean(score(row) for row in trials if float(row["lr"]) == rate) for rate in rates}
    return found


def forms(rows: list[Row]) -> str:
    """Return the table of what was tried on held-back rows, beside what it was to surpass."""
    scores, lines = trial_scores(rows), []
    parameters = {(r["places"], r["method"], r["size"]): f"{int(r['parameters']):,}" for r in rows}
    tasks = dict.fromkeys(case.task for case in tried() if PROTOCOLS[case.task].is_common)
    for places, name in PLACES.items():
        for method, size in (("cdd", 3), ("cdd", 5), ("lora", 1), ("lora", 2), ("lora", 3), *FORMS):
            cases = [Case(task, places, method, size) for task in tasks]
            if all(case in scores for case in cases):
                best = [max(scores[case].values()) for case in cases]
                label = name, LABELS[method].format(size), parameters[places, method, str(size or "")]
                lines.append([*label, *(f"{b:.1f}" for b in best), f"{fmean(best):.1f}"])
    return table(["layers", "trained", "parameters", *(TASKS[task] for task in tasks), "mean"], lines, left=2)


def rate_curves(rows: list[Row]) -> str:
    """Return the table of what is lost by rates that are not the best, in the mean of the tasks."""
    scores, lines = trial_scores(rows), []
    short = [task for task, protocol in PROTOCOLS.items() if protocol.is_common]
    long = [task for task in PROTOCOLS if task.endswith("-more")]
    for places, name in PLACES.items():
        for group, steps in ((short, "96 to 375"), (long, "375")):
            tasks = [task for task in group if Case(task, places, "cdd", 3) in scores]
            for method, size, unit in (("lora", 8, 1.0), ("cdd", 3, FACTOR_SCALE)):
                cases = [scores.get(Case(task, places, method, size)) for task in tasks]
                if tasks and all(cases):
                    lost = [fmean(of[rate] - max(of.values()) for of in cases) for rate in RATES[method]]
                    cells = [f"{x:+.1f} ({rate / unit:.1g})" for x, rate in zip(lost, RATES[method], strict=True)]
                    lines.append([name, f"{len(tasks)}, {steps}", LABELS[method].format(size), *cells])
    return table(["layers", "tasks, steps", "trained", *["points (rate)"] * 4], lines, left=3)


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


def commits_text(named: list[Row], earlier: list[Row]) -> str:
    """Return which code the runs are of, and how many give the answers that were given before."""
    last = sum(row["stage"] == "final" for row in named)
    return (
        f"{last} last runs of D C D and of LoRA r = 2 and r = 8, and {len(named) - last} trials, are of the code of "
        f"{', '.join(sorted({row['commit'] for row in named}))}, all on {' and '.join(set(map(processor_of, named)))}; "
        "the others are of earlier days: their code is not named, and D C D is stored in the same scale. "
        f"{repeated(named, earlier)}"
    )


def repeated(rows: list[Row], stored: list[Row]) -> str:
    """Return how many of the stored runs stand among the rows again, and how many of these give the same answers."""
    by_run = {tuple(row[name] for name in RUN): row for row in stored}
    both = [(row, by_run[key]) for row in rows if (key := tuple(row[name] for name in RUN)) in by_run]
    same = sum(a["right"] == b["right"] for a, b in both)
    text = f"{same} of {len(both)} earlier runs that were repeated by this code gave the same answer for each row"
    moved = [score(a) - score(b) for a, b in both if processor_of(a) != processor_of(b)]
    alike = [a["right"] == b["right"] for a, b in both if processor_of(a) == processor_of(b)]
    if moved:
        text += (
            f": {sum(alike)} of {len(alike)} on the same processor, and on another one the root mean square of the "
            f"difference is {sqrt(fmean(value**2 for value in moved)):.2f} points ({len(moved)} runs)"
        )
    return f"{text}."


def processors_text(rows: list[Row], again: list[Row]) -> str:
    """Return which processors the runs are of, and how far last runs that were repeated on another one differ."""
    used = ", ".join(f"{count:,} of {name}" for name, count in Counter(map(processor_of, rows)).items())
    first = {tuple(row[name] for name in RUN): row for row in rows}
    off: dict[str, list[float]] = {}
    for row in again:
        other = first[tuple(row[name] for name in RUN)]
        if row["stage"] == "final" and processor_of(row) != processor_of(other):
            off.setdefault(LABELS[row["method"]].format(row["size"]), []).append(score(row) - score(other))
    differ = ", ".join(
        f"{sqrt(fmean(value**2 for value in values)):.2f} points for {label} ({len(values)} runs)"
        for label, values in off.items()
    )
    return (
        f"Earlier runs: {used}. These round differently: last runs that were repeated on another one differ by "
        f"{differ}, root mean square. So a difference of two methods that ran on different processors has this error "
        "too, beside the one over seeds."
    )


def processor_of(row: Row) -> str:
    return re.split(r", \d+ cores?,", row["machine"])[0]


def page(named: list[Row], earlier: list[Row], again: list[Row]) -> list[str]:
    """Return the parts of the page of results: protocol, processors and tables, from the runs and those repeated."""
    rows = merged(named, earlier)
    found = results(rows, cases())
    parts = [
        protocol_text(rows, found),
        commits_text(named, earlier),
        processors_text(earlier, again),
        """**D C D and the LoRA of nearest size on the same layers.** Of CoLA the score is Matthews' correlation, of the
        other tasks the accuracy. Nothing but rates was chosen by the tasks held out, and only their runs were timed,
        all on one processor. "95 % over tasks" is half the interval of the mean difference by Student's t, with the
        tasks as the sample: how far the mean of other tasks of this kind may be off. Where it holds zero, these data
        do not tell the two apart.""",
        comparison(found),
        """**The place.** The score of D C D in the first feed-forward layers, with 20,736 parameters, minus that of
        what is trained on query and value layers.""",
        place_table(found),
        """**Other forms, on held-back rows.** The best mean over two trials of each rate, in per cent of accuracy; W is
        the frozen weight. D W D + D C D was run on test rows in the first feed-forward layers.""",
        forms(rows),
        """**Rates.** What a rate loses against the best one, in the mean of the trials; of D C D the optimiser's
        rate. 375 steps are those of 4,000 rows.""",
        rate_curves(rows),
        tables(found),
    ]
    return [p if p.startswith(("|", "**Mean")) else fill(" ".join(p.split()), 118) for p in parts]
