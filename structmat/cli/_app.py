"""The commands, and the one place where errors become a line on stderr and an exit status."""

from __future__ import annotations

import contextlib
import errno
import importlib
import inspect
import io
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts.validators import Number

import structmat
from structmat._adapter_format import CONFIG, WEIGHTS
from structmat._files import atomic_write, check_output, one_line, printable, require_safetensors, versions
from structmat._progress import show_state
from structmat.cli import _output
from structmat.fit import error_curve, fit_cdd
from structmat.io import describe, load_matrix, save

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit import ErrorCurve
    from structmat.studies import Progress, Study

__all__ = ["app", "run"]

_FAILURE = 1
"""The exit status where something went wrong."""

_USAGE = 2
"""The exit status of wrong usage, as most commands have it."""

_INTERRUPTED = 130
"""The exit status after Ctrl-C: shells expect 128 and the number of the signal, 2."""

_FAULTS = (OSError, ValueError, TypeError, ArithmeticError, ImportError, MemoryError, RuntimeError)
"""What may go wrong with files and arguments. All else is a fault of structmat, and gets the traceback of Python."""


_running: ContextVar[tuple[str, ...]] = ContextVar("_running", default=())
"""The arguments of the command that runs, for the files that it writes."""

_written: ContextVar[tuple[Path, ...]] = ContextVar("_written", default=())
"""The files that it has written so far."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of the errors of a disk that is full, or that takes no more of a user or no larger file."""

_LISTS = ("--n-factors", "--block-sizes")
"""The options whose value is a list, with commas or spaces between."""


_SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600}
"""The seconds in each unit of a duration, by the letter behind the number."""


class CommandError(Exception):
    """Wrong usage of a command."""


def _number(text: str, *names: str) -> Any:
    """Return the integer or the name that a text is; the parser itself would make 2 of 2.5."""
    if text in names:
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be {' or '.join(['an integer', *names])}, got {text!r}") from None


def _integer(_: object, tokens: Sequence[Token]) -> int:
    return int(_number(tokens[0].value))


def _seconds(_: object, tokens: Sequence[Token]) -> float:
    """Return the seconds of a duration such as `90`, `90s`, `1.5m` or `2h`."""
    text = tokens[0].value
    unit = _SECONDS_OF_UNIT.get(text[-1:])
    try:
        return float(text) if unit is None else float(text[:-1]) * unit
    except ValueError:
        raise ValueError(f"must be a number of seconds, or one with s, m or h behind it, got {text!r}") from None


