"""What README says of `fair_adapters.py`: a few sentences, and a table of the methods that are compared most."""

from __future__ import annotations

from _common import table
from _fair_plan import PROTOCOLS
from _fair_results import LABELS, TASKS, Difference, Result, averaged, lora_eight, minus, pick, signed

LAYERS = {"query-value": "query and value", "intermediate": "intermediate", "all-linear": "all linear layers"}
SHOWN = (("lora", 1), ("cdd-shared", 3), ("cdd", 3), ("lora", 8))
"""In each place, by their numbers of parameters."""
NAMES = {"cdd": "D C D", "cdd-shared": "D C D with one C"}
BESIDE = (
    ("query-value", "cdd", 3, "it is"),
    ("query-value", "lora", 1, "LoRA of rank 1 ({})"),
    ("intermediate", "cdd-shared", 3, "D C D in the intermediate layers, which share one C ({})"),
    ("intermediate", "cdd", 3, "D C D in the intermediate layers ({})"),
    ("all-linear", "cdd", 3, "D C D in all linear layers ({})"),
)
"""What is compared with LoRA of rank 8 on query and value in the mean of all tasks, with numbers of parameters."""


def readme_text(found: list[Result]) -> str:
    """Return where the usual CDD adapter and LoRA of rank 8 on the same layers differ."""
    level, apart = [], []
    for task in tasks(found):
        lora = lora_eight(found, task, "query-value")
        for ours in pick(found, task=task, places="query-value", method="cdd", size=3) if lora else ():
            d = minus(ours, lora)
            text = f"{abs(d.mean):.1f} ± {d.error:.1f} points {'ahead' if d.mean > 0 else 'behind'} on {TASKS[task]}"
            (apart if d.sure else level).append(text if d.sure else TASKS[task])
            sizes = ours.parameters, lora.parameters
    if not level + apart:
        return "a D C D adapter of an n x n layer has 3 n parameters, LoRA of rank r has 2 r n"
    parts = [f"does not differ surely from it on {joined(level)}"] if level else []
    parts += [f"is {joined(apart)}"] if apart else []
    text = (
        f"a D C D adapter of query and value has {sizes[0]:,} parameters, LoRA of rank 8 {sizes[1]:,}. D C D "
        f"{joined(parts)}"
    )
    means = averaged(found)
    lora = lora_eight(means, "mean", "query-value")
    compared = [(r, name) for *of, name in BESIDE if lora for r in _of(means, *of)]
    said = [f"{name.format(f'{r.parameters:,}')} {_from(minus(r, lora))}" for r, name in compared]
    return f"{text}. In the mean of the tasks {joined(said)}" if said else text


def _of(found: list[Result], places: str, method: str, size: int) -> list[Result]:
    return pick(found, places=places, method=method, size=size)


def _from(d: Difference) -> str:
    if not d.sure:
        return f"not surely different ({signed(d.mean)} ± {d.error:.1f})"
    return f"{abs(d.mean):.1f} ± {d.error:.1f} {'above' if d.mean > 0 else 'below'}"


def readme_table(found: list[Result]) -> str:
    """Return the scores of a few methods on all tasks, and what they mean."""
    lines = [_line(found, "query-value", "head", None, "head only")]
    for places, name in LAYERS.items():
        for method, size in SHOWN:
            label = NAMES.get(method, LABELS[method]).format(size)
            lines.append(_line(found, places, method, size, f"{label}, {name}"))
    text = (
        "Accuracies on test rows in per cent, for CoLA Matthews' correlations x 100: means of five runs with their "
        "standard errors; learning rates were chosen by the same number of trials for every method. * marks a sure "
        "difference from LoRA of rank 8 on the same layers and the same test rows (for the head alone, on query and "
        "value)."
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
