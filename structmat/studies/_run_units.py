"""`run_units`: the same units of work in this process, on the cores of this machine, or on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import scipy.linalg  # noqa: F401  # its BLAS must be there when threads are limited
from threadpoolctl import threadpool_limits

import structmat
from structmat._arrays.checks import integer
from structmat._arrays.errors import ArgumentValueError

if TYPE_CHECKING:
    from joblib import Parallel

__all__ = ["check_engine", "run_units"]

Payload = TypeVar("Payload")
Result = TypeVar("Result")

_MOST = 1024
"""Workers on one machine, and threads of each."""
_DEATHS = 3
"""Times in a row that workers may die without any unit getting done."""
_CONNECT_SECONDS = 5
"""In which a scheduler must answer."""
_IDLE_SECONDS = 20
"""After which worker processes leave."""
_LOOK_SECONDS = 1
"""Between two looks of a worker process at whether its parent was killed."""
_log = logging.getLogger(__name__)


def run_units(
    function: Callable[[Payload], Result],
    units: Mapping[str, Payload],
    *,
    workers: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
) -> Generator[tuple[str, Result], None, None]:
    """Run units of work and yield their results as they become ready, in any order.

    Each unit runs with the same number of BLAS threads, because that number affects rounding. So the results are the
    same, bit for bit, for any number of workers, on processors of the same kind. A worker process that dies is
    replaced, and its unit is repeated.

    Parameters
    ----------
    function : callable
        A function of one argument, at the top level of a module so that worker processes can import it.
    units : mapping of str to object
        The arguments of `function`, by key; small, since they are sent to the workers: file names, not arrays.
    workers : int, default 1
        Processes on this machine, by joblib. 1 does everything in this process.
    threads : int, default 1
        BLAS threads for each unit. Workers times threads should not exceed the cores.
    scheduler : str, optional
        Use Dask instead: ``"local"`` starts `workers` processes on this machine; an address such as
        ``"tcp://host:8786"`` uses the workers of that cluster, which should run one thread each.

    Returns
    -------
    generator of tuple
        Of keys and results. Closing it early, also by Ctrl-C, stops the workers.

    Raises
    ------
    TypeError
        If a number of workers or threads is not an integer.
    ValueError
        If there are no workers or threads, or more than 1,024, `scheduler` is not an address, or a worker of the
        cluster runs another version.
    ConnectionError
        If there is no scheduler at the address, or it ends before the work is done.
    RuntimeError
        If workers keep dying.
    ImportError
        If Dask is asked for and not installed.

    Examples
    --------
    >>> from math import sqrt
    >>> from structmat.studies import run_units
    >>> dict(run_units(sqrt, {"a": 4.0, "b": 9.0}))
    {'a': 2.0, 'b': 3.0}
    """
    workers, threads = check_engine(workers, threads, scheduler)
    if scheduler is not None:
        return _by_dask(function, units, workers, threads, scheduler)
    if workers == 1 or len(units) < 2:
        return _here(function, units, threads)
    return _by_joblib(function, units, min(workers, len(units)), threads)


def check_engine(workers: int, threads: int, scheduler: str | None) -> tuple[int, int]:
    """Return the numbers of workers and threads; refuse what `run_units` could not work with, before any work."""
    workers, threads = integer(workers, "run_units", "workers"), integer(threads, "run_units", "threads")
    for name, number in (("workers", workers), ("threads", threads)):
        if number > _MOST:
            raise ArgumentValueError("run_units", name, f"must be at most {_MOST:,}, got {number}")
    if scheduler is not None and scheduler != "local":
        _check_scheduler(scheduler)
    return workers, threads


def _check_scheduler(scheduler: str) -> None:
    """Refuse an address that is none, or where nobody answers.

    Dask's own client tries such addresses for half a minute, and then does not end for another.
    """
    _need_dask()
    from distributed.comm import connect, get_address_host_port  # noqa: PLC0415  # slow to import, and an extra

    try:
        _, port = get_address_host_port(scheduler)
        wrong = None if 0 < port < 1 << 16 else f"there is no port {port}"
    except ValueError as error:
        wrong = str(error)
    if wrong is not None:
        text = f'must be "local" or an address such as tcp://host:8786, got {scheduler!r}: {wrong}'
        raise ArgumentValueError("run_units", "scheduler", text)

    async def call() -> None:
        opened = await connect(scheduler, timeout=_CONNECT_SECONDS)
        await opened.close()

    try:
        asyncio.run(call())
    except OSError as error:
        raise ConnectionError(f"there is no Dask scheduler at {scheduler}") from error


def _need_dask() -> None:
    try:
        import distributed  # noqa: F401, PLC0415  # slow to import, and an extra
    except ModuleNotFoundError as error:
        text = 'a scheduler needs the extra "distributed": pip install "structmat[distributed]"'
        raise ImportError(text) from error


def _here(
    function: Callable[[Any], Any], units: Mapping[str, Any], threads: int
) -> Generator[tuple[str, Any], None, None]:
    for key, payload in units.items():
        with threadpool_limits(threads):
            result = function(payload)
        yield key, result


def _by_joblib(
    function: Callable[[Any], Any], units: Mapping[str, Any], workers: int, threads: int
) -> Generator[tuple[str, Any], None, None]:
    from joblib import delayed  # noqa: PLC0415  # slow to import
    from joblib.externals.loky.process_executor import TerminatedWorkerError  # noqa: PLC0415

    left, deaths = dict(units), 0
    while left:
        tasks = [delayed(_in_worker)(function, key, payload, threads) for key, payload in left.items()]
        try:
            with _closing(_parallel(workers, threads)(tasks)) as results:
                for key, result in results:
                    del left[key]
                    deaths = 0
                    yield key, result
        except TerminatedWorkerError as error:
            deaths += 1
            if deaths == _DEATHS:
                raise RuntimeError(_died(f"{deaths} times in a row")) from error
            _log.warning("a worker process died; %d units of work are started again", len(left))


def _parallel(workers: int, threads: int) -> Parallel:
    from joblib import Parallel, parallel_config  # noqa: PLC0415  # slow to import

    with parallel_config(
        "loky",
        n_jobs=workers,
        inner_max_num_threads=threads,
        idle_worker_timeout=_IDLE_SECONDS,
        initializer=_depend_on,
        initargs=(os.getpid(),),
    ):
        return Parallel(return_as="generator_unordered", batch_size=1, max_nbytes=None)


@contextlib.contextmanager
def _closing(results: Any) -> Iterator[Any]:
    """Stop the workers at the end; joblib warns about what they were doing, which is what is wanted."""
    try:
        yield results
    finally:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            results.close()


def _depend_on(parent: int) -> None:
    """Leave Ctrl-C, which reaches all processes of a terminal, to the parent, and end soon after it was killed.

    Work whose parent is gone is for nobody. It may be gone already.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:  # on Windows for ever: there workers leave when they have nothing to do
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _in_worker(function: Callable[[Any], Any], key: str, payload: Any, threads: int) -> tuple[str, Any]:
    # Not only inside a block: a Dask worker may run several units at once, and the end of one must not undo the limit
    # of another.
    threadpool_limits(threads)
    return key, function(payload)


