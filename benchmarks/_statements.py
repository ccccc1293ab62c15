"""What README and the page on reproduction say of the accuracy of adapters, computed from the tables of runs.

A test finds each of these sentences and tables in the pages. `python benchmarks/fair_adapters.py --report` prints them
after new runs, to copy what has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from _common import table
from _fair_plan import PROTOCOLS, RATES, Case, cases
from _fair_report import TASKS, Result, Row, mean_of, pick, results, trial_scores
from _few_plan import FOUR_BITS
from _few_plan import cases as few_cases
from _few_report import CDD, of_cdd, on_common_tasks, standings
from _few_report import label as few_label
from _pair_plan import ARMS
from _pair_report import gaps, over_seeds

FOUR = ("goemotions", "sst2", "banking77", "cola")
"""The tasks on which all methods on query and value layers have been run."""

HELD_OUT = tuple(task for task, protocol in PROTOCOLS.items() if protocol.held_out)
PLACES = {"intermediate": "first feed-forward", "query-value": "query, value", "all-linear": "all linear"}
ORDINALS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
WORDS = dict(enumerate(("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")))


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign, none for zero, and the minus of print."""
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


class Gap:
    """The difference of two things that were trained, in points, on tasks and seeds that both have."""

    def __init__(self, found: list[Result], tasks: Sequence[str], ours: tuple, other: tuple) -> None:
        pairs = []
        for task in tasks:
            sides = [[r for r in pick(found, task, p, m) if r.case.size == s] for p, m, s in (ours, other)]
            if all(sides):
                pairs.append((sides[0][0], sides[1][0]))
        self.tasks = [a.case.task for a, _ in pairs]
        self.values = np.array([a.scores - b.scores for a, b in pairs])
        self.seconds = sum(a.seconds for a, _ in pairs) / sum(b.seconds for _, b in pairs)
        self.parameters = pairs[0][0].parameters, pairs[0][1].parameters

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def over_seeds(self) -> float:
        return mean_of(self.values.mean(axis=0)).half

    @property
    def over_tasks(self) -> float:
        return mean_of(self.values.mean(axis=1)).half

    def of(self, task: str) -> str:
        return signed(float(self.values[self.tasks.index(task)].mean()))

    def __str__(self) -> str:
        return f"{signed(self.mean)} ± {self.over_tasks:.1f}"

    @property
    def intervals(self) -> str:
        return f"± {self.over_seeds:.1f} over the seeds and ± {self.over_tasks:.1f} over the tasks"

    @property
    def size(self) -> str:
        return f"{abs(self.mean):.1f}"


def ours(places: str) -> tuple[str, str, int]:
    return places, "cdd", 3


def lora(places: str, rank: int) -> tuple[str, str, int]:
    return places, "lora", rank


def mean_score(
    found: list[Result], tasks: Sequence[str], method: tuple[str, str, int | None]
) -> tuple[float, int] | None:
    """Return the mean score of a method on tasks, and its number of parameters; None where it was not run on all."""
    runs = [r for task in tasks for r in pick(found, task, method[0], method[1]) if r.case.size == method[2]]
    return (float(np.mean([r.scores for r in runs])), runs[0].parameters) if len(runs) == len(tasks) else None


def summary(found: list[Result]) -> str:
    """Return the table of D C D beside LoRA on the same layers."""
    groups = (FOUR, FOUR[:3], HELD_OUT, (*FOUR, *HELD_OUT))
    lines = []
    for place, name in PLACES.items():
        cells = [name]
        for method in (ours(place), lora(place, 1), lora(place, 2), lora(place, 8)):
            of = mean_score(found, FOUR, method)
            cells.append(f"{of[0]:.1f} ({of[1]:,})" if of else "")
        for rank, tasks in ((2, groups[0]), (8, groups[0]), *((2, group) for group in groups[1:])):
            whole = all(mean_score(found, tasks, method(place)) for method in (ours, lambda p, r=rank: lora(p, r)))
            cells.append(str(Gap(found, tasks, ours(place), lora(place, rank))) if whole else "")
        lines.append(cells)
    head = ["adapted layers", "D C D (parameters)", "LoRA r = 1", "r = 2", "r = 8", "D C D minus r = 2", "minus r = 8"]
    head += ["minus r = 2: without CoLA", "three tasks held out", "all seven"]
    return table(head, lines)


