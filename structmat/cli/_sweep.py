"""The commands `structmat sweep` and `structmat report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from structmat.cli._errors import USAGE, CommandError, blaming
from structmat.cli._logging import LogLevel, logging_to_stderr
from structmat.cli._outputs import check_outputs, plot_module, write_figure
from structmat.cli._report import print_json, print_study, sweep_progress

__all__ = ["report", "sweep"]

_NotNegative = Parameter(validator=Number(gte=0))
_Positive = Parameter(validator=Number(gte=1))


def sweep(
    *sources: Path,
    out: Path | None = None,
    base: Path | None = None,
    tuned: Path | None = None,
    targets: str | None = None,
    weights: Path | None = None,
    n_factors: str | None = None,
    block_sizes: str | None = None,
    methods: str | None = None,
    seeds: str | None = None,
    max_iter: Annotated[int | None, _Positive] = None,
    restarts: Annotated[int | None, _NotNegative] = None,
    no_growth: bool = False,
    time_limit: Annotated[float | None, _NotNegative] = None,
    workers: Annotated[int, _Positive] = 1,
    scheduler: str | None = None,
    example: bool = False,
    log_level: LogLevel = "warning",
    json: bool = False,
    debug: bool = False,  # noqa: ARG001  # read by `run`
) -> None:
    """Approximate many matrices by many methods with many settings, beside one another at equal parameters.

    Every result is on the disk before it counts: the same command goes on where an earlier one ended, however that was.
    `structmat report` makes plots and tables. Example: `structmat sweep study.toml --out study --workers 2`

    Parameters
    ----------
    sources
        One file `.toml` that says what to do, see `--example`; or the matrices, `.npy`, `.npz` or `.safetensors`.
    out
        Folder of the study, as in `--out study`; layers and settings may be added to an earlier one.
    base
        Checkpoint from which the changes to that of `--tuned` are the matrices.
    tuned
        The other checkpoint.
    targets
        Regular expression that must be found in the names of arrays or tensors, as in `--targets "query|value"`.
    weights
        File with the second moments of the inputs of all matrices; errors are weighted ones then.
    n_factors
        Numbers of factors, as in `--n-factors 3,5,9`. By default 3.
    block_sizes
        Sides of the circulant blocks, as in `--block-sizes min,96`; min, the default, is the smaller side.
    methods
        Some of cdd, truncated-svd, block-circulant, sparse-fourier and monarch, with commas. All by default.
    seeds
        Seeds of the CDD fits, as in `--seeds 0,1,2`. By default 0.
    max_iter
        The most iterations from one starting point. By default 5000.
    restarts
        Random starting points of a fit. By default by size.
    no_growth
        Grow no fit from fits with fewer factors, which takes less than half the time.
    time_limit
        Seconds for one fit; results then depend on the machine. By default a fixed amount of work.
    workers
        Processes on this machine.
    scheduler
        Work by Dask: `local`, or the address of a scheduler, as in `--scheduler tcp://host:8786`.
    example
        Print a file `.toml` to begin with.
    log_level
        What to tell on stderr, from this level on: info has a line for each result.
    json
        Print one JSON object instead of the table.
    debug
        Show the traceback of an error.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    if example:
        sys.stdout.write(studies.TEMPLATE)
        return
    if out is None:
        raise CommandError("--out", "is missing: name the folder of the study, as in --out study", USAGE)
    given: dict[str, Any] = {
        "n_factors": _integers("--n-factors", n_factors),
        "block_sizes": _integers("--block-sizes", block_sizes, "min"),
        "methods": None if methods is None else _split(methods),
        "seeds": _integers("--seeds", seeds),
        "max_iter": max_iter,
        "restarts": restarts,
        "growth": False if no_growth else None,
        "time_limit": time_limit,
    }
    given = {name: value for name, value in given.items() if value is not None}
    source = {"base": base, "tuned": tuned, "targets": targets, "weights": weights}
    named: dict[str, Any] = {name: str(value) for name, value in source.items() if value is not None}
    if len(sources) == 1 and sources[0].suffix.lower() == ".toml":
        if named:
            raise CommandError(f"--{next(iter(named))}", f"the sources stand in {sources[0]}", USAGE)
        with blaming("CONFIG"):
            config = studies.read_config(sources[0], **given)
    else:
        if not sources and not named:
            raise CommandError("SOURCES", "name a file .toml, matrices, or --base and --tuned", USAGE)
        with blaming("SOURCES"):
            files = tuple(str(path) for path in sources)
            config = studies.SweepConfig((studies.MatrixSource(files=files, **named),), **given)
    done = 0
    with sweep_progress(quiet=json) as callback:

        def hear(state: Any) -> None:
            nonlocal done
            done = state.n_done
            callback(state)

        try:
            with blaming("--out" if out.exists() else "SOURCES"), logging_to_stderr(log_level):
                study = studies.sweep(config, out, workers=workers, scheduler=scheduler, callback=hear)
        except KeyboardInterrupt:
            sys.stderr.write(f"structmat sweep: {done} results are kept in {out}; the same command goes on\n")
            raise
    if json:
        print_json({"out": str(out), **study.to_dict()})
    else:
        print_study(study, [f"results in {out / 'study.sqlite'}; plots: structmat report {out}"])
    if study.failed:
        key, text = next(iter(study.failed.items()))
        raise CommandError(f"{len(study.failed)} of {study.n_planned} units failed", f"{key}: {text}")


def report(
    folder: Path,
    /,
    *,
    html: Path | None = None,
    csv: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
    force: bool = False,
    debug: bool = False,  # noqa: ARG001  # read by `run`
) -> None:
    """Make plots and tables of a sweep, complete or so far.

    Writes a page that needs no other file, `report.html` in the folder of the sweep, and prints the means over the
    layers. Example: `structmat report study --csv study.csv --plot study.png`

    Parameters
    ----------
    folder
        Folder of the sweep, which may still be at work in it.
    html
        Write the page to this file instead, as in `--html study.html`.
    csv
        Write all rows to this file, as in `--csv study.csv`.
    plot
        Draw the means over the layers to this file, as in `--plot study.png` (or `.pdf`, `.svg`).
    json
        Print one JSON object with all rows instead of the table.
    force
        Replace existing output files.
    debug
        Show the traceback of an error.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    check_outputs(folder, {"--html": html, "--csv": csv, "--plot": plot}, force=force)
    with blaming("FOLDER"):
        study = studies.report(folder, html, force=force)
    if csv is not None:
        with blaming("--csv"):
            study.save(csv, force=force)
    if plot is not None:
        plot_module()
        write_figure(study.plot(), plot, force=force)
    page = folder / "report.html" if html is None else html
    if json:
        files = {"html": page, "csv": csv, "plot": plot}
        print_json({**study.to_dict(), **{name: None if path is None else str(path) for name, path in files.items()}})
    else:
        print_study(study, [f"wrote {path}" for path in (page, csv, plot) if path is not None])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _integers(option: str, text: str | None, *words: str) -> list[int | str] | None:
    if text is None:
        return None
    values: list[int | str] = []
    for part in _split(text):
        try:
            values.append(part if part in words else int(part))
        except ValueError:
            kinds = " or ".join(("integers", *words))
            raise CommandError(option, f"must be {kinds} with commas, got {part!r}", USAGE) from None
    return values
