"""`fit_checkpoint`: from a tuned checkpoint and its base to an adapter, layer by layer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from structmat._adapter_format import CONFIG, WEIGHTS, config_bytes, exact_targets, weights_bytes
from structmat._arguments import integer, non_negative, odd_factors, side_of_blocks
from structmat._errors import ArgumentValueError, warn_caller
from structmat._files import atomic_write, first_names, natural_key
from structmat.operators import CDDLayout
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError, Entry
from structmat.studies._engine import Progress, require_own, run
from structmat.studies._layer_fit import LayerTask
from structmat.studies._models import model_of
from structmat.studies._plans import Plan, plan_delta, plan_pair
from structmat.studies._study import OUTPUTS, TABLE, Row, Study, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_checkpoint"]

_OWNER = "fit_checkpoint"
"""Who raises, in the texts of errors."""

_OTHERS = "other weights"
"""The key of the unit of work that compares the weights which are not fitted.

Its space keeps it apart from the keys of layers: these are paths of modules, which are made of names of attributes.
"""


def fit_checkpoint(
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    tuned: str | os.PathLike[str] | None = None,
    delta: str | os.PathLike[str] | None = None,
    targets: str | None = None,
    n_factors: int = 3,
    block_size: int | Literal["min"] = "min",
    input_second_moment: str | os.PathLike[str] | None = None,
    cast: bool = False,
    rng: int = 0,
    time_limit: float | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    callback: Callable[[Progress], object] | None = None,
) -> Study:
    """Fit the changes of linear layers and experts, read from files one by one, and write an adapter for PEFT.

    A run that ended early, for any reason, continues when it is started again with the same arguments, and the adapter
    is then the same, bit for bit. Its files appear when everything is done.

    Parameters
    ----------
    out : path-like
        Folder for ``adapter_config.json``, ``adapter_model.safetensors``, ``results.csv``, and for ``results.jsonl``,
        which has what a run needs to resume.
    base, tuned : path-like, optional
        Checkpoints: files or folders, of safetensors or PyTorch.
    delta : path-like, optional
        In place of `base` and `tuned`, a file or folder with the changes themselves, by path of the module.
    targets : str, optional
        Regular expression that must be found in the path of a module. By default all matrices but embeddings and what
        is tied to them.
    n_factors : int, default 3
        Odd, at least 3.
    block_size : int or "min", default "min"
        Side of the circulants; ``"min"`` is the smaller side of each matrix.
    input_second_moment : path-like, optional
        File or folder with the second moment of the inputs of each layer, by path of the module: (cols,) or
        (cols, cols), as that of `structmat.fit_cdd`.
    cast : bool, default False
        Take base and tuned weights of different dtypes.
    rng : int, default 0
        Seed of all random numbers.
    time_limit : float, optional
        Seconds of processor time for each fit, those of the worker's process, as `structmat.fit_cdd` counts them.
        Results then depend on the speed of the machine.
    workers : int, optional
        Processes on this machine; by default as `joblib.parallel_config` around the call says,
        such as ``parallel_config(backend="dask")`` for a cluster of Dask; without one this process does everything.
    skip_bad : bool, default False
        Leave out layers whose files are damaged or do not match, instead of ending with an error.
    callback : callable, optional
        Called with a `Progress` at the start and whenever a layer is done.

    Returns
    -------
    Study
        Of each layer a row with ``method`` ``"cdd"`` and one with ``"truncated-svd"``, the best with at most as many
        parameters; in a mixture of experts of each expert, called by the path of the parameter that stacks them and its
        number. ``left_out`` are weights that were tuned too but are not in the adapter, ``failed`` the layers that
        `skip_bad` left out. A layer that did not change has the norm 0 and is not in the adapter.

    Raises
    ------
    ValueError
        If arguments contradict each other, files are damaged or do not match (the text names file and weight; layers
        that are done stay so), there is nothing to fit, or the folder was begun with other settings.
    OSError
        If a file cannot be read or written, another run is active in the folder, or it has files of these names that no
        run wrote.

    Warns
    -----
    RuntimeWarning
        If config.json names a model that the installed version of transformers, if any, cannot build. Names of weights
        are then taken for paths of modules, which they are for most models.

    Notes
    -----
    A worker holds one change, one or two copies of it and a few more rows.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.studies import fit_checkpoint
    >>> parent = tempfile.TemporaryDirectory()
    >>> save_file({"layer.weight": np.outer(np.arange(4.0), np.ones(4))}, f"{parent.name}/delta.safetensors")
    >>> study = fit_checkpoint(f"{parent.name}/out", delta=f"{parent.name}/delta.safetensors")
    >>> [(row["layer"], row["method"], row["n_parameters"], round(row["error"], 6)) for row in study.rows]
    [('layer', 'cdd', 12, 0.0), ('layer', 'truncated-svd', 8, 0.0)]
    >>> sorted(path.name for path in Path(parent.name, "out").glob("[ar]*"))
    ['adapter_config.json', 'adapter_model.safetensors', 'results.csv', 'results.jsonl']
    >>> parent.cleanup()
    """
    options: dict[str, Any] = {
        "n_factors": odd_factors(n_factors, _OWNER, "n_factors"),
        "block_size": side_of_blocks(block_size, _OWNER, "block_size"),
        "rng": integer(rng, _OWNER, "rng", 0),
        "time_limit": None if time_limit is None else non_negative(time_limit, _OWNER, "time_limit"),
    }
    _require_another_folder(out, base=base, tuned=tuned, delta=delta, input_second_moment=input_second_moment)
    require_own(out, CONFIG, WEIGHTS, *OUTPUTS)
    plan = _plan(base, tuned, delta, targets, cast=cast)
    moments = _moments(plan, input_second_moment)
    if plan.faults and not skip_bad:
        raise CheckpointError(_several(plan.faults))
    _require_layers(plan, targets)
    _require_possible_factors(plan, options["n_factors"])
    settings = {
        "study": "fit-checkpoint",
        "files": plan.checksums,
        "input_second_moment": None if input_second_moment is None else Checkpoint(input_second_moment).checksum(),
        "model": plan.model,
        "targets": targets,
        "stored_by_inputs": sorted(plan.transposed),
        **options,
    }
    units = _units(plan, moments, options)
    done, failed = run(_fit, units, out, settings=settings, workers=workers, callback=callback)
    if failed and not skip_bad:
        raise CheckpointError(_several(failed))
    others = done.pop(_OTHERS, {"changed": ()})
    left_out = sorted([*plan.left_out, *others["changed"]], key=natural_key)
    study = Study(rows_of(done.values()), plan.faults | failed, tuple(left_out))
    vectors = {name: record["vectors"] for name, record in done.items() if record["vectors"]}
    if not vectors:
        raise CheckpointError(_nothing(study.failed, study.left_out))
    layers = {name: own for name, own in vectors.items() if name not in plan.experts}
    stacks = _stacked(plan, vectors)
    written = {name: options[name] for name in ("n_factors", "block_size")}
    if stacks:
        written["target_parameters"] = [*stacks]
    config = config_bytes(exact_targets([*layers], plan.modules) if layers else [], base=plan.base, **written)
    _write(out, study, weights_bytes(layers, stacks), config)
    return study


# What is to be done, and the work on one part of it


@dataclass(frozen=True)
class _Others:
    """The weights that are not fitted: the unit of work that finds out which of them were tuned too."""

    pairs: tuple[tuple[Entry, Entry], ...]
    """Each weight as it was tuned, and in the base."""
    cost: float = 1.0
    """Next to nothing in comparison with a fit, whose cost is the number of entries of its matrix."""


def _fit(unit: LayerTask | _Others) -> dict[str, Any]:
    """Do a unit of work: fit one layer, or find out which of the other weights were tuned."""
    if isinstance(unit, _Others):
        changed = [tuned.key for tuned, base in unit.pairs if not tuned.equals(base)]
        return {"changed": changed, "rows": [], "vectors": {}}
    began, spent = time.perf_counter(), time.process_time()
    fit = unit.run()
    rows, cols = fit.shape
    cdd = Row(
        layer=unit.name,
        weighted=unit.input_second_moment is not None,
        method="cdd",
        search=1,
        n_factors=unit.n_factors,
        block_size=unit.block_size,
        rows=rows,
        cols=cols,
        norm=fit.norm,
        n_parameters=fit.n_parameters,
        error=fit.error,
        product_factors=unit.n_factors,
        exact=False,
        status=fit.status,
        processor_seconds=time.process_time() - spent,
        clock_seconds=time.perf_counter() - began,
    )
    svd: Row = {
        **cdd,
        "method": "truncated-svd",
        "search": None,
        "product_factors": None,
        "n_parameters": fit.svd_n_parameters,
        "error": fit.svd_error,
        "status": "completed",
        "processor_seconds": 0.0,
        "clock_seconds": 0.0,
    }
    return {"rows": [cdd, svd], "vectors": fit.vectors}


def _plan(base: Any, tuned: Any, delta: Any, targets: str | None, *, cast: bool) -> Plan:
    """Collect the layers to fit, from a base and a tuned checkpoint, or from a file of changes."""
    given = {"base": base, "tuned": tuned, "delta": delta}
    named = [name for name, path in given.items() if path is not None]
    if named == ["base", "tuned"]:
        model = model_of(Path(tuned), Path(base))
        if model.problem:
            text = "names of weights are taken for paths of modules: see that PEFT adapts every layer"
            warn_caller(f"{_OWNER}: {model.problem}; {text}", RuntimeWarning)
        return plan_pair(Path(base), Path(tuned), targets, model, cast=cast)
    if named == ["delta"]:
        return plan_delta(Path(delta), targets)
    text = f"base and tuned, or delta alone, must be given, got {', '.join(named) or 'none'}"
    raise ArgumentValueError(_OWNER, None, text)


def _moments(plan: Plan, path: str | os.PathLike[str] | None) -> dict[str, Entry]:
    """Return the second moment of the inputs of each layer. A layer without one leaves the plan, as a fault of it."""
    if path is None:
        return {}
    checkpoint, found = Checkpoint(Path(path).absolute()), {}
    keys = checkpoint.partners(f"{name}.weight" for name in plan.changes) | checkpoint.partners(plan.changes)
    for name in list(plan.changes):
        try:
            found[name] = checkpoint.entry(keys.get(name) or keys.get(f"{name}.weight") or name)
            found[name].check_floats()
        except CheckpointError as error:
            plan.faults[name] = str(error)
            del plan.changes[name]
    return found


def _units(plan: Plan, moments: Mapping[str, Entry], options: Mapping[str, Any]) -> dict[str, LayerTask | _Others]:
    """Return the work that a plan comes to: each layer is one unit, and all weights that are not fitted are another."""
    units: dict[str, LayerTask | _Others] = {}
    for name in sorted(plan.changes, key=natural_key):
        form = {**options, "transposed": name in plan.transposed, "input_second_moment": moments.get(name)}
        units[name] = LayerTask(name, plan.changes[name], **form)
    if plan.pairs:
        units[_OTHERS] = _Others(tuple(plan.pairs))
    return units


def _stacked(plan: Plan, vectors: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the vectors of all experts of each parameter that has some; those of others make a change of zero."""
    found: dict[str, dict[int, Mapping[str, NDArray[Any]]]] = {}
    for name, own in vectors.items():
        if name in plan.experts:
            parameter, expert = plan.experts[name]
            found.setdefault(parameter, {})[expert] = own
    stacks = {}
    for parameter, experts in found.items():
        like = next(iter(experts.values()))
        none = _without_change(like)
        several = [experts.get(expert, none) for expert in range(plan.stacks[parameter])]
        stacks[parameter] = {i: np.stack([each[i] for each in several]) for i in like}
    return stacks


