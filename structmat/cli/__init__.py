"""The `structmat` command.

- `main`: the entry point; says what to install where the extra is missing
- `_app`: the commands, and the one place where errors become a line and an exit status
- `_output`: what they print, and how far they are
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
        from structmat.cli._app import run  # noqa: PLC0415  # so that a missing extra can be told
    except KeyboardInterrupt:
        sys.stderr.write("structmat: interrupted\n")
        return 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "structmat":
            raise
        sys.stderr.write(f'structmat: error: the command needs {error.name}: pip install "structmat[cli]"\n')
        return 1
    return run(sys.argv[1:] if arguments is None else arguments)
