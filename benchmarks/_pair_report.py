"""The report of `adapter_pairs.py`: differences to the runs of `fair_adapters.py`, paired by seed."""

from __future__ import annotations

from math import sqrt
from textwrap import fill

import numpy as np
from _common import table
from _fair_plan import Case
from _fair_report import TASKS, Mean, Row, mean_of, processor_of, repeated, score
from _pair_plan import ARMS, Arm
from scipy.stats import t

LABELS = {
    "cdd": "D C D",
    "cdd-apart": "D C D, adapter and head each clipped at 1 by its own norm",
    "cdd-unclipped": "D C D, not clipped",
    "cdd-factors": "D C D, all clipped together at 1 by the norm of the factors' gradients",
    "lora-apart": "LoRA r = {}, adapter and head each clipped at 1 by its own norm",
    "product-cdc": "C D C",
    "product-dc": "D C, blocks of {}",
}
QUESTIONS = {
    "clipping": """**Clipping.** In the study above all gradients are clipped together at a norm of 1, as the Trainer of
        transformers does by default. Here are differences to that, at the rates that are best with it.""",
    "place": """**The upper layers.** D C D in the first feed-forward layers of the upper four of six blocks, where it
        has 13,824 numbers, minus D C D on query and value layers of all, where it has as many. The rates are the best
        ones in the first feed-forward layers of all blocks.""",
    "form": """**Products of as many numbers**, 1,152 for each query and value layer, minus D C D, at the rate that is
        best for D C D; of C D C on GoEmotions one trial of each of three rates chose it too. Block circulants alone,
        with blocks of 128, are C3A in the tables above.""",
}


def last_scores(rows: list[Row], case: Case) -> dict[int, float]:
    """Return the scores of the last runs of a case, by seed."""
    names = {name: str(value) for name, value in vars(case).items()}
    own = [row for row in rows if row["stage"] == "final" and all(row[name] == value for name, value in names.items())]
    return {int(row["seed"]): score(row) for row in own}


def gaps(rows: list[Row], fair: list[Row], arm: Arm) -> dict[str, np.ndarray]:
    """Return the differences of an arm to what it is compared with, by task, of the seeds that have been run."""
    found = {}
    for task in arm.rates:
        scores, others = last_scores(rows, arm.on(task)), last_scores([*fair, *rows], arm.baseline(task))
        seeds = sorted(scores.keys() & others.keys())
        if len(seeds) > 1:
            found[task] = np.array([scores[seed] - others[seed] for seed in seeds])
    return found


def over_seeds(found: dict[str, np.ndarray]) -> Mean:
    """Return the mean difference on these tasks, with the error that the seeds of each task give it."""
    means = [mean_of(values) for values in found.values()]
    error = sqrt(sum(mean.error**2 for mean in means)) / len(means)
    free = sum(len(values) - 1 for values in found.values())
    return Mean(sum(mean.mean for mean in means) / len(means), error, error * float(t.ppf(0.975, free)))


def interval(mean: Mean) -> str:
    """Return a difference in points with half of its interval of 95 %."""
    return f"{mean.mean:+.2f} ± {mean.half:.2f}".replace("-", "−")


def arm_table(rows: list[Row], fair: list[Row], question: str) -> str:
    """Return the table of the arms of a question."""
    lines = []
    for arm in ARMS:
        found = gaps(rows, fair, arm) if arm.question == question else {}
        if not found:
            continue
        cases = {tuple(map(str, vars(arm.on(task)).values())) for task in found}
        own = [row for row in rows if tuple(row[name] for name in vars(arm.on(""))) in cases]
        rates = {row["task"]: row["lr"] for row in own if row["stage"] == "final"}
        each = [f"{TASKS[task]} {interval(mean_of(values))} ({rates[task]})" for task, values in found.items()]
        tasks = np.array([values.mean() for values in found.values()])
        cells = [LABELS[arm.method].format(arm.size), f"{int(own[0]['parameters']):,}", ", ".join(each)]
        cells += [str(sum(map(len, found.values()))), interval(over_seeds(found))]
        lines.append([*cells, f"± {mean_of(tasks).half:.1f}" if len(tasks) > 2 else ""])
    head = ["trained", "numbers", "points, 95 % over seeds (rate)", "pairs", "mean, 95 % over seeds", "95 % over tasks"]
    return table(head, lines, left=3) if lines else ""


def page(rows: list[Row], fair: list[Row]) -> list[str]:
    """Return the parts of the section."""
    commits, processors = ({of(row) for row in rows} for of in (lambda row: row["commit"], processor_of))
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    parts = [
        f"""{len(rows)} runs, {hours:.1f} hours of one core of {", ".join(sorted(processors))}, by the code of
        {", ".join(sorted(commits))}, and by the protocol of the study above. {repeated(rows, fair)}"""
    ]
    for question, text in QUESTIONS.items():
        if made := arm_table(rows, fair, question):
            parts += [text, made]
    return [part if part.startswith("|") else fill(" ".join(part.split()), 118) for part in parts]
