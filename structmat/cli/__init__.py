"""The `structmat` command.

- `main`: the entry point; says what to install where the extra is missing
- `_app`: the commands, their options, exit statuses
- `_curve`: `structmat curve`
- `_fit_checkpoint`: `structmat fit-checkpoint`
- `_sweep`: the commands of `structmat sweep`
- `_logging`: what `--log-level` shows
- `_outputs`: the files that commands write
- `_errors`: from exceptions to one line that names the argument
- `_compare`: what the fit is compared with
- `_report`: progress and tables, all that is drawn on a terminal
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
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "structmat":
            raise
        sys.stderr.write(f'structmat: error: the command needs {error.name}: pip install "structmat[cli]"\n')
        return 1
    return run(sys.argv[1:] if arguments is None else arguments)