def of_fair_runs(rows: list[Row]) -> list[str]:
    """Return the sentences on the runs of `fair_adapters.py`."""
    found = results(rows, cases())
    all_seven = (*FOUR, *HELD_OUT)
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    nearest = {place: Gap(found, FOUR[:3], ours(place), lora(place, 2)) for place in ("intermediate", "query-value")}
    eight = {place: Gap(found, FOUR, ours(place), lora(place, 8)) for place in ("intermediate", "query-value")}
    ratios = [gap.parameters[1] / gap.parameters[0] for gap in eight.values()]
    places = Gap(found, all_seven, ours("intermediate"), ours("query-value"))
    across = Gap(found, FOUR, ours("intermediate"), lora("query-value", 8))
    everywhere = Gap(found, HELD_OUT, ours("all-linear"), ours("intermediate"))
    times = {place: Gap(found, HELD_OUT, ours(place), lora(place, 2)).seconds for place in PLACES}
    others = {
        method: mean_score(found, FOUR, ("query-value", method, size))
        for method, size in (
            ("c3a-corrected", 128),
            ("fourierft", 1152),
            ("adalora", 8),
            ("head", None),
            ("full", None),
        )
    }
    return [
        f"There are {len(rows):,} runs, {hours:.0f} hours of one core",
        f"""Without CoLA D C D is {nearest["intermediate"].size} points behind in the first feed-forward layers
        ({nearest["intermediate"].intervals}), and {nearest["query-value"].size} on query and value
        ({nearest["query-value"].intervals}).""",
        f"""**LoRA r = 8**, with {min(ratios):.1f} to {max(ratios):.1f} times the parameters, has higher scores in the
        same layers: by {eight["query-value"].size} points on query and value ({eight["query-value"].intervals}), and
        by {eight["intermediate"].size} in the first feed-forward layers ({eight["intermediate"].intervals}).""",
        f"""D C D in the first feed-forward layers is {places.size} points ahead of D C D on query and value
        ({places.intervals}), in the mean of all seven tasks, most of it from GoEmotions ({places.of("goemotions")}) and
        CoLA ({places.of("cola")}).""",
        f"""Its difference to LoRA r = 8 on query and value, which has {across.parameters[1] / across.parameters[0]:.1f}
        times its parameters, is {signed(across.mean)} ({across.intervals}; GoEmotions {across.of("goemotions")}, SST-2
        {across.of("sst2")}, BANKING77 {across.of("banking77")}, CoLA {across.of("cola")}).""",
        f"""In all linear layers D C D is {everywhere.size} points ahead of itself in the first feed-forward layers
        ({everywhere.intervals}), on the three tasks held out, with
        {everywhere.parameters[0] / everywhere.parameters[1]:.1f} times the parameters, and a run takes
        {everywhere.seconds:.1f} times as long.""",
        f"""A run with D C D in bfloat16 takes {times["query-value"]:.2f} times as long as with LoRA r = 2 on query and
        value, {times["intermediate"]:.2f} times in the first feed-forward layers and {times["all-linear"]:.2f} times in
        all linear layers""",
        f"""C3A has a score of {others["c3a-corrected"][0]:.1f} and FourierFT of {others["fourierft"][0]:.1f}, both with
        {others["fourierft"][1]:,} parameters, and AdaLoRA r = 8 of {others["adalora"][0]:.1f}. With the head alone the
        score is {others["head"][0]:.1f}, with all weights trained {others["full"][0]:.1f}.""",
        rates_lost(rows),
    ]


def rates_lost(rows: list[Row]) -> str:
    """Return what the usual rate of 1e-3 loses against the best one, in the mean of the trials of each task."""
    scores, lost = trial_scores(rows), {}
    for place in PLACES:
        for (_, method, size), usual in ((ours(place), 0.03), (lora(place, 8), 0.001)):
            several = [scores.get(Case(task, place, method, size)) for task in FOUR]
            if all(several):
                gaps = [max(of[rate] for rate in RATES[method]) - of[usual] for of in several]
                lost[method, place] = float(np.mean(gaps))
    return f"""A rate of 1e-3 loses {lost["cdd", "query-value"]:.1f} points against the best of four rates with D C D on
        query and value and {lost["cdd", "intermediate"]:.1f} in the first feed-forward layers, and
        {lost["lora", "query-value"]:.1f} and {lost["lora", "intermediate"]:.1f} with LoRA r = 8."""


def of_few_parameters(rows: list[Row]) -> list[str]:
    """Return the sentences on the runs of `few_parameters.py`."""
    found = results(rows, few_cases())
    tasks, methods = standings(found)
    cdd = of_cdd(methods)
    without = [replace(m, scores=np.delete(m.scores, tasks.index("cola"), axis=0)) for m in methods]
    cdd_without = of_cdd(without)
    ranked = sorted((m for m in methods if m is not cdd), key=lambda m: -m.mean)
    place = 1 + sum(m.mean > cdd.mean for m in ranked)
    gaps = []
    for m in ranked:
        over_seeds, over_tasks = m.minus(cdd)
        gap = f"{signed(over_seeds.mean)} ± {over_seeds.half:.1f} ± {over_tasks.half:.1f}"
        gaps.append(f"{few_label(m.sized)} {gap} ({m.parameters:,})")
    of_tasks = [m.minus(cdd)[1] for m in ranked]
    told_apart = sum(abs(over_tasks.mean) > over_tasks.half for over_tasks in of_tasks)
    most = max(abs(m.mean - cdd_without.mean) for m in without)
    bits = on_common_tasks(found, (FOUR_BITS, CDD))[1]
    of_bits = bits[0].minus(bits[1])[0]
    return [
        f"""D C D is {ORDINALS[place]} of {len(methods)}, with a mean of {cdd.mean:.1f} % and {cdd.parameters:,}
        parameters.""",
        "; ".join(gaps),
        f"""Over the tasks the intervals are {min(g.half for g in of_tasks):.1f} to {max(g.half for g in of_tasks):.1f}
        points, and {WORDS[told_apart]} method is told apart from D C D.""",
        f"Without it the mean of D C D is {cdd_without.mean:.1f} %, and all are within {most:.1f} points of it",
        f"""In four bits a number D C D is right for {bits[0].mean:.1f} % of GoEmotions, where it is for
        {bits[1].mean:.1f} % as trained ({signed(of_bits.mean, 2)} ± {of_bits.half:.2f} points over the seeds).""",
    ]


