"""`fit_checkpoint`: from a tuned checkpoint and its base to an adapter, layer by layer."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from structmat._arrays.checks import integer, non_negative, odd_factors, side_of_blocks
from structmat._arrays.errors import ArgumentValueError
from structmat._files.text import first_names, natural_key
from structmat._layer_fits.adapter_files import CONFIG, WEIGHTS, config_bytes, exact_targets, weights_bytes
from structmat._layer_fits.layers import LayerTask, OtherWeights, Outcome, fit_layers, several_faults
from structmat._layer_fits.plans import ChangePlan, plan_delta, plan_lora, plan_pair
from structmat._layer_fits.table import FittedLayer
from structmat.io import Checkpoint, CheckpointError
from structmat.operators import CDDLayout
from structmat.studies._checkpoint._result import CSV, FIGURE, HTML, JSON, OUTPUTS, CheckpointFit, CheckpointProgress
from structmat.studies._folder import UnwrittenError, WorkFolder
from structmat.studies._run_units import check_engine, run_units

if TYPE_CHECKING:
    from structmat.io import Entry

__all__ = ["fit_checkpoint"]

_OWNER = "fit_checkpoint"
_OTHERS = "other weights"
_SHOWN = 8
"""Of names in a message, at most."""
_log = logging.getLogger(__name__)


def fit_checkpoint(
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    tuned: str | os.PathLike[str] | None = None,
    delta: str | os.PathLike[str] | None = None,
    lora: str | os.PathLike[str] | None = None,
    targets: str | None = None,
    n_factors: int = 3,
    block_size: int | Literal["min", "toeplitz"] = "min",
    input_second_moment: str | os.PathLike[str] | None = None,
    cast: bool = False,
    rng: int = 0,
    time_limit: float | None = None,
    workers: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
    skip_bad: bool = False,
    plot: bool = False,
    callback: Callable[[CheckpointProgress], object] | None = None,
) -> CheckpointFit:
    """Fit the changes of a model's linear layers, read from files one by one, and write an adapter for PEFT.

    A run that ended early, for any reason, continues when it is started again with the same arguments, and the files
    are then the same, bit for bit. The final files appear when everything is done.

    Parameters
    ----------
    out : path-like
        Folder for ``adapter_config.json``, ``adapter_model.safetensors``, ``layers.csv``, ``layers.json`` and
        ``report.html``; its subfolder ``work`` has what a run needs to resume.
    base, tuned : path-like, optional
        Checkpoints: files or folders, as for `structmat.io.Checkpoint`.
    delta : path-like, optional
        In place of `base` and `tuned`, a file or folder with the changes themselves, by path of the module.
    lora : path-like, optional
        In place of `base` and `tuned`, the folder of a LoRA adapter.
    targets : str, optional
        Regular expression that must be found in the path of a module. By default all matrices but embeddings and what
        is tied to them.
    n_factors : int, default 3
        Odd, at least 3.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulants; ``"min"`` is the smaller side of each matrix, ``"toeplitz"`` one less than the sum of
        both.
    input_second_moment : path-like, optional
        File or folder with the second moment of the inputs of each layer, by path of the module: (cols,) or
        (cols, cols), as that of `structmat.fit_cdd`.
    cast : bool, default False
        Take base and tuned weights of different dtypes.
    rng : int, default 0
        Seed of all random numbers.
    time_limit : float, optional
        Seconds for each fit. Results then depend on the machine.
    workers, threads, scheduler : optional
        As for `run_units`.
    skip_bad : bool, default False
        Leave out layers whose files are damaged or do not match, instead of ending with an error.
    plot : bool, default False
        Write the figure of the report to ``layers.png`` too.
    callback : callable, optional
        Called with a `CheckpointProgress` at the start and whenever a layer is done.

    Returns
    -------
    CheckpointFit
        Errors by layer, and those of a truncated SVD with at most as many parameters.

    Raises
    ------
    ValueError
        If arguments contradict each other, files are damaged or do not match (the text names file and weight), there is
        nothing to fit, or the folder was begun with other settings.
    OSError
        If a file cannot be read or written, or another run is active in the folder. `UnwrittenError`, which has the
        result, if only the final files could not be written.

    Notes
    -----
    A worker holds one change, one copy of it and a few more rows: about two matrices in float32 if the block size
    divides the sides, and three otherwise.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.studies import fit_checkpoint
    >>> parent = tempfile.TemporaryDirectory()
    >>> save_file({"layer.weight": np.outer(np.arange(4.0), np.ones(4))}, f"{parent.name}/delta.safetensors")
    >>> fit = fit_checkpoint(f"{parent.name}/out", delta=f"{parent.name}/delta.safetensors")
    >>> [(layer.name, layer.n_parameters, round(layer.error, 6)) for layer in fit.layers]
    [('layer', 12, 0.0)]
    >>> sorted(path.name for path in fit.files)
    ['adapter_config.json', 'adapter_model.safetensors', 'layers.csv', 'layers.json', 'report.html']
    >>> parent.cleanup()
    """
    fit = _checked(n_factors, block_size, rng, time_limit)
    _check_targets(targets)
    workers, threads = check_engine(workers, threads, scheduler)
    sources = {"base": base, "tuned": tuned, "delta": delta, "lora": lora, "input_second_moment": input_second_moment}
    _check_out(out, sources)
    plan = _plan(base, tuned, delta, lora, targets, cast=cast)
    moments = _moments(plan, input_second_moment)
    if plan.faults and not skip_bad:
        raise CheckpointError(several_faults(plan.faults))
    if not plan.changes and (plan.faults or not plan.seen):
        raise CheckpointError(_nothing(plan.faults or {"": "there is no weight of a linear layer"}))
    if not plan.changes:
        text = f"must match a layer, got {targets!r}; could be fitted: {first_names(plan.seen, _SHOWN)}"
        raise ArgumentValueError(_OWNER, "targets", text)
    most = min(CDDLayout.most_factors((rows, cols)) for rows, cols in (c.shape for c in plan.changes.values()))
    if fit["n_factors"] > most:
        raise ArgumentValueError(_OWNER, "n_factors", f"must be at most {most:,} for these layers, got {n_factors}")
    names = sorted(plan.changes, key=natural_key)
    tasks: dict[str, LayerTask | OtherWeights] = {
        name: LayerTask(name, plan.changes[name], name in plan.transposed, input_second_moment=moments.get(name), **fit)
        for name in names
    }
    if plan.pairs:
        tasks[_OTHERS] = OtherWeights(tuple(plan.pairs))
    settings = {
        "study": "fit-checkpoint",
        "files": plan.checksums,
        "targets": targets,
        "input_second_moment": None if input_second_moment is None else Checkpoint(input_second_moment).checksum(),
        "cast": bool(cast),
        "stored_by_inputs": sorted(plan.transposed),
        "threads": threads,
        **fit,
    }
    run = partial(run_units, workers=workers, threads=threads, scheduler=scheduler)
    with WorkFolder.open(out, settings, outputs=OUTPUTS) as folder:
        work = _Work(folder, tasks, names, callback)
        fit_layers({name: tasks[name] for name in folder.pending(tasks)}, work.take, run=run, skip_bad=skip_bad)
        found = _found(folder, names, plan, plan.faults | work.faults)
        try:
            _write(folder, found, plan, settings, plot=plot)
        except OSError as error:
            raise UnwrittenError(found, error) from error
        return found


def _checked(n_factors: int, block_size: int | str, rng: int, time_limit: float | None) -> dict[str, Any]:
    """Return the arguments of all fits as Python's own numbers, which a file of settings can hold."""
    return {
        "n_factors": odd_factors(n_factors, _OWNER, "n_factors"),
        "block_size": side_of_blocks(block_size, _OWNER, "block_size"),
        "rng": integer(rng, _OWNER, "rng", 0),
        "time_limit": None if time_limit is None else non_negative(time_limit, _OWNER, "time_limit"),
    }


