"""The report of `adapter_pairs.py`: differences to D C D on query and value layers, paired by seed."""

from __future__ import annotations

from math import sqrt
from textwrap import fill

import numpy as np
from _common import table
from _fair_plan import Case
from _fair_report import TASKS, Mean, Row, mean_of, processor_of, score
from _pair_plan import ARMS, OURS, Arm
from scipy.stats import t

LABELS = {
    "cdd": "D C D",
    "cdd-apart": "adapter and head clipped at 1, each by its own norm",
    "cdd-factors": "all clipped together at 1, by the norm that the gradients of the factors have",
    "cdd-unclipped": "not clipped",
    "product-cdc": "C D C",
    "product-dc": "D C, blocks of {}",
    "product-c": "C, blocks of {}",
}
QUESTIONS = {
    "clipping": """**Clipping.** As it is, all gradients are clipped together at a norm of 1, as the Trainer of
        transformers does by default. All have the best rate of that, 0.1 of the factors.""",
    "place": """**The upper layers.** D C D in the first feed-forward layers of the upper four of six blocks, where it
        has 13,824 numbers as on query and value layers.""",
    "form": """**Products of as many numbers.** On query and value layers, with 1,152 numbers a layer.""",
}


def scores_of(rows: list[Row], arm: Arm) -> dict[str, dict[int, float]]:
    """Return the scores of the last runs of an arm, by task and seed."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        case = Case(row["task"], row["places"], row["method"], int(row["size"]))
        if row["stage"] == "final" and row["task"] in arm.tasks and case == arm.on(row["task"]):
            found.setdefault(row["task"], {})[int(row["seed"])] = score(row)
    return found


def gaps(rows: list[Row], arm: Arm) -> dict[str, np.ndarray]:
    """Return the differences of an arm to D C D as it is, by task, of the seeds that both have."""
    ours, others = scores_of(rows, OURS), scores_of(rows, arm)
    found = {}
    for task, scores in others.items():
        seeds = sorted(scores.keys() & ours.get(task, {}).keys())
        if len(seeds) > 1:
            found[task] = np.array([scores[seed] - ours[task][seed] for seed in seeds])
    return found


def over_tasks(found: dict[str, np.ndarray]) -> Mean:
    """Return the mean difference of these tasks, with the error that the seeds of each task give it."""
    means = [mean_of(values) for values in found.values()]
    error = sqrt(sum(mean.error**2 for mean in means)) / len(means)
    free = sum(len(values) - 1 for values in found.values())
    return Mean(sum(mean.mean for mean in means) / len(means), error, error * float(t.ppf(0.975, free)))


def interval(mean: Mean) -> str:
    """Return a difference in points with half of its interval of 95 %."""
    return f"{mean.mean:+.2f} ± {mean.half:.2f}".replace("-", "−")


def arm_table(rows: list[Row], question: str) -> str:
    """Return the table of the arms of a question."""
    lines = []
    for arm in ARMS:
        found = gaps(rows, arm) if arm is not OURS and arm.question == question else {}
        if found:
            own = [
                row
                for row in rows
                if (row["method"], row["places"], row["size"]) == (arm.method, arm.places, str(arm.size))
            ]
            rates = {row["task"]: row["lr"] for row in own if row["stage"] == "final"}
            label = LABELS[arm.method].format(arm.size)
            each = ", ".join(
                f"{TASKS[task]} {interval(mean_of(values))} ({rates[task]})" for task, values in found.items()
            )
            pairs, tasks = sum(map(len, found.values())), np.array([values.mean() for values in found.values()])
            lines.append([
                label, f"{int(own[0]['parameters']):,}", each, pairs, interval(over_tasks(found)),
                f"± {mean_of(tasks).half:.2f}" if len(tasks) > 2 else "",
            ])  # fmt: skip
    head = [
        "minus D C D as it is",
        "numbers",
        "points (rate), ± half of 95 % over seeds",
        "pairs",
        "mean",
        "95 % over tasks",
    ]
    return table(head, lines, left=3) if lines else ""


def page(rows: list[Row]) -> list[str]:
    """Return the parts of the section."""
    commits, processors = ({of(row) for row in rows} for of in (lambda row: row["commit"], processor_of))
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    parts = [
        f"""{len(rows)} runs, {hours:.1f} hours of one core of {", ".join(sorted(processors))}, by the code of commit
        {", ".join(sorted(commits))}, in the protocol of the study above. Where several rates were tried, one trial of
        each on held-back rows chose."""
    ]
    for question, text in QUESTIONS.items():
        if made := arm_table(rows, question):
            parts += [text, made]
    return [part if part.startswith("|") else fill(" ".join(part.split()), 118) for part in parts]
