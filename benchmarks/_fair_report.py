"""The report of `fair_adapters.py`: its tables, all from the table of runs."""

from __future__ import annotations

import re
from collections import Counter
from math import sqrt
from statistics import fmean
from textwrap import fill

import numpy as np
from _common import table
from _fair_plan import CASE, PROTOCOLS, RUN, cases
from _fair_results import (
    LABELS,
    METRICS,
    PLACES,
    TASKS,
    Result,
    averaged,
    diverged,
    is_adapter,
    lora_eight,
    metric,
    minus,
    names,
    nearest_lora,
    pick,
    signed,
)
from _results_table import Row


def quality_table(found: list[Result], task: str, places: str) -> str:
    """Return the table of one task, by the number of parameters."""
    here = sorted(pick(found, task=task, places=places), key=lambda r: r.parameters)
    columns = {"minus LoRA r = 8": lora_eight(found, task, places)}
    if places != "query-value":
        columns["minus LoRA r = 8, query and value"] = lora_eight(found, task, "query-value")
    rates = task != "mean"
    lines = []
    for r in here:
        score = f"{r.mean:.1f} ± {r.error:.1f}"
        if r.f1 is not None:
            score += f" (F1 {fmean(r.f1):.1f})"
        cells = [r.label, f"{r.parameters:,}", *([r.lr] if rates else []), score]
        cells += ["" if other in {None, r} else str(minus(r, other)) for other in columns.values()]
        near = nearest_lora(r, found) if is_adapter(r) else None
        cells.append("" if near is None else f"{minus(r, near)} (r = {near.case.size})")
        lines.append(cells)
    head = (
        "trained",
        "parameters",
        *(["rate"] if rates else []),
        METRICS[metric(task)],
        *columns,
        "minus the LoRA of nearest size",
    )
    return table(head, lines)


def error_by_test_rows(a: Result, b: Result) -> float:
    """Return the standard error of the difference that the choice of test rows brings, in points of accuracy."""
    values = 100 * (a.right.mean(0) - b.right.mean(0))
    return float(values.std(ddof=1) / sqrt(len(values)))


def verdict(found: list[Result], task: str, places: str) -> str:
    """Return what a table says on CDD beside LoRA."""
    here = pick(found, task=task, places=places)
    ours = [r for r in here if r.case.method in {"cdd", "cdd-blocks", "cdd-shared"}]
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
        if metric(task) == "accuracy":
            error = error_by_test_rows(three, eight)
            parts.append(f"The choice of test rows, which the seeds share, adds a standard error of {error:.1f} to it.")
    return " ".join(parts)


def short(result: Result) -> str:
    texts = {"cdd-blocks": "blocks of {}", "cdd-shared": "shared circulants"}
    return texts.get(result.case.method, "{} factors").format(result.case.size)


def tables(found: list[Result]) -> str:
    """Return all tables, that of the means first, each with its verdict."""
    parts = []
    found = averaged(found) + found
    for task, places in dict.fromkeys((r.case.task, r.case.places) for r in found):
        parts += [
            f"**{TASKS[task]}, {PLACES[places]}**",
            quality_table(found, task, places),
            verdict(found, task, places),
        ]
    return "\n\n".join(parts)


def complete(rows: list[Row], found: list[Result]) -> list[Row]:
    """Return all runs of what is complete, trials included."""
    done = {tuple(names(r.case).values()) for r in found}
    return [row for row in rows if tuple(row[name] for name in CASE) in done]


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
        f"{len(rows) - trials:,} last runs, {hours:.1f} hours of one core.{_failed(rows)}"
    )


def _failed(rows: list[Row]) -> str:
    """Return which methods have no mean, since a last run diverged."""
    cases = Counter(tuple(row[name] for name in CASE) for row in rows if row["stage"] == "final" and diverged(row))
    return "".join(
        f" {count} last runs diverged of {' '.join(case)}, which is left out." for case, count in cases.items()
    )


def processors_text(rows: list[Row], again: list[Row]) -> str:
    """Return which processors the runs are of, and how far runs that were repeated on another one differ."""
    used = Counter(map(processor_of, rows))
    if len(used) == 1:
        return f"The runs are of {next(iter(used))}."
    text = f"Of the runs, {joined([f'{count:,} are of {name}' for name, count in used.items()])}"
    first = {tuple(row[name] for name in RUN): row for row in rows}
    differences: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in again:
        other = first.get(tuple(row[name] for name in RUN))
        if row["stage"] == "final" and other is not None and processor_of(other) != processor_of(row):
            name = metric(row["task"])
            case = tuple(row[column] for column in CASE)
            values = differences.setdefault(case, {}).setdefault(processor_of(row), [])
            values.append(100 * (float(row[name]) - float(other[name])))
    if not differences:
        return f"{text}."
    parts = [
        f"{LABELS[method].format(size)} by {sqrt(fmean(np.square(np.concatenate(list(found.values()))))):.1f}"
        for (_, _, method, size), found in differences.items()
    ]
    each = [values for found in differences.values() for values in found.values()]
    count, means = sum(map(len, each)), max(abs(fmean(values)) for values in each)
    return (
        f"{text}. These round differently: of {count} last runs that were repeated on another one, those of "
        f"{joined(parts)} points (root mean square), and no mean by more than {means:.1f}."
    )


def processor_of(row: Row) -> str:
    return re.split(r", \d+ cores?,", row["machine"])[0]


def joined(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def page(found: list[Result], rows: list[Row], again: list[Row]) -> str:
    """Return the page of results: the protocol, the processors, and all tables, from the runs and those repeated."""
    rows = complete(rows, found)
    parts = ("# Adapters on real tasks", "`python benchmarks/fair_adapters.py --report`", protocol_text(rows, found))
    text = "\n\n".join((*parts, processors_text(rows, again), tables(found)))
    kept = ("#", "`", "|", "**")
    filled = (p if p.startswith(kept) else fill(p, 118, break_on_hyphens=False) for p in text.split("\n\n"))
    return "\n\n".join(filled) + "\n"
