"""`sweep`: many matrices by many methods with many settings, at equal numbers of parameters."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from structmat._arguments import as_matrix, independent_generators, integer, non_negative, one_of, side_of_blocks
from structmat._arrays.conversion import to_numpy
from structmat._errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from structmat._files import natural_key
from structmat._progress import shown_progress
from structmat.fit import BASELINES, baseline_errors, error_curve
from structmat.io import describe, load_matrix
from structmat.operators import CDDLayout
from structmat.studies._checkpoint_files import CheckpointError
from structmat.studies._engine import Progress, require_own, run
from structmat.studies._layer_fit import Change, weighted_norm
from structmat.studies._models import Model
from structmat.studies._plans import is_found, plan_pair
from structmat.studies._study import COMPLETED, OUTPUTS, TABLE, Row, Study, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike

__all__ = ["changes", "matrices", "sweep"]

_METHODS = ("cdd", *BASELINES)
"""The names of the methods: the fit, and the families with a closed form that it is compared with."""


@dataclass(frozen=True)
class _InFile:
    """A matrix in a file, which is read where it is needed."""

    path: Path
    key: str
    shape: tuple[int, ...]

    def matrix(self) -> NDArray[Any]:
        return load_matrix(self.path, key=self.key)


@dataclass(frozen=True)
class _Held:
    """A matrix in memory, with the same methods as those in files."""

    array: NDArray[Any]
    shape = property(lambda self: self.array.shape)

    def matrix(self) -> NDArray[Any]:
        return self.array


_Matrix: TypeAlias = Change | _InFile | _Held
"""A source of one matrix: its shape is known, and its entries are read in the process that needs them."""


@dataclass(frozen=True)
class _Task:
    """What the approximations of one matrix have in common: each kind of them is one unit of work."""

    layer: str
    source: _Matrix
    moment: NDArray[Any] | None
    n_factors: tuple[int, ...]
    """Rising numbers of factors: one row for each."""
    block_size: Any
    """An integer or "min"."""

    @property
    def cost(self) -> float:
        """An estimate of the time that the unit takes, relative to others."""
        return float(math.prod(self.source.shape))

    def matrix(self) -> NDArray[Any]:
        """Read the matrix."""
        matrix = self.source.matrix()
        if not np.isfinite(matrix).all():
            raise ArgumentValueError("sweep", self.layer, "must be finite, got NaN or infinity")
        return matrix.astype(np.result_type(matrix.dtype, np.float32), copy=False)

    def row(self, matrix: NDArray[Any], n_factors: int, **columns: Any) -> Row:
        """Return a row of the table."""
        rows, cols = matrix.shape
        own = {"layer": self.layer, "rows": rows, "cols": cols, "norm": weighted_norm(matrix, self.moment)}
        own |= {"weighted": self.moment is not None, "n_factors": n_factors, "block_size": self.block_size}
        return Row(**own, **columns)


@dataclass(frozen=True)
class _Search(_Task):
    """One search for CDD products of more and more factors, each of which starts from the one before."""

    number: int
    """Which of several independent searches it is, the first is 1."""
    rng: int
    time_limit: float | None
    """Seconds of processor time for all numbers of factors together."""

    @property
    def cost(self) -> float:
        """An estimate of the time that the unit takes, relative to others.

        It is a model of matrices of 384 x 384 entries: a fit with k > 3 factors takes about k**3 / 3 times as long as
        one with three, and a search with a time limit uses that up.
        """
        if self.time_limit is not None and max(self.n_factors) > 3:
            return 1e6 * self.time_limit
        return super().cost * sum(max(1.0, count**3 / 3.0) if count > 3 else 1.0 for count in self.n_factors)

    def run(self) -> dict[str, Any]:
        """Return the record of the search."""
        matrix = self.matrix()
        curve = error_curve(
            matrix,
            self.n_factors,
            block_size=self.block_size,
            input_second_moment=self.moment,
            rng=independent_generators(np.random.default_rng(self.rng), self.number)[-1],
            time_limit=self.time_limit,
            baselines=False,
        )
        table, rows = curve.to_dict(), []
        columns = ("n_parameters", "error", "product_factors", "status", "processor_seconds", "clock_seconds")
        for k, count in enumerate(self.n_factors):
            if table["error"][k] is not None:
                own = {name: table[name][k] for name in columns}
                own |= {"method": "cdd", "search": self.number, "exact": bool(curve.exact[k])}
                rows.append(self.row(matrix, count, **own))
        left = [f"{count} factors of {self.layer} were not made" for count in self.n_factors[len(rows) :]]
        return {"rows": rows, "left_out": left}


@dataclass(frozen=True)
class _Family(_Task):
    """The best members of another family, with at most as many parameters as CDD products have."""

    method: str

    def run(self) -> dict[str, Any]:
        """Return the record of the members."""
        began, spent = time.perf_counter(), time.process_time()
        matrix = self.matrix()
        layouts = [CDDLayout(matrix.shape, count, self.block_size) for count in self.n_factors]
        most = [layout.n_parameters for layout in layouts]
        ((used, errors),) = baseline_errors(matrix, most, names=[self.method], input_second_moment=self.moment).values()
        share = len(self.n_factors)
        common = {
            "method": self.method,
            "search": None,
            "product_factors": None,
            "exact": False,
            "status": COMPLETED,
            "processor_seconds": (time.process_time() - spent) / share,
            "clock_seconds": (time.perf_counter() - began) / share,
        }
        rows, left = [], []
        for count, parameters, error in zip(self.n_factors, used.tolist(), errors.tolist(), strict=True):
            if parameters or error == 0.0:
                rows.append(self.row(matrix, count, n_parameters=parameters, error=error, **common))
            else:
                left.append(f"{self.method} has no member with so few parameters")
        return {"rows": rows, "left_out": left}


def sweep(
    layers: Mapping[str, ArrayLike | _Matrix],
    out: str | os.PathLike[str],
    *,
    n_factors: Sequence[int] = (3,),
    block_sizes: Sequence[int | Literal["min"]] = ("min",),
    methods: Sequence[str] = _METHODS,
    input_second_moment: ArrayLike | None = None,
    rng: int = 0,
    time_limit: float | None = None,
    seeds: int = 1,
    workers: int | None = None,
    progress: bool = False,
    callback: Callable[[Progress], object] | None = None,
) -> Study:
    """Approximate many matrices by many methods with many settings, in a folder that keeps all finished results.

    The CDD products of each layer and block size are those of its `structmat.error_curve`. Each search of it is one
    unit of work, and each other method is one. A run that ended early, for any reason, continues when it is called
    again; its rows are the same for any number of workers, except for the times.

    Parameters
    ----------
    layers : mapping of str to array_like
        The matrices by name; `matrices` and `changes` find them in files, and read them when they are needed.
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
    input_second_moment : array_like, optional
        Of the inputs of all layers, as for `structmat.fit_cdd`; errors are weighted ones then.
    rng : int, default 0
        Seed of all random numbers.
    time_limit : float, optional
        Seconds of processor time for all searches of a layer and block size together, as for `structmat.error_curve`.
        Results then depend on the speed of the machine.
    seeds : int, default 1
        Number of independent searches, as for `structmat.error_curve`.
    workers : int, optional
        Processes on this machine; by default as `joblib.parallel_config` around the call says,
        such as ``parallel_config(backend="dask")`` for a cluster of Dask; without one this process does everything.
    progress : bool, default False
        Whether to show on stderr how far the work is; needs `rich`. A notebook shows it without being asked.
    callback : callable, optional
        Called with a `Progress` at the start and when a unit is done.

    Returns
    -------
    Study
        The rows, also in ``results.csv`` in the folder. Units that failed are in ``failed``, and tried again by the
        next call; ``left_out`` says which combinations of settings there are not.

    Raises
    ------
    ValueError
        If an argument is not allowed, no combination of settings is available, or the folder was begun with other
        settings.
    OSError
        If a file cannot be read or written, another run is active in the folder, or it has results that no run wrote.

    See Also
    --------
    load_study : Reads the results so far, also while a sweep runs.

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
    n_factors = _listed("n_factors", n_factors, lambda value: integer(value, "sweep", "n_factors"))
    block_sizes = _listed("block_sizes", block_sizes, lambda value: side_of_blocks(value, "sweep", "block_sizes"))
    methods = _listed("methods", methods, lambda value: one_of(value, "sweep", "methods", _METHODS))
    rng = integer(rng, "sweep", "rng", 0)
    seeds = integer(seeds, "sweep", "seeds")
    limit = None if time_limit is None else non_negative(time_limit, "sweep", "time_limit")
    moment = None if input_second_moment is None else np.asarray(input_second_moment)
    require_own(out, *OUTPUTS)
    units: dict[str, _Search | _Family] = {}
    left_out: Counter[str] = Counter()
    for layer, source in _sources(layers).items():
        matrix = source.matrix()
        if isinstance(source, Change) and not matrix.any():
            left_out[f"{layer} does not change"] += 1
            continue
        digest = hashlib.sha256(f"{matrix.dtype.str} {matrix.shape}".encode())
        digest.update(np.ascontiguousarray(matrix).data)
        for method, block_size in product(methods, block_sizes):
            reasons = {
                count: _unavailable(source.shape, method, count, block_size, weighted=moment is not None)
                for count in sorted(n_factors)
            }
            left_out.update(reason for reason in reasons.values() if reason)
            possible = tuple(count for count, reason in reasons.items() if not reason)
            common = (layer, source, moment, possible, block_size)
            if method != "cdd":
                made: list[_Search | _Family] = [_Family(*common, method)]
            else:
                share = None if limit is None else limit / seeds
                made = [_Search(*common, search, rng, share) for search in range(1, seeds + 1)]
            for unit in made if possible else ():
                numbers = ", ".join(map(str, possible))
                ending = f", search {unit.number}" if isinstance(unit, _Search) else ""
                key = f"{layer} {method}, {numbers} factors, blocks of {block_size}{ending} ({digest.hexdigest()[:16]})"
                units[key] = unit
    if not units:
        raise ArgumentValueError(
            "sweep", None, f"there is nothing to do: {'; '.join(_counted(left_out)) or 'no layers'}"
        )
    of_moment = None if moment is None else hashlib.sha256(np.ascontiguousarray(moment).data).hexdigest()
    # What a limit gives one search depends on how many there are.
    shared = {} if limit is None else {"seeds": seeds}
    settings = {"study": "sweep", "rng": rng, "time_limit": limit, **shared, "input_second_moment": of_moment}
    with shown_progress(callback, progress) as heard:
        done, failed = run(_done, units, out, settings=settings, workers=workers, callback=heard)
    for record in done.values():
        left_out.update(record["left_out"])
    study = Study(rows_of(done.values()), failed, _counted(left_out))
    study.to_csv(Path(out, TABLE), force=True)
    return study