def _check_targets(targets: str | None) -> None:
    try:
        re.compile(targets or "")
    except re.error as error:
        text = f"must be a regular expression, got {targets!r}: {error}"
        raise ArgumentValueError(_OWNER, "targets", text) from error


def _check_out(out: str | os.PathLike[str], sources: Mapping[str, str | os.PathLike[str] | None]) -> None:
    """Refuse the folder of a source: an adapter in it would hide the model."""
    for name, path in sources.items():
        if path is not None and os.path.realpath(path) == os.path.realpath(out):
            raise ArgumentValueError(_OWNER, "out", f"must be another folder than {name}, got {os.fspath(out)}")


def _plan(base: Any, tuned: Any, delta: Any, lora: Any, targets: str | None, *, cast: bool) -> ChangePlan:
    sources = [
        name for name, path in (("base", base), ("tuned", tuned), ("delta", delta), ("lora", lora)) if path is not None
    ]
    if sources == ["base", "tuned"]:
        return plan_pair(Path(base), Path(tuned), targets, cast=cast)
    if sources == ["delta"]:
        return plan_delta(Path(delta), targets)
    if sources == ["lora"]:
        return plan_lora(Path(lora), targets)
    got = ", ".join(sources) or "none"
    raise ArgumentValueError(_OWNER, None, f"base and tuned, or delta alone, or lora alone must be given, got {got}")


