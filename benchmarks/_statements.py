"""What README and the page on reproduction say of the accuracy of adapters, computed from the tables of runs.

A test finds each of these sentences and tables in the pages. `python benchmarks/fair_adapters.py --report` prints them
after new runs, to copy what has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from _common import table
from _fair_plan import COMPARED_ON, PROTOCOLS, RATES, Case, cases, compared
from _fair_report import LABELS, TASKS, Result, Row, mean_of, pick, results, trial_scores
from _few_plan import FOUR_BITS, SIZED, Sized
from _few_plan import cases as few_cases
from _few_report import CDD, of_cdd, on_common_tasks, on_frontier, standings
from _few_report import label as few_label
from _generation_plan import CASES
from _generation_plan import PROTOCOLS as PROTOCOLS_OF_DATES
from _generation_report import last_runs, values
from _pair_plan import ARMS
from _pair_report import gaps, interval, last_scores, over_seeds

FOUR = ("goemotions", "sst2", "banking77", "cola")
"""The tasks on which all methods on query and value layers were run on earlier days."""

OURS = ("cdd", 3)
HELD_OUT = tuple(task for task, protocol in PROTOCOLS.items() if protocol.held_out)
PLACES = {"intermediate": "first feed-forward", "query-value": "query, value", "all-linear": "all linear"}
ORDINALS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
WORDS = dict(enumerate(("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")))


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign, none for zero, and the minus of print."""
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


def power(rate: float) -> str:
    """Return a rate as a digit and a power of ten."""
    return f"{rate:.0e}".replace("e-0", "e-")


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
    def both(self) -> str:
        """The mean with both intervals."""
        return f"{signed(self.mean)} (± {self.over_seeds:.1f} over the seeds, ± {self.over_tasks:.1f} over the tasks)"

    @property
    def each(self) -> str:
        """The mean of each task."""
        return ", ".join(f"{TASKS[task]} {self.of(task)}" for task in self.tasks)


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


def whole_tasks(found: list[Result]) -> list[str]:
    """Return the tasks on which all that the main sentences compare has been run."""
    done = {r.case for r in found}
    return [task for task in COMPARED_ON if all(case in done for case in compared() if case.task == task)]


def without_cola(tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if task != "cola"]


def summary(found: list[Result]) -> str:
    """Return the table of D C D beside LoRA on the same layers."""
    tasks, lines = whole_tasks(found), []
    for place in ("intermediate", "query-value"):
        cells = [PLACES[place]]
        for method in (ours(place), lora(place, 2), lora(place, 8)):
            mean, parameters = mean_score(found, tasks, method)
            cells.append(f"{mean:.1f} ({parameters:,})")
        for of in (tasks, without_cola(tasks)):
            cells += [str(Gap(found, of, ours(place), lora(place, rank))) for rank in (2, 8)]
        lines.append(cells)
    head = ["adapted layers", "D C D (parameters)", "LoRA r = 2", "r = 8", "D C D minus r = 2", "minus r = 8"]
    return table([*head, "without CoLA: minus r = 2", "minus r = 8"], lines)


def told_apart(*gaps: Gap) -> str:
    """Return whether differences leave out zero, by their intervals over tasks."""
    apart = sum(abs(gap.mean) > gap.over_tasks for gap in gaps)
    return "told apart" if apart == len(gaps) else "not told apart" if apart == 0 else "told apart in one place only"


def where(apart: dict[str, bool]) -> str:
    """Return in which of the two places something holds."""
    names = {"intermediate": "in the first feed-forward layers alone", "query-value": "on query and value alone"}
    places = [names[place] for place, holds in apart.items() if holds]
    return places[0] if len(places) == 1 else "in both places" if places else "in neither place"


