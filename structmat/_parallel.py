"""Work in parallel by joblib: in this process, in others on this machine, or on a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import joblib
import scipy.linalg  # noqa: F401  # its BLAS must be there when threads are limited
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import ThreadpoolController

__all__ = ["as_ready", "n_workers"]

_controller = cache(ThreadpoolController)
"""Limits the threads of linear algebra. It is made once in a process, since finding the libraries takes a while."""


def n_workers() -> int:
    """Return how many workers `joblib.parallel_config` around the call gives; without it one, this process."""
    count: int = joblib.effective_n_jobs(None)
    return count


def as_ready(function: Callable[[Any], Any], units: Iterable[Any], workers: int | None) -> Iterator[Any]:
    """Yield what a function returns for each unit of work as it becomes ready, in any order.

    `function` stands at the top level of a module; it runs with one thread of linear algebra. Workers are so many
    processes on this machine, or as `joblib.parallel_config` around the call says.
    """
    tasks = [joblib.delayed(_with_one_thread)(function, unit) for unit in units]
    with contextlib.ExitStack() as stack:
        if workers is not None and workers > 1:
            own = {"initializer": _begin_worker, "initargs": (os.getpid(),), "inner_max_num_threads": 1}
            stack.enter_context(joblib.parallel_config("loky", n_jobs=min(workers, max(1, len(tasks))), **own))
        elif workers is not None:
            stack.enter_context(joblib.parallel_config("sequential"))
        ahead = "all" if workers is None else "2*n_jobs"  # a cluster may get more workers while it runs
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=ahead, max_nbytes=None)
        try:
            running = parallel(tasks)
            stack.callback(_close, running)
            for outcome in running:  # noqa: UP028  # `yield from` would close joblib's generator before `_close`
                yield outcome
        except TerminatedWorkerError as error:
            text = "a worker process was killed; was there too little memory? What is done is kept"
            raise RuntimeError(text) from error
        except Exception as error:
            if not type(error).__module__.startswith("distributed"):
                raise
            text = "the scheduler or the workers of Dask ended, or can no longer be reached; what is done is kept"
            raise ConnectionError(text) from error


def _with_one_thread(function: Callable[[Any], Any], unit: Any) -> Any:
    """Run a unit: the number of threads affects rounding."""
    with _controller().limit(limits=1):
        return function(unit)


def _close(running: Any) -> None:
    """Stop the workers. joblib warns that they were still at work, which is known here."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        running.close()


def _begin_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end soon after it was killed: its work is for nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()