def _by_dask(
    function: Callable[[Any], Any], units: Mapping[str, Any], workers: int, threads: int, scheduler: str
) -> Generator[tuple[str, Any], None, None]:
    _need_dask()
    from distributed import KilledWorker, as_completed  # noqa: PLC0415  # slow to import, and an extra

    with _client(scheduler, min(workers, max(len(units), 1))) as client:
        run, version = secrets.token_hex(4), structmat.__version__
        futures = [
            client.submit(_on_cluster, function, key, payload, threads, version, key=f"{key}-{run}", pure=False)
            for key, payload in units.items()
        ]
        done = as_completed(futures, loop=client.loop, with_results=True)
        del futures  # so that the cluster forgets what has arrived
        try:
            for future, result in done:
                if future.status in {"cancelled", "lost"}:
                    text = f"the Dask scheduler at {scheduler} ended, or can no longer be reached; what is done is kept"
                    raise ConnectionError(text)
                yield result
        except KilledWorker as error:
            raise RuntimeError(_died(f"on one unit of work again and again ({error})")) from error


@contextlib.contextmanager
def _client(scheduler: str, workers: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster  # noqa: PLC0415  # slow to import, and an extra

    with contextlib.ExitStack() as stack:
        # Dask logs a traceback for a connection that is lost, which is told as an error of one line.
        for logger in map(logging.getLogger, ("distributed", "distributed.client")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        address: Any = scheduler
        if scheduler == "local":
            address = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=0,  # no guess of Dask's at what a fit may take
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = Client(address, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise ConnectionError(f"there is no Dask scheduler at {scheduler}") from error
        yield stack.enter_context(client)


def _on_cluster(function: Callable[[Any], Any], key: str, payload: Any, threads: int, version: str) -> tuple[str, Any]:
    if structmat.__version__ != version:
        raise ValueError(f"a worker of the cluster runs structmat {structmat.__version__}, not {version}")
    return _in_worker(function, key, payload, threads)


def _died(when: str) -> str:
    return f"a worker process died {when}; was there too little memory? What is done is kept"
