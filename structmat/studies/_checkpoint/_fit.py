"""`fit_checkpoint`: from a tuned checkpoint and its base to an adapter, layer by layer."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from structmat._arrays.arrays import positive_index
from structmat.io import Checkpoint, CheckpointError
from structmat.studies._checkpoint._adapter import CONFIG, WEIGHTS, config_bytes, weights_bytes
from structmat.studies._checkpoint._layers import LayerTask, OtherWeights, run_task
from structmat.studies._checkpoint._plan import Plan, plan_delta, plan_lora, plan_pair
from structmat.studies._engine import run_units
from structmat.studies._folder import WorkFolder

if TYPE_CHECKING:
    from structmat.io import Entry

__all__ = ["CheckpointFit", "CheckpointProgress", "FittedLayer", "fit_checkpoint"]

CSV, JSON, HTML, FIGURE = "layers.csv", "layers.json", "report.html", "layers.png"
_OTHERS = "other weights"
_SHOWN = 8
"""Of names in a message, at most."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedLayer:
    """How well the change of one layer was met.

    Attributes
    ----------
    name : str
        Path of the module.
    rows, cols : int
        Of its weight.
    dtype : str
        Of its weight in the file.
    norm : float
        Frobenius norm of the change.
    error : float
        Relative error, in that norm or the weighted one; 0 where nothing changed.
    n_parameters : int
        That the adapter takes for it; 0 where nothing changed.
    block_size : int, optional
        Side of the circulants; None where nothing changed.
    svd_rank, svd_parameters : int
        Of the best truncated SVD with at most as many parameters.
    svd_error : float
        Its relative error.
    """

    name: str
    rows: int
    cols: int
    dtype: str
    norm: float
    error: float
    n_parameters: int
    block_size: int | None = None
    svd_rank: int = 0
    svd_parameters: int = 0
    svd_error: float = 0.0