def _done(unit: _Search | _Family) -> dict[str, Any]:
    """Do one unit of work."""
    return unit.run()


def matrices(*files: str | os.PathLike[str], targets: str | None = None) -> dict[str, _Matrix]:
    """Find the matrices in files, for `sweep`; each is read when it is needed.

    Parameters
    ----------
    *files : path-like
        Files ``.npy``, ``.npz``, ``.mat``, ``.csv`` or ``.safetensors``.
    targets : str, optional
        Regular expression that must be found in the name of an array or tensor. By default all matrices are taken.

    Returns
    -------
    dict
        By name: that of the file, without its suffix, and of the array in it.

    Raises
    ------
    ValueError
        If a file holds no matrices, or two have one name.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import matrices
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/changes.npz", query=np.eye(4), key=np.eye(4))
    ...     sorted(matrices(f"{folder}/changes.npz"))
    ['changes/key', 'changes/query']
    """
    found: dict[str, _Matrix] = {}
    for path in map(Path, files):
        description = describe(path)
        if description["format"] == "structmat":
            raise ValueError(f"{path} holds a structmat operator, no plain matrix")
        shapes = {name: tuple(spec["shape"]) for name, spec in description["tensors"].items()}
        for name, shape in shapes.items():
            single = description["format"] in {"npy", "csv"}
            full = path.stem if single else f"{path.stem}/{name}"
            wanted = targets is None or is_found(targets, (path.stem if single else name).removesuffix(".weight"))
            if len(shape) != 2 or min(shape) == 0 or not wanted:
                continue
            if full in found:
                raise ArgumentValueError("matrices", None, f"two matrices are called {full}: rename one of the files")
            found[full] = _InFile(path.absolute(), name, shape)
    if not found:
        what = "there are no matrices" if targets is None else f"no matrix has a name in which {targets!r} is found"
        raise ArgumentValueError("matrices", None, f"{', '.join(map(str, files))}: {what}")
    return found


