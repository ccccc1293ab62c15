"""The report of `generation.py`, from the table of runs: right answers, errors by characters, paired differences."""

from __future__ import annotations

from math import ceil
from statistics import fmean
from textwrap import fill

import numpy as np
from _common import table
from _fair_plan import Case, Protocol
from _fair_report import LABELS as OF_ENCODERS
from _fair_report import Mean, Row, by_case, mean_of, processor_of, read

__all__ = ["page", "read"]

LABELS = OF_ENCODERS | {"cdd": "D C D", "c3a-corrected": "C3A (blocks of {})"}


def values(rows: list[Row], column: str) -> np.ndarray:
    """Return a column of runs in per cent, NaN where the loss was not finite any more."""
    return np.array([100 * float(row[column] or "nan") for row in rows])


def interval(mean: Mean) -> str:
    return f"{mean.mean:.1f} ± {mean.half:.1f}"


def difference(mean: Mean) -> str:
    return f"{mean.mean:+.1f} ± {mean.half:.1f}{'*' if abs(mean.mean) > mean.half else ''}".replace("-", "−")


def counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def last_runs(rows: list[Row], cases: tuple[Case, ...], protocol: Protocol) -> dict[Case, list[Row]]:
    """Return the last runs of what has all of them, in the order of the seeds."""
    runs = by_case(rows, "final")
    found = {case: sorted(runs.get(case, []), key=lambda row: int(row["seed"])) for case in cases}
    return {c: done for c, done in found.items() if [int(row["seed"]) for row in done] == [*protocol.final_seeds]}


def ours(found: dict[Case, list[Row]]) -> list[Row]:
    """Return the last runs of D C D, none if it has not all of them or one failed to train."""
    runs = next((runs for case, runs in found.items() if case.method == "cdd"), [])
    return [] if np.isnan(values(runs, "exact")).any() else runs


def gap(runs: list[Row], peer: list[Row]) -> Mean | None:
    """Return the right answers minus those of a peer, in points by seed; None where one of them has no such runs."""
    if not peer or runs is peer or np.isnan(values(runs, "exact")).any():
        return None
    return mean_of(values(runs, "exact") - values(peer, "exact"))


def comparison(found: dict[Case, list[Row]]) -> str:
    """Return the table of all methods on the test prompts, by their numbers of parameters."""
    lines = []
    for case, runs in sorted(found.items(), key=lambda pair: int(pair[1][0]["parameters"])):
        exact, errors = values(runs, "exact"), values(runs, "character_error")
        cells = [interval(mean_of(exact)), f"{fmean(errors):.2f}"]
        if failed := int(np.isnan(exact).sum()):
            cells = [f"{failed} of {len(runs)} runs failed to train", ""]
        between = gap(runs, ours(found))
        cells.append("" if between is None else difference(between))
        seconds = fmean(float(row["seconds"]) for row in runs)
        size = f"{int(runs[0]['file_bytes']) / 1000:.1f}" if runs[0]["file_bytes"] else ""
        label = LABELS[case.method].format(case.size), f"{int(runs[0]['parameters']):,}", runs[0]["lr"]
        lines.append([*label, *cells, f"{seconds:.0f}", size])
    head = ["adapted by", "parameters", "rate", "right answers, %", "character error, %", "minus D C D, points"]
    return table([*head, "seconds of a run", "file, kB"], lines)


def summary(found: dict[Case, list[Row]]) -> str:
    """Return which methods these seeds show to have more or fewer right answers than D C D, and which they do not."""
    more: list[str] = []
    fewer: list[str] = []
    alike: list[str] = []
    for case, runs in found.items():
        between = gap(runs, ours(found))
        if between is not None:
            group = alike if abs(between.mean) <= between.half else more if between.mean > 0 else fewer
            group.append(LABELS[case.method].format(case.size))
    names = {"more right answers than D C D": more, "fewer": fewer, "not told apart from it": alike}
    said = "; ".join(f"{name}: {', '.join(labels) or 'none'}" for name, labels in names.items())
    none = [LABELS[case.method].format(case.size) for case, runs in found.items() if not values(runs, "exact").any()]
    return f"By these seeds, {said}." + (f" Without a right answer: {', '.join(none)}." if none else "")


