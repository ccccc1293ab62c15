"""The command `structmat completion`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from structmat.cli._streams import printing

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["add_completion"]


def add_completion(app: App) -> None:
    """Give an application the command that prints what shells need to complete its commands."""

    @app.command
    def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
        """Print a script by which a shell completes commands and options.

        Example: `structmat completion bash > ~/.local/share/bash-completion/completions/structmat`

        Parameters
        ----------
        shell
            For which shell.
        """
        with printing():
            sys.stdout.write(app.generate_completion(shell=shell).rstrip() + "\n")
