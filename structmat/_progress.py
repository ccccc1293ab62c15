"""One line that says how far long work is: of the command, and where people work in Python themselves."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from structmat._files import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Show",
    "State",
    "clock_time",
    "lasting_line",
    "progress_line",
    "show_state",
    "shown_progress",
]

Show = Callable[[str, float | None], None]
"""Shows a text, and how many seconds are left, if that is known."""


class State(Protocol):
    """How far work is: as a text, one line that begins with what matters, and as a time."""

    @property
    def remaining(self) -> float | None:
        """Seconds left; None if that is not known."""


_DELAY = 2.0
"""Seconds of work before a notebook or a session shows anything without being asked."""

_PATIENCE = 5.0
"""Seconds of work after which a first line says how far it is, where stderr is no terminal."""

_INTERVAL = 60.0
"""Seconds between such lines."""


@contextlib.contextmanager
def progress_line(console: Console, *, hidden: bool, delay: float = 0.0) -> Iterator[Show]:
    """Show one line, which leaves nothing behind, after some seconds; give the function that changes it.

    What does not fit is cut at its end, so that texts begin with what matters.
    """
    from rich.markup import escape  # noqa: PLC0415  # an extra
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = (SpinnerColumn(), text, TextColumn("{task.fields[left]}"), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True, disable=hidden, expand=True)
    task, begun = progress.add_task("", total=None, left=""), time.monotonic()

    def show(text: str, left: float | None) -> None:
        if not progress.live.is_started and time.monotonic() - begun >= delay:
            progress.start()
        rest = "" if left is None else f"{clock_time(left)} left"
        progress.update(task, description=escape(printable(text)), left=rest)

    try:
        yield show
    finally:
        progress.stop()


def lasting_line(console: Console) -> contextlib.AbstractContextManager[Show]:
    """Show how far the work is in one line that changes on a terminal, else in one now and then."""
    if console.is_terminal or console.is_jupyter:
        return progress_line(console, hidden=False)
    return _lines_now_and_then()


@contextlib.contextmanager
def _lines_now_and_then() -> Iterator[Show]:
    """Give a function that says how far the work is if it takes long, and then once a minute."""
    begun = time.monotonic()
    due = begun + _PATIENCE

    def show(text: str, left: float | None) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + _INTERVAL
            rest = "" if left is None else f", {clock_time(left)} left"
            sys.stderr.write(f"structmat: {clock_time(now - begun)}: {printable(text)}{rest}\n")

    yield show


def clock_time(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


@contextlib.contextmanager
def shown_progress(
    callback: Callable[[Any], object] | None, progress: bool | None
) -> Iterator[Callable[[Any], object] | None]:
    """Give the callback of the user, or with it what shows the state on stderr.

    Without an answer in `progress` that is in a notebook, and on the terminal of a session of Python, where there is no
    callback; a script shows nothing unless it asks.
    """
    console = _console(progress) if progress or (progress is None and callback is None) else None
    if console is None:
        yield callback
        return
    line = lasting_line(console) if progress else progress_line(console, hidden=False, delay=_DELAY)
    with line as show:

        def hear(state: Any) -> object:
            show_state(show, state)
            return None if callback is None else callback(state)

        yield hear


def _console(asked: bool | None) -> Console | None:
    """Return where progress is shown, or nothing where it was not asked for and nobody looks."""
    if not (asked or "IPython" in sys.modules or hasattr(sys, "ps1")):
        return None
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        if not asked:
            return None
        text = 'progress=True needs rich, of the extra "studies": pip install "structmat[studies]"'
        raise ImportError(text) from error
    console = Console(stderr=True)
    if asked:
        return console
    if console.is_jupyter:
        return console if find_spec("ipywidgets") else None  # without these a line cannot change
    return console if console.is_terminal else None


def show_state(show: Show, state: State) -> None:
    """Show how far the work is."""
    show(str(state), state.remaining)