def changes(
    base: str | os.PathLike[str], tuned: str | os.PathLike[str], targets: str | None = None
) -> dict[str, _Matrix]:
    """Find the changes of all matrices between two checkpoints, for `sweep`; each is read when it is needed.

    Parameters
    ----------
    base, tuned : path-like
        Checkpoints: files or folders, of safetensors or PyTorch.
    targets : str, optional
        Regular expression that must be found in the path of a module. By default all matrices but embeddings and what
        is tied to them.

    Returns
    -------
    dict
        By the names in the files, without ``.weight``.

    Raises
    ------
    ValueError
        If a weight cannot be read, or has no partner in the base, or none is a matrix.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.studies import changes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number, name in enumerate(["base", "tuned"]):
    ...         save_file({"up.weight": number * np.eye(4)}, f"{folder}/{name}.safetensors")
    ...     found = changes(f"{folder}/base.safetensors", f"{folder}/tuned.safetensors")
    ...     float(found["up"].matrix().trace())
    4.0
    """
    plan = plan_pair(Path(base), Path(tuned), targets, Model(), cast=True)
    for text in plan.faults.values():
        raise CheckpointError(text)
    if not plan.changes:
        what = "there are no matrices" if targets is None else f"no matrix has a name in which {targets!r} is found"
        raise ArgumentValueError("changes", None, f"{os.fspath(base)} and {os.fspath(tuned)}: {what}")
    return {name: plan.changes[name] for name in sorted(plan.changes, key=natural_key)}


def _counted(texts: Counter[str]) -> tuple[str, ...]:
    """Return texts, each with how often it stands there where that is more than once."""
    return tuple(f"{text} ({number:,})" if number > 1 else text for text, number in texts.items())


def _sources(layers: Mapping[str, Any]) -> dict[str, _Matrix]:
    """Return the sources of the matrices by name; arrays become sources of themselves."""
    if not isinstance(layers, Mapping):
        raise ArgumentTypeError("sweep", "layers", f"must be a dict of matrices by name, got a {type(layers).__name__}")
    return {
        str(name): layer if hasattr(layer, "matrix") else _Held(to_numpy(as_matrix(layer, "sweep", str(name))))
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