@dataclass(frozen=True)
class CheckpointFit:
    """An adapter that was fitted to a checkpoint, and how well.

    Attributes
    ----------
    folder : Path
        With the files of the adapter and the tables.
    layers : tuple of FittedLayer
        In the order of the model.
    left_out : tuple of str
        Weights that were tuned too, but are not in the adapter.
    skipped : dict of str
        What could not be read or fitted, and why, by name.
    """

    folder: Path
    layers: tuple[FittedLayer, ...]
    left_out: tuple[str, ...]
    skipped: Mapping[str, str]

    @property
    def error(self) -> float:
        """Relative error of the changes of all layers together."""
        return self._together("error")

    @property
    def svd_error(self) -> float:
        """The same of the truncated SVDs."""
        return self._together("svd_error")

    @property
    def n_parameters(self) -> int:
        """Parameters of all layers."""
        return sum(layer.n_parameters for layer in self.layers)

    @property
    def files(self) -> tuple[Path, ...]:
        """The final files."""
        return tuple(
            path for name in (CONFIG, WEIGHTS, CSV, JSON, HTML, FIGURE) if (path := self.folder / name).exists()
        )

    def _together(self, name: str) -> float:
        whole = sum(layer.norm**2 for layer in self.layers)
        left = sum((getattr(layer, name) * layer.norm) ** 2 for layer in self.layers)
        return (left / whole) ** 0.5 if whole else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the folder, ready for JSON: the same for the same seed.

        Returns
        -------
        dict
            Strings, numbers and lists only.
        """
        return {
            "error": self.error,
            "svd_error": self.svd_error,
            "n_parameters": self.n_parameters,
            "dense_parameters": sum(layer.rows * layer.cols for layer in self.layers),
            "layers": [asdict(layer) for layer in self.layers],
            "left_out": list(self.left_out),
            "skipped": dict(self.skipped),
        }


class CheckpointProgress(NamedTuple):
    """State of a fit of a checkpoint, as handed to the `callback` of `fit_checkpoint`."""

    done: int
    """Layers that are done, those of earlier runs included."""
    total: int
    """Layers in all."""
    share: float
    """Of the entries of all layers that are done, between 0 and 1; the time goes roughly with it."""
    layer: str | None
    """The layer just done; None at the start."""
    error: float | None
    """Its relative error."""


def fit_checkpoint(
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    tuned: str | os.PathLike[str] | None = None,
    delta: str | os.PathLike[str] | None = None,
    lora: str | os.PathLike[str] | None = None,
    targets: str | None = None,
    n_factors: int = 3,
    block_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    cast: bool = False,
    seed: int = 0,
    time_limit: float | None = None,
    workers: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
    skip_bad: bool = False,
    plot: bool = False,
    callback: Callable[[CheckpointProgress], object] | None = None,
) -> CheckpointFit:
    """Fit the changes of a model's linear layers, read from files one by one, and write an adapter for PEFT.

    A run that ends early, however it ends, goes on where it stopped when it is started again with the same arguments,
    and ends with the same files, bit for bit. The final files appear when everything is done.

    Parameters
    ----------
    out : path-like
        Folder for ``adapter_config.json``, ``adapter_model.safetensors``, ``layers.csv``, ``layers.json`` and
        ``report.html``; its subfolder ``work`` keeps what a run needs in order to go on.
    base, tuned : path-like, optional
        Checkpoints: files or folders, as for `structmat.io.Checkpoint`.
    delta : path-like, optional
        In place of both, a file or folder with the changes themselves, by path of the module.
    lora : path-like, optional
        In place of both, the folder of a LoRA adapter.
    targets : str, optional
        Regular expression that must be found in the path of a module. By default all matrices but embeddings.
    n_factors : int, default 3
        Odd, at least 3.
    block_size : int, optional
        Side of the circulants. By default the smaller side of each matrix.
    weights : path-like, optional
        File or folder with the second moment of the inputs of each layer, by path of the module: (cols,) or
        (cols, cols), as `weights` of `structmat.fit_cdd`.
    cast : bool, default False
        Take base and tuned weights of different dtypes.
    seed : int, default 0
        Of all random numbers.
    time_limit : float, optional
        Seconds for each fit. Results then depend on the machine.
    workers, threads, scheduler : optional
        As for `run_units`.
    skip_bad : bool, default False
        Leave out layers whose files are damaged or do not go together, instead of ending with an error.
    plot : bool, default False
        Write the figure of the report to ``layers.png`` too.
    callback : callable, optional
        Called with a `CheckpointProgress` at the start and whenever a layer is done.

    Returns
    -------
    CheckpointFit
        Errors by layer, beside a truncated SVD with as many parameters.

    Raises
    ------
    ValueError
        If arguments do not go together, files are damaged or do not match (the text names file and weight), nothing is
        to be fitted, or the folder was begun with other settings.
    OSError
        If a file cannot be read or written, or another run is at work in the folder.

    Notes
    -----
    A worker holds one change, one copy of it and a few rows more: about two matrices in float32, where the block size
    divides the sides, and three elsewhere.

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
    _check(n_factors, block_size, targets)
    plan = _plan(base, tuned, delta, lora, targets, cast=cast)
    moments = _moments(plan, weights)
    if plan.faults and not skip_bad:
        raise CheckpointError(_several(plan.faults))
    if not plan.changes:
        shown = ", ".join(plan.seen[:_SHOWN]) + (", ..." if len(plan.seen) > _SHOWN else "")
        raise ValueError(
            f"fit_checkpoint: targets must match a layer, got {targets!r}; could be fitted: {shown or 'none'}"
        )
    tasks: dict[str, LayerTask | OtherWeights] = {
        name: LayerTask(
            name,
            plan.changes[name],
            name in plan.transposed,
            n_factors,
            block_size,
            moments.get(name),
            seed,
            time_limit,
        )
        for name in sorted(plan.changes, key=_natural)
    }
    settings = {
        "study": "fit-checkpoint",
        "base": plan.base,
        "files": plan.stamps,
        "targets": targets,
        "n_factors": n_factors,
        "block_size": block_size,
        "weights": None if weights is None else Checkpoint(weights).stamp(),
        "cast": cast,
        "seed": seed,
        "time_limit": time_limit,
        "threads": threads,
    }
    with WorkFolder.open(out, settings, outputs=(CONFIG, WEIGHTS, CSV, JSON, HTML, FIGURE)) as folder:
        names = [*tasks]
        if plan.pairs:
            tasks[_OTHERS] = OtherWeights(tuple(plan.pairs))
        faults = plan.faults | _work(folder, tasks, workers, threads, scheduler, callback, skip_bad=skip_bad)
        return _finish(folder, names, plan, faults, n_factors, block_size, weighted=weights is not None, plot=plot)


def _check(n_factors: int, block_size: int | None, targets: str | None) -> None:
    if positive_index(n_factors, "fit_checkpoint: n_factors") % 2 == 0 or n_factors < 3:
        raise ValueError(f"fit_checkpoint: n_factors must be odd and at least 3, got {n_factors}")
    if block_size is not None:
        positive_index(block_size, "fit_checkpoint: block_size")
    try:
        re.compile(targets or "")
    except re.error as error:
        raise ValueError(f"fit_checkpoint: targets must be a regular expression, got {targets!r}: {error}") from error