def of_fair_runs(rows: list[Row]) -> list[str]:
    """Return the sentences on the runs of `fair_adapters.py` that name their code."""
    found = results(rows, compared())
    tasks = whole_tasks(found)
    last = [row for row in rows if row["stage"] == "final"]
    hours = sum(float(row["seconds"]) for row in last) / 3600
    feed, query = "intermediate", "query-value"
    two, eight, three_tasks = (
        {place: Gap(found, of, ours(place), lora(place, rank)) for place in (feed, query)}
        for of, rank in ((tasks, 2), (tasks, 8), (without_cola(tasks), 2))
    )
    ratios = [gap.parameters[1] / gap.parameters[0] for gap in eight.values()]
    places = Gap(found, tasks, ours(feed), ours(query))
    across = Gap(found, tasks, ours(feed), lora(query, 8))
    return [
        f"""There are {len(last)} last runs, {hours:.1f} hours of one core, all by the code of
        {", ".join(sorted({row["commit"] for row in rows}))} on one processor""",
        f"""{len(rows) - len(last)} trials of LoRA r = 8 on tasks held out are of this code too""",
        f"""**D C D and LoRA of its size are {told_apart(*two.values())}.** D C D minus LoRA r = 2 is
        {two[feed].both} in the first feed-forward layers and {two[query].both} on query and value; without CoLA
        {three_tasks[feed].both} and {three_tasks[query].both}.""",
        f"""**LoRA r = 8** has {min(ratios):.1f} to {max(ratios):.1f} times the parameters. The intervals over tasks
        leave D C D behind it {where({place: gap.mean < -gap.over_tasks for place, gap in eight.items()})}, those over
        the seeds, of these tasks, {where({place: gap.mean < -gap.over_seeds for place, gap in eight.items()})}. D C D
        minus LoRA r = 8 is {eight[query].both} on query and value and {eight[feed].both} in the first feed-forward
        layers.""",
        f"""**The place is {told_apart(places)}.** D C D in the first feed-forward layers minus D C D on query and value
        is {places.both}: {places.each}.""",
        f"""Minus LoRA r = 8 on query and value, which has {across.parameters[1] / across.parameters[0]:.1f} times its
        parameters, it is {across.both}: {across.each}.""",
        of_held_out(found, [task for task in tasks if task in HELD_OUT]),
        claimed(two.values(), eight.values()),
        f"""A run with D C D in bfloat16 takes {two[query].seconds:.2f} times as long as with LoRA r = 2 and
        {eight[query].seconds:.2f} times as long as with r = 8 on query and value, {two[feed].seconds:.2f} and
        {eight[feed].seconds:.2f} times in the first feed-forward layers.""",
    ]


def of_all_linear(rows: list[Row]) -> list[str]:
    """Return the sentence on the runs of `fair_adapters.py` in all linear layers, with rates by the same rule."""
    found, tasks = results(rows, cases()), FOUR[:3]
    two, eight = (Gap(found, tasks, ours("all-linear"), lora("all-linear", rank)) for rank in (2, 8))
    return [
        f"""D C D minus LoRA r = 2 is {two.both}: {two.each}. Minus r = 8, which has
        {eight.parameters[1] / eight.parameters[0]:.1f} times its parameters, it is {eight.both}: {eight.each}."""
    ]


def claimed(two: Iterable[Gap], eight: Iterable[Gap]) -> str:
    """Return what the table of the paper's claims says of accuracy, by the differences to LoRA r = 2 and r = 8."""
    by_no_more = ", by no more than tasks differ" if told_apart(*eight) == "not told apart" else ""
    return f"{told_apart(*two)} from LoRA of its size, and lower scores than rank 8{by_no_more}."


def of_held_out(found: list[Result], tasks: Sequence[str]) -> str:
    """Return the differences on the tasks of which nothing but rates was ever chosen, each for itself."""
    parts = []
    for place, name in (("intermediate", "in the first feed-forward layers"), ("query-value", "on query and value")):
        two, eight = (Gap(found, tasks, ours(place), lora(place, rank)) for rank in (2, 8))
        parts.append(f"{name} it is {two.each}, and minus r = 8 {eight.each}")
    return f"D C D minus LoRA r = 2: {'; '.join(parts)}."


