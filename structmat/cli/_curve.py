"""The command `structmat curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from structmat import io
from structmat.cli._errors import blaming
from structmat.cli._outputs import check_outputs, plot_module, write_figure
from structmat.cli._report import curve_progress, print_curve, print_json
from structmat.fit import error_curve

__all__ = ["curve"]

_Positive = Parameter(validator=Number(gte=1))
_NotNegative = Parameter(validator=Number(gte=0))


def curve(
    W: Path,
    /,
    *,
    key: str | None = None,
    max_factors: Annotated[int, _Positive] = 9,
    block_size: Annotated[int | None, _Positive] = None,
    first: Literal["diagonal", "circulant"] = "diagonal",
    time_limit: Annotated[float | None, _NotNegative] = None,
    seed: Annotated[int, _NotNegative] = 0,
    plot: Path | None = None,
    csv: Path | None = None,
    json: bool = False,
    force: bool = False,
    debug: bool = False,  # noqa: ARG001  # read by `run`
) -> None:
    """Fit a matrix with more and more factors, beside other families with as many parameters.

    Prints the error for each number of factors, and the least errors that a truncated SVD (LoRA), block-circulant
    (C3A), sparse Fourier (FourierFT) and Monarch matrices of at most that size reach.
    Example: `structmat curve W.npy --max-factors 17 --plot curve.png --csv curve.csv`

    Parameters
    ----------
    W
        File with the matrix: `.npy`, `.npz` or `.safetensors`; real or complex, of any shape.
    key
        Name of the array in a file with several, as in `--key layer.weight`.
    max_factors
        The largest number of factors, as in `--max-factors 17`. A rectangle or several blocks have odd ones from 3 on.
    block_size
        Rows of one circulant block, as in `--block-size 384`. By default the smaller side of the matrix.
    first
        Kind of the first factor.
    time_limit
        Seconds for all fits together, as in `--time-limit 600`; the searches go on until then. By default a fixed
        amount of work. Ctrl-C ends the curve early.
    seed
        Seed of random numbers; the same seed gives the same curve, unless a time limit cuts it.
    plot
        Draw the curve to this file, as in `--plot curve.png` (or `.pdf`, `.svg`).
    csv
        Write the curve to this file, as in `--csv curve.csv`; `structmat.ErrorCurve.load` reads it.
    json
        Print one JSON object instead of the table.
    force
        Replace existing output files.
    debug
        Show the traceback of an error.
    """
    check_outputs(W, {"--plot": plot, "--csv": csv}, force=force)
    with blaming("W"):
        matrix = io.load_matrix(W, key=key)
    with curve_progress(quiet=json) as callback, blaming("W"):
        found = error_curve(
            matrix,
            max_factors,
            block_size="min" if block_size is None else block_size,
            first=first,
            time_limit=time_limit,
            rng=seed,
            callback=callback,
        )
    if csv is not None:
        with blaming("--csv"):
            found.save(csv, force=force)
    if plot is not None:
        write_figure(plot_module().curve_figure(found), plot, force=force)
    if json:
        files = {"plot": None if plot is None else str(plot), "csv": None if csv is None else str(csv)}
        print_json({**found.to_dict(), **files})
    else:
        title = f"{W.name}: {matrix.shape[0]} x {matrix.shape[1]}, {matrix.dtype}"
        print_curve(title, found, [f"wrote {path}" for path in (plot, csv) if path is not None])
    if found.stopped == "interrupted":
        raise KeyboardInterrupt
