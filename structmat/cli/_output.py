"""What commands print: tables or one JSON object, and meanwhile one line on stderr that says how far they are."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from structmat import _progress
from structmat._files import printable, shown_error
from structmat._progress import Show
from structmat.fit import baseline_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat import studies
    from structmat.fit import FitResult

__all__ = [
    "comparison",
    "print_description",
    "print_fit",
    "print_json",
    "print_means",
    "printed",
    "progress_line",
    "say",
    "say_files",
    "say_lines",
]


def progress_line(*, quiet: bool) -> contextlib.AbstractContextManager[Show]:
    """Show how far the work is in one line on stderr: one that changes on a terminal, else one that stays."""
    console = Console(stderr=True)
    return _progress.progress_line(console, hidden=True) if quiet else _progress.lasting_line(console)


@contextlib.contextmanager
def printed(show: Callable[[], None]) -> Iterator[None]:
    """Print first, then do what is inside the block, even if nothing could be printed: that error comes afterwards.

    A result that took long is saved in any case, also where the reader of the output has stopped.
    """
    fault: OSError | None = None
    try:
        show()
        sys.stdout.flush()
    except OSError as error:
        fault = error
    yield
    if fault is not None:
        raise fault


def say(text: str) -> None:
    """Print one line, with escapes for what is not printed."""
    sys.stdout.write(printable(text) + "\n")


def say_lines(text: str) -> None:
    """Print several lines."""
    for line in text.splitlines():
        say(line)


def say_files(written: Mapping[str, Path | None]) -> None:
    """Print which files were written, by what they hold; none for an option that was not given."""
    for what, path in written.items():
        if path is not None:
            say(f"{what}: {path}")


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def comparison(W: NDArray[Any], result: FitResult, moment: NDArray[Any] | None, *, weighted: bool) -> dict[str, Any]:
    """Return parameters and error of the best members of other families of at most the size of a fit, by name."""
    if weighted and moment is None:
        return {}
    names = ["truncated-svd"] if weighted else ["truncated-svd", "block-circulant"]
    found = baseline_errors(W, [result.n_parameters], names=names, input_second_moment=moment)
    return {name: {"n_parameters": int(used[0]), "error": float(error[0])} for name, (used, error) in found.items()}


def print_fit(title: str, result: FitResult, rows: dict[str, Any]) -> None:
    """Print a fit and what it is compared with."""
    say(title)
    say_lines(repr(result))
    print_table(
        ["compared with", "parameters", "error"],
        [[name, f"{row['n_parameters']:,}", shown_error(**row, shown=_error)] for name, row in rows.items()],
    )


def print_means(study: studies.Study, note: str) -> None:
    """Print the means of a sweep over its layers."""
    if study.rows:
        say_lines(repr(study))
    for text in study.left_out:
        say(f"left out: {text}")
    for name, why in study.failed.items():
        say(f"failed: {name}: {why}")
    for folder in study.adapters:
        say(f"adapter: {folder}")
    say(note)


def print_description(description: dict[str, Any]) -> None:
    """Print what `structmat.io.describe` found."""
    tensors, metadata, fit = description["tensors"], description["metadata"], description.get("fit", {})
    adapter = description.get("adapter", {})
    facts = {name: value for name, value in description.items() if not isinstance(value, dict)}
    facts |= {f"fit: {name}": value for name, value in fit.items()} | {f"note: {k}": v for k, v in metadata.items()}
    facts |= {f"adapter: {name}": f"{value}" for name, value in adapter.items() if value is not None}
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        text = " x ".join(map(str, value)) if isinstance(value, list) else shown
        if text not in {None, ""}:
            say(f"{name.replace('_', ' '):<18} {text}")
    lines = [[name, " x ".join(map(str, held["shape"])) or "scalar", held["dtype"]] for name, held in tensors.items()]
    print_table(["array", "shape", "dtype"], lines)


def print_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table with its first column on the left. Names and digits are never cut, however long lines get."""
    cells = [[*headings], *([printable(cell) for cell in line] for line in lines)] if lines else []
    widths = [max(len(line[k]) for line in cells) for k in range(len(headings) if lines else 0)]
    for first, *others in cells:
        rest = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        sys.stdout.write("  ".join([first.ljust(widths[0]), *rest]).rstrip() + "\n")


def _error(error: float) -> str:
    """Return an error with four decimals, or with a power of ten if it is small."""
    return f"{error:.4f}" if error >= 1e-3 or error == 0 else f"{error:.1e}"