def _moments(plan: ChangePlan, path: str | os.PathLike[str] | None) -> dict[str, Entry]:
    """Return the second moment of the inputs of each layer; layers without are faults."""
    if path is None:
        return {}
    checkpoint, found = Checkpoint(Path(path).absolute()), {}
    keys = checkpoint.partners(f"{name}.weight" for name in plan.changes) | checkpoint.partners(plan.changes)
    for name in list(plan.changes):
        try:
            found[name] = checkpoint.entry(keys.get(name) or keys.get(f"{name}.weight") or name, exact=True)
            found[name].check_floats()
        except CheckpointError as error:
            plan.faults[name] = str(error)
            del plan.changes[name]
    return found


class _Work:
    """Keeps what is done in the folder, and tells the callback."""

    def __init__(
        self,
        folder: WorkFolder,
        tasks: Mapping[str, LayerTask | OtherWeights],
        names: list[str],
        callback: Callable[[CheckpointProgress], object] | None,
    ) -> None:
        self.faults: dict[str, str] = {}
        self._folder, self._names, self._callback = folder, names, callback
        self._sizes = {name: tasks[name].size for name in names}
        _log.info("%d of %d layers are to be done", len(folder.pending(names)), len(names))
        self._tell("", None)

    def take(self, name: str, outcome: Outcome) -> None:
        """Keep what a unit of work gave."""
        error: float | None = outcome.values.get("error")
        if outcome.fault:
            _log.warning("%s is skipped: %s", name, outcome.fault)
            self.faults[name] = outcome.fault
        else:
            self._folder.write(name, outcome.values, outcome.arrays)
        if error is not None:
            _log.info("%s is done, error %.4g", name, error)
        if name in self._sizes:
            self._tell(name, error)

    def _tell(self, name: str, error: float | None) -> None:
        if self._callback is not None:
            undone = [layer for layer in self._folder.pending(self._names) if layer not in self.faults]
            share = 1 - sum(self._sizes[layer] for layer in undone) / max(1, sum(self._sizes.values()))
            n_done, n_units = len(self._names) - len(undone), len(self._names)
            self._callback(CheckpointProgress(name, n_done, n_units, share, error))


def _found(folder: WorkFolder, names: list[str], plan: ChangePlan, faults: dict[str, str]) -> CheckpointFit:
    """Return what was found in this run and earlier ones."""
    layers = tuple(FittedLayer.of(folder.read(name).values) for name in names if name in folder.done)
    changed = folder.read(_OTHERS).values["changed"] if _OTHERS in folder.done else []
    left_out = tuple(sorted([*plan.left_out, *changed], key=natural_key))
    if not any(layer.norm for layer in layers):
        raise CheckpointError(_nothing(faults, left_out))
    return CheckpointFit(folder.path, layers, left_out, dict(sorted(faults.items())))


def _nothing(faults: Mapping[str, str], left_out: tuple[str, ...] = ()) -> str:
    what = several_faults(faults) if faults else "no weight that matches has changed"
    if left_out:
        what += f"; changed or added, but no layers to fit: {first_names(left_out, _SHOWN)}"
    return f"there is nothing to put into an adapter: {what}"


def _write(
    folder: WorkFolder, found: CheckpointFit, plan: ChangePlan, settings: Mapping[str, Any], *, plot: bool
) -> None:
    """Write the final files, the one that makes the folder an adapter last."""
    from structmat.studies._checkpoint import _tables  # noqa: PLC0415  # matplotlib is slow to import, and workers do without

    names = [layer.name for layer in found.layers if layer.norm]
    n_factors, block_size = settings["n_factors"], settings["block_size"]
    content, weighted = found.to_dict(), settings["input_second_moment"] is not None
    folder.write_output(WEIGHTS, weights_bytes({name: folder.read(name).arrays for name in names}))
    folder.write_output(CSV, _tables.csv_bytes(content["layers"]))
    folder.write_output(JSON, _tables.json_bytes(content))
    page = _tables.html_bytes(content, n_factors=n_factors, block_size=block_size, weighted=weighted)
    folder.write_output(HTML, page)
    if plot:
        folder.write_output(FIGURE, _tables.figure_bytes(content["layers"]))
    targets = exact_targets(names, plan.modules)
    config = config_bytes(targets, n_factors=n_factors, block_size=block_size, base=plan.base, task_type=plan.task_type)
    folder.write_output(CONFIG, config)
