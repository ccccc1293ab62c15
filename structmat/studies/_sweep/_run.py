"""`sweep`: every method with every setting on every matrix; `load_study`: what is done so far."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import NamedTuple

from structmat._arrays.checks import optional_function
from structmat._arrays.errors import ArgumentValueError
from structmat.studies._folder import UnwrittenError, WorkFolder
from structmat.studies._reading import read_records
from structmat.studies._records import Record
from structmat.studies._run_units import check_engine, run_units
from structmat.studies._sweep._config import SweepConfig, read_config
from structmat.studies._sweep._plan import Failure, Unit, cost, do_unit, fit_options, make_plan
from structmat.studies._sweep._study import Study, StudyRow, to_sqlite

__all__ = ["SweepProgress", "load_study", "sweep"]

_KIND = "sweep"
_PLAN = "plan"
"""Key of the record that lists the units of the last run."""
_TABLE = "study.sqlite"
_log = logging.getLogger(__name__)


class SweepProgress(NamedTuple):
    """State of a sweep, as handed to the `callback` of `sweep`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, sweep
    >>> seen = []
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep(SweepConfig({"one": np.eye(4)}, methods=["cdd"]), folder, callback=seen.append)
    >>> [(state.method, state.n_done, state.n_units) for state in seen]
    [(None, 0, 0), (None, 0, 1), ('cdd', 1, 1)]
    """

    name: str
    """The layer that is being read, or the unit of work that was just done."""
    method: str | None
    """The method of that unit; None before the first is done."""
    n_done: int
    """Units done, those of earlier runs included."""
    n_units: int
    """Units in all; 0 while layers are read."""
    elapsed: float
    """Seconds since this run began."""
    remaining: float | None
    """Estimated seconds to its end; None before the first unit is done."""


def sweep(
    config: SweepConfig | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    callback: Callable[[SweepProgress], object] | None = None,
) -> Study:
    """Approximate many matrices by many methods with many settings, in a folder that keeps all finished results.

    Each combination of layer, setting, method and seed is one unit of work, whose row of the table is written to the
    disk at once. A run that ended early, for any reason, continues when it is called again; its rows are the same for
    any number of workers, except for the times.

    Parameters
    ----------
    config : SweepConfig or path-like
        What to do, or the TOML file that says so.
    out : path-like
        The folder, made if it is missing. A folder with an earlier study is continued: layers, numbers of factors,
        block sizes, methods and seeds may be added, or left out, while the options of the fits must be the same. The
        table ``study.sqlite`` in it is written at the end.
    workers : int, default 1
        Processes on this machine.
    scheduler : str, optional
        ``"local"`` or the address of a Dask scheduler; see `run_units`.
    callback : callable, optional
        Called with a `SweepProgress` when a layer is read, and when a unit is done.

    Returns
    -------
    Study
        The rows of the configuration. Failed rows are in ``failed``, and tried again by the next call.

    Raises
    ------
    ValueError
        If the configuration is not allowed, a source has no matrix, no combination of settings is available, or the
        folder was begun with other options.
    BlockingIOError
        If another run is active in the folder.
    OSError
        If a file cannot be read or written; `UnwrittenError`, which has the study, if that is only the final table.

    See Also
    --------
    load_study : Reads the results so far, also while a sweep runs.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, sweep
    >>> layers = {"one": np.eye(6), "two": np.ones((6, 4))}
    >>> config = SweepConfig(layers, methods=["cdd", "truncated-svd"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep(config, folder)
    >>> [(row.layer, row.method, round(row.error, 6)) for row in study.rows]
    [('one', 'cdd', 0.0), ('one', 'truncated-svd', 0.912871), ('two', 'cdd', 0.0), ('two', 'truncated-svd', 0.0)]
    """
    if not isinstance(config, SweepConfig):
        config = read_config(config)
    progress = _Progress(optional_function(callback, "sweep", "callback"))
    workers, _ = check_engine(workers, 1, scheduler)
    plan = make_plan(config, progress.reading)
    if not plan.units:
        reasons = "; ".join(f"{text} ({count:,})" for text, count in plan.left_out.items())
        raise ArgumentValueError("sweep", None, f"there is nothing to do: {reasons}")
    failed: dict[str, str] = {}
    with WorkFolder.open(out, {"kind": _KIND, **fit_options(config)}, outputs=[_TABLE]) as folder:
        folder.write(_PLAN, {"units": list(plan.units), "left_out": plan.left_out, "block_sizes": config.block_sizes})
        # The cheapest first, so that there is something to look at soon.
        units = {key: plan.units[key] for key in sorted(folder.pending(plan.units), key=lambda k: cost(plan.units[k]))}
        progress.begin(units, len(plan.units))
        with closing(run_units(do_unit, units, workers=workers, scheduler=scheduler)) as results:
            for key, result in results:
                if isinstance(result, Failure):
                    failed[key] = result.text
                    _log.warning("%s failed: %s", key, result.text)
                else:
                    folder.write(key, result._asdict())
                    _log.info("%s: error %.6f in %.2f s", key, result.error, result.seconds)
                progress.did(key)
        study = _study({key: folder.read(key) for key in (_PLAN, *plan.units) if key in folder.done}, failed)
        try:
            folder.write_output(_TABLE, to_sqlite(study.rows))
        except OSError as error:
            raise UnwrittenError(study, error) from error
    return study


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read the results of a sweep, complete or so far.

    Parameters
    ----------
    path : path-like
        The folder of the sweep. It is only read, and may be in use by a sweep.

    Returns
    -------
    Study
        The rows of the configuration of the last run.

    Raises
    ------
    ValueError
        If the folder holds no sweep.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import SweepConfig, load_study, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep(SweepConfig({"identity": np.eye(4)}), folder)
    ...     load_study(folder).rows == study.rows
    True
    """
    settings, records = read_records(path)
    if settings.get("kind") != _KIND or _PLAN not in records:
        raise ArgumentValueError("load_study", "path", f"must be the folder of a sweep, got {os.fspath(path)}")
    return _study(records)


def _study(records: Mapping[str, Record], failed: Mapping[str, str] | None = None) -> Study:
    plan = records[_PLAN].values
    rows = tuple(StudyRow(**records[key].values) for key in plan["units"] if key in records)
    return Study(rows, len(plan["units"]), failed or {}, plan["left_out"], tuple(plan["block_sizes"]))


class _Progress:
    """Tells the callback how far a sweep is; the time left is estimated by what is known of the cost of fits."""

    def __init__(self, callback: Callable[[SweepProgress], object] | None) -> None:
        self._callback = callback
        self._start = time.monotonic()
        self._costs: dict[str, float] = {}
        self._methods: dict[str, str] = {}
        self._total = self._spent = 0.0
        self._n_units = 0
        self._begun = self._start

    def reading(self, name: str) -> None:
        self._tell(name, 0, 0, None)

    def begin(self, units: Mapping[str, Unit], n_units: int) -> None:
        """Begin the work: `units` are those still to be done, of `n_units`."""
        self._costs = {key: cost(unit) for key, unit in units.items()}
        self._methods = {key: unit.setting.method for key, unit in units.items()}
        self._total, self._n_units, self._begun = sum(self._costs.values()), n_units, time.monotonic()
        self._tell("", n_units - len(units), n_units, None)

    def did(self, key: str) -> None:
        self._spent += self._costs.pop(key)
        passed = time.monotonic() - self._begun
        self._tell(key, self._n_units - len(self._costs), self._n_units, passed * (self._total / self._spent - 1.0))

    def _tell(self, name: str, n_done: int, n_units: int, remaining: float | None) -> None:
        if self._callback is not None:
            elapsed = time.monotonic() - self._start
            self._callback(SweepProgress(name, self._methods.get(name), n_done, n_units, elapsed, remaining))