def of_earlier_runs(rows: list[Row]) -> list[str]:
    """Return the sentences on the runs of earlier days, which do not name their code."""
    found = results(rows, cases())
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    held_out = Gap(found, HELD_OUT, ours("all-linear"), lora("all-linear", 2))
    everywhere = Gap(found, HELD_OUT, ours("all-linear"), ours("intermediate"))
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
        f"{len(rows):,} runs, {hours:.0f} hours of one core",
        f"""D C D minus LoRA r = 2 is {held_out}. D C D has {everywhere.parameters[0] / everywhere.parameters[1]:.1f}
        times the parameters of the first feed-forward layers alone, a run takes {everywhere.seconds:.1f} times as long,
        and its score is higher by {everywhere.both}.""",
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


def gains_at_rates(rows: list[Row]) -> dict[tuple[str, str], float]:
    """Return by how many times as much as LoRA r = 8 D C D lowers the loss of the head, by layers and rate."""
    losses = {(row["layers"], row["adapter"], row["lr"]): float(row["loss"]) for row in rows}
    head = {lr: loss for (_, adapter, lr), loss in losses.items() if adapter == "head alone"}
    return {
        (layers, lr): (head[lr] - losses[layers, "CDD", lr]) / (head[lr] - loss)
        for (layers, adapter, lr), loss in losses.items()
        if adapter == "LoRA r = 8"
    }


def of_learning_rates(rows: list[Row]) -> list[str]:
    """Return the sentence on the runs of `learning_rates.py`."""
    gains, rates = gains_at_rates(rows).values(), [float(row["lr"]) for row in rows]
    return [
        f"""On BANKING77 all of LoRA's rates from {power(min(rates))} to {power(max(rates))} work for D C D: it lowers
        the loss of the head alone by {min(gains):.2f} to {max(gains):.2f} times as much as LoRA r = 8 does at the same
        rate"""
    ]


def of_few_parameters(rows: list[Row]) -> list[str]:
    """Return the sentences on the runs of `few_parameters.py`."""
    found = results(rows, few_cases())
    tasks, methods = standings(found)
    cdd = of_cdd(methods)
    cola = tasks.index("cola")
    without = [replace(m, scores=np.delete(m.scores, cola, axis=0)) for m in methods]
    cdd_without = of_cdd(without)
    ranked = sorted((m for m in methods if m is not cdd), key=lambda m: -m.mean)
    place = 1 + sum(m.mean > cdd.mean for m in ranked)
    of_seeds, of_tasks = zip(*(m.minus(cdd) for m in ranked), strict=True)
    told_apart = sum(abs(over_tasks.mean) > over_tasks.half for over_tasks in of_tasks)
    of_ranked = list(zip(ranked, of_seeds, strict=True))
    ahead = [f"{few_label(m.sized)} {signed(gap.mean)}" for m, gap in of_ranked if gap.mean > gap.half]
    behind = [f"{few_label(m.sized)} {signed(gap.mean)}" for m, gap in of_ranked if gap.mean < -gap.half]
    most = max(abs(m.mean - cdd_without.mean) for m in without)
    correlations = [m.scores[cola].mean() for m in methods]
    shares = [(m.scores[cola] - cdd.scores[cola]).mean() / len(tasks) / m.minus(cdd)[0].mean for m in ranked]
    frontiers = ("; ".join(named(m.sized) for m in on_frontier(group)) for group in (methods, without))
    return [
        f"""D C D is {ORDINALS[place]} of {len(methods)}, with a mean of {cdd.mean:.1f} % and {cdd.parameters:,}
        parameters.""",
        f"""Over the tasks the intervals are {min(g.half for g in of_tasks):.1f} to {max(g.half for g in of_tasks):.1f}
        points, and {WORDS[told_apart]} method is told apart from D C D. By more than their intervals over the seeds, on
        these tasks alone, {WORDS[len(ahead)]} are ahead of D C D ({"; ".join(ahead)} points) and {WORDS[len(behind)]}
        behind ({"; ".join(behind)}); of {len(ranked)} differences one in twenty would be so by chance.""",
        f"""All methods learn little there, with Matthews' correlations of {min(correlations):.0f} to
        {max(correlations):.0f} %, and it makes up half or more of {sum(share >= 0.5 for share in shares)} of these
        {len(ranked)} differences. Without it the mean of D C D is {cdd_without.mean:.1f} %, and all are within
        {most:.1f} points of it.""",
        "of mean score and parameters has {}; without CoLA it has {}.".format(*frontiers),
        f"The best rate was the last that was tried for {at_the_edge(rows, found)}",
        of_four_bits(rows),
    ]


