"""Options that several commands have, and the kinds of numbers that options take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_type_hints

from cyclopts import Parameter, Token
from cyclopts.validators import Number

__all__ = [
    "BlockSize",
    "FitOptions",
    "NotNegative",
    "OutputOptions",
    "Positive",
    "PrintOptions",
    "RunOptions",
    "Seconds",
    "option_names",
]


def _integer(_: object, tokens: Sequence[Token]) -> int:
    """Read an integer, and nothing that would have to be rounded."""
    return _whole(tokens[0].value, "an integer")


def _block_size(_: object, tokens: Sequence[Token]) -> int | str:
    value = tokens[0].value
    return value if value in {"min", "toeplitz"} else _whole(value, "an integer, min or toeplitz")


def _whole(value: str, kinds: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"must be {kinds}, got {value!r}") from None


def _check_block_size(_: object, value: int | str) -> None:
    if not isinstance(value, str):
        Number(gte=1)(int, value)


Positive: TypeAlias = Annotated[int, Parameter(converter=_integer, validator=Number(gte=1))]
NotNegative: TypeAlias = Annotated[int, Parameter(converter=_integer, validator=Number(gte=0))]
Seconds: TypeAlias = Annotated[float, Parameter(validator=Number(gte=0))]
BlockSize: TypeAlias = Annotated[
    Literal["min", "toeplitz"] | int, Parameter(converter=_block_size, validator=_check_block_size)
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PrintOptions:
    """What a command prints.

    Parameters
    ----------
    json
        Print one JSON object instead of tables.
    debug
        Show the traceback of an error.
    """

    json: bool = False
    debug: bool = False
    """Read from the command line itself, since errors come while that is read too."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputOptions(PrintOptions):
    """What a command prints, and how it writes files.

    Parameters
    ----------
    json
        Print one JSON object instead of tables.
    force
        Replace existing output files.
    debug
        Show the traceback of an error.
    """

    force: bool = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How one matrix is fitted.

    Parameters
    ----------
    key
        Name of the array in a file with several, as in `--key layer.weight`.
    block_size
        Rows of one circulant block, as in `--block-size 384`; `min` is the smaller side of the matrix. Smaller blocks
        mean more parameters and a smaller error. With `toeplitz` the middle factor is a Toeplitz matrix.
    first
        Kind of the first factor.
    input_second_moment
        File with the second moment of the vectors that the matrix is applied to, or its diagonal; errors are weighted
        ones then.
    time_limit
        Seconds for the search, as in `--time-limit 120`. By default a fixed amount of work. Ctrl-C ends the search
        early, with the best result so far.
    seed
        Seed of random numbers; the same seed gives the same result, unless a time limit cuts it.
    """

    key: str | None = None
    block_size: BlockSize = "min"
    first: Literal["diagonal", "circulant"] = "diagonal"
    input_second_moment: Path | None = None
    time_limit: Seconds | None = None
    seed: NotNegative = 0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions(PrintOptions):
    """How a command works through many matrices, and from which checkpoints they may come.

    Parameters
    ----------
    base
        Checkpoint: a folder, or a file in the safetensors format or of PyTorch (`.bin`, `.pt`).
    tuned
        The same, tuned: the changes are the matrices.
    targets
        Regular expression that must be found in the name of a layer, as in `--targets "query|value"`. By default all;
        embeddings and what is tied to them only for `sweep`.
    input_second_moment
        File with the second moments of the inputs; errors are weighted ones then.
    time_limit
        Seconds for each fit; results then depend on the machine. By default a fixed amount of work.
    workers
        Processes on this machine.
    scheduler
        Use Dask: `local`, or the address of a scheduler, as in `--scheduler tcp://host:8786`.
    log_level
        Least level of messages on stderr: info has a line for each result.
    json
        Print one JSON object instead of tables.
    debug
        Show the traceback of an error.
    """

    base: Path | None = None
    tuned: Path | None = None
    targets: str | None = None
    input_second_moment: Path | None = None
    time_limit: Seconds | None = None
    workers: Positive = 1
    scheduler: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


def option_names(command: Callable[..., Any]) -> set[str]:
    """Return the names of a command's options as Python spells them."""
    hints, found = get_type_hints(command), set()
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            found |= {field.name for field in fields(hints[name])}
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found.add(name)
    return found