def trials(rows: list[Row], cases: tuple[Case, ...]) -> str:
    """Return the table of the trials: right answers on dates held back, and errors by characters, for each rate."""
    lines = []
    for case, runs in by_case(rows, "trial").items():
        if case not in cases:
            continue
        cells = []
        for rate in sorted({row["lr"] for row in runs}, key=float):
            of_rate = [row for row in runs if row["lr"] == rate]
            exact, errors = (values(of_rate, column).mean() for column in ("exact", "character_error"))
            cells.append(f"{rate}: {'failed' if np.isnan(exact) else f'{exact:.1f} ({errors:.1f})'}")
        lines.append([LABELS[case.method].format(case.size), ", ".join(cells)])
    return table(["adapted by", "rate: right answers, % (character error, %)"], lines, left=2)


def at_the_edge(rows: list[Row], found: dict[Case, list[Row]]) -> str:
    """Return which methods have the smallest or the largest of the rates that were tried, and may have a better one."""
    tried = by_case(rows, "trial")
    labels = []
    for case, runs in found.items():
        rates = [float(row["lr"]) for row in tried[case]]
        if float(runs[0]["lr"]) in {min(rates), max(rates)}:
            labels.append(LABELS[case.method].format(case.size))
    return f"A rate further might be better still for: {', '.join(labels) or 'none'}."


def protocol_text(rows: list[Row], protocols: dict[str, Protocol]) -> str:
    """Return what was run, and on what."""
    number = sum(row["stage"] == "trial" for row in rows)
    minutes = sum(float(row["seconds"]) for row in rows) / 60
    usual = next(iter(protocols.values()))
    return (
        "Every method has the same budget for its rate: four rates a factor of about three apart, "
        f"{counted(len(usual.trial_seeds), 'seed')} each, and one rate further where the best is the first or the "
        "last. (Those of IA3 were raised once, since no answer was right with 0.003, 0.01, 0.03 and 0.1.) A run "
        f"learns in {counted(usual.epochs, 'epoch')} and in batches of {usual.batch}, by AdamW whose rate rises and "
        f"falls. A trial is scored on {usual.held_back:,} other dates that are held back, and the best mean wins; "
        "where equally many answers are right, the character error decides. Then follow "
        f"{counted(len(usual.final_seeds), 'run')} with new seeds, scored on {usual.test_rows:,} test dates, "
        "which are touched only here. A seed draws the dates, the adapter's start and the batches, the same for all "
        "methods. Answers are generated with a cache, the most likely character at each place; a right one is right in "
        "every character. The character error counts edits for each expected character. All linear layers of attention "
        "and feed-forward networks are adapted; IA3 scales keys, values and the input of the last linear layer of each "
        "feed-forward network, as its authors do. C3A has the gradient of its input corrected. Rates of D C D are "
        "those of factors: the optimiser gets a thirtieth. ± is half the interval of 95 % over the seeds (Student's "
        "t); differences are paired by seed, and * marks those whose interval leaves out zero. Seconds are the "
        f"processor's, of training and answers. {number} trials and {len(rows) - number} last runs took {minutes:.0f} "
        f"minutes of one core of {', '.join(dict.fromkeys(map(processor_of, rows)))}; the frozen base has the checksum "
        f"{', '.join(dict.fromkeys(row['base'] for row in rows))}."
    )


def page(rows: list[Row], cases: tuple[Case, ...], protocols: dict[str, Protocol]) -> list[str]:
    """Return the parts of the page of results."""
    parts = [fill(protocol_text(rows, protocols), 118)]
    for task, protocol in protocols.items():
        here = tuple(case for case in cases if case.task == task)
        found = last_runs(rows, here, protocol)
        steps = protocol.epochs * ceil(protocol.rows / protocol.batch)
        head = f"**Adapted with {protocol.rows:,} dates, {steps} steps.** {summary(found)} {at_the_edge(rows, found)}"
        parts += [fill(head, 118), comparison(found), "Trials:", trials(rows, here)]
    return parts
