"""The command `structmat fit`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat import io
from structmat._files.text import encodable
from structmat.cli._errors import CommandError, blaming
from structmat.cli._fit_comparison import comparison, fit_row
from structmat.cli._inputs import read_matrix, read_option
from structmat.cli._options import FitOptions, OutputOptions, Positive, Seconds
from structmat.cli._outputs import check_outputs, plot_module, write_figure
from structmat.cli._progress import fit_progress
from structmat.cli._streams import unprinted
from structmat.cli._tables import print_comparison, print_json, print_written, result_notes
from structmat.fit import fit_cdd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit import FitResult

__all__ = ["fit"]

_DEFAULTS = {name: p.default for name, p in inspect.signature(fit_cdd).parameters.items()}
_N_FACTORS, _MAX_ITER, _TOL = (_DEFAULTS[name] for name in ("n_factors", "max_iter", "tol"))
_FIT, _OUTPUT = FitOptions(), OutputOptions()


def fit(
    W: Path,
    /,
    *,
    n_factors: Positive = _N_FACTORS,
    settings: FitOptions = _FIT,
    entry_weights: Path | None = None,
    max_iter: Positive = _MAX_ITER,
    tol: Seconds = _TOL,
    out: Path | None = None,
    plot: Path | None = None,
    output: OutputOptions = _OUTPUT,
) -> None:
    """Fit a matrix by a product of diagonal and circulant factors.

    Prints the error and the number of parameters, and those of a truncated SVD with at most as many parameters, the
    nearest circulant and the nearest diagonal matrix, as far as these are available with the given weights. Example:
    `structmat fit W.npy --out fit.safetensors --plot fit.png`

    Parameters
    ----------
    W
        File with the matrix: `.npy`, `.npz` or `.safetensors`; real or complex, of any shape.
    n_factors
        Number of factors; 3 is diagonal, circulant, diagonal. Odd for rectangles and several blocks.
    settings
        How the matrix is fitted.
    entry_weights
        File with a weight for each entry of the matrix, zero where it is missing; for three factors.
    max_iter
        The most iterations from one starting point, as in `--max-iter 5000`.
    tol
        Stop when an iteration lowers the error by less than this part of itself, as in `--tol 1e-9`.
    out
        Save the fit to this file, as in `--out fit.safetensors`; `structmat.io.load` reads it.
    plot
        Draw matrix, fit, residual and singular values to this file, as in `--plot fit.png` (or `.pdf`, `.svg`).
    output
        What is printed and written.
    """
    sources = {"W": W, "--input-second-moment": settings.input_second_moment, "--entry-weights": entry_weights}
    check_outputs(sources, {"--out": out, "--plot": plot}, force=output.force)
    matrix = read_matrix(W, settings.key, fit)
    moment = read_option("--input-second-moment", settings.input_second_moment)
    weights = read_option("--entry-weights", entry_weights)
    start = time.perf_counter()
    weighted = moment is not None or weights is not None
    with (
        fit_progress(n_factors, quiet=output.json) as callback,
        blaming("W", fit),
    ):
        result = fit_cdd(
            matrix,
            n_factors,
            block_size=settings.block_size,
            first=settings.first,
            input_second_moment=moment,
            entry_weights=weights,
            max_iter=max_iter,
            tol=tol,
            time_limit=settings.time_limit,
            rng=settings.seed,
            callback=callback,
            on_interrupt="return",
        )
    seconds = time.perf_counter() - start
    lost: BaseException | None = KeyboardInterrupt() if result.stopped == "interrupted" else None
    try:
        rows = comparison(matrix, result, input_second_moment=moment, entry_weights=weights)
    except KeyboardInterrupt as error:  # the fit itself is there, and is printed and written
        rows, lost = [fit_row(result)], error
    except MemoryError:
        rows = [fit_row(result)]
        lost = lost or CommandError("comparison", "there is not enough memory for it; the fit itself is complete")
    if output.json:
        operator = {
            "kind": type(result.operator).__name__,
            "shape": list(matrix.shape),
            "block_size": result.block_size,
        }
        table = [row.to_dict() for row in rows]
        files = {"out": None if out is None else str(out), "plot": None if plot is None else str(plot)}
        everything = {"operator": operator, **result.to_dict(), "comparison": table, "seconds": seconds, **files}
        fault = unprinted(print_json, everything)
    else:
        kind = ", weighted errors" if weighted else ""
        title = f"{W.name}: {matrix.shape[0]} x {matrix.shape[1]}, {matrix.dtype}{kind}"
        fault = unprinted(print_comparison, title, rows, matrix.size, [result_notes(result, seconds)])
    for path in _write_outputs(matrix, weights, result, out, plot, source=W, force=output.force):
        print_written(path, quiet=output.json or fault is not None)
    if fault is not None:
        raise fault
    if lost is not None:
        raise lost


def _write_outputs(
    matrix: NDArray[Any],
    weights: NDArray[Any] | None,
    result: FitResult,
    out: Path | None,
    plot: Path | None,
    *,
    source: Path,
    force: bool,
) -> Iterator[Path]:
    """Write the files, and yield each of them once it is there."""
    if out is not None:
        with blaming("--out"):
            io.save(result, out, metadata={"source": encodable(source.name)}, force=force)
        yield out
    if plot is not None:
        shown = matrix if weights is None else np.where(weights > 0, matrix, np.nan)
        write_figure(plot_module().fit_figure(shown, result), plot, force=force)
        yield plot
