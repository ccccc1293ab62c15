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

__all__ = ["Show", "State", "clock_time", "notebook_line", "progress_line", "show_state"]

Show = Callable[[str, float | None], None]
"""Shows a text, and how many seconds are left, if that is known."""


class State(Protocol):
    """How far work is: as a text, one line that begins with what matters, and as a time."""

    @property
    def remaining(self) -> float | None:
        """Seconds left; None if that is not known."""


_DELAY = 2.0
"""Seconds of work before a notebook shows anything."""


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


def clock_time(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


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