def of_readme(rows: list[Row]) -> list[str]:
    """Return what README says."""
    found = results(rows, cases())
    place = "intermediate"
    two = Gap(found, (*FOUR, *HELD_OUT), ours(place), lora(place, 2))
    eight = Gap(found, FOUR, ours(place), lora(place, 8))
    return [
        f"""Classifying text, in these layers, it is not told apart from LoRA of rank two ({two} points in
        {WORDS[len(two.tasks)]} tasks, with the 95 % interval over tasks), nor from rank eight ({eight} points in
        {WORDS[len(eight.tasks)]}), which has {eight.parameters[1] / eight.parameters[0]:.1f} times the parameters."""
    ]


def of_pairs(rows: list[Row], fair: list[Row]) -> dict[str, str]:
    """Return what each arm of `adapter_pairs.py` changes, in points, by its method and places."""
    found = {}
    for arm in ARMS:
        of_tasks = gaps(rows, fair, arm)
        if of_tasks:
            name = f"{arm.method}, {arm.places}"
            mean = over_seeds(of_tasks)
            each = ", ".join(f"{TASKS[task]} {signed(float(values.mean()))}" for task, values in of_tasks.items())
            pairs = sum(map(len, of_tasks.values()))
            found[name] = f"{signed(mean.mean, 2)} ± {mean.half:.2f} ({each}; {pairs} pairs)"
    return found


def places_table(found: list[Result], costs: str) -> str:
    """Return the guide's table of the layers to choose from, with times and files from the page of costs."""
    lines, seven = [], (*FOUR, *HELD_OUT)
    names = {"query-value": "query and value", "intermediate": "first feed-forward", "all-linear": "all linear"}
    for place, name in names.items():
        times, file = [], ""
        for precision in ("float32", "bfloat16"):
            section = costs.partition(f"## Places, {precision}\n")[2].partition("\n## ")[0]
            line = next(line for line in section.splitlines() if line.startswith(f"| {name} |"))
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            times.append(f"{cells[6]}, {cells[5]}")
            file = cells[1].partition("(")[2].rstrip(")")
        parameters = mean_score(found, HELD_OUT, ours(place))[1]
        scores = []
        for tasks in (seven, HELD_OUT):
            whole = mean_score(found, tasks, ours(place))
            other = place != "query-value" and whole
            gap = f" ({Gap(found, tasks, ours(place), ours('query-value'))})" if other else ""
            scores.append(f"{whole[0]:.1f}{gap}" if whole else "")
        lines.append([name, f"{parameters:,}", file, *times, *scores])
    head = ["adapted layers", "parameters in MiniLM", "file, two blocks of 768", "step, float32", "step, bfloat16"]
    return table([*head, "mean of seven tasks, %", "of three"], lines)


def of_clipping(rows: list[Row], fair: list[Row]) -> list[str]:
    """Return the sentences on how gradients are clipped."""
    points = of_pairs(rows, fair)
    return [
        f"clipped at 1 each by its own norm, D C D gains {points['cdd-apart, query-value']}",
        f"not clipped {points['cdd-unclipped, query-value']}",
        f"LoRA r = 2, each by its own norm, {points['lora-apart, query-value']}",
    ]


def of_forms(rows: list[Row], fair: list[Row]) -> list[str]:
    """Return the sentences on the upper layers and on products of as many numbers."""
    points, found = of_pairs(rows, fair), results(fair, cases())
    c3a = Gap(found, ("goemotions", "banking77"), ("query-value", "c3a-corrected", 128), ours("query-value"))
    each = f"GoEmotions {c3a.of('goemotions')}, BANKING77 {c3a.of('banking77')}; {c3a.values.size} pairs"
    return [
        f"in the first feed-forward layers of the upper four blocks {points['cdd, upper-intermediate']}",
        f"C D C {points['product-cdc, query-value']}",
        f"D C with blocks of 192 {points['product-dc, query-value']}",
        f"C3A, block circulants alone, with blocks of 128 {signed(c3a.mean, 2)} ± {c3a.over_seeds:.2f} ({each})",
    ]


def of_the_guide(rows: list[Row], fair: list[Row], costs: str) -> list[str]:
    """Return what the guide says of the layers to adapt, and of clipping."""
    lost = over_seeds(gaps(rows, fair, next(arm for arm in ARMS if arm.method == "cdd-apart")))
    cost = f"which costs {lost.mean:.1f} ± {lost.half:.1f} points in trials"
    return [*places_table(results(fair, cases()), costs).splitlines(), cost]
