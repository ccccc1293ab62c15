"""The command `structmat fit-checkpoint`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from structmat.cli._errors import USAGE, CommandError, blaming
from structmat.cli._logging import LogLevel, logging_to_stderr
from structmat.cli._report import checkpoint_progress, print_checkpoint_fit, print_json
from structmat.io import CheckpointError

if TYPE_CHECKING:
    from structmat.studies import CheckpointProgress

__all__ = ["fit_checkpoint"]

_Positive = Parameter(validator=Number(gte=1))
_NotNegative = Parameter(validator=Number(gte=0))


def fit_checkpoint(
    *,
    out: Path,
    base: Path | None = None,
    tuned: Path | None = None,
    delta: Path | None = None,
    lora: Path | None = None,
    targets: str | None = None,
    n_factors: Annotated[int, Parameter(validator=Number(gte=3))] = 3,
    block_size: Literal["min"] | int = "min",
    input_second_moment: Path | None = None,
    cast: bool = False,
    seed: Annotated[int, _NotNegative] = 0,
    time_limit: Annotated[float | None, _NotNegative] = None,
    workers: Annotated[int, _Positive] = 1,
    threads: Annotated[int, _Positive] = 1,
    scheduler: str | None = None,
    skip_bad: bool = False,
    plot: bool = False,
    log_level: LogLevel = "warning",
    json: bool = False,
    debug: bool = False,  # noqa: ARG001  # read by `run`
) -> None:
    """Fit the weight changes of a whole model, layer by layer, and write an adapter for PEFT.

    Weights are read when they are needed, so that checkpoints may be larger than memory. Every layer is kept on the
    disk as soon as it is done: after Ctrl-C, a crash or a power cut the same command goes on, and ends with the same
    files, bit for bit. Example: `structmat fit-checkpoint --base base --tuned tuned --out adapter --workers 2`

    Parameters
    ----------
    out
        Folder for the adapter, a table of its errors by layer (`layers.csv`, `layers.json`) and `report.html`.
    base
        Checkpoint: a folder, or a file in the safetensors format or of PyTorch (`.bin`, `.pt`).
    tuned
        The same, tuned.
    delta
        In place of both, a file with the changes themselves, by path of the module.
    lora
        In place of both, the folder of a LoRA adapter.
    targets
        Regular expression that must be found in the path of a module, as in `--targets "query|value"`. By default all
        matrices but embeddings.
    n_factors
        Number of factors, odd; 3 is diagonal, circulant, diagonal.
    block_size
        Rows of one circulant block, as in `--block-size 64`; `min` is the smaller side of each matrix.
    input_second_moment
        File or folder with the second moments of the inputs of each layer, by path of the module; errors are weighted
        ones then.
    cast
        Take base and tuned weights of different dtypes.
    seed
        Seed of random numbers.
    time_limit
        Seconds for each fit; results then depend on the machine. By default a fixed amount of work.
    workers
        Processes on this machine. Each takes the memory of two to three matrices in float32.
    threads
        Threads of linear algebra for each worker. Results depend on it in the last digits, but not on the workers.
    scheduler
        Work by Dask: `local`, or the address of a scheduler, as in `--scheduler tcp://host:8786`.
    skip_bad
        Leave out layers whose files are damaged or do not match, and list them.
    plot
        Write the figure of the report to `layers.png` too.
    log_level
        What to tell on stderr, from this level on: info has a line for each layer.
    json
        Print one JSON object instead of the table.
    debug
        Show the traceback of an error.
    """
    from structmat import studies  # noqa: PLC0415  # an extra

    source = _checked({"--base": base, "--tuned": tuned, "--delta": delta, "--lora": lora})
    begun, state = time.perf_counter(), None
    with checkpoint_progress(quiet=json) as show:

        def hear(news: CheckpointProgress) -> None:
            nonlocal state
            state = news
            show(news)

        try:
            with blaming("--out"), _blaming_files(source), logging_to_stderr(log_level):
                fit = studies.fit_checkpoint(
                    out,
                    base=base,
                    tuned=tuned,
                    delta=delta,
                    lora=lora,
                    targets=targets,
                    n_factors=n_factors,
                    block_size=block_size,
                    input_second_moment=input_second_moment,
                    cast=cast,
                    rng=seed,
                    time_limit=time_limit,
                    workers=workers,
                    threads=threads,
                    scheduler=scheduler,
                    skip_bad=skip_bad,
                    plot=plot,
                    callback=hear,
                )
        except KeyboardInterrupt:
            done = "no layer is" if state is None else f"{state.done} of {state.total} layers are"
            sys.stderr.write(f"structmat fit-checkpoint: {done} done and kept in {out}; the same command goes on\n")
            raise
    seconds = time.perf_counter() - begun
    if json:
        print_json({"out": str(out), "files": [str(path) for path in fit.files], "seconds": seconds, **fit.to_dict()})
    else:
        notes = [f"{seconds:.1f} s", *(f"wrote {path}" for path in fit.files)]
        print_checkpoint_fit(f"{tuned or delta or lora}: CDD with {n_factors} factors", fit, notes)


def _checked(sources: dict[str, Path | None]) -> str:
    """Refuse sources that do not go together or are not there; return the option that names the changes."""
    given = {name: path for name, path in sources.items() if path is not None}
    if [*given] not in (["--base", "--tuned"], ["--delta"], ["--lora"]):
        text = f"--base and --tuned, or --delta alone, or --lora alone are needed, got {', '.join(given) or 'none'}"
        raise CommandError("sources", text, USAGE)
    for name, path in given.items():
        if not path.exists():
            raise CommandError(name, f"{path}: there is no such file or folder")
    return [*given][-1]


@contextlib.contextmanager
def _blaming_files(option: str) -> Iterator[None]:
    """Turn what is wrong with the files of weights into an error of that option."""
    try:
        yield
    except CheckpointError as error:
        raise CommandError(option, str(error)) from error
