"""The matrices that a command reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structmat import io
from structmat.cli._errors import blaming

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_matrix", "read_option"]


def read_matrix(path: Path, key: str | None, command: Callable[..., Any]) -> NDArray[Any]:
    """Read the matrix `W` of a command."""
    with blaming("W", command):
        return io.load_matrix(path, key=key)


def read_option(option: str, path: Path | None) -> NDArray[Any] | None:
    """Read the array in the file that an option names, if there is one."""
    if path is None:
        return None
    with blaming(option):
        return io.load_matrix(path)
