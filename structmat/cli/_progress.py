"""How far a command is, on stderr if that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from structmat._files.text import counted, printable

if TYPE_CHECKING:
    from structmat.fit import CurveProgress, FitProgress
    from structmat.studies import CheckpointProgress, SweepProgress

__all__ = ["checkpoint_progress", "curve_progress", "fit_progress", "resumable", "sweep_progress"]


@contextlib.contextmanager
def resumable(
    owner: str, what: str, out: Path, show: Callable[[Any], object]
) -> Iterator[Callable[[CheckpointProgress | SweepProgress], None]]:
    """Say after Ctrl-C what is done and kept in a folder; give the callback that counts, and hands on to `show`."""
    state: CheckpointProgress | SweepProgress | None = None

    def hear(news: CheckpointProgress | SweepProgress) -> None:
        nonlocal state
        state = news
        show(news)

    try:
        yield hear
    except KeyboardInterrupt:
        done = f"0 {what}" if state is None else f"{state.n_done} of {state.n_units} {what}"
        sys.stderr.write(f"{owner}: {done} are done and kept in {out}; the same command continues\n")
        raise


def _display(*columns: ProgressColumn, quiet: bool, **options: Any) -> Progress:
    """Return a display that leaves nothing behind."""
    console = Console(stderr=True)
    shown = (SpinnerColumn(), *columns)
    return Progress(*shown, console=console, transient=True, disable=quiet or not console.is_terminal, **options)


@contextlib.contextmanager
def fit_progress(n_factors: int, *, quiet: bool) -> Iterator[Callable[[FitProgress], None]]:
    """Show the running fit on stderr, if that is a terminal, with the time left of a limit; give the callback.

    There is no bar: how many iterations there will be is not known, since most runs end long before their limit.
    """
    columns = (TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with _display(*columns, quiet=quiet) as progress:
        task = progress.add_task(_counted_factors(n_factors), total=None, left="")

        def report(state: FitProgress) -> None:
            left = "" if state.remaining is None else f"{_duration(state.remaining)} left"
            room = progress.console.width - len(f"x  0:00:00 {left}")
            progress.update(task, description=_fitting(_descriptions(state, n_factors), room), left=left)

        yield report


def _descriptions(state: FitProgress, n_factors: int) -> list[str]:
    """Return what can be said of a fit, from the longest text to the shortest."""
    now, least = f"{state.phase} from {state.start}", f"least {state.best:.6f}"
    if state.phase == "exploration":  # the one whose end is known
        now = f"exploration {state.iteration / state.max_iter:.0%}"
    factors = _counted_factors(n_factors)
    fitted = factors if state.n_factors == n_factors else f"{factors} by way of {state.n_factors}"
    error = f"error {state.error:.6f}, {least}"
    return [
        f"{fitted}, {now}, iteration {state.iteration}, {error}",
        f"{fitted}, {now}, {least}",
        f"{factors}, {state.phase}, {least}",
        f"{factors}, {least}",
        least.removeprefix("least "),
    ]


def _fitting(texts: list[str], room: int) -> str:
    """Return the longest text that has room, and else the last: digits are never cut."""
    return next((text for text in texts if cell_len(text) <= room), texts[-1])


def _counted_factors(n_factors: int) -> str:
    return counted(n_factors, "factor")


@contextlib.contextmanager
def curve_progress(*, quiet: bool) -> Iterator[Callable[[CurveProgress], None]]:
    """Show the running fit of a curve on stderr, if that is a terminal, with the time left; give the callback."""
    bar = 24
    columns = (
        TextColumn("{task.fields[count]}"),
        BarColumn(bar_width=bar),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with _display(*columns, quiet=quiet) as progress:
        task = progress.add_task("error curve", total=None, count="", left="")

        def report(state: CurveProgress) -> None:
            left = "" if state.remaining is None else f"about {_duration(state.remaining)} left"
            count = f"{state.point}/{state.n_points}"
            room = progress.console.width - bar - len(f"x {count}    0:00:00 {left}")
            progress.update(
                task,
                description=_fitting(_descriptions(state.fit, state.n_factors), room),
                total=state.n_points,
                completed=state.point - 1,
                count=count,
                left=left,
            )

        yield report


@contextlib.contextmanager
def sweep_progress(*, quiet: bool) -> Iterator[Callable[[SweepProgress], None]]:
    """Show how far a sweep is on stderr, if that is a terminal, with the time left; give the callback."""
    with _counting(quiet=quiet) as show:

        def report(state: SweepProgress) -> None:
            count = f"{state.n_done}/{state.n_units}" if state.n_units else "reading"
            texts = [printable(state.name)]
            if state.method is not None:  # the name ends in "METHOD, SETTING (CHECKSUM)"
                layer, _, setting = texts[0].rpartition(f" {state.method}, ")
                setting = f"{state.method}, {setting.rpartition(' (')[0]}"
                texts = [f"{layer} {setting}", setting, state.method]
            show(count, texts, state.n_done / max(state.n_units, 1), state.remaining)

        yield report


@contextlib.contextmanager
def checkpoint_progress(*, quiet: bool) -> Iterator[Callable[[CheckpointProgress], None]]:
    """Show how many layers of a checkpoint are done on stderr, if that is a terminal, and the time left."""
    first: tuple[float, float] | None = None
    with _counting(quiet=quiet) as show:

        def report(state: CheckpointProgress) -> None:
            nonlocal first
            now, left = time.monotonic(), None
            if first is None:  # what earlier runs did says nothing about the speed of this one
                first = now, state.share
            elif state.share > first[1]:
                left = (now - first[0]) / (state.share - first[1]) * (1.0 - state.share)
            texts = [""]
            if state.error is not None:
                error = f"error {state.error:.4f}"
                texts = [f"{printable(state.name)}: {error}", error]
            show(f"{state.n_done} of {state.n_units} layers", texts, state.share, left)

        yield report


@contextlib.contextmanager
def _counting(*, quiet: bool) -> Iterator[Callable[[str, list[str], float, float | None], None]]:
    """Show a count, a text, a share of the work and the seconds left; give the function that changes them.

    Narrow terminals show the shorter texts, without bar and time passed.
    """
    bar = 24
    console = Console(stderr=True)
    wide = console.width >= 100
    columns: list[ProgressColumn] = [TextColumn("{task.fields[count]}")]
    columns += [BarColumn(bar_width=bar)] if wide else []
    columns += [TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))]
    columns += [TimeElapsedColumn()] if wide else []
    columns += [TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True))]
    with _display(*columns, quiet=quiet, expand=True) as progress:
        task = progress.add_task("", total=1.0, count="", left="")

        def show(count: str, texts: list[str], share: float, left: float | None) -> None:
            rest = "" if left is None else f"{_duration(left)} left"
            room = progress.console.width - len(f"x {count}  {rest}") - (bar + len("  0:00:00") if wide else 0)
            text = _fitting(texts, room)
            rest = rest if cell_len(text) <= room else ""
            progress.update(task, description=escape(text), completed=share, count=count, left=rest)

        yield show


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
