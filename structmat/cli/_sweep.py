"""The command `structmat sweep`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from structmat import ArgumentError
from structmat._files.kinds import is_there
from structmat.cli._errors import USAGE, CommandError, blaming, blaming_paths
from structmat.cli._inputs import read_integers, split_list
from structmat.cli._logging import logging_to_stderr
from structmat.cli._options import NotNegative, Positive, RunOptions
from structmat.cli._outputs import unwritten
from structmat.cli._progress import resumable, sweep_progress
from structmat.cli._streams import printing
from structmat.cli._tables import print_json, print_study

__all__ = ["sweep"]

_RUN = RunOptions()


def sweep(
    *sources: Path,
    out: Path | None = None,
    n_factors: str | None = None,
    block_sizes: str | None = None,
    methods: str | None = None,
    seeds: str | None = None,
    max_iter: Positive | None = None,
    restarts: NotNegative | None = None,
    no_growth: bool = False,
    example: bool = False,
    run: RunOptions = _RUN,
) -> None:
    """Approximate many matrices by many methods with many settings, at equal numbers of parameters.

    Every result is written to the disk at once: after an interruption of any kind the same command continues.
    `structmat report` makes plots and tables. Example: `structmat sweep study.toml --out study --workers 2`

    Parameters
    ----------
    sources
        A `.toml` file with the configuration, see `--example`; or files of matrices, `.npy`, `.npz` or `.safetensors`.
    out
        Folder of the study, as in `--out study`. Name all layers and settings again to add to an earlier one; results
        of others are kept in it, but not shown.
    n_factors
        Numbers of factors, as in `--n-factors 3,5,9`. By default 3.
    block_sizes
        Sides of the circulant blocks, as in `--block-sizes min,96`; min, the default, is the smaller side, with
        toeplitz the middle factor is a Toeplitz matrix.
    methods
        Some of cdd, truncated-svd, block-circulant, sparse-fourier and monarch, with commas. All by default.
    seeds
        Seeds of the CDD fits, as in `--seeds 0,1,2`. By default 0.
    max_iter
        Largest number of iterations from one starting point. By default 5000.
    restarts
        Random starting points of a fit. By default by size.
    no_growth
        Do not start fits from those with fewer factors; this takes less than half the time.
    example
        Print an example `.toml` file.
    run
        How the matrices are worked through.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    if example:
        with printing():
            sys.stdout.write(studies.example_config())
        return
    if out is None:
        raise CommandError("--out", "is missing: name the folder of the study, as in --out study", USAGE)
    given: dict[str, Any] = {
        "n_factors": read_integers("--n-factors", n_factors),
        "block_sizes": read_integers("--block-sizes", block_sizes, "min", "toeplitz"),
        "methods": None if methods is None else split_list(methods),
        "seeds": read_integers("--seeds", seeds),
        "max_iter": max_iter,
        "restarts": restarts,
        "growth": False if no_growth else None,
        "time_limit": run.time_limit,
    }
    given = {name: value for name, value in given.items() if value is not None}
    keys = ("base", "tuned", "targets", "input_second_moment")
    named: dict[str, Any] = {key: str(value) for key in keys if (value := getattr(run, key)) is not None}
    if len(sources) == 1 and sources[0].suffix.lower() == ".toml":
        if named:
            raise CommandError(f"--{next(iter(named)).replace('_', '-')}", f"the sources stand in {sources[0]}", USAGE)
        with blaming("CONFIG", sweep), _blaming_file(sources[0]):
            config = studies.read_config(sources[0], **given)
    else:
        if not sources and not named:
            raise CommandError("SOURCES", "name a file .toml, matrices, or --base and --tuned", USAGE)
        with blaming("SOURCES", sweep, USAGE):
            files = tuple(str(path) for path in sources)
            config = studies.SweepConfig((studies.MatrixSource(files=files, **named),), **given)
    paths = {"--out": out, "--base": run.base, "--tuned": run.tuned, "--input-second-moment": run.input_second_moment}
    with (
        sweep_progress(quiet=run.json) as show,
        resumable("structmat sweep", "results", out, show) as callback,
        blaming("--out" if is_there(out) else "SOURCES", sweep),
        _blaming_sources(),
        blaming_paths(paths),
        logging_to_stderr(run.log_level),
    ):
        study, fault = unwritten(
            studies.sweep, config, out, workers=run.workers, scheduler=run.scheduler, callback=callback
        )
    if run.json:
        print_json({"out": str(out), **study.to_dict()})
    else:
        where = out / "study.sqlite" if fault is None else out
        print_study(study, [f"results in {where}; plots: structmat report {out}"])
    if fault is not None:
        with blaming("--out"):
            raise fault
    if study.failed:
        key, text = next(iter(study.failed.items()))
        raise CommandError(f"{len(study.failed)} of {study.n_planned} units failed", f"{key}: {text}")


@contextlib.contextmanager
def _blaming_sources() -> Iterator[None]:
    """Blame the sources for what a sweep of them would be, also where its folder is there already."""
    try:
        yield
    except ArgumentError as error:
        if error.owner != "sweep" or error.argument is not None:
            raise
        raise CommandError("SOURCES", error.text) from error


@contextlib.contextmanager
def _blaming_file(path: Path) -> Iterator[None]:
    """Blame the file of a configuration for what stands in it, also where an option has the same name."""
    try:
        yield
    except ArgumentError as error:
        if error.owner != str(path):
            raise
        raise CommandError("CONFIG", str(error), USAGE) from error
