"""The `structmat` command.

- `main`: the entry point; says what to install where the extra is missing
- `_app`: the commands, and the one place where errors become a line and an exit status
- `_output`: what they print, and how far they are
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # not that of `typing`, which takes a while: until `main` runs, Ctrl-C shows a traceback
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the name of the command. By default that of the process.

    Returns
    -------
    int
        The exit status: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C.
    """
    try:
        run = _imported()
        return 1 if run is None else run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("structmat: interrupted\n")
        return 130


def _imported() -> Callable[[Sequence[str]], int] | None:
    """Import the commands; where the extra is missing say so, and return nothing.

    Ctrl-C is heard when that is done. A library that is interrupted while it is imported may take it for a failure of
    its own, and go on.
    """
    import signal  # noqa: PLC0415  # not before `main` runs
    import threading  # noqa: PLC0415

    pressed: list[int] = []
    is_main_thread = threading.current_thread() is threading.main_thread()
    hears = is_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        from structmat.cli._app import run  # noqa: PLC0415  # so that a missing extra can be told
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "structmat":
            raise
        sys.stderr.write(f'structmat: error: the command needs {error.name}: pip install "structmat[studies]"\n')
        return None
    finally:
        if hears:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
    return run
