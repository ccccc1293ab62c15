"""What commands print: tables, or one JSON object."""

from __future__ import annotations

import json
import sys
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from structmat._files.text import counted, first_names, printable
from structmat.cli._streams import OutputConsole, printing

if TYPE_CHECKING:
    from rich.console import Console

    from structmat.cli._fit_comparison import Row
    from structmat.fit import ErrorCurve, FitResult
    from structmat.studies import CheckpointFit, Study, StudyMean

__all__ = [
    "print_checkpoint_fit",
    "print_comparison",
    "print_curve",
    "print_description",
    "print_json",
    "print_study",
    "print_written",
    "result_notes",
]

_HEADINGS = {
    "truncated-svd": "trunc.\nSVD",
    "block-circulant": "block\ncirc.",
    "sparse-fourier": "sparse\nFourier",
    "monarch": "\nMonarch",
}
"""Of the baselines of a curve."""
_SHOWN = 20
"""Layers in the table of a checkpoint, at most: the rest stands in a file."""
_NAME, _WIDEST = 16, 10_000
"""What a column of names gets on the narrowest terminal, and more than any table takes."""


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object to stdout."""
    with printing():
        sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_checkpoint_fit(title: str, fit: CheckpointFit, notes: list[str]) -> None:
    """Print the layers that were met best and worst, and what all of them come to."""
    changed = sorted((layer for layer in fit.layers if layer.norm), key=lambda layer: layer.error)
    half = _SHOWN // 2
    rows = changed if len(changed) <= _SHOWN else [*changed[:half], None, *changed[-half:]]
    table = Table(title=_shown(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("\nlayer", overflow="fold")
    for heading in ("\nshape", "para-\nmeters", "CDD\nerror", "trunc.\nSVD"):
        table.add_column(heading, justify="right", no_wrap=True, style="bold" if heading == "CDD\nerror" else "")
    for layer in rows:
        if layer is None:
            table.add_row(f"... {len(changed) - 2 * half} between ...")
            continue
        table.add_row(
            _shown(layer.name),
            _by([layer.rows, layer.cols]),
            f"{layer.n_parameters:,}",
            _error_text(layer.error),
            _error_text(layer.svd_error),
        )
    table.add_section()
    share = fit.n_parameters / sum(layer.rows * layer.cols for layer in changed)
    together = (f"{counted(len(changed), 'layer')} together", "", f"{fit.n_parameters:,}")
    table.add_row(*together, _error_text(fit.error), _error_text(fit.svd_error))
    lines = [f"{share:.3%} of the parameters of these layers"]
    if unchanged := len(fit.layers) - len(changed):
        lines.append(f"not in the adapter: {counted(unchanged, 'layer')} without a change")
    if fit.left_out:
        names = first_names(fit.left_out, 3)
        lines.append(f"tuned too, but not in the adapter: {counted(len(fit.left_out), 'weight')} ({names})")
    lines += [f"skipped {name}: {why}" for name, why in fit.skipped.items()]
    _print(table, [*lines, *notes])


def print_comparison(title: str, rows: list[Row], size: int, notes: list[str]) -> None:
    """Print the table of a fit; `size` is the number of entries of the matrix."""
    table = Table(title=_shown(title), title_justify="left", title_style="bold")
    table.add_column("\napproximation")
    for heading in ("\nparameters", "of\ndense", "relative\nerror", "energy\nexplained"):
        table.add_column(heading, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        error, energy = ("-", "-") if row.error is None else (_error_text(row.error), f"{1 - row.error**2:.2%}")
        share = f"{100 * row.n_parameters / size:.3g}%"
        table.add_row(_shown(row.label), f"{row.n_parameters:,}", share, error, energy, style="bold" if i == 0 else "")
    _print(table, notes)


def print_curve(title: str, curve: ErrorCurve) -> None:
    """Print the table of an error curve."""
    table = Table(title=_shown(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    headings = ["\nfactors", "para-\nmeters", "of\ndense", "CDD\nerror", "\ns"]
    for heading in (*headings, *(_HEADINGS.get(name, name) for name in curve.baselines)):
        table.add_column(heading, justify="right", no_wrap=True, style="bold" if heading == headings[3] else "")
    for i, count in enumerate(curve.n_parameters):
        table.add_row(
            f"{curve.n_factors[i]}",
            f"{count:,}",
            f"{100 * count / prod(curve.shape):.3g}%",
            _error_text(float(curve.error[i])),
            f"{curve.seconds[i]:.1f}",
            *(_error_text(float(error[i])) if used[i] else "-" for used, error in curve.baselines.values()),
        )
    reached = f"{curve.seconds.sum():.1f} s"
    if curve.stopped != "completed":
        reached += f", stopped by the {curve.stopped}" if curve.stopped == "time limit" else f", {curve.stopped}"
        if not curve.seconds.all():
            reached += "; fits of 0.0 s repeat the best of fewer factors"
    _print(table, [f"blocks of {curve.block_size}, {curve.first} first, {reached}"])


def print_study(study: Study, notes: list[str]) -> None:
    """Print the means of a study over its layers."""
    names = dict.fromkeys(mean.method for mean in study.means())
    count = len(study.layers())
    title = counted(count, "layer") if count != 1 else study.layers()[0]
    table = Table(title=_shown(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    headings = {"cdd": "CDD\nerror", **_HEADINGS}
    for heading in ("\nfactors", "\nblock", "\nlayers", "of\ndense", *(headings.get(name, name) for name in names)):
        table.add_column(heading, justify="right", no_wrap=True, style="bold" if heading == headings["cdd"] else "")
    settings: dict[tuple[Any, int], dict[str, StudyMean]] = {}
    for mean in study.means():
        settings.setdefault((mean.block, mean.n_factors), {})[mean.method] = mean
    for (block, n_factors), means in settings.items():
        largest = max(means.values(), key=lambda mean: mean.share)
        table.add_row(
            f"{n_factors}",
            f"{block}",
            f"{largest.n_layers}",
            f"{100 * largest.share:.3g}%",
            *("-" if (m := means.get(name)) is None or not m.share else _error_text(m.error) for name in names),
        )
    state = "complete" if study.complete else "unfinished, the same sweep continues it"
    lines = [f"{len(study.rows):,} of {study.n_planned:,} results, {state}; errors are means over the layers"]
    lines += [f"not available: {text} ({number:,})" for text, number in study.left_out.items()]
    _print(table, [*lines, *notes])


def print_written(path: Path, *, quiet: bool) -> None:
    """Say that a file was written: after what was found, which must not be lost where the disk is full."""
    if not quiet:
        with printing():
            sys.stdout.write(f"wrote {printable(str(path))}\n")


def print_description(description: dict[str, Any]) -> None:
    """Print what `structmat.io.describe` found."""
    head = Table.grid(padding=(0, 2))
    for name, text in _facts(description).items():
        head.add_row(name, _shown(text))
    tensors = Table(title="arrays", title_justify="left", title_style="bold")
    tensors.add_column("name", overflow="fold")
    for heading in ("shape", "dtype"):
        tensors.add_column(heading, no_wrap=True)
    for name, tensor in description["tensors"].items():
        tensors.add_row(_shown(name), _by(tensor["shape"]), _shown(tensor["dtype"]))
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
    if fit := description.get("fit"):
        facts["fit"] = f"error {fit['error']:.6g} from the start {fit['start']}, {fit['n_iter']} iterations"
    return facts


def _error_text(error: float) -> str:
    return f"{error:.4f}" if error >= 1e-3 or error == 0 else f"{error:.1e}"


def result_notes(result: FitResult, seconds: float) -> str:
    """Return the line below the table of a fit."""
    end = "converged" if result.converged else "not converged, see --max-iter and --tol"
    if result.stopped != "completed":
        end = result.stopped
    return f"start {result.start}, {result.n_iter} iterations of {result.solver}, {end}, {seconds:.2f} s"


def _by(shape: list[int]) -> str:
    return " x ".join(str(side) for side in shape) or "scalar"


def _shown(text: str) -> str:
    """Return a text for a table: no markup, and nothing that would command the terminal."""
    return escape(printable(text))


def _least_width(table: Table, console: Console) -> int:
    """Return the width below which names and digits are lost: on a narrower terminal lines run over instead."""
    names = [column for column in table.columns if not column.no_wrap]
    for column in names:
        column.max_width = _NAME
    least = Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
    for column in names:
        column.max_width = None
    return least


def _print(table: Table, notes: list[str]) -> None:
    console = OutputConsole()
    console.width = max(console.width, _least_width(table, console))
    with printing():
        console.print(table)
        for note in notes:
            console.print(printable(note), markup=False, soft_wrap=True)
