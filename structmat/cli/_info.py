"""The command `structmat info`."""

from __future__ import annotations

from pathlib import Path

from structmat import io
from structmat.cli._errors import blaming
from structmat.cli._options import PrintOptions
from structmat.cli._tables import print_description, print_json

__all__ = ["info"]

_PRINT = PrintOptions()


def info(file: Path, /, *, output: PrintOptions = _PRINT) -> None:
    """Describe a saved operator or fit, or list the arrays of a file of matrices.

    Parameters
    ----------
    file
        A file that `structmat fit --out` or `structmat.io.save` wrote, or a `.npy`, `.npz` or `.safetensors` file.
    output
        What is printed.
    """
    with blaming("FILE"):
        description = io.describe(file)
    if output.json:
        print_json(description)
    else:
        print_description(description)
