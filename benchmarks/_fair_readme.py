"""What README says of `fair_adapters.py`: one sentence, and a table of the methods that are compared most."""

from __future__ import annotations

from _common import table
from _fair_plan import PROTOCOLS
from _fair_results import LABELS, TASKS, Result, lora_eight, minus, pick

PLACES = {"query-value": "query and value", "intermediate": "intermediate", "all-linear": "all linear layers"}
SHOWN = (("lora", 1), ("cdd", 3), ("lora", 8))
"""In each place, by their numbers of parameters."""


def readme_text(found: list[Result]) -> str:
    """Return on which tasks the usual CDD adapter is level with LoRA of rank 8 on the same layers, and where not."""
    parts: dict[str, list[str]] = {"level with": [], "ahead of": [], "behind": []}
    for task in tasks(found):
        lora = lora_eight(found, task, "query-value")
        for ours in pick(found, task=task, places="query-value", method="cdd", size=3) if lora else ():
            d = minus(ours, lora)
            parts[("ahead of" if d.mean > 0 else "behind") if d.sure else "level with"].append(TASKS[task])
    said = [(word, names) for word, names in parts.items() if names]
    if not said:
        return "a D C D adapter of an n x n layer has 3 n parameters, LoRA of rank r has 2 r n"
    lora_name = "LoRA of rank 8 with 73,728"
    verdicts = [f"{word} {'it' if i else lora_name} on {joined(names)}" for i, (word, names) in enumerate(said)]
    return f"a D C D adapter of query and value, with 13,824 parameters, is {joined(verdicts)}"


def readme_table(found: list[Result]) -> str:
    """Return the scores of a few methods on all tasks, and what they mean."""
    lines = [_line(found, "query-value", "head", None, "head only")]
    for places, name in PLACES.items():
        for method, size in SHOWN:
            label = "D C D" if method == "cdd" else LABELS[method].format(size)
            lines.append(_line(found, places, method, size, f"{label}, {name}"))
    text = (
        "Accuracies on test rows in per cent, for CoLA Matthews' correlations x 100: means of five runs with their "
        "standard errors; learning rates were chosen by the same number of trials for every method. * marks a sure "
        "difference from LoRA of rank 8 on the same layers (for the head alone, on query and value)."
    )
    head = ("trained, and on which layers", "parameters", *(TASKS[task] for task in tasks(found)))
    return f"{text}\n\n{table(head, filter(None, lines))}"


def _line(found: list[Result], places: str, method: str, size: int | None, label: str) -> list[str]:
    """Return the cells of a method, nothing if no task has it."""
    here = {r.case.task: r for r in pick(found, places=places, method=method, size=size)}
    if not here:
        return []
    cells = [label, f"{next(iter(here.values())).parameters:,}"]
    for task in tasks(found):
        cell = ""
        if task in here:
            result, other = here[task], lora_eight(found, task, places)
            sure = other not in {None, result} and minus(result, other).sure
            cell = f"{result.mean:.1f} ± {result.error:.1f}{'*' if sure else ''}"
        cells.append(cell)
    return cells


def tasks(found: list[Result]) -> list[str]:
    """Return the tasks, those with other rows left out."""
    return [task for task in dict.fromkeys(r.case.task for r in found) if PROTOCOLS[task].data is None]


def joined(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
