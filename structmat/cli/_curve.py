"""The command `structmat curve`."""

from __future__ import annotations

from pathlib import Path

from structmat.cli._errors import USAGE, CommandError, blaming
from structmat.cli._inputs import read_integers, read_matrix, read_option
from structmat.cli._options import FitOptions, OutputOptions, Positive
from structmat.cli._outputs import check_outputs, plot_module, write_figure
from structmat.cli._progress import curve_progress
from structmat.cli._streams import unprinted
from structmat.cli._tables import print_curve, print_json, print_written
from structmat.fit import error_curve

__all__ = ["curve"]

_FIT, _OUTPUT = FitOptions(), OutputOptions()


def curve(
    W: Path,
    /,
    *,
    max_factors: Positive | None = None,
    n_factors: str | None = None,
    settings: FitOptions = _FIT,
    plot: Path | None = None,
    csv: Path | None = None,
    output: OutputOptions = _OUTPUT,
) -> None:
    """Fit a matrix with more and more factors, and compare with other families of matrices.

    Prints the error for each number of factors, and the least errors that a truncated SVD (LoRA), block-circulant
    (C3A), sparse Fourier (FourierFT) and Monarch matrices with at most as many parameters reach.
    Example: `structmat curve W.npy --max-factors 17 --plot curve.png --csv curve.csv`

    Parameters
    ----------
    W
        File with the matrix: `.npy`, `.npz` or `.safetensors`; real or complex, of any shape.
    max_factors
        The largest number of factors, as in `--max-factors 17`; 9 by default. For rectangles and several blocks odd
        numbers from 3 on.
    n_factors
        The numbers of factors themselves, as in `--n-factors 3,5,9`. Each fit begins at those with fewer factors:
        without some of these the others may come out better or worse.
    settings
        How the matrix is fitted; the time limit is one for all fits together.
    plot
        Draw the curve to this file, as in `--plot curve.png` (or `.pdf`, `.svg`).
    csv
        Write the curve to this file, as in `--csv curve.csv`; `structmat.ErrorCurve.load` reads it.
    output
        What is printed and written.
    """
    force = output.force
    numbers = read_integers("--n-factors", n_factors)
    if numbers is not None and max_factors is not None:
        raise CommandError("--max-factors", "--n-factors names all numbers of factors", USAGE)
    sources = {"W": W, "--input-second-moment": settings.input_second_moment}
    check_outputs(sources, {"--plot": plot, "--csv": csv}, force=force)
    matrix = read_matrix(W, settings.key, curve)
    moment = read_option("--input-second-moment", settings.input_second_moment)
    with curve_progress(quiet=output.json) as callback, blaming("W", curve):
        found = error_curve(
            matrix,
            max_factors,
            n_factors=None if numbers is None else map(int, numbers),
            block_size=settings.block_size,
            first=settings.first,
            input_second_moment=moment,
            time_limit=settings.time_limit,
            rng=settings.seed,
            callback=callback,
            on_interrupt="return",
        )
    if output.json:
        files = {"plot": None if plot is None else str(plot), "csv": None if csv is None else str(csv)}
        fault = unprinted(print_json, {**found.to_dict(), **files})
    else:
        title = f"{W.name}: {matrix.shape[0]} x {matrix.shape[1]}, {matrix.dtype}"
        fault = unprinted(print_curve, title, found)
    quiet = output.json or fault is not None
    if csv is not None:
        with blaming("--csv"):
            found.save(csv, force=force)
        print_written(csv, quiet=quiet)
    if plot is not None:
        write_figure(plot_module().curve_figure(found), plot, force=force)
        print_written(plot, quiet=quiet)
    if fault is not None:
        raise fault
    if found.stopped == "interrupted":
        raise KeyboardInterrupt