def _integers(_: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(map(_number, tokens[0].value.split(",")))


def _block_sizes(_: object, tokens: Sequence[Token]) -> tuple[int | str, ...]:
    return tuple(_number(part.strip(), "min") for part in tokens[0].value.split(","))


def _block_size(_: object, tokens: Sequence[Token]) -> int | str:
    size: int | str = _number(tokens[0].value, "min")
    return size


def _block_size_of_fit(_: object, tokens: Sequence[Token]) -> int | str:
    size: int | str = _number(tokens[0].value, "min", "toeplitz")
    return size


Positive: TypeAlias = Annotated[int, Parameter(converter=_integer, validator=Number(gte=1))]
NotNegative: TypeAlias = Annotated[int, Parameter(converter=_integer, validator=Number(gte=0))]
Seconds: TypeAlias = Annotated[float, Parameter(converter=_seconds, validator=Number(gte=0))]
Integers: TypeAlias = Annotated[tuple[int, ...], Parameter(converter=_integers, n_tokens=1, accepts_keys=False)]
BlockSize: TypeAlias = Annotated[int | Literal["min"], Parameter(converter=_block_size)]
BlockSizeOfFit: TypeAlias = Annotated[int | Literal["min", "toeplitz"], Parameter(converter=_block_size_of_fit)]
BlockSizes: TypeAlias = Annotated[
    tuple[int | Literal["min"], ...], Parameter(converter=_block_sizes, n_tokens=1, accepts_keys=False)
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How one matrix is fitted, and what is printed.

    Parameters
    ----------
    key
        Name of the array in a file with several.
    block_size
        Rows of one circulant block; `min` is the smaller side of the matrix, and `toeplitz` one larger block, whose
        corner is a Toeplitz matrix.
    input_second_moment
        File with the second moment of the vectors that the matrix is applied to; errors are weighted ones then.
    time_limit
        Seconds of processor time, or minutes as in `2m`, for the search: for one fit, or for all fits of a curve
        together. Ctrl-C ends it early, with the best result so far.
    restarts
        Random starts of each fit. By default up to 16 for three factors, and up to four for more.
    rng
        Seed of random numbers.
    json
        Print one JSON object instead of tables.
    force
        Replace existing output files.
    """

    key: str | None = None
    block_size: BlockSizeOfFit = "min"
    input_second_moment: Path | None = None
    time_limit: Seconds | None = None
    restarts: NotNegative | None = None
    rng: NotNegative = 0
    json: bool = False
    force: bool = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Which changes of a model are the matrices, in place of files of matrices.

    Parameters
    ----------
    base
        Checkpoint: a folder, or a file of safetensors or PyTorch (`.bin`, `.pt`).
    tuned
        The same, tuned, or a folder of PEFT with an adapter: the changes are the matrices.
    delta
        In place of both, a file with the changes themselves, by path of the module.
    targets
        Regular expression, found in the name of a layer, as in `--targets "query|value"`. By default all but
        embeddings.
    cast
        Take base and tuned weights of different dtypes.
    skip_bad
        Leave out layers whose files are damaged or do not match, and list them.
    write_adapters
        Write the best products as adapters for PEFT, one for each odd number of factors. Say it from the first run on.
    """

    base: Path | None = None
    tuned: Path | None = None
    delta: Path | None = None
    targets: str | None = None
    cast: bool = False
    skip_bad: bool = False
    write_adapters: bool = False


_FIT = FitOptions()
_CHECKPOINT = CheckpointOptions()

app = App(
    name="structmat",
    help="Fit matrices by products of diagonal and circulant factors, which multiply a vector in O(n log n).",
    version=f"structmat {structmat.__version__}",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.register_install_completion_command()


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    owner = " ".join(["structmat", *(name for name in arguments[:1] if name in app)])
    command: Callable[..., Any] | None = None
    _running.set(tuple(arguments))
    _written.set(())
    try:
        _refuse_empty(arguments)
        command, bound, _ = app.parse_args(_with_commas(arguments), print_error=False, exit_on_error=False)
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, owner)
            command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"{owner}: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:  # whoever reads the output has stopped, as `head` does
        _drop_unwritten_output()
        return _FAILURE
    except (CycloptsError, CommandError) as error:
        sys.stderr.write(f"{owner}: error: {printable(one_line(error))}\n")
        return _USAGE
    except _FAULTS as error:
        text, status = _told(error, command)
        sys.stderr.write(f"{owner}: error: {printable(text)}\n")
        _drop_unwritten_output()
        return status
    return 0


def _drop_unwritten_output() -> None:
    """Drop output that nobody takes: at its end Python would write it again, and replace the exit status by 120."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(owner: str, text: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"{owner}: warning: {printable(one_line(text))}\n")


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty values: to an option that takes a path they would be the current folder."""
    for before, argument in zip(["an argument", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise CommandError(f"{argument.rstrip('=') or before}: must not be empty")


def _with_commas(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which the numbers of a list are one value: ``3 5`` after `--n-factors` becomes ``3,5``."""
    found: list[str] = []
    option = ""
    for argument in arguments:
        numbers = all(part.isdecimal() or part in {"min", ""} for part in argument.split(","))
        if option and found[-1] != option and numbers:
            found[-1] = f"{found[-1].rstrip(',')},{argument.strip(',')}"
            continue
        if not (option and found[-1] == option and numbers):
            option = argument if argument in _LISTS else ""
        found.append(argument.rstrip(",") if option and argument != option else argument)
    return found


def _told(error: BaseException, command: Callable[..., Any] | None) -> tuple[str, int]:
    """Return the text of an error and the exit status: that of wrong usage if an option of the command is to blame."""
    if isinstance(error, structmat.ArgumentError):
        option = error.argument
        if command is not None and option and option in _options(command):
            return f"--{option.replace('_', '-')}: {error.text}", _USAGE
        return error.text if error.argument in {None, "path"} else f"{error.argument}: {error.text}", _FAILURE
    if isinstance(error, FileExistsError) and command is not None and "force" in _options(command):
        return f"{error.filename} exists; --force replaces it", _USAGE
    if isinstance(error, OSError) and error.filename:
        rest = _whole(error.filename) if error.errno in _FULL else ""
        return f"{os.fspath(error.filename)}: {error.strerror}{rest}", _FAILURE
    if isinstance(error, MemoryError):
        return "there is not enough memory for it", _FAILURE
    return one_line(error), _FAILURE


def _whole(path: str) -> str:
    """Return what is whole after a disk was full when a file was written, as the end of a sentence."""
    if path.endswith(".jsonl"):
        return "; results that are done are whole, and the same command continues"
    others = ", ".join(map(str, _written.get()))
    verb = "is" if len(_written.get()) == 1 else "are"
    return f"; nothing of it is written{f', and {others} {verb} whole' if others else ''}"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Note a file that is whole after the block."""
    yield
    _written.set((*_written.get(), path))


def _options(command: Callable[..., Any]) -> set[str]:
    """Return the names of the options of a command, as Python spells them."""
    found = set()
    for parameter in inspect.signature(command).parameters.values():
        grouped = parameter.default if is_dataclass(parameter.default) else None
        found |= {parameter.name} if grouped is None else {field.name for field in fields(grouped)}
    return found - {"W", "sources", "file"}


@app.command
def fit(
    W: Path,
    /,
    *,
    n_factors: Positive = 3,
    entry_weights: Path | None = None,
    out: Path | None = None,
    plot: Path | None = None,
    options: FitOptions = _FIT,
) -> None:
    """Fit a matrix by a product of diagonal and circulant factors.

    Prints the error beside those of the truncated SVD and the block-circulant matrix of at most as many parameters.
    Example: `structmat fit W.npy --out fit.safetensors --plot fit.png`

    Parameters
    ----------
    W
        File with the matrix: `.npy`, `.npz`, `.mat`, `.csv` or `.safetensors`; real or complex, of any shape.
    n_factors
        Number of factors; 3 is diagonal, circulant, diagonal. Odd for rectangles and several blocks.
    entry_weights
        File with a weight for each entry of the matrix, zero where it is missing; for three factors.
    out
        Save the fit to this `.safetensors` file; `structmat.io.load` reads it.
    plot
        Draw matrix, fit, residual and singular values to this file, `.png`, `.pdf` or `.svg`.
    options
        How the matrix is fitted, and what is printed.
    """
    o = options
    sources = [W, o.input_second_moment, entry_weights]
    _check_outputs(sources, {"--out": (out, _SAFETENSORS), "--plot": (plot, _FIGURE)}, force=o.force)
    matrix, moment, weights = load_matrix(W, key=o.key), _moment(o.input_second_moment), _loaded(entry_weights)
    with _output.progress_line(quiet=o.json) as line:
        result = fit_cdd(
            matrix,
            n_factors,
            block_size=o.block_size,
            input_second_moment=moment,
            entry_weights=weights,
            time_limit=o.time_limit,
            restarts=o.restarts,
            rng=o.rng,
            callback=partial(show_state, line),
            on_interrupt="return",
        )
    weighted = moment is not None or weights is not None
    rows = _output.comparison(matrix, result, moment, weighted=weighted)
    if o.json:
        files = {"out": out and str(out), "plot": plot and str(plot)}
        everything = {**result.to_dict(), "comparison": rows, "seconds": result.seconds, **files}
        show = partial(_output.print_json, everything)
    else:
        show = partial(_output.print_fit, f"{W.name}{', weighted errors' if weighted else ''}", result, rows)
    with _output.printed(show):
        if out is not None:
            with _writing(out):
                save(result, out, metadata={"source": printable(W.name)}, force=o.force)
        if plot is not None:
            shown = matrix if weights is None else np.where(weights > 0, matrix, np.nan)
            _draw(lambda module: module.fit_figure(shown, result), plot, force=o.force)
    if not o.json:
        _output.say_files({"fit": out, "figure": plot})
    if result.status == "interrupted":
        raise KeyboardInterrupt


_OF_A_CURVE = (3, 5, 7, 9)
"""The numbers of factors of a curve, which every shape has. Of 384 rows they take half a minute, all up to nine more
than a minute and a half."""


@app.command
def curve(
    W: Path,
    /,
    *,
    n_factors: Integers | None = None,
    seeds: Positive = 1,
    workers: Positive | None = None,
    plot: Path | None = None,
    x: Literal["share", "parameters", "factors"] = "share",
    width: Literal["column", "page"] | None = None,
    table: Path | None = None,
    options: FitOptions = _FIT,
) -> None:
    """Fit a matrix with more and more factors, and compare with other families of matrices.

    Prints the error for each number of factors, and the least errors that truncated SVD (LoRA), block-circulant (C3A),
    sparse Fourier (FourierFT) and Monarch matrices with at most as many parameters reach.
    Example: `structmat curve W.npy --n-factors 3,5,9,17 --plot curve.png`

    Parameters
    ----------
    W
        File with the matrix: `.npy`, `.npz`, `.mat`, `.csv` or `.safetensors`; real or complex, of any shape.
    n_factors
        Numbers of factors, as in `--n-factors 3,5,9`; each fit begins at those with fewer. By default 3, 5, 7 and 9.
    seeds
        Independent searches, for the spread of their errors; the best is kept.
    workers
        Processes on this machine for several searches.
    plot
        Draw the curve to this `.png`, `.pdf` or `.svg`; it names the command.
    x
        Horizontal axis of the figure; the share is of the dense matrix.
    width
        Make the figure as wide as a column or a page of a paper.
    table
        Write the table to this file, `.csv` or `.tex`.
    options
        How the matrix is fitted, and what is printed.
    """
    o = options
    outputs = {"--plot": (plot, _FIGURE), "--table": (table, _TABLE)}
    _check_outputs([W, o.input_second_moment], outputs, force=o.force)
    matrix, moment = load_matrix(W, key=o.key), _moment(o.input_second_moment)
    with _output.progress_line(quiet=o.json) as line:
        found = error_curve(
            matrix,
            n_factors or _OF_A_CURVE,
            seeds=seeds,
            workers=workers or 1,
            block_size=o.block_size,
            input_second_moment=moment,
            time_limit=o.time_limit,
            restarts=o.restarts,
            rng=o.rng,
            callback=partial(show_state, line),
            on_interrupt="return",
        )
    files = {"plot": plot and str(plot), "table": table and str(table)}
    everything = {**found.to_dict(), "command": _command(), **files}
    show = partial(_output.print_json, everything) if o.json else partial(_output.say_lines, repr(found))
    with _output.printed(show):
        if plot is not None:
            _draw(lambda _: found.plot(x=x, width=width).figure, plot, force=o.force)
        if table is not None:
            _write_table(found, table, force=o.force)
    if not o.json:
        _output.say_files({"figure": plot, "table": table})
    if found.ended == "interrupted":
        raise KeyboardInterrupt


@app.command
def sweep(
    *sources: Path,
    out: Path,
    n_factors: Integers = (3,),
    block_sizes: BlockSizes = ("min",),
    seeds: Positive = 1,
    rng: NotNegative = 0,
    input_second_moment: Path | None = None,
    time_limit: Seconds | None = None,
    workers: Positive | None = None,
    scheduler: str | None = None,
    x: Literal["share", "parameters", "factors"] = "share",
    width: Literal["column", "page"] | None = None,
    json: bool = False,
    options: CheckpointOptions = _CHECKPOINT,
) -> None:
    """Approximate many matrices, or the changes of a model, by many methods at equal numbers of parameters.

    Every result is written to the disk at once: after Ctrl-C or a crash the same command continues.
    Example: `structmat sweep --base base --tuned tuned --n-factors 3 5 9 --out study --workers 2 --write-adapters`

    Parameters
    ----------
    sources
        Files of matrices, `.npy`, `.npz`, `.mat`, `.csv` or `.safetensors`.
    out
        Folder of the study, for `results.csv`, `.tex` and `.png`. Name all layers and settings again to add to it.
    n_factors
        Numbers of factors, as in `--n-factors 3 5 9`.
    block_sizes
        Sides of the circulant blocks, as in `--block-sizes min 96`; `min` is the smaller side.
    seeds
        Independent searches of each layer, for the spread of their errors; the best counts.
    rng
        Seed of random numbers.
    input_second_moment
        Second moment of the inputs of all layers, `.npy`, or of each by its name, `.safetensors`: weighted errors.
    time_limit
        Seconds of processor time for all fits of a layer; results then depend on the speed of the machine.
    workers
        Processes on this machine.
    scheduler
        Address of a Dask scheduler to use instead, as in `--scheduler tcp://host:8786`.
    x
        Horizontal axis of the figure; the share is of the dense matrix.
    width
        Make the figure as wide as a column or a page of a paper.
    json
        Print one JSON object instead of tables.
    options
        Which changes of a model are the matrices.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    _FIGURE.require()
    o = options
    if bool(sources) == any(path is not None for path in (o.base, o.tuned, o.delta)):
        raise CommandError("name files of matrices, or --base and --tuned, or --delta")
    layers: Mapping[str, Any] = (
        studies.matrices(*sources, targets=o.targets)
        if sources
        else studies.changes(o.base, o.tuned, o.targets, delta=o.delta, cast=o.cast, skip_bad=o.skip_bad)
    )
    with _resumable(out, scheduler, quiet=json) as callback:
        study = studies.sweep(
            layers,
            out,
            n_factors=n_factors,
            block_sizes=block_sizes,
            seeds=seeds,
            rng=rng,
            input_second_moment=_moments(input_second_moment),
            time_limit=time_limit,
            write_adapters=o.write_adapters,
            workers=workers,
            callback=callback,
        )
    drawn = any(row["norm"] and row["n_parameters"] for row in study.rows)  # matrices of zeros are not drawn
    text = partial(_output.print_means, study, f"{'tables and figure' if drawn else 'tables'}: {out}")
    everything = {"out": str(out), **asdict(study), "command": _command(), "versions": versions()}
    with _output.printed(partial(_output.print_json, everything) if json else text):
        if study.rows:
            _write_table(study, out / _LATEX, force=True)
        if drawn:
            _draw(lambda _: study.plot(x=x, width=width).figure, out / _DRAWING, force=True)
    if study.failed and not o.skip_bad:
        key, why = next(iter(study.failed.items()))
        raise RuntimeError(f"{len(study.failed)} of {len(study.failed) + len(study.rows)} units failed: {key}: {why}")


@app.command
def info(file: Path, /, *, json: bool = False) -> None:
    """Describe a saved operator or fit, or a study or an adapter, or list the arrays of a file of matrices.

    Parameters
    ----------
    file
        A file that `structmat fit --out` or `structmat.io.save` wrote, a file of matrices, or a folder that
        `structmat sweep` wrote.
    json
        Print one JSON object instead of a table.
    """
    if (file / "results.jsonl").is_file():
        from structmat import studies  # noqa: PLC0415  # an extra

        study = studies.load_study(file)
        show = partial(_output.print_json, asdict(study)) if json else partial(_output.say_lines, repr(study))
        show()
        return
    description = describe(file / WEIGHTS if (file / CONFIG).is_file() else file)
    if (file / CONFIG).is_file():
        description |= {"adapter": loads((file / CONFIG).read_text(encoding="utf-8"))}
    if json:
        _output.print_json(description)
    else:
        _output.print_description(description)


class _Output(NamedTuple):
    """A kind of files that commands write."""

    suffixes: list[str]
    """The ends that names of such files may have."""
    require: Callable[[], object]
    """Raises an error where the library is missing that writes such files."""


def _plot() -> Any:
    """Return the module that draws."""
    from structmat import plot  # noqa: PLC0415  # matplotlib is slow to import

    return plot


_DRAWING = "results.png"
"""The figure of a study, in its folder."""

_LATEX = "results.tex"
"""The means of a study for a paper, in its folder."""

_SAFETENSORS = _Output([".safetensors"], require_safetensors)
_FIGURE = _Output([".png", ".pdf", ".svg"], _plot)
_TABLE = _Output([".csv", ".tex"], partial(importlib.import_module, "pandas"))


def _loaded(path: Path | None) -> NDArray[Any] | None:
    """Read the matrix of an option, if that was given."""
    return None if path is None else load_matrix(path)


def _moment(path: Path | None) -> NDArray[Any] | None:
    """Read a second moment. Files of text and of MATLAB have no vectors: there a row or a column stands for one."""
    moment = _loaded(path)
    return moment.ravel() if moment is not None and moment.ndim == 2 and 1 in moment.shape else moment


_BY_LAYER = {".safetensors", ".bin", ".pt", ".pth"}
"""The suffixes of files that hold a second moment for each layer, by its name."""


def _moments(path: Path | None) -> NDArray[Any] | Path | None:
    """Return the second moment of all layers, or the file that has that of each."""
    return path if path is not None and (path.is_dir() or path.suffix in _BY_LAYER) else _moment(path)


def _check_outputs(
    sources: Sequence[Path | None], outputs: Mapping[str, tuple[Path | None, _Output]], *, force: bool
) -> None:
    """Refuse, before any work, outputs that could not be written after it, and those that are inputs too."""
    used = {os.path.realpath(path) for path in sources if path is not None}
    for option, (path, kind) in outputs.items():
        if path is None:
            continue
        if path.suffix.lower() not in kind.suffixes:
            raise CommandError(f"{option}: {path} must end in {' or '.join(kind.suffixes)}")
        if (real := os.path.realpath(path)) in used:
            raise CommandError(f"{option}: {path} is another file of this command, which is not overwritten")
        used.add(real)
        check_output(path, force=force)
        kind.require()


def _draw(figure: Callable[[Any], Any], path: Path, *, force: bool) -> None:
    """Draw a figure to a file."""
    with _writing(path), atomic_write(path, force=force) as file:
        form = path.suffix[1:].lower()
        made_by = ", ".join(f"{name} {version}" for name, version in versions().items())
        # What these formats call the description of a picture.
        text = {"pdf": "Subject"}.get(form, "Description")
        figure(_plot()).savefig(file, format=form, metadata={text: f"{_command()} ({made_by})"})


def _write_table(found: ErrorCurve | Study, path: Path, *, force: bool) -> None:
    """Write a table as CSV or for LaTeX, by the end of the file's name."""
    with _writing(path):
        if path.suffix.lower() == ".csv":
            found.to_csv(path, force=force)
            return
        with atomic_write(path, force=force) as file:
            file.write(found.to_latex(command=_command()).encode())


def _command() -> str:
    """Return the command that runs, as a shell takes it."""
    return printable(shlex.join(["structmat", *_running.get()]))


@contextlib.contextmanager
def _resumable(out: Path, scheduler: str | None, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give the callback that shows how far a sweep is, and after Ctrl-C say what is done and kept."""
    state: Progress | None = None
    with _output.progress_line(quiet=quiet) as show, _cluster(scheduler):

        def hear(news: Progress) -> None:
            nonlocal state
            state = news
            show_state(show, news)

        try:
            yield hear
        except KeyboardInterrupt:
            done = "0 results" if state is None else f"{state.n_done} of {state.n_units} results"
            sys.stderr.write(f"structmat sweep: {done} are done and kept in {out}; the same command continues\n")
            raise


@contextlib.contextmanager
def _cluster(scheduler: str | None) -> Iterator[None]:
    """Let joblib use the workers of a Dask scheduler, if there is one."""
    if scheduler is None:
        yield
        return
    import joblib  # noqa: PLC0415  # an extra

    try:
        from distributed import Client  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ImportError('--scheduler needs the extra "studies": pip install "structmat[studies]"') from error
    # These libraries log every step of losing a connection, which is told in one line here.
    for name in ("asyncio", "distributed.client", "distributed.core", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=5)
    except (OSError, ValueError, MemoryError) as error:  # the last one comes of a server that is no scheduler
        raise ConnectionError(f"--scheduler: there is no Dask scheduler at {scheduler}") from error
    with client, joblib.parallel_config(backend="dask"):
        yield
