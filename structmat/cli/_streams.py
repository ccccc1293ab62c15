"""Standard output and error, whatever they lead to: a full disk, a reader that left, few letters, nothing."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from structmat.cli._errors import CommandError

__all__ = ["OutputConsole", "make_usable", "printing", "unprinted"]


def make_usable() -> None:
    """Let what is printed lead nowhere where a stream is closed, and escape the letters that its encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # until the process ends
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


class OutputConsole(Console):
    """Standard output, with an error where its reader left: rich would end the process, before files are written."""

    def __init__(self) -> None:
        super().__init__(file=sys.stdout, highlight=False)

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # called while the error is handled


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Blame standard output for what goes wrong inside; that its reader left is no fault."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError("standard output", error.strerror or str(error)) from error


def unprinted(show: Callable[..., object], *arguments: Any) -> Exception | None:
    """Print; return why that is impossible, if it is, for after the files are written."""
    try:
        show(*arguments)
    except (BrokenPipeError, CommandError) as error:
        return error
    return None
