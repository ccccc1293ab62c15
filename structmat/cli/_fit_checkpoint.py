"""The command `structmat fit-checkpoint`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from structmat._files.kinds import is_there
from structmat.cli._errors import USAGE, CommandError, blaming, blaming_paths
from structmat.cli._logging import logging_to_stderr
from structmat.cli._options import BlockSize, NotNegative, Positive, RunOptions
from structmat.cli._outputs import unwritten
from structmat.cli._progress import checkpoint_progress, resumable
from structmat.cli._tables import print_checkpoint_fit, print_json
from structmat.io import CheckpointError

__all__ = ["fit_checkpoint"]

_RUN = RunOptions()


def fit_checkpoint(
    *,
    out: Path,
    delta: Path | None = None,
    lora: Path | None = None,
    n_factors: Positive = 3,
    block_size: BlockSize = "min",
    cast: bool = False,
    seed: NotNegative = 0,
    threads: Positive = 1,
    skip_bad: bool = False,
    plot: bool = False,
    run: RunOptions = _RUN,
) -> None:
    """Fit the weight changes of a whole model, layer by layer, and write an adapter for PEFT.

    Weights are read when they are needed, so that checkpoints may be larger than memory. Every finished layer is
    written to the disk at once: after Ctrl-C, a crash or a power cut the same command continues, and the files are then
    the same, bit for bit. Example: `structmat fit-checkpoint --base base --tuned tuned --out adapter --workers 2`

    Parameters
    ----------
    out
        Folder for the adapter, a table of its errors by layer (`layers.csv`, `layers.json`) and `report.html`.
    delta
        In place of `--base` and `--tuned`, a file with the changes themselves, by path of the module.
    lora
        In place of `--base` and `--tuned`, the folder of a LoRA adapter.
    n_factors
        Number of factors, odd; 3 is diagonal, circulant, diagonal.
    block_size
        Rows of one circulant block, as in `--block-size 64`; `min` is the smaller side of each matrix.
    cast
        Take base and tuned weights of different dtypes.
    seed
        Seed of random numbers.
    threads
        Threads of linear algebra for each worker. Results depend on it in the last digits, but not on the workers.
    skip_bad
        Leave out layers whose files are damaged or do not match, and list them.
    plot
        Write the figure of the report to `layers.png` too.
    run
        How the layers are worked through. `--input-second-moment` names a file or folder with that of each
        layer, by path of the module.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    sources = {"--base": run.base, "--tuned": run.tuned, "--delta": delta, "--lora": lora}
    source = _checked(sources)
    paths = {**sources, "--input-second-moment": run.input_second_moment, "--out": out}
    begun = time.perf_counter()
    with (
        checkpoint_progress(quiet=run.json) as show,
        resumable("structmat fit-checkpoint", "layers", out, show) as callback,
        blaming("--out", fit_checkpoint),
        _blaming_files(source),
        blaming_paths(paths),
        logging_to_stderr(run.log_level),
    ):
        fit, fault = unwritten(
            studies.fit_checkpoint,
            out,
            base=run.base,
            tuned=run.tuned,
            delta=delta,
            lora=lora,
            targets=run.targets,
            n_factors=n_factors,
            block_size=block_size,
            input_second_moment=run.input_second_moment,
            cast=cast,
            rng=seed,
            time_limit=run.time_limit,
            workers=run.workers,
            threads=threads,
            scheduler=run.scheduler,
            skip_bad=skip_bad,
            plot=plot,
            callback=callback,
        )
    seconds = time.perf_counter() - begun
    if run.json:
        print_json({"out": str(out), "files": [str(path) for path in fit.files], "seconds": seconds, **fit.to_dict()})
    else:
        notes = [f"{seconds:.1f} s", *(f"wrote {path}" for path in fit.files)]
        print_checkpoint_fit(f"{run.tuned or delta or lora}: CDD with {n_factors} factors", fit, notes)
    if fault is not None:
        with blaming("--out"):
            raise fault


def _checked(sources: dict[str, Path | None]) -> str:
    """Refuse sources that do not go together or are not there; return the option that names the changes."""
    given = {name: path for name, path in sources.items() if path is not None}
    if [*given] not in (["--base", "--tuned"], ["--delta"], ["--lora"]):
        text = f"--base and --tuned, or --delta alone, or --lora alone are needed, got {', '.join(given) or 'none'}"
        raise CommandError("sources", text, USAGE)
    for name, path in given.items():
        if not is_there(path):
            raise CommandError(name, f"{path}: there is no such file or folder")
    return [*given][-1]


@contextlib.contextmanager
def _blaming_files(option: str) -> Iterator[None]:
    """Turn what is wrong with weights, where no path of an option is named, into an error of that option."""
    try:
        yield
    except CheckpointError as error:
        raise CommandError(option, str(error)) from error
