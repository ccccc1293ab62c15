"""What a command reads: matrices, and lists with commas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structmat import ArgumentError, io
from structmat.cli._errors import USAGE, CommandError, blaming

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_integers", "read_matrix", "read_option", "split_list"]


def read_matrix(path: Path, key: str | None, command: Callable[..., Any]) -> NDArray[Any]:
    """Read the matrix `W` of a command."""
    with blaming("W", command):
        return io.load_matrix(path, key=key)


def read_option(option: str, path: Path | None) -> NDArray[Any] | None:
    """Read the array in the file that an option names, if there is one."""
    if path is None:
        return None
    with blaming(option):
        try:
            return io.load_matrix(path)
        except ArgumentError as error:
            if error.argument != "key":
                raise
            text = f"{path} must hold a single array, as no option names one of several"
            raise CommandError(option, text) from error


def split_list(text: str) -> list[str]:
    """Return the parts of a list with commas."""
    return [part.strip() for part in text.split(",")]


def read_integers(option: str, text: str | None, *words: str) -> list[int | str] | None:
    """Read the integers in a list, and such words as are named."""
    if text is None:
        return None
    values: list[int | str] = []
    for part in split_list(text):
        try:
            values.append(part if part in words else int(part))
        except ValueError:
            kinds = " or ".join(("integers", *words))
            raise CommandError(option, f"must be {kinds} with commas, got {part!r}", USAGE) from None
    return values
