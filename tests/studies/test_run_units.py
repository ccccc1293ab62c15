"""`run_units`: the same results from every engine, and workers that die."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from structmat import ArgumentTypeError, ArgumentValueError
from structmat.cli._errors import CommandError
from structmat.io import CheckpointError
from structmat.studies import run_units, unit_rng
from tests.studies import units

ROOT = Path(__file__).parents[2]
KEYS = [str(k) for k in range(8)]
NEEDS_DASK = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs dask.distributed")


def same(left, right):
    assert left.keys() == right.keys()
    for key, (error, arrays) in left.items():
        assert error == right[key][0]
        for a, b in zip(arrays, right[key][1], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def alone():
    return dict(run_units(units.fitted, dict(zip(KEYS, KEYS, strict=True))))


def test_order_and_number_of_units_do_not_matter(alone):
    some = KEYS[:3:-2]
    same(dict(run_units(units.fitted, dict(zip(some, some, strict=True)))), {key: alone[key] for key in some})


def test_worker_processes_give_the_same_results_bit_for_bit(alone):
    same(alone, dict(run_units(units.fitted, dict(zip(KEYS, KEYS, strict=True)), workers=2)))


def test_a_worker_that_dies_is_replaced_and_its_work_done_again(alone, tmp_path, caplog):
    payloads = {key: (key, str(tmp_path / "died")) for key in KEYS}
    same(alone, dict(run_units(units.deadly_once, payloads, workers=2)))
    assert (tmp_path / "died").exists()
    assert "a worker process died" in caplog.text


def test_workers_may_die_often_if_work_is_done_in_between(tmp_path):
    keys = [str(k) for k in range(10)]
    payloads = {key: (key, str(tmp_path)) for key in keys}
    assert dict(run_units(units.deadly_once_each, payloads, workers=2)) == dict(zip(keys, keys, strict=True))
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX")
@pytest.mark.parametrize("killed", ["while it works", "while it starts"])
def test_workers_end_with_their_parent(killed):
    code = f"""
import os, time
from structmat.studies import _run_units
_run_units._LOOK_SECONDS = 0.01
read, write = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    while {killed == "while it starts"} and os.getppid() == parent:
        os.write(write, b"ready")
        time.sleep(0.01)
    _run_units._depend_on(parent)
    os.write(write, b"ready")
    time.sleep(60)
os.read(read, 5)
os._exit(0)
"""
    # The pipe of the output ends with the last process that has it.
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=30, check=True)


def test_workers_that_die_again_and_again_are_told():
    with pytest.raises(RuntimeError, match="died 3 times in a row; was there too little memory"):
        list(run_units(units.deadly, dict(zip(KEYS, KEYS, strict=True)), workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_unit_arrives_and_ends_the_run(workers):
    with pytest.raises(ValueError, match="unit 3 is bad"):
        list(run_units(units.failing, dict(zip(KEYS, KEYS, strict=True)), workers=workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_stops_early_stops_the_workers(workers):
    results = run_units(units.slow, dict(zip(KEYS, KEYS, strict=True)), workers=workers)
    key, (array, _) = next(results)
    np.testing.assert_array_equal(array, np.arange(200.0) * float(key))
    results.close()
    assert list(results) == []


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_units(units.slow, {}, workers=0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        run_units(units.slow, {}, threads=0)
    with pytest.raises(ArgumentTypeError, match="workers must be an integer"):
        run_units(units.slow, {}, workers=2.5)
    assert list(run_units(units.slow, {}, workers=4)) == []


def test_random_numbers_of_a_unit_depend_on_seed_and_key_alone():
    draws = {(seed, key): unit_rng(seed, key).integers(1 << 62) for seed in (0, 1) for key in ("a", "b", "ab")}
    assert len(set(draws.values())) == 6
    assert unit_rng(0, "a").integers(1 << 62) == draws[0, "a"]


CLUSTER = """
import json, sys
from distributed import LocalCluster
from structmat.studies import _run_units, run_units
from tests.studies import units

if __name__ == "__main__":
    keys = json.loads(sys.argv[1])
    try:
        found = run_units(units.deadly_once, {k: (k, sys.argv[2]) for k in keys}, workers=2, scheduler="local")
        print(json.dumps({k: [error, [a.tolist() for a in arrays]] for k, (error, arrays) in found}))
        _run_units._CONNECT_SECONDS = 0.2
        list(run_units(units.fitted, {"a": "a"}, scheduler="tcp://127.0.0.1:9"))
    except ConnectionError as error:
        print(error)
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False, protocol="tcp")
    try:
        for _ in run_units(units.slow, {str(k): str(k) for k in range(200)}, scheduler=cluster.scheduler_address):
            cluster.close()
    except ConnectionError as error:
        print(error)
"""


@NEEDS_DASK
def test_dask_with_a_worker_killed_in_the_middle(alone, tmp_path):
    """In a process of its own: Dask's threads do not bear warnings that are errors."""
    (tmp_path / "script.py").write_text(CLUSTER)
    command = [sys.executable, str(tmp_path / "script.py"), json.dumps(KEYS), str(tmp_path / "died")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    results, refusal, end = done.stdout.splitlines()
    same(alone, {key: (error, [np.array(a) for a in arrays]) for key, (error, arrays) in json.loads(results).items()})
    assert (tmp_path / "died").exists()
    assert refusal == "there is no Dask scheduler at tcp://127.0.0.1:9"
    assert "ended, or can no longer be reached; what is done is kept" in end
    assert "Traceback" not in done.stderr


@NEEDS_DASK
@pytest.mark.parametrize("address", ["", "host", "tcp://host", "tcp://host:99999", "http://host:8786"])
def test_what_is_no_address_of_a_scheduler_is_refused_at_once(address):
    with pytest.raises(ArgumentValueError, match='must be "local" or an address such as tcp://host:8786') as caught:
        run_units(units.slow, {"1": "1"}, scheduler=address)
    assert caught.value.argument == "scheduler"


@NEEDS_DASK
def test_a_missing_dask_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"structmat\[distributed\]"):
        list(run_units(units.slow, {"1": "1"}, scheduler="local"))


@pytest.mark.parametrize("kind", [ArgumentValueError, ArgumentTypeError])
def test_errors_of_arguments_come_back_from_workers_as_they_are(kind):
    argument = "value" if kind is ArgumentValueError else "kind"
    with pytest.raises(kind) as caught:
        list(run_units(units.fail, {"a": argument, "b": argument}, workers=2))
    error = caught.value
    assert (error.owner, error.argument, error.text) == ("owner", argument, "is wrong")
    for other in (error, CheckpointError("file: key"), CommandError("--out", "exists", 2)):
        again = pickle.loads(pickle.dumps(other))
        assert (type(again), str(again), vars(again)) == (type(other), str(other), vars(other))
