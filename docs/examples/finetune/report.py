"""Files, table and plot."""

from __future__ import annotations

import csv
import dataclasses
import json
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
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
    if "losses" not in result:
        raise ExampleError(f"{path} is of an earlier revision, without the losses: choose another --out")
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


def write_files(rows: list[dict[str, Any]], results: list[dict[str, Any]], note: str, folder: Path) -> None:
    """Write `results.csv`, the table as `results.md`, and `learning.png`."""
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [HEADINGS, ("---", "---", *["---:"] * (len(HEADINGS) - 2)), *map(_cells, rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (folder / "results.md").write_text(f"{note}\n\n{table}", encoding="utf-8")
    _plot(rows, results, folder / "learning.png")


def _plot(rows: list[dict[str, Any]], results: list[dict[str, Any]], path: Path) -> None:
    """Draw the learning curves of all runs, and their accuracies beside them, one line of panels to a task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = sorted({row["method"] for row in rows}, key=list(METHODS).index)
    colors = {method: f"C{i}" for i, method in enumerate(methods)}
    figure = Figure(figsize=(10, 4 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), 2, squeeze=False)
    for (curves, accuracies), task in zip(panels, tasks, strict=True):
        here = sorted((row for row in rows if row["task"] == task), key=lambda row: methods.index(row["method"]))
        for position, row in enumerate(here):
            color = colors[row["method"]]
            group = [result for result in results if (result["task"], result["method"]) == (task, row["method"])]
            smooth = np.array([_smoothed(result["losses"]) for result in group])
            steps = np.arange(1, smooth.shape[1] + 1)
            curves.plot(steps, smooth.T, color=color, linewidth=0.8, alpha=0.5)
            curves.plot(steps, smooth.mean(axis=0), color=color, linewidth=2.2, label=_label(row))
            found = [100 * result["accuracy"] for result in group]
            accuracies.plot([position] * len(found), found, "o", color=color, alpha=0.5, markersize=5)
            error = 100 * row["accuracy_error"]
            accuracies.errorbar(position + 0.15, 100 * row["accuracy"], yerr=error, fmt="D", color=color, capsize=4)
        labels = [f"{_label(row)}\n{row['adapter_parameters']:,}" for row in here]
        accuracies.set_xticks(range(len(labels)), labels)
        accuracies.set(
            xlim=(-0.5, len(labels) - 0.5), ylabel="test accuracy, %", title=f"{task}: accuracy on test rows"
        )
        accuracies.set_xlabel("adapter parameters")
        curves.set(xlabel="step", ylabel="training loss", title=f"{task}: each seed, and their mean")
        curves.legend(frameon=False)
        for panel in (curves, accuracies):
            panel.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _smoothed(losses: list[float]) -> NDArray[np.float64]:
    """Return means over a tenth of the steps before and at each one."""
    width = max(1, len(losses) // 10)
    sums = np.cumsum(np.concatenate(([0.0], losses)))
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