def of_four_bits(rows: list[Row]) -> str:
    """Return what four bits a number change."""
    packed, whole = on_common_tasks(results(rows, few_cases()), (FOUR_BITS, CDD))[1]
    gap = packed.minus(whole)[0]
    return f"""In four bits a number D C D is right for {packed.mean:.1f} % of GoEmotions, where it is for
        {whole.mean:.1f} % as trained ({signed(gap.mean, 2)} ± {gap.half:.2f} points over the seeds"""


def of_images(rows: list[Row]) -> list[str]:
    """Return what is said of the runs of `image_adapters.py`, of each change at the best rate on rows held back."""
    of_change: dict[tuple[str, str], dict[float, list[Row]]] = {}
    for row in rows:
        of_change.setdefault((row["change"], row["task"]), {}).setdefault(float(row["lr"]), []).append(row)
    texts, counts = {}, {}
    for (change, task), of_rate in of_change.items():
        best = max(of_rate.values(), key=lambda runs: fmean(float(row["held_back"]) for row in runs))
        accuracies = 100 * np.array([float(row["accuracy"]) for row in best])
        texts[change, task] = f"{accuracies.mean():.1f} ± {accuracies.std(ddof=1):.1f}"
        counts[change] = int(best[0]["parameters"])
    ours, other = (
        f"with {counts[change]:,} parameters has an accuracy of {texts[change, 'new classes']} and "
        f"{texts[change, 'turned']} %"
        for change in ("CDDConv", "LoRA r = 1")
    )
    return [f"`CDDConv` {ours}, and LoRA r = 1 {other}"]


def named(sized: Sized) -> str:
    """Return the name of a method with few parameters, as the page has it."""
    return "D C D" if sized is CDD else few_label(sized)


def at_the_edge(rows: list[Row], found: list[Result]) -> str:
    """Return on how many tasks the trials of a method chose the largest rate that was tried, after one rate further."""
    trials, counts = trial_scores(rows), Counter()
    for r in found:
        tried = trials[r.case]
        sized = next((s for s in SIZED if s.on(r.case.task) == r.case), None)
        if sized is not None and len(tried) > 4 and float(r.lr) == max(tried):
            counts[few_label(sized)] += 1
    return ", ".join(f"{name} on {WORDS[count]}" for name, count in counts.most_common())


