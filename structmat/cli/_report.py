"""Progress and tables: all that is drawn on a terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from structmat.cli._compare import Row
    from structmat.fit import FitProgress, FitResult

__all__ = ["live_progress", "print_comparison", "print_description", "print_json", "result_notes"]


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def live_progress(*, quiet: bool) -> Iterator[Callable[[FitProgress], None]]:
    """Show a line per starting point on stderr, if that is a terminal, and give the callback that feeds them."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} sweeps"),
        TextColumn("error {task.fields[error]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:

        def report(state: FitProgress) -> None:
            if state.start not in tasks:
                tasks[state.start] = progress.add_task(state.start, total=state.max_iter, error="")
            progress.update(tasks[state.start], completed=state.iteration, error=f"{state.error:.6f}")

        yield report


def print_comparison(title: str, rows: list[Row], size: int, notes: list[str]) -> None:
    """Print the table of a fit; `size` is the number of entries of the matrix."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("\napproximation")
    for heading in ("\nparameters", "of\ndense", "relative\nerror", "energy\nexplained"):
        table.add_column(heading, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        error, energy = ("-", "-") if row.error is None else (_error_text(row.error), f"{1 - row.error**2:.2%}")
        share = f"{100 * row.n_parameters / size:.3g}%"
        table.add_row(escape(row.label), f"{row.n_parameters:,}", share, error, energy, style="bold" if i == 0 else "")
    _print(table, notes)


def print_description(description: dict[str, Any]) -> None:
    """Print what `structmat.io.describe` found."""
    head = Table.grid(padding=(0, 2))
    for name, text in _facts(description).items():
        head.add_row(name, escape(text))
    tensors = Table("name", "shape", "dtype", title="arrays", title_justify="left", title_style="bold")
    for name, tensor in description["tensors"].items():
        tensors.add_row(escape(name), _by(tensor["shape"]), escape(tensor["dtype"]))
    notes = [f"{key}: {text}" for key, text in description["metadata"].items()]
    _print(head, [""])
    _print(tensors, ["metadata", *(f"  {note}" for note in notes)] if notes else [])


def _facts(description: dict[str, Any]) -> dict[str, str]:
    """Return the lines above the table of arrays."""
    facts = {"file": description["path"], "size": f"{description['bytes']:,} bytes"}
    if "kind" not in description:
        return facts | {"format": description["format"]}
    n_parameters, dense = description["n_parameters"], prod(description["shape"])
    facts["operator"] = description["kind"]
    facts["shape"] = _by(description["shape"])
    if description["batch_shape"]:
        facts["batch"] = _by(description["batch_shape"])
    facts["dtype"] = description["dtype"]
    if description["n_factors"] > 1:
        facts["factors"] = str(description["n_factors"])
    if description["block_size"]:
        facts["block size"] = str(description["block_size"])
    facts["parameters"] = f"{n_parameters:,} ({n_parameters / dense:.3%} of dense)"
    return facts


def _error_text(error: float) -> str:
    return f"{error:.4f}" if error >= 1e-3 or error == 0 else f"{error:.1e}"


def result_notes(result: FitResult, seconds: float) -> str:
    """Return the line below the table of a fit."""
    end = "converged" if result.converged else "not converged, see --max-iter and --tol"
    return f"start {result.start}, {result.n_iter} sweeps, {end}, {seconds:.2f} s"


def _by(shape: list[int]) -> str:
    return " x ".join(str(side) for side in shape) or "scalar"


def _print(table: Table, notes: list[str]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)
