"""One line that says how far long work is: on the terminal of the command, and in a notebook without being asked."""

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
    "notebook_line",
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
"""Seconds of work before a notebook shows anything."""

_PATIENCE = 5.0
"""Seconds of work after which one line says how far it is, where stderr is no terminal."""


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
    """Show how far the work is in one line: one that changes on a terminal, else one that stays."""
    if console.is_terminal or console.is_jupyter:
        return progress_line(console, hidden=False)
    return _single_line()


@contextlib.contextmanager
def _single_line() -> Iterator[Show]:
    """Give a function that says how far the work is once, if it takes long."""
    said, begun = False, time.monotonic()

    def show(text: str, left: float | None) -> None:
        nonlocal said
        if not said and time.monotonic() - begun >= _PATIENCE:
            said = True
            rest = "" if left is None else f", {clock_time(left)} left"
            sys.stderr.write(f"structmat: working: {printable(text)}{rest}\n")

    yield show


def clock_time(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


@contextlib.contextmanager
def shown_progress(
    callback: Callable[[Any], object] | None, progress: bool
) -> Iterator[Callable[[Any], object] | None]:
    """Give the callback of the user, after a line on stderr that shows the state too if that is asked for."""
    if not progress:
        with notebook_line(callback) as heard:
            yield heard
        return
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        text = 'progress=True needs rich, of the extra "studies": pip install "structmat[studies]"'
        raise ImportError(text) from error
    with lasting_line(Console(stderr=True)) as show:

        def hear(state: Any) -> object:
            show_state(show, state)
            return None if callback is None else callback(state)

        yield hear


@contextlib.contextmanager
def notebook_line(
    callback: Callable[[Any], object] | None,
) -> Iterator[Callable[[Any], object] | None]:
    """Give the callback of the user or, in a notebook without one, a function that shows the state of the work."""
    if callback is None and "IPython" in sys.modules and find_spec("rich") and find_spec("ipywidgets"):
        from rich.console import Console  # noqa: PLC0415

        if (console := Console()).is_jupyter:
            with progress_line(console, hidden=False, delay=_DELAY) as show:
                yield lambda state: show_state(show, state)
            return
    yield callback


def show_state(show: Show, state: State) -> None:
    """Show how far the work is."""
    show(str(state), state.remaining)