def of_generation(rows: list[Row]) -> list[str]:
    """Return the lines of the table of the runs of `generation.py`, and the sentence on their times."""
    found = {task: last_runs(rows, CASES, protocol) for task, protocol in PROTOCOLS_OF_DATES.items()}
    runs = {(case.task, case.method, case.size): own for of in found.values() for case, own in of.items()}
    dates = {task: protocol.rows for task, protocol in PROTOCOLS_OF_DATES.items()}
    whole, lines = next(iter(dates)), []
    right = {key: mean_of(values(own, "exact")) for key, own in runs.items()}
    seconds = {key: float(np.mean([float(row["seconds"]) for row in own])) for key, own in runs.items()}
    sized = sorted({key[1:] for key in runs}, key=lambda of: int(runs[whole, *of][0]["parameters"]))
    for of in sized:
        cells = ["D C D" if of == OURS else LABELS[of[0]].format(of[1]), f"{int(runs[whole, *of][0]['parameters']):,}"]
        for task in dates:
            own, other = runs[task, *of], runs[task, *OURS]
            gap = mean_of(values(own, "exact") - values(other, "exact"))
            minus = "" if of == OURS else f"{signed(gap.mean)} ± {gap.half:.1f}"
            cells += [f"{right[task, *of].mean:.1f} ± {right[task, *of].half:.1f}", minus]
        lines.append([*cells, f"{seconds[whole, *of]:.0f}"])
    head = ["adapted by", "parameters"]
    head += [text for count in dates.values() for text in (f"right, %, {count:,} dates", "minus D C D")]
    times = [seconds[task, *OURS] / seconds[task, "lora", rank] for task in dates for rank in (1, 2, 8)]
    return [
        *table([*head, f"seconds, {dates[whole]:,} dates"], lines).splitlines(),
        f"a run takes {min(times):.1f} to {max(times):.1f} times as long as with LoRA",
    ]


def of_readme(rows: list[Row]) -> list[str]:
    """Return what README says."""
    found = results(rows, compared())
    tasks = whole_tasks(found)
    two, eight = (
        [Gap(found, tasks, ours(place), lora(place, rank)) for place in ("intermediate", "query-value")]
        for rank in (2, 8)
    )
    level = "level with" if told_apart(*two) == "not told apart" else "not level with"
    behind = sorted(-gap.mean for gap in eight)
    methods = (ours("intermediate"), lora("intermediate", 2), lora("intermediate", 8))
    means = " | ".join(f"{mean_score(found, tasks, method)[0]:.1f}" for method in methods)
    return [
        f"""classifying text, it is {level} LoRA of rank two, the nearest in size, and {behind[0]:.1f} to
        {behind[1]:.1f} points below rank eight""",
        f"| mean score of {WORDS[len(tasks)]} tasks, these layers, in % | {means} |",
    ]


def of_pairs(rows: list[Row], fair: list[Row]) -> dict[str, str]:
    """Return what each arm of `adapter_pairs.py` changes, in points, by its method and places."""
    found = {}
    for arm in ARMS:
        of_tasks = gaps(rows, fair, arm)
        if of_tasks:
            mean, pairs = over_seeds(of_tasks), sum(map(len, of_tasks.values()))
            found[f"{arm.method}, {arm.places}"] = f"{signed(mean.mean, 2)} ± {mean.half:.2f} ({pairs} pairs)"
    return found


def places_table(named: list[Row], earlier: list[Row], costs: str) -> str:
    """Return the guide's table of the layers to choose from, with times and files from the page of costs."""
    found, before, lines = results(named, compared()), results(earlier, cases()), []
    tasks = whole_tasks(found)
    names = {"query-value": "query and value", "intermediate": "first feed-forward", "all-linear": "all linear"}
    for place, name in names.items():
        times, file = [], ""
        for precision in ("float32", "bfloat16"):
            section = costs.partition(f"## Places, {precision}\n")[2].partition("\n## ")[0]
            line = next(line for line in section.splitlines() if line.startswith(f"| {name} |"))
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            times.append(f"{cells[6]}, {cells[5]}")
            file = cells[1].partition("(")[2].rstrip(")")
        parameters = mean_score(before, HELD_OUT, ours(place))[1]
        scores = []
        for runs, group in ((found, tasks), (before, HELD_OUT)):
            whole = mean_score(runs, group, ours(place))
            other = place != "query-value" and whole
            gap = f" ({Gap(runs, group, ours(place), ours('query-value'))})" if other else ""
            scores.append(f"{whole[0]:.1f}{gap}" if whole else "")
        lines.append([name, f"{parameters:,}", file, *times, *scores])
    head = ["adapted layers", "parameters in MiniLM", "file, two blocks of 768", "step, float32", "step, bfloat16"]
    return table([*head, f"mean of {WORDS[len(tasks)]} tasks, %", "of three held out, earlier"], lines)


