"""The report of `few_parameters.py`: who is on the frontier of score and parameters, and what each method costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from _common import table
from _fair_plan import Case
from _fair_report import LABELS, TASKS, Mean, Result, Row, mean_of, processor_of, results, trial_scores
from _few_plan import FOUR_BITS, SIZED, TASKS_OF_THE_STUDY, Sized, cases

if TYPE_CHECKING:
    from _few_costs import Costs

CDD = next(sized for sized in SIZED if sized.method == "cdd")
OWN = "its own"
LAYERS = {"query-value": "query and value", "own": OWN}


@dataclass(frozen=True, eq=False)
class Standing:
    """A method over the tasks that all methods have been run on."""

    sized: Sized
    parameters: int
    scores: np.ndarray
    """In per cent, of tasks by seeds."""

    @property
    def label(self) -> str:
        return label(self.sized)

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    def minus(self, other: Standing) -> tuple[Mean, Mean | None]:
        """Return the mean difference with its error over the seeds, and with that over the tasks if there are some."""
        gaps = self.scores - other.scores
        over_tasks = mean_of(gaps.mean(axis=1)) if len(gaps) > 1 else None
        return mean_of(gaps.mean(axis=0)), over_tasks


def label(sized: Sized) -> str:
    """Return the name of a method with its size, and its layers where they are not the query and value layers."""
    name = LABELS[sized.method].format(sized.size)
    other = any(each.method == sized.method and each.places != sized.places for each in SIZED)
    return f"{name}, {LAYERS[sized.places]} layers" if other else name


def standings(found: list[Result]) -> tuple[list[str], list[Standing]]:
    """Return the tasks that are done by all methods that have done the first task, and these by their parameters."""
    cases_done = {r.case for r in found}
    tasks, methods = on_common_tasks(found, [s for s in SIZED if s.on(TASKS_OF_THE_STUDY[0]) in cases_done])
    return tasks, sorted(methods, key=lambda each: (each.parameters, -each.mean))


def on_common_tasks(found: list[Result], several: Sequence[Sized]) -> tuple[list[str], list[Standing]]:
    """Return the tasks that are done by all of several methods, and the methods in the same order."""
    of_case = {r.case: r for r in found}
    tasks = [task for task in TASKS_OF_THE_STUDY if several and all(sized.on(task) in of_case for sized in several)]
    methods = []
    for sized in several if tasks else ():
        runs = [of_case[sized.on(task)] for task in tasks]
        methods.append(Standing(sized, runs[0].parameters, np.array([r.scores for r in runs])))
    return tasks, methods


def on_frontier(methods: list[Standing]) -> list[Standing]:
    """Return those than which no other has a higher mean with as few parameters."""
    return [m for m in methods if not any(o.parameters <= m.parameters and o.mean > m.mean for o in methods)]


def of_cdd(methods: list[Standing]) -> Standing:
    """Return where D C D stands."""
    return next(m for m in methods if m.sized is CDD)


def scores_table(tasks: list[str], methods: list[Standing], costs: Mapping[Case, Costs]) -> str:
    """Return the table of scores, differences and costs."""
    ours = of_cdd(methods)
    frontier, lines = on_frontier(methods), []
    for m in methods:
        seeds, over_tasks = m.minus(ours)
        gap = ["", "", ""]
        if m is not ours:
            gap = [f"{seeds.mean:+.2f}", f"± {seeds.half:.2f}", f"± {over_tasks.half:.2f}" if over_tasks else ""]
        cost = costs.get(m.sized.on(TASKS_OF_THE_STUDY[0]))
        of_cost = ["", "", "", ""]
        if cost is not None:
            of_cost = [f"{cost.operations / 1e3:,.0f}", f"{cost.milliseconds:.0f}", f"{cost.kept / 1e6:.1f}"]
            of_cost.append(f"{cost.file / 1e3:.1f}")
        own = [f"{score:.1f}" for score in m.scores.mean(axis=1)]
        lines.append([
            m.label, f"{m.parameters:,}", *own, f"{m.mean:.2f}", *gap, "yes" if m in frontier else "", *of_cost,
        ])  # fmt: skip
    head = ["trained", "parameters", *(TASKS[task] for task in tasks), "mean", "minus D C D", "95 %, seeds"]
    head += ["95 %, tasks", "frontier", "kFLOP a token", "step, ms", "kept, MB", "file, kB"]
    return table(head, lines)


def without_each_task(tasks: list[str], methods: list[Standing]) -> list[str]:
    """Return a heading and the table of the frontier, and of the place of D C D, with one task left out at a time."""
    if len(tasks) == 1:
        return []
    lines = []
    for i, task in enumerate(tasks):
        others = [replace(m, scores=np.delete(m.scores, i, axis=0)) for m in methods]
        ours = of_cdd(others)
        place = 1 + sum(m.mean > ours.mean for m in others)
        frontier = "; ".join(m.label for m in on_frontier(others))
        lines.append([TASKS[task], frontier, f"{ours.mean:.2f}", f"{place} of {len(others)}"])
    head = ["left out", "on the frontier of the others", "mean of D C D", "its place"]
    return ["**What the frontier owes to single tasks.**", table(head, lines, left=2)]


def rates_table(rows: list[Row], found: list[Result]) -> str:
    """Return the rates that the trials chose, marked where they are the last of their range."""
    trials, lines = trial_scores(rows), []
    chosen = {r.case: r.lr for r in found}
    for sized in (*SIZED, FOUR_BITS):
        cells = []
        for task in TASKS_OF_THE_STUDY:
            of_rate = trials.get(sized.on(task), {})
            edge = len(of_rate) > 4 and float(chosen.get(sized.on(task), "nan")) in {min(of_rate), max(of_rate)}
            cells.append(f"{chosen.get(sized.on(task), '')}{'!' if edge else ''}")
        lines.append([label(sized), *cells])
    return table(["trained", *(TASKS[task] for task in TASKS_OF_THE_STUDY)], lines)


def in_four_bits(found: list[Result], costs: Mapping[Case, Costs]) -> str:
    """Return what four bits a number change, in one sentence for the tasks that have been run with them."""
    tasks, both = on_common_tasks(found, (FOUR_BITS, CDD))
    if not tasks:
        return ""
    seeds, over_tasks = both[0].minus(both[1])
    intervals = f"± {seeds.half:.2f} over the seeds"
    if over_tasks is not None:
        intervals += f" and ± {over_tasks.half:.2f} over the tasks"
    sizes = ""
    packed, whole = (costs.get(sized.on(TASKS_OF_THE_STUDY[0])) for sized in (FOUR_BITS, CDD))
    if packed and whole:
        sizes = f" Its file has {packed.file / 1e3:.1f} kB in place of {whole.file / 1e3:.1f} kB."
    return f"""D C D with four bits a number, rounded as `save_adapter(bits=4)` does, after the last step and with
        trials of its own, has a mean of {both[0].mean:.2f} where it has {both[1].mean:.2f} as trained
        ({seeds.mean:+.2f} {intervals}), on {", ".join(TASKS[task] for task in tasks)}.{sizes}"""


def figure(rows: list[Row], path: Path) -> None:
    """Draw mean scores by method, best first, with the intervals of the difference to D C D.

    A line for each method and not a plane of score and parameters, since most methods have nearly the same number.
    """
    tasks, methods = standings(results(rows, cases()))
    drawing, axes = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    ours = of_cdd(methods)
    frontier = on_frontier(methods)
    methods = sorted(methods, key=lambda each: each.mean)
    for line, m in enumerate(methods):
        color = "tab:red" if m is ours else "tab:blue"
        if m is not ours:
            seeds, over_tasks = m.minus(ours)
            if over_tasks:
                axes.errorbar(m.mean, line, xerr=over_tasks.half, color=color, alpha=0.4, capsize=2)
            axes.errorbar(m.mean, line, xerr=seeds.half, color=color, linewidth=2.5, alpha=0.6)
        axes.plot(m.mean, line, "o", color=color, markerfacecolor=color if m in frontier else "white", zorder=3)
    axes.axvline(ours.mean, color="tab:red", linewidth=0.7, linestyle=":")
    axes.set_yticks(range(len(methods)), [f"{m.label}: {m.parameters:,}" for m in methods])
    axes.set_xlabel(fill(f"mean score, %: {', '.join(TASKS[task] for task in tasks)}", 50))
    title = "Method: parameters. Filled: none is better with as few.\nBars: 95 % of the difference to D C D over seeds"
    axes.set_title(f"{title}{', thin over tasks' if len(tasks) > 1 else ''}", fontsize=9)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def page(rows: list[Row], costs: Mapping[Case, Costs]) -> list[str]:
    """Return the parts of the section, from the runs and what each method costs."""
    found = results(rows, cases())
    tasks, methods = standings(found)
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    trials = sum(row["stage"] == "trial" for row in rows)
    failed = [row for row in rows if not row["accuracy"]]
    processors = ", ".join(sorted(set(map(processor_of, rows))))
    parts = [
        f"""{len(found)} of {len(cases())} methods on tasks are done, by the protocol above: {trials:,} trials and
        {len(rows) - trials:,} last runs, {hours:.1f} hours of one core, all on {processors}.
        {len(failed)} of them diverged{failures(failed)}.""",
        f"""Scores are those of the five last seeds on test rows, in per cent: accuracy, and Matthews' correlation of
        CoLA. The mean and the differences to D C D are over {len(tasks)} of {len(TASKS_OF_THE_STUDY)} tasks, which all
        of these methods have done. "95 %, seeds" is half the interval of the difference by Student's t with the five
        seeds as the sample, "95 %, tasks" that with the tasks: another choice of tasks of this kind may move the
        difference so far. On the frontier is what no other surpasses with as few parameters, in the mean of these
        runs.""",
        scores_table(tasks, methods, costs),
        *without_each_task(tasks, methods),
        in_four_bits(found, costs),
        """kFLOP are the operations of a forward pass beyond those of the frozen encoder, for each token of one batch of
        32 rows: products, Fourier transforms and elementwise operations, as they are done in training. A method that
        makes its weight anew in each step has its share of that for each token. The step is forward, backward and
        AdamW on that batch, the encoder's part included, in milliseconds of the processor, in turns; kept is what
        autograd holds from forward to backward; the file is what is saved.""",
        "**Rates that the trials chose.** A mark ! says that it is the last of the range, which went one further.",
        rates_table(rows, found),
    ]
    return [part if part.startswith("|") else fill(" ".join(part.split()), 118) for part in parts if part]


def failures(failed: list[Row]) -> str:
    """Return which methods diverged at which rates."""
    names = sorted({f"{LABELS[row['method']].format(row['size'])} at {row['lr']}" for row in failed})
    return f": {', '.join(names)}" if names else ""
