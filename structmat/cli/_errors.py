"""From exceptions to one line on stderr that names the argument, and an exit status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from structmat import ArgumentError
from structmat.cli._options import option_names

__all__ = ["FAILURE", "INTERRUPTED", "USAGE", "CommandError", "blaming", "blaming_paths"]

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

_OPTIONS = {"rng": "seed"}
"""Options whose name is not that of the argument."""


class CommandError(Exception):
    """What stops a command: an argument, what is wrong with it, and the exit status."""

    def __init__(self, argument: str, text: str, status: int = FAILURE) -> None:
        super().__init__(argument, text, status)
        self.argument, self.text, self.status = argument, text, status

    def __str__(self) -> str:
        return f"{self.argument}: {self.text}"


@contextlib.contextmanager
def blaming_paths(paths: Mapping[str, Path | None]) -> Iterator[None]:
    """Blame an option for an error that names its file or folder, or something in it."""
    try:
        yield
    except ConnectionError:
        raise
    except (OSError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        named = {
            option: len(str(path))
            for option, path in paths.items()
            if path is not None and text.startswith((str(path), str(path.absolute())))
        }
        if not named or isinstance(error, ArgumentError):
            raise
        status = USAGE if isinstance(error, FileExistsError) else FAILURE
        raise CommandError(max(named, key=lambda option: named[option]), text, status) from error


@contextlib.contextmanager
def blaming(argument: str, command: Callable[..., Any] | None = None, status: int = FAILURE) -> Iterator[None]:
    """Turn what goes wrong inside into a `CommandError` of that argument, or of the option of a command at fault.

    A value that is wrong in `argument` itself has the status given: the content of a file is no matter of usage.
    """
    try:
        yield
    except FileExistsError as error:
        has_force = command is None or "force" in option_names(command)
        text = f"{error.filename} exists; --force replaces it" if has_force else f"{error.filename}: {error.strerror}"
        raise CommandError(argument, text, USAGE) from error
    except ConnectionError as error:
        raise CommandError("--scheduler", str(error)) from error
    except OSError as error:
        raise CommandError(argument, f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except MemoryError as error:
        raise CommandError(argument, "there is not enough memory for it") from error
    except ArgumentError as error:
        option = _OPTIONS.get(error.argument or "", error.argument)
        if command is not None and option in option_names(command):
            raise CommandError(f"--{option.replace('_', '-')}", error.text, USAGE) from error
        known = error.argument in {argument, "path", None}
        raise CommandError(argument, error.text if known else f"{error.argument} {error.text}", status) from error
    except (ValueError, TypeError) as error:
        raise CommandError(argument, str(error)) from error
