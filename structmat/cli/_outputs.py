"""The files that a command writes: refused before the work where they could not be written after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structmat import io
from structmat._files.kinds import is_there
from structmat.cli._errors import USAGE, CommandError, blaming

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_outputs", "plot_module", "unwritten", "write_figure"]

_SUFFIXES = {
    "--csv": (".csv",),
    "--html": (".html",),
    "--out": (".safetensors",),
    "--plot": (".png", ".pdf", ".svg"),
}
"""How the names of files must end, by option."""


def check_outputs(sources: Mapping[str, Path | None], outputs: Mapping[str, Path | None], *, force: bool) -> None:
    """Refuse what could not be written after the work, and what is read; the keys are argument and option of a file."""
    seen: dict[str, Path] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        suffixes = _SUFFIXES[option]
        if option == "--plot":
            plot_module()  # before the work
        if path.suffix.lower() not in suffixes:
            raise CommandError(option, f"{path} must end in {' or '.join(suffixes)}", USAGE)
        for argument, source in sources.items():
            if source is not None and _is_same(path, source):
                raise CommandError(option, f"{path} is the file of {argument}, which is never overwritten", USAGE)
        with blaming(option):
            io.check_output(path, force=force)
        for other_option, other in seen.items():
            if _is_same(path, other):
                raise CommandError(option, f"{path} is the file of {other_option}", USAGE)
        seen[option] = path


def plot_module() -> Any:
    """Import `structmat.plot`."""
    try:
        from structmat import plot  # noqa: PLC0415  # matplotlib is slow to import and an extra
    except ImportError as error:
        raise CommandError("--plot", str(error)) from error
    return plot


def write_figure(figure: Figure, path: Path, *, force: bool) -> None:
    """Write a figure to the file of ``--plot``."""
    with blaming("--plot"), io.atomic_write(path, force=force) as file:
        figure.savefig(file, format=path.suffix[1:].lower())


def unwritten(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, OSError | None]:
    """Do work of `structmat.studies`; return its result, and why the final files are not written, if they are not."""
    from structmat.studies import UnwrittenError  # noqa: PLC0415  # an extra

    try:
        return work(*arguments, **options), None
    except UnwrittenError as error:
        return error.result, error


def _is_same(path: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file, be it there or not."""
    if is_there(path) and is_there(other):
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)
