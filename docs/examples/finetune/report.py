"""Files, table and plot."""

from __future__ import annotations

import csv
import dataclasses
import json
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from finetune.data import ExampleError
from finetune.methods import METHODS
from finetune.train import Run, Settings

__all__ = ["comparison", "load_result", "print_table", "save_result", "summarise", "write_files"]

HEADINGS = {
    "task": "task",
    "method": "method",
    "learning rate": "rate",
    "accuracy, %": "accuracy\n%",
    "adapter parameters": "adapter\nparameters",
    "time per step, ms": "step\nms",
    "kept for backward, MB": "kept\nMB",
    "peak memory, MB": "peak\nMB",
    "adapter file, kB": "file\nkB",
}
"""Of the table in `results.md`, and in a terminal."""


def _label(result: dict[str, Any]) -> str:
    return METHODS[result["method"]].label.format(result["size"])


def load_result(folder: Path, run: Run, settings: Settings) -> dict[str, Any] | None:
    """Return the result of a run that is done, or None. A file of other settings is an error."""
    path = folder / "runs" / f"{run.name}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ExampleError(f"{path} is damaged ({error}); delete it to train anew") from error
    for name, value in dataclasses.asdict(settings).items():
        if (other := result["settings"].get(name)) != value:
            raise ExampleError(f"{path} has {name} = {other}, not {value}: choose another --out")
    return result


def save_result(folder: Path, run: Run, settings: Settings, result: dict[str, Any]) -> dict[str, Any]:
    """Write the result of one run, whole or not at all."""
    result = {**dataclasses.asdict(run), **result, "settings": dataclasses.asdict(settings)}
    path = folder / "runs" / f"{run.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return result


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each task and method, the most accurate first: means over the seeds, with standard errors.

    With one seed the error is that of the share of right test rows.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["task"], result["method"]), []).append(result)
    rows = []
    for (task, method), group in groups.items():
        accuracies = [result["accuracy"] for result in group]
        row = {"task": task, "method": method, "lr": group[0]["lr"], "rows": group[0]["rows"], "seeds": len(group)}
        share = mean(accuracies)
        row |= {"accuracy": share, "accuracy_error": _error(accuracies, group[0]["tested"])}
        for name in ("seconds_per_step", "bytes_for_backward", "peak_bytes", "seconds"):
            values = [result[name] for result in group]
            row[name] = None if None in values else mean(values)
        rows.append(row | {name: group[0][name] for name in ("size", "adapter_parameters", "adapter_file_bytes")})
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    return sorted(rows, key=lambda row: (tasks.index(row["task"]), -row["accuracy"]))


def _over_seeds(values: list[float]) -> float:
    """Return the standard error of a mean."""
    return stdev(values) / sqrt(len(values))


def _error(accuracies: list[float], tested: int) -> float:
    if len(accuracies) > 1:
        return _over_seeds(accuracies)
    return sqrt(accuracies[0] * (1 - accuracies[0]) / tested)


def comparison(results: list[dict[str, Any]]) -> list[str]:
    """Return a line for each task: how far CDD is from the other methods, and with how many of their parameters.

    A difference below two standard errors is called not sure. The standard error is that of the differences seed by
    seed; with one seed that of independent test rows.
    """
    lines = []
    for task in dict.fromkeys(result["task"] for result in results):
        here: dict[str, dict[int, dict[str, Any]]] = {}
        for result in results:
            if result["task"] == task:
                here.setdefault(result["method"], {})[result["seed"]] = result
        name = next((method for method in ("cdd", "cdd-peft") if method in here), None)
        if name is None:
            continue
        ours = here.pop(name)
        if parts := [_beside(ours, other) for other in here.values()]:
            lines.append(f"{task}: {METHODS[name].label} is {'; '.join(parts)}.")
    return lines


def _beside(ours: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> str:
    """Compare the results of two methods by their seeds."""
    pairs = [(ours[seed], other[seed]) for seed in ours]
    differences = [a["accuracy"] - b["accuracy"] for a, b in pairs]
    if len(pairs) > 1:
        error = _over_seeds(differences)
    else:
        error = sqrt(sum(_error([run["accuracy"]], run["tested"]) ** 2 for run in pairs[0]))
    points = 100 * mean(differences)
    a, b = pairs[0]
    text = f"{abs(points):.1f} ± {100 * error:.1f} points {'above' if points >= 0 else 'below'} {_label(b)}"
    if b["adapter_parameters"]:
        text += f" with {a['adapter_parameters'] / b['adapter_parameters']:.2g} of its parameters"
    return text if abs(points) >= 200 * error else f"{text}, no sure difference"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["task"],
        _label(row),
        f"{row['lr']:g}",
        f"{100 * row['accuracy']:.2f} ± {100 * row['accuracy_error']:.2f}",
        f"{row['adapter_parameters']:,}",
        f"{1e3 * row['seconds_per_step']:.1f}",
        f"{row['bytes_for_backward'] / 1e6:.1f}",
        "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
        f"{row['adapter_file_bytes'] / 1e3:,.0f}",
    )


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Print one table for each task."""
    for task in dict.fromkeys(row["task"] for row in rows):
        table = Table(title=task, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for i, heading in enumerate(list(HEADINGS.values())[1:]):
            table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
        for row in rows:
            if row["task"] == task:
                table.add_row(*_cells(row)[1:])
        console.print(table)


def write_files(rows: list[dict[str, Any]], note: str, folder: Path) -> None:
    """Write `results.csv`, the table as `results.md`, and `accuracy.png`."""
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [HEADINGS, ("---", "---", *["---:"] * (len(HEADINGS) - 2)), *map(_cells, rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (folder / "results.md").write_text(f"{note}\n\n{table}", encoding="utf-8")
    _plot(rows, folder / "accuracy.png")


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against adapter parameters, one panel to a task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    largest = max(row["adapter_parameters"] for row in rows)
    figure = Figure(figsize=(5 * len(tasks) + 1.6, 4), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        here = [row for row in rows if row["task"] == task]
        for row in here:
            # Side by side where there are as many parameters.
            same = [other["method"] for other in here if other["adapter_parameters"] == row["adapter_parameters"]]
            aside = (same.index(row["method"]) - (len(same) - 1) / 2) * 9 / 72
            place = panel.transData + ScaledTranslation(aside, 0, figure.dpi_scale_trans)
            panel.errorbar(
                row["adapter_parameters"],
                100 * row["accuracy"],
                yerr=100 * row["accuracy_error"],
                fmt="D" if row["method"].startswith("cdd") else "o",
                color=f"C{methods.index(row['method'])}",
                capsize=3,
                transform=place,
                label=_label(row),
            )
        panel.set_xscale("symlog", linthresh=1000)  # the head alone has none
        panel.set_xticks([0, *(10**k for k in range(3, max(4, len(str(largest)) + 1)))])
        panel.set(xlabel="adapter parameters", xlim=(-400, 4 * largest + 1000), ylabel="test accuracy, %", title=task)
        ends = [100 * (row["accuracy"] + sign * row["accuracy_error"]) for row in here for sign in (-1, 1)]
        margin = 0.1 * (max(ends) - min(ends)) or 1.0
        panel.set_ylim(min(ends) - margin, max(ends) + margin)  # shifted points are left out of the automatic limits
        panel.grid(alpha=0.3)
    labels = {_label(row): None for row in rows}
    for panel in panels:
        labels |= {text: mark for mark, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels, loc="outside center right", frameon=False)
    figure.savefig(path, dpi=150)
