"""The commands, their options and exit statuses."""

from __future__ import annotations

import inspect
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

import structmat
from structmat import io
from structmat.cli._compare import comparison
from structmat.cli._curve import curve
from structmat.cli._errors import FAILURE, INTERRUPTED, USAGE, CommandError, blaming
from structmat.cli._fit_checkpoint import fit_checkpoint
from structmat.cli._outputs import check_outputs, plot_module, write_figure
from structmat.cli._report import live_progress, print_comparison, print_description, print_json, result_notes
from structmat.cli._sweep import report, sweep
from structmat.fit import fit_cdd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit import FitResult

__all__ = ["app", "run"]

_FIT_DEFAULTS = {name: p.default for name, p in inspect.signature(fit_cdd).parameters.items()}
_N_FACTORS, _MAX_ITER, _TOL = (_FIT_DEFAULTS[name] for name in ("n_factors", "max_iter", "tol"))
_Positive = Parameter(validator=Number(gte=1))

app = App(
    name="structmat",
    help="Fit matrices by products of diagonal and circulant factors, which multiply a vector in O(n log n).",
    version=f"structmat {structmat.__version__}",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


@app.command
def fit(
    W: Path,
    /,
    *,
    key: str | None = None,
    n_factors: Annotated[int, _Positive] = _N_FACTORS,
    block_size: Annotated[int | None, _Positive] = None,
    first: Literal["diagonal", "circulant"] = "diagonal",
    max_iter: Annotated[int, _Positive] = _MAX_ITER,
    tol: Annotated[float, Parameter(validator=Number(gte=0))] = _TOL,
    time_limit: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    out: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
    force: bool = False,
    debug: bool = False,  # noqa: ARG001  # read by `run`
) -> None:
    """Fit a matrix by a product of diagonal and circulant factors.

    Prints the error and the number of parameters beside those of a truncated SVD of the same size, the nearest
    circulant and the nearest diagonal matrix. Example: `structmat fit W.npy --out fit.safetensors --plot fit.png`

    Parameters
    ----------
    W
        File with the matrix: `.npy`, `.npz` or `.safetensors`; real or complex, of any shape.
    key
        Name of the array in a file with several, as in `--key layer.weight`.
    n_factors
        Number of factors; 3 is diagonal, circulant, diagonal. A rectangle or several blocks have odd numbers.
    block_size
        Rows of one circulant block, as in `--block-size 384`. By default the smaller side of the matrix. Smaller blocks
        mean more parameters and a smaller error.
    first
        Kind of the first factor.
    max_iter
        The most iterations from one starting point, as in `--max-iter 5000`.
    tol
        Stop when an iteration lowers the error by less than this part of itself, as in `--tol 1e-9`.
    time_limit
        Seconds until which to search, as in `--time-limit 120`. By default a fixed amount of work. Ctrl-C ends the
        search early, with the best fit so far.
    seed
        Seed of random numbers; the same seed gives the same fit, unless a time limit cuts it.
    out
        Save the fit to this file, as in `--out fit.safetensors`; `structmat.io.load` reads it.
    plot
        Draw matrix, fit, residual and singular values to this file, as in `--plot fit.png` (or `.pdf`, `.svg`).
    json
        Print one JSON object instead of the table.
    force
        Replace existing output files.
    debug
        Show the traceback of an error.
    """
    check_outputs(W, {"--out": out, "--plot": plot}, force=force)
    with blaming("W"):
        matrix = io.load_matrix(W, key=key)
    start = time.perf_counter()
    with live_progress(quiet=json) as callback, blaming("W"):
        result = fit_cdd(
            matrix,
            n_factors,
            block_size="min" if block_size is None else block_size,
            first=first,
            max_iter=max_iter,
            tol=tol,
            time_limit=time_limit,
            rng=seed,
            callback=callback,
        )
    seconds = time.perf_counter() - start
    written = _write_outputs(matrix, result, out, plot, source=W, force=force)
    rows = comparison(matrix, result)
    if json:
        operator = {
            "kind": type(result.operator).__name__,
            "shape": list(matrix.shape),
            "block_size": result.block_size,
        }
        table = [row.to_dict() for row in rows]
        files = {"out": None if out is None else str(out), "plot": None if plot is None else str(plot)}
        print_json({"operator": operator, **result.to_dict(), "comparison": table, "seconds": seconds, **files})
    else:
        title = f"{W.name}: {matrix.shape[0]} x {matrix.shape[1]}, {matrix.dtype}"
        notes = [result_notes(result, seconds), *(f"wrote {path}" for path in written)]
        print_comparison(title, rows, matrix.size, notes)
    if "interrupted" in result.message:
        raise KeyboardInterrupt


app.command(curve)
app.command(fit_checkpoint)
app.command(sweep)
app.command(report)


@app.command
def info(
    file: Path,
    /,
    *,
    json: bool = False,
    debug: bool = False,  # noqa: ARG001  # read by `run`
) -> None:
    """Describe a saved operator, or list the arrays of a file of matrices.

    Parameters
    ----------
    file
        A file that `structmat fit --out` or `structmat.io.save` wrote, or a `.npy`, `.npz` or `.safetensors` file.
    json
        Print one JSON object instead of tables.
    debug
        Show the traceback of an error.
    """
    with blaming("FILE"):
        description = io.describe(file)
    if json:
        print_json(description)
    else:
        print_description(description)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    owner = " ".join(["structmat", *(name for name in arguments[:1] if name in app)])
    try:
        command, bound, _ = app.parse_args(list(arguments), print_error=False, exit_on_error=False)
        command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"{owner}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output left, as `head` does
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # noqa: BLE001  # the last line of defence: one line instead of a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        sys.stderr.write(f"{owner}: error: {_message(error)}\n")
        if isinstance(error, CycloptsError):
            return USAGE
        return error.status if isinstance(error, CommandError) else FAILURE
    return 0


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (CommandError, CycloptsError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _write_outputs(
    matrix: NDArray[Any], result: FitResult, out: Path | None, plot: Path | None, *, source: Path, force: bool
) -> list[Path]:
    if out is not None:
        with blaming("--out"):
            io.save(result, out, metadata={"source": source.name}, force=force)
    if plot is not None:
        write_figure(plot_module().fit_figure(matrix, result), plot, force=force)
    return [path for path in (out, plot) if path is not None]
