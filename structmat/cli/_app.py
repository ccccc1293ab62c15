"""The commands, and exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from cyclopts import App, CycloptsError, Parameter

import structmat
from structmat._files.text import printable
from structmat.cli._completion import add_completion
from structmat.cli._curve import curve
from structmat.cli._errors import FAILURE, INTERRUPTED, USAGE, CommandError
from structmat.cli._fit import fit
from structmat.cli._fit_checkpoint import fit_checkpoint
from structmat.cli._info import info
from structmat.cli._report import report
from structmat.cli._streams import make_usable, printing
from structmat.cli._sweep import sweep

__all__ = ["app", "run"]

app = App(
    name="structmat",
    help="Fit matrices by products of diagonal and circulant factors, which multiply a vector in O(n log n).",
    version=f"structmat {structmat.__version__}",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for _command in (fit, curve, fit_checkpoint, sweep, report, info):
    app.command(_command)
add_completion(app)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    make_usable()
    owner = " ".join(["structmat", *(name for name in arguments[:1] if name in app)])
    try:
        command, bound, _ = app.parse_args(list(arguments), print_error=False, exit_on_error=False)
        command(*bound.args, **bound.kwargs)
        with printing():
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"{owner}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output left, as `head` does
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # noqa: BLE001  # the last line of defence: one line instead of a traceback
        if any(_asks_for_traceback(argument) for argument in arguments):
            traceback.print_exc()
        sys.stderr.write(f"{owner}: error: {_message(error)}\n")
        if isinstance(error, CycloptsError):
            return USAGE
        return error.status if isinstance(error, CommandError) else FAILURE
    return 0


def _asks_for_traceback(argument: str) -> bool:
    """Tell whether an argument is ``--debug``, also where the command line could not be read."""
    option, _, value = argument.partition("=")
    return option == "--debug" and value.lower() not in {"0", "f", "false", "n", "no"}


def _message(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    if isinstance(error, (CommandError, CycloptsError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"
