"""The `structmat` command.

- `main`: the entry point; says what to install where the extra is missing
- `_app`: the commands, and exit statuses
- `_fit`, `_curve`, `_fit_checkpoint`, `_sweep`, `_report`, `_info`: one command each; a new one is a file, and
  a name in the list of `_app`
- `_fit_comparison`: what a fit is compared with
- `_completion`: the command that prints what shells need to complete the others
- `_progress`, `_tables`: all that is drawn on a terminal
- `_inputs`, `_outputs`: the files that commands read and write
- `_streams`: standard output and error, whatever they lead to
- `_logging`: what `--log-level` shows
- `_errors`: from exceptions to one line that names the argument
- `_options`: options that several commands have
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