def _without_change(like: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return vectors of such shapes that make a change of zero.

    As at the start of training, one factor is zero, and the others are not: these are identities.
    """
    vectors = {i: np.zeros_like(vector) for i, vector in like.items()}
    for i, vector in vectors.items():
        if i != "0":
            vector[..., : 1 if vector.ndim == 3 else None] = 1
    return vectors


# What is checked before any work


def _require_another_folder(out: str | os.PathLike[str], **sources: str | os.PathLike[str] | None) -> None:
    """Refuse to write into the folder of a source: with an adapter in it, the model there would not be found."""
    for name, path in sources.items():
        if path is not None and os.path.realpath(path) == os.path.realpath(out):
            raise ArgumentValueError(_OWNER, "out", f"must be another folder than {name}, got {os.fspath(out)}")


def _require_layers(plan: Plan, targets: str | None) -> None:
    """Refuse a plan without a layer to fit, and say whether files or `targets` are the reason."""
    if plan.changes:
        return
    if plan.faults or not plan.seen:
        raise CheckpointError(_nothing(plan.faults or {"": "there is no weight of a linear layer"}))
    text = f"must match a layer, got {targets!r}; could be fitted: {first_names(plan.seen)}"
    raise ArgumentValueError(_OWNER, "targets", text)


def _require_possible_factors(plan: Plan, n_factors: int) -> None:
    """Refuse a number of factors that some layer cannot have."""
    most = min(CDDLayout.most_factors((rows, cols)) for rows, cols in (c.shape for c in plan.changes.values()))
    if n_factors > most:
        raise ArgumentValueError(_OWNER, "n_factors", f"must be at most {most:,} for these layers, got {n_factors}")


# What is written, and what is said where nothing is


def _write(out: str | os.PathLike[str], study: Study, weights: bytes, config: bytes) -> None:
    """Write the table and the adapter. The settings come last: they make the folder one that PEFT loads."""
    study.to_csv(Path(out, TABLE), force=True)
    for name, content in ((WEIGHTS, weights), (CONFIG, config)):
        with atomic_write(Path(out, name), force=True) as file:
            file.write(content)


def _several(faults: Mapping[Any, str]) -> str:
    """Return the text of the first fault, and how many others there are."""
    first, *more = dict.fromkeys(faults.values())
    return f"{first} (and {len(more)} more faults)" if more else first


def _nothing(faults: Mapping[str, str], left_out: tuple[str, ...] = ()) -> str:
    """Return why there is no adapter to write."""
    what = _several(faults) if faults else "no weight that matches has changed"
    if left_out:
        what += f"; changed or added, but no layers to fit: {first_names(left_out)}"
    return f"there is nothing to put into an adapter: {what}"
