"""What README says of `fair_adapters.py`: a few sentences, and a table of the methods that are compared most."""

from __future__ import annotations

from _common import table
from _fair_plan import PROTOCOLS
from _fair_results import LABELS, TASKS, Difference, Result, averaged, lora_eight, minus, pick, signed

LAYERS = {"query-value": "query and value", "intermediate": "intermediate.dense", "all-linear": "all linear layers"}
SHOWN = (("lora", 1), ("cdd-shared", 3), ("cdd", 3), ("lora", 2), ("lora", 8))
"""In each place, by their numbers of parameters."""
STATED = (
    ("all-linear", "cdd", 3, "D C D in all linear layers"),
    ("intermediate", "cdd-shared", 3, "D C D with one C for all `intermediate.dense`"),
    ("query-value", "cdd", 3, "D C D on query and value"),
    ("all-linear", "lora", 2, "LoRA of rank 2 in all linear layers"),
    ("all-linear", "lora", 8, "LoRA of rank 8 in all linear layers"),
)
"""What the sentence in README compares, and how it names each."""
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
NAMES = {"cdd": "D C D", "cdd-shared": "D C D with one C"}


def readme_text(found: list[Result]) -> str:
    """Return how far adapters are from LoRA of rank 8 on query and value, in the mean of all tasks."""
    means = averaged(found)
    lora = lora_eight(means, "mean", "query-value")
    stated = [
        (r, name) for places, method, size, name in STATED for r in pick(means, places=places, method=method, size=size)
    ]
    if lora is None or not stated:
        return "a D C D adapter of an n x n layer has 3 n parameters, LoRA of rank r has 2 r n"
    (first, name), *others = stated
    count = NUMBERS[len(tasks(found))]
    usual = f"LoRA of rank 8 on query and value ({lora.parameters:,})"
    beginning = f"in accuracy, in the mean of {count} tasks, {name} ({first.parameters:,} parameters)"
    beginning = f"{beginning} {_beside(minus(first, lora))}"
    rest = (f"{name} ({r.parameters:,}) {_beside(minus(r, lora))} it" for r, name in others)
    return "; ".join((f"{beginning} {usual}", *rest))


def _beside(d: Difference) -> str:
    if not d.sure:
        return f"is not surely different ({signed(d.mean)} ± {d.error:.1f} points) from"
    return f"is {abs(d.mean):.1f} ± {d.error:.1f} points {'above' if d.mean > 0 else 'below'}"


def readme_table(found: list[Result]) -> str:
    """Return the scores of a few methods on all tasks, and what they mean."""
    columns = tasks(found)
    everything = [*found, *averaged(found)]
    lines = [_line(everything, columns, "query-value", "head", None, "head only")]
    for places, name in LAYERS.items():
        for method, size in SHOWN:
            label = NAMES.get(method, LABELS[method]).format(size)
            lines.append(_line(everything, columns, places, method, size, f"{label}, {name}"))
    text = (
        "Accuracies on test rows in per cent, for CoLA Matthews' correlations x 100: means of five runs with their "
        "standard errors; learning rates were chosen by the same number of trials for every method. The last column "
        "has the mean minus that of LoRA of rank 8 on query and value. * marks sure differences, on these test rows, "
        "from LoRA of rank 8 on the same layers; in the last column, and for the head alone, on query and value: the "
        "interval of 95 % leaves out zero, not corrected for the number of comparisons. `intermediate.dense` is the "
        "first layer of each feed-forward network."
    )
    head = ("trained, and on which layers", "parameters", *(TASKS[task] for task in columns), "mean", "minus LoRA")
    return f"{text}\n\n{table(head, filter(None, lines))}"


def _line(found: list[Result], columns: list[str], places: str, method: str, size: int | None, label: str) -> list[str]:
    """Return the cells of a method, nothing if no task has it."""
    here = {r.case.task: r for r in pick(found, places=places, method=method, size=size)}
    if not here:
        return []
    cells = [label, f"{next(iter(here.values())).parameters:,}"]
    for task in (*columns, "mean"):
        cell = ""
        if task in here:
            result, other = here[task], lora_eight(found, task, places)
            sure = other not in {None, result} and minus(result, other).sure
            cell = f"{result.mean:.1f} ± {result.error:.1f}{'*' if sure else ''}"
        cells.append(cell)
    mean, usual = here.get("mean"), lora_eight(found, "mean", "query-value")
    return [*cells, str(minus(mean, usual)) if usual is not None and mean not in {None, usual} else ""]


def tasks(found: list[Result]) -> list[str]:
    """Return the tasks, those with other rows left out."""
    return [task for task in dict.fromkeys(r.case.task for r in found) if PROTOCOLS[task].data is None]