def _plan(base: Any, tuned: Any, delta: Any, lora: Any, targets: str | None, *, cast: bool) -> Plan:
    given = [
        name for name, path in (("base", base), ("tuned", tuned), ("delta", delta), ("lora", lora)) if path is not None
    ]
    if given == ["base", "tuned"]:
        return plan_pair(Path(base), Path(tuned), targets, cast=cast)
    if given == ["delta"]:
        return plan_delta(Path(delta), targets)
    if given == ["lora"]:
        return plan_lora(Path(lora), targets)
    raise ValueError(
        f"fit_checkpoint: base and tuned, or delta alone, or lora alone must be given, got {', '.join(given) or 'none'}"
    )


def _moments(plan: Plan, weights: str | os.PathLike[str] | None) -> dict[str, Entry]:
    """Return the weights of each layer; layers without are faults."""
    if weights is None:
        return {}
    checkpoint, found = Checkpoint(Path(weights).absolute()), {}
    for name in list(plan.changes):
        try:
            key = name if checkpoint.find(name) is not None else f"{name}.weight"
            found[name] = checkpoint.entry(key)
            found[name].check_floats()
        except CheckpointError as error:
            plan.faults[name] = str(error)
            del plan.changes[name]
    return found


def _work(
    folder: WorkFolder,
    tasks: Mapping[str, LayerTask | OtherWeights],
    workers: int,
    threads: int,
    scheduler: str | None,
    callback: Callable[[CheckpointProgress], object] | None,
    *,
    skip_bad: bool,
) -> dict[str, str]:
    """Do what is not done yet; return what is wrong with layers that are skipped."""
    layers = [name for name in tasks if name != _OTHERS]
    total = sum(task.size for task in tasks.values())
    left = {name: tasks[name] for name in folder.pending(tasks)}
    faults: dict[str, str] = {}

    def report(layer: str | None, error: float | None) -> None:
        if callback is not None:
            undone = [name for name in folder.pending(layers) if name not in faults]
            share = 1 - sum(tasks[name].size for name in undone) / total
            callback(CheckpointProgress(len(layers) - len(undone), len(layers), share, layer, error))

    report(None, None)
    _log.info("%d of %d layers are to be done", len(folder.pending(layers)), len(layers))
    for name, outcome in run_units(run_task, left, workers=workers, threads=threads, scheduler=scheduler):
        if outcome.fault:
            if not skip_bad:
                raise CheckpointError(outcome.fault)
            _log.warning("%s is skipped: %s", name, outcome.fault)
            faults[name] = outcome.fault
        else:
            folder.write(name, outcome.values, outcome.arrays)
        if name != _OTHERS:
            error = outcome.values.get("error")
            if error is not None:
                _log.info("%s is done, error %.4g", name, error)
            report(name, error)
    return faults


def _finish(
    folder: WorkFolder,
    names: list[str],
    plan: Plan,
    faults: dict[str, str],
    n_factors: int,
    block_size: int | None,
    *,
    weighted: bool,
    plot: bool,
) -> CheckpointFit:
    """Write the final files, the one that makes the folder an adapter last."""
    from structmat.studies._checkpoint import _tables  # noqa: PLC0415  # matplotlib is slow to import, and workers do without

    known = {field.name for field in fields(FittedLayer)}
    records = {name: folder.read(name) for name in names if name in folder.done}
    layers = tuple(
        FittedLayer(**{key: value for key, value in record.values.items() if key in known})
        for record in records.values()
    )
    vectors = {name: record.arrays for name, record in records.items() if record.arrays}
    if not vectors:
        what = _several(faults) if faults else "no weight that matches has changed"
        raise CheckpointError(f"there is nothing to put into an adapter: {what}")
    changed = folder.read(_OTHERS).values["changed"] if _OTHERS in folder.done else []
    left_out = tuple(sorted([*plan.left_out, *changed], key=_natural))
    fit = CheckpointFit(folder.path, layers, left_out, dict(sorted(faults.items())))
    content = fit.to_dict()
    folder.write_output(WEIGHTS, weights_bytes(vectors))
    folder.write_output(CSV, _tables.csv_bytes(content["layers"]))
    folder.write_output(JSON, _tables.json_bytes(content))
    folder.write_output(
        HTML, _tables.html_bytes(content, n_factors=n_factors, block_size=block_size, weighted=weighted)
    )
    if plot:
        folder.write_output(FIGURE, _tables.figure_bytes(content["layers"]))
    config = config_bytes(
        [*vectors], n_factors=n_factors, block_size=block_size, base=plan.base, task_type=plan.task_type
    )
    folder.write_output(CONFIG, config)
    return fit


def _several(faults: Mapping[str, str]) -> str:
    """Return the first fault, and how many more there are."""
    first, *more = dict.fromkeys(faults.values())
    return f"{first} (and {len(more)} more faults)" if more else first


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort the tenth layer after the second."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]