def of_clipping(rows: list[Row], fair: list[Row]) -> list[str]:
    """Return the sentences on how gradients are clipped."""
    points = of_pairs(rows, fair)

    def halves(method: str) -> tuple[str, str]:
        """Return the gain with the first five seeds, whose baselines others share, and with those that followed."""
        found = gaps(rows, fair, next(arm for arm in ARMS if arm.method == method))
        parts = ({task: values[seeds] for task, values in found.items()} for seeds in (slice(5), slice(5, None)))
        first, second = (interval(over_seeds(part)) for part in parts)
        return first, second

    apart, factors = halves("cdd-apart"), halves("cdd-factors")
    return [
        f"clipped at 1 each by its own norm, D C D gains {points['cdd-apart, query-value']}",
        f"not clipped {points['cdd-unclipped, query-value']}",
        f"all together at 1 by the norm that the gradients of the factors have {points['cdd-factors, query-value']}",
        f"LoRA r = 2, each by its own norm, {points['lora-apart, query-value']}",
        f"""The first five seeds alone gave {apart[0]} for clipping apart and {factors[0]} by the norm of the factors'
        gradients, and the seeds that followed {apart[1]} and {factors[1]}""",
    ]


def of_tried_clipping(rows: list[Row], fair: list[Row]) -> list[str]:
    """Return what the list of trials says of ways to clip, beside clipping adapter and head apart."""
    points, arms = of_pairs(rows, fair), {arm.method: arm for arm in ARMS if arm.question == "clipping"}

    def beside_apart(method: str) -> str:
        found = {}
        for task in arms[method].rates:
            scores, others = (last_scores(rows, arms[name].on(task)) for name in (method, "cdd-apart"))
            found[task] = np.array([scores[seed] - others[seed] for seed in sorted(scores.keys() & others.keys())])
        return interval(over_seeds(found))

    return [
        f"where adapter and head are clipped apart {points['cdd-apart, query-value']}",
        f"""by the norm of the factors' gradients, {points["cdd-factors, query-value"]}, which is
        {beside_apart("cdd-factors")} beside clipping apart in the same pairs""",
        f"""not clipping at all {points["cdd-unclipped, query-value"]}, which is {beside_apart("cdd-unclipped")} beside
        it""",
    ]


def of_forms(rows: list[Row], fair: list[Row]) -> list[str]:
    """Return the sentences on the upper layers and on products of as many numbers."""
    points, found = of_pairs(rows, fair), results(fair, cases())
    c3a = Gap(found, ("goemotions", "banking77"), ("query-value", "c3a-corrected", 128), ours("query-value"))
    return [
        f"in the first feed-forward layers of the upper four blocks {points['cdd, upper-intermediate']}",
        f"C D C {points['product-cdc, query-value']}",
        f"D C with blocks of 192 {points['product-dc, query-value']}",
        f"""C3A, block circulants alone, with blocks of 128 {signed(c3a.mean, 2)} ± {c3a.over_seeds:.2f}
        ({c3a.values.size} pairs)""",
    ]


def of_the_guide(rows: list[Row], named: list[Row], earlier: list[Row], costs: str) -> list[str]:
    """Return what the guide says of the layers to adapt, and of clipping."""
    lost = over_seeds(gaps(rows, named, next(arm for arm in ARMS if arm.method == "cdd-apart")))
    cost = f"which costs {lost.mean:.1f} ± {lost.half:.1f} points in trials"
    return [*places_table(named, earlier, costs).splitlines(), cost]
