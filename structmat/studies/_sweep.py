"""`sweep`: many matrices by many methods with many settings, at equal numbers of parameters."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from structmat._arguments import as_matrix, integer, non_negative, one_of, side_of_blocks
from structmat._arrays.conversion import to_numpy
from structmat._errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from structmat._files import counted, first_names
from structmat._progress import shown_progress
from structmat.fit import BASELINES
from structmat.operators import CDDLayout
from structmat.studies._adapters import write_adapter
from structmat.studies._changes import AnyChange
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError
from structmat.studies._engine import Progress, require_own, run
from structmat.studies._plans import Plan
from structmat.studies._sources import Changes, HeldMatrix, Matrix, several_faults
from structmat.studies._study import OUTPUTS, TABLE, Study, rows_of
from structmat.studies._units import Family, OtherWeights, Search, Task, done, not_in_adapters

if TYPE_CHECKING:
    from structmat._arrays.typing import ArrayLike

__all__ = ["sweep"]

_METHODS = ("cdd", *BASELINES)
"""The names of the methods: the fit, and the families with a closed form that it is compared with."""


def sweep(
    layers: Mapping[str, ArrayLike | Matrix],
    out: str | os.PathLike[str],
    *,
    n_factors: Sequence[int] = (3,),
    block_sizes: Sequence[int | Literal["min"]] = ("min",),
    methods: Sequence[str] = _METHODS,
    input_second_moment: ArrayLike | str | os.PathLike[str] | None = None,
    rng: int = 0,
    time_limit: float | None = None,
    seeds: int = 1,
    write_adapters: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    callback: Callable[[Progress], object] | None = None,
) -> Study:
    """Approximate many matrices by many methods with many settings, in a folder that keeps all finished results.

    The CDD products of each layer and block size are those of its `structmat.error_curve`. Each search of it is one
    unit of work, and each other method is one. A run that ended early, for any reason, continues when it is called
    again; its rows are the same for any number of workers, except for the times.

    Parameters
    ----------
    layers : mapping of str to array_like
        The matrices by name; `matrices` finds them in files of arrays, and `changes` in checkpoints, and both read them
        when they are needed.
    out : path-like
        The folder, made if it is missing. An earlier study in it is continued: layers, numbers of factors, block sizes,
        methods and searches may be added, or left out, while `rng`, the time limit and the second moments must be the
        same. Other numbers of factors are searched for anew, since each fit starts from those with fewer.
    n_factors : sequence of int, default (3,)
        Numbers of factors of the CDD products.
    block_sizes : sequence of int or "min", default ("min",)
        Sides of the circulant blocks; ``"min"`` is the smaller side of each matrix.
    methods : sequence of str, optional
        ``"cdd"``, and closed-form members of other families with at most as many parameters: ``"truncated-svd"``,
        ``"cdd-in-blocks"``, ``"block-circulant"``, ``"sparse-fourier"``, ``"monarch"``. All by default.
    input_second_moment : array_like or path-like, optional
        Of the inputs of all layers, as for `structmat.fit_cdd`; or a file or folder of safetensors or PyTorch with that
        of each layer by its name, (cols,) or (cols, cols). Errors are weighted ones then.
    rng : int, default 0
        Seed of all random numbers.
    time_limit : float, optional
        Seconds of processor time for all searches of a layer and block size together, as for `structmat.error_curve`.
        Results then depend on the speed of the machine.
    seeds : int, default 1
        Number of independent searches, as for `structmat.error_curve`.
    write_adapters : bool, default False
        Write the best products of the changes of a checkpoint as adapters for PEFT: one folder in `out` for each odd
        number of factors from three on and each block size, as ``adapter-3``. Say it from the first run on, as the
        results keep the vectors of the products then.
    workers : int, optional
        Processes on this machine; by default as `joblib.parallel_config` around the call says,
        such as ``parallel_config(backend="dask")`` for a cluster of Dask; without one this process does everything.
    progress : bool, optional
        Whether to show on stderr how far the work is; needs `rich`. By default only in notebooks and in sessions of
        Python on a terminal, after two seconds, and not where there is a callback.
    callback : callable, optional
        Called with a `Progress` at the start and when a unit is done.

    Returns
    -------
    Study
        The rows, also in ``results.csv`` in the folder. Units that failed are in ``failed``, and tried again by the
        next call; ``left_out`` says which combinations of settings there are not, and which weights were tuned but are
        in no adapter; ``adapters`` are the folders that were written.

    Raises
    ------
    ValueError
        If an argument is not allowed, no combination of settings is available, the folder was begun with other
        settings, or adapters are asked for and a layer has failed (what is done is kept), unless `changes` was told to
        leave such layers out.
    OSError
        If a file cannot be read or written, another run is active in the folder, or it has results that no run wrote.

    See Also
    --------
    load_study : Reads the results so far, also while a sweep runs.

    Notes
    -----
    A worker holds one matrix, one or two copies of it and a few more rows.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import sweep
    >>> layers = {"one": np.eye(6), "two": np.ones((6, 4))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep(layers, folder, methods=["cdd", "truncated-svd"])
    >>> [(row["layer"], row["method"], round(row["error"], 6)) for row in study.rows]
    [('one', 'cdd', 0.0), ('one', 'truncated-svd', 0.912871), ('two', 'cdd', 0.0), ('two', 'truncated-svd', 0.0)]
    """
    found = layers if isinstance(layers, Changes) else None
    if write_adapters and found is None:
        text = "must be changes of a checkpoint, as `changes` finds them, where adapters are to be written"
        raise ArgumentTypeError("sweep", "layers", text)
    limit = None if time_limit is None else non_negative(time_limit, "sweep", "time_limit")
    settings = _Settings(
        n_factors=_listed("n_factors", n_factors, lambda value: integer(value, "sweep", "n_factors")),
        block_sizes=_listed("block_sizes", block_sizes, lambda value: side_of_blocks(value, "sweep", "block_sizes")),
        methods=_listed("methods", methods, lambda value: one_of(value, "sweep", "methods", _METHODS)),
        rng=integer(rng, "sweep", "rng", 0),
        seeds=integer(seeds, "sweep", "seeds"),
        time_limit=limit,
        keeps_vectors=write_adapters,
    )
    sources = _sources(layers)
    _require_another_folder(out, found)
    require_own(out, *OUTPUTS)
    moments, of_moments = _moments(input_second_moment, sources)
    work = _Work(settings, faults={} if found is None else dict(found.plan.faults))
    for layer, source in sources.items():
        work.add(layer, source, moments.get(layer))
    if work.faults and not (found is not None and found.skip_bad):
        raise CheckpointError(several_faults(work.faults))
    if not work.units:
        text = f"there is nothing to do: {'; '.join(_counted(work.left_out)) or 'no layers'}"
        raise ArgumentValueError("sweep", None, text)
    if write_adapters and found is not None:
        work.add_others(found)
    kept = {"study": "sweep", **settings.kept(), "input_second_moment": of_moments}
    with shown_progress(callback, progress) as heard:
        records, failed = run(done, work.units, out, settings=kept, workers=workers, callback=heard)
    for record in records.values():
        work.left_out.update(record["left_out"])
    study = Study(rows_of(records.values()), work.faults | failed, _counted(work.left_out))
    study.to_csv(Path(out, TABLE), force=True)
    if not write_adapters or found is None:
        return study
    if failed and not found.skip_bad:
        raise CheckpointError(f"no adapter is written: {several_faults(failed)}")
    adapters, missing = _adapters(Path(out), found.plan, work.units, records)
    return replace(study, adapters=adapters, left_out=(*study.left_out, *missing))


class _Settings(NamedTuple):
    """What is asked for of every layer."""

    n_factors: tuple[int, ...]
    block_sizes: tuple[Any, ...]
    methods: tuple[str, ...]
    rng: int
    seeds: int
    time_limit: float | None
    keeps_vectors: bool

    def kept(self) -> dict[str, Any]:
        """Return what must be the same in a run that goes on with another."""
        return {"rng": self.rng, "time_limit": self.time_limit}


@dataclass
class _Work:
    """The units of work, and what has none."""

    settings: _Settings
    faults: dict[str, str]
    """What is wrong, by layer."""
    units: dict[str, Task | OtherWeights] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reasons, with how often each is one."""

    def add(self, layer: str, source: Matrix, moment: Any) -> None:
        """Add the units of a layer; `moment` may be the text of why there is none."""
        if isinstance(moment, str):
            self.faults[layer] = moment
            return
        matrix = source.matrix()
        if isinstance(source, AnyChange) and not matrix.any():
            self.left_out[f"{layer} does not change"] += 1
            return
        digest = hashlib.sha256(f"{matrix.dtype.str} {matrix.shape}".encode())
        digest.update(np.ascontiguousarray(matrix).data)
        for method, block_size in product(self.settings.methods, self.settings.block_sizes):
            reasons = {
                count: _unavailable(matrix.shape, method, count, block_size, weighted=moment is not None)
                for count in sorted(self.settings.n_factors)
            }
            self.left_out.update(reason for reason in reasons.values() if reason)
            possible = tuple(count for count, reason in reasons.items() if not reason)
            name = f"{layer} {method}, {', '.join(map(str, possible))} factors, blocks of {block_size}"
            task = Task(layer, source, moment, possible, block_size)
            for ending, unit in self._of_method(task, method) if possible else ():
                self.units[f"{name}{ending} ({digest.hexdigest()[:16]})"] = unit

    def _of_method(self, task: Task, method: str) -> Iterator[tuple[str, Task]]:
        """Yield the units of one method, and what tells their keys apart."""
        asked, common = self.settings, vars(task)
        if method != "cdd":
            yield "", Family(**common, method=method)
            return
        share = None if asked.time_limit is None else asked.time_limit / asked.seeds
        kept = ", with vectors" if asked.keeps_vectors else ""
        # What a limit gives one search depends on how many there are.
        kept += "" if share is None else f", {share:g} s"
        own: dict[str, Any] = {"rng": asked.rng, "time_limit": share, "keeps_vectors": asked.keeps_vectors}
        for number in range(1, asked.seeds + 1):
            yield f", search {number}{kept}", Search(**common, number=number, **own)

    def add_others(self, found: Changes) -> None:
        """Add what finds out which of the weights that are not fitted were tuned too."""
        self.left_out.update(map(not_in_adapters, found.plan.left_out))
        if found.plan.pairs:
            checksums = [Checkpoint(path).checksum() for path in found.folders.values()]
            digest = hashlib.sha256(" ".join(checksums).encode())
            self.units[f"other weights ({digest.hexdigest()[:16]})"] = OtherWeights(tuple(found.plan.pairs))


def _adapters(
    out: Path, plan: Plan, units: Mapping[str, Task | OtherWeights], records: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[str]]:
    """Write an adapter of each size; return their folders, and of which sizes there is none."""
    best: dict[tuple[Any, int], dict[str, tuple[float, Any]]] = {}
    layers = dict.fromkeys(unit.layer for key in records if isinstance(unit := units[key], Search))
    for key, record in records.items():
        unit = units[key]
        if not isinstance(unit, Search):
            continue
        for row in record["rows"]:
            own = best.setdefault((unit.block_size, row["n_factors"]), {})
            if row["error"] < own.get(unit.layer, (math.inf, None))[0]:
                own[unit.layer] = row["error"], record["vectors"][f"{row['n_factors']}"]
    several = len({block_size for block_size, _ in best}) > 1
    written, missing = [], []
    for (block_size, count), found in best.items():
        lacking = [layer for layer in layers if layer not in found]
        if count < 3 or count % 2 == 0:
            missing.append(f"no adapter of {counted(count, 'factor')}: adapters have an odd number, three at least")
        elif lacking:
            missing.append(f"no adapter of {counted(count, 'factor')}: {first_names(lacking)} have none")
        else:
            vectors = {layer: found[layer][1] for layer in layers}
            sizes: dict[str, Any] = {"n_factors": count, "block_size": block_size, "several": several}
            written.append(str(write_adapter(out, plan, vectors, **sizes)))
    return tuple(written), missing


def _require_another_folder(out: str | os.PathLike[str], found: Changes | None) -> None:
    """Refuse to write into the folder of a source: with an adapter in it, the model there would not be found."""
    for name, path in (found.folders if found is not None else {}).items():
        if os.path.realpath(path) == os.path.realpath(out):
            raise ArgumentValueError("sweep", "out", f"must be another folder than {name}, got {os.fspath(out)}")


def _moments(given: Any, sources: Mapping[str, Matrix]) -> tuple[dict[str, Any], str | None]:
    """Return the second moment of the inputs of each layer, or the text of why it has none, and their checksum."""
    if given is None:
        return {}, None
    if not isinstance(given, (str, os.PathLike)):
        moment = np.asarray(given)
        return dict.fromkeys(sources, moment), hashlib.sha256(np.ascontiguousarray(moment).data).hexdigest()
    checkpoint = Checkpoint(Path(given).absolute())
    found: dict[str, Any] = {}
    keys = checkpoint.partners(f"{name}.weight" for name in sources) | checkpoint.partners(sources)
    for name in sources:
        try:
            found[name] = checkpoint.entry(keys.get(name) or keys.get(f"{name}.weight") or name)
            found[name].check_floats()
        except CheckpointError as error:
            found[name] = str(error)
    return found, checkpoint.checksum()


def _counted(texts: Counter[str]) -> tuple[str, ...]:
    """Return texts, each with how often it stands there where that is more than once."""
    return tuple(f"{text} ({number:,})" if number > 1 else text for text, number in texts.items())


def _sources(layers: Mapping[str, Any]) -> dict[str, Matrix]:
    """Return the sources of the matrices by name; arrays become sources of themselves."""
    if not isinstance(layers, Mapping):
        raise ArgumentTypeError("sweep", "layers", f"must be a dict of matrices by name, got a {type(layers).__name__}")
    return {
        str(name): layer if hasattr(layer, "matrix") else HeldMatrix(to_numpy(as_matrix(layer, "sweep", str(name))))
        for name, layer in layers.items()
    }


def _listed(argument: str, values: Any, check: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return the values of an argument that is a list: checked, in their order, and each of them once."""
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise ArgumentTypeError("sweep", argument, f"must be a list, got {values!r}")
    if not (found := tuple(dict.fromkeys(check(value) for value in values))):
        raise ArgumentValueError("sweep", argument, "must not be empty")
    return found


def _unavailable(shape: tuple[int, ...], method: str, n_factors: int, block_size: int | str, *, weighted: bool) -> str:
    """Return why there is no approximation with these settings, or an empty text if there is one."""
    if weighted and method not in {"cdd", "truncated-svd"}:
        return f"{method} has no closed form for weighted errors"
    try:
        CDDLayout((shape[0], shape[1]), n_factors, block_size)
    except ArgumentError as error:
        return f"{error.argument} {error.text}"
    return ""
