"""Units of work for the tests of engines: at the top level, where worker processes find them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from structmat import ArgumentTypeError, ArgumentValueError
from structmat.fit import fit_cdd
from structmat.studies import WorkFolder, run_units, unit_rng

SETTINGS = {"seed": 0, "n": 150}


def fitted(key):
    """A fit whose rounding depends on the number of BLAS threads, and its random numbers."""
    rng = unit_rng(0, key)
    W = rng.standard_normal((150, 150)) @ rng.standard_normal((150, 150))
    result = fit_cdd(W, restarts=1, max_iter=5, rng=rng)
    return result.error, [np.asarray(leaf) for factor in result.operator.factors for leaf in factor._arrays()]


def slow(key):
    time.sleep(0.02)
    return np.arange(200.0) * float(key), os.getpid()


def failing(key):
    if key == "3":
        raise ValueError("unit 3 is bad")
    return key


def deadly(_):
    os.kill(os.getpid(), signal.SIGKILL)


def deadly_once(payload):
    """Die in the middle of unit 3, the first time."""
    key, mark = payload
    if key == "3":
        with contextlib.suppress(FileExistsError):
            Path(mark).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return fitted(key)


def deadly_once_each(payload):
    """Die in the middle of every second unit, the first time."""
    key, folder = payload
    if int(key) % 2:
        with contextlib.suppress(FileExistsError):
            Path(folder, key).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return key


def run(folder, workers):
    """A whole run: what a command does."""
    keys = [str(k) for k in range(30)]
    with WorkFolder.open(folder, SETTINGS, outputs=["result.bin"]) as work:
        for key, (array, _) in run_units(slow, {key: key for key in work.pending(keys)}, workers=workers):
            work.write(key, {"double": 2 * float(key)}, {"array": array})
        records = [work.read(key) for key in keys]
        total = sum(record.values["double"] for record in records)
        content = b"".join(record.arrays["array"].tobytes() for record in records)
        work.write_output("result.bin", content + str(total).encode())


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))


def fail(argument):
    """Raise the error of an argument."""
    raise (ArgumentValueError if argument == "value" else ArgumentTypeError)("owner", argument, "is wrong")
