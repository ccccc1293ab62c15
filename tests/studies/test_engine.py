"""The engine of studies: what is done stays, whenever a run ends, and the rest is done by the next."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from math import sqrt
from pathlib import Path

import joblib
import numpy as np
import pytest
from safetensors.numpy import save_file

from structmat.cli import main
from structmat.studies import load_study
from structmat.studies._engine import read_records, run
from tests.studies.outcomes import adapter, rows

SAID = re.compile(r"structmat: \d+:\d\d:\d\d: .*\n")
"""What a command that takes long, as on a busy machine, says of how far it is."""

CTRL_C = "import signal; signal.signal(2, signal.default_int_handler)"  # ignored in what a shell runs in the background
COMMAND = f"{CTRL_C}; import sys, structmat.cli as c; sys.exit(c.main())"
ROOT = Path(__file__).parents[2]

LEAKED = re.compile(r".*: UserWarning: resource_tracker: .*\n +warnings\.warn\(.*\n")
"""What joblib's resource tracker, another process, may write of a semaphore after the command has ended.

The thread that feeds joblib's queue is a daemon, which Python ends at any moment: at times after it has removed a
semaphore, and before it has told the tracker.
"""


def engine(function, units, out, *, settings=(), workers=None, callback=None):
    return run(function, units, out, settings=dict(settings), workers=workers, callback=callback)


def root(number):
    return {"root": sqrt(number), "vector": np.arange(number, dtype="float32") * (1 + 1e-7)}


def dies(_):
    os.kill(os.getpid(), signal.SIGKILL)


def leaves_a_file(path):
    time.sleep(0.1)
    path.touch()


def same(a, b):
    vectors = a["vector"], b["vector"]
    return a["root"] == b["root"] and vectors[0].dtype == vectors[1].dtype and np.array_equal(*vectors)


def test_results_are_kept_bit_for_bit_and_units_that_are_done_are_skipped(tmp_path):
    units, seen = {f"u{i}": i for i in range(6)}, []
    done, failed = engine(root, {k: units[k] for k in ("u1", "u4")}, tmp_path)
    assert not failed
    for name in (".mine.tmp", f".{'0' * 16}.tmp"):  # the other is of a run that was killed
        (tmp_path / name).touch()
    done, failed = engine(root, units, tmp_path, callback=seen.append)
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".mine.tmp"]
    assert ([*done], failed) == ([*units], {})
    assert all(same(done[key], root(number)) for key, number in units.items())
    assert [(state.n_done, state.n_units) for state in seen] == [(n, 6) for n in range(2, 7)]
    again, _ = engine(None, units, tmp_path)  # nothing is left to do
    assert all(same(done[key], again[key]) for key in units)
    lines = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert [line.get("key") for line in lines][:3] == [None, "u1", "u4"]


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_units_that_fail_leave_the_others_alone_and_are_tried_again(tmp_path, workers):
    done, failed = engine(sqrt, {"a": 4.0, "b": -1.0, "c": 9.0}, tmp_path, workers=workers)
    assert done == {"a": 2.0, "c": 3.0}
    assert [*failed] == ["b"]
    assert engine(sqrt, {"a": 4.0, "b": 16.0, "c": 9.0}, tmp_path)[0] == {"a": 2.0, "b": 4.0, "c": 3.0}


def test_the_settings_are_those_of_the_first_result(tmp_path):
    engine(sqrt, {}, tmp_path, settings={"n": {"factors": 3}})
    engine(sqrt, {"a": 4.0}, tmp_path, settings={"n": {"factors": 5}})  # of no results there are no settings
    with pytest.raises(ValueError, match=r"was begun with other settings: n\.factors 5 there, 7 now; choose another"):
        engine(sqrt, {"a": 4.0}, tmp_path, settings={"n": {"factors": 7}})


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_was_cut_short_is_done_again(tmp_path, cut):
    engine(sqrt, {"a": 4.0, "b": 9.0}, tmp_path)
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert engine(sqrt, {"a": 4.0, "b": 9.0}, tmp_path)[0] == {"a": 2.0, "b": 3.0}
    assert path.read_bytes() == whole


def test_a_damaged_line_is_told(tmp_path):
    engine(sqrt, {"a": 4.0, "b": 9.0}, tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"key": "a"', b'{"kex": "a"'))
    with pytest.raises(ValueError, match=r"results\.jsonl: line 2 is damaged .*; delete the line"):
        engine(sqrt, {"a": 4.0}, tmp_path)
    with pytest.raises(ValueError, match=r"results\.jsonl: line 2 is damaged"):
        load_study(tmp_path)
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"results\.jsonl is no table of a study"):
        engine(sqrt, {"a": 4.0}, tmp_path)
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match=r"must be the folder of a study, got .*, which has no results\.jsonl"):
        read_records(tmp_path / "nowhere")


def test_only_one_run_is_active_in_a_folder(tmp_path):
    def look(state):
        with pytest.raises(BlockingIOError, match="another run is active in this folder"):
            engine(sqrt, {"a": 4.0}, tmp_path)
        assert read_records(tmp_path)[1].keys() <= {"a"}  # which only reads

    engine(sqrt, {"a": 4.0}, tmp_path, callback=look)


def test_a_worker_that_is_killed_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="a worker process was killed; was there too little memory"):
        engine(dies, {"a": 1, "b": 2, "c": 3}, tmp_path, workers=2)


def test_dask_runs_units_by_the_backend_of_joblib(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": False}
    with distributed.Client(**options), joblib.parallel_config(backend="dask"):
        assert engine(sqrt, {"a": 4.0, "b": 9.0, "c": -1.0}, tmp_path)[0] == {"a": 2.0, "b": 3.0}


def test_an_interrupt_between_results_stops_the_workers_and_warns_of_nothing(tmp_path, recwarn):
    def interrupted(state):
        if state.key:
            raise KeyboardInterrupt

    files = {str(i): tmp_path / f"{i}.done" for i in range(40)}
    with pytest.raises(KeyboardInterrupt):
        engine(leaves_a_file, files, tmp_path, workers=2, callback=interrupted)
    done = set(tmp_path.glob("*.done"))
    time.sleep(0.5)
    assert set(tmp_path.glob("*.done")) == done
    assert not recwarn.list


# Kills


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    changes = {f"layers.{i}.up.weight": rng.standard_normal((12, 8)).astype("float32") for i in range(8)}
    save_file(changes, folder / "delta.safetensors")
    np.savez(folder / "w.npz", **{f"l{i}": change for i, change in enumerate(changes.values())})
    return folder


def arguments(kind, files, out, workers):
    source = ["--delta", files / "delta.safetensors", "--write-adapters"] if kind == "adapters" else [files / "w.npz"]
    return [*map(str, ["sweep", *source, "--out", out, "--workers", workers])]


def outcome(kind, out):
    found = sorted(rows(load_study(out)), key=str)  # workers end in any order
    return found, adapter(out) if kind == "adapters" else None


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    found = {}
    for kind in ("adapters", "matrices"):
        out = tmp_path_factory.mktemp("whole") / kind
        assert main(arguments(kind, files, out, 1)) == 0
        found[kind] = outcome(kind, out)
    return found


@pytest.mark.parametrize(
    ("how", "kind", "workers"),
    [
        (signal.SIGKILL, "adapters", 2),
        (signal.SIGKILL, "matrices", 1),
        (signal.SIGINT, "adapters", 1),
        (signal.SIGINT, "matrices", 2),
    ],
)
def test_a_run_that_was_ended_at_any_moment_ends_as_one_that_was_not(tmp_path, files, whole, kind, workers, how):
    """As often as `STRUCTMAT_KILLS` says, at moments after the first result."""
    out, given = tmp_path / "out", arguments(kind, files, tmp_path / "out", workers)
    run_it = [sys.executable, "-c", COMMAND, *given]
    rng = np.random.default_rng()  # each time at other moments
    for _ in range(int(os.environ.get("STRUCTMAT_KILLS", "1"))):
        process = subprocess.Popen(run_it, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wanted = (len(read_records(out)[1]) if (out / "results.jsonl").exists() else 0) + int(rng.integers(1, 4))
        while process.poll() is None:
            if (out / "results.jsonl").exists() and (out / "results.jsonl").read_bytes().count(b"\n") > wanted:
                break
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        if how == signal.SIGINT and process.returncode:
            assert process.returncode == 130, err
            kept = rf"\d+ of \d+ \w+ are done and kept in {re.escape(str(out))}; the same command continues"
            told = rf"structmat sweep: {kept}\nstructmat sweep: interrupted\n"
            assert re.fullmatch(told, SAID.sub("", LEAKED.sub("", err))), err
    assert main(given) == 0
    assert outcome(kind, out) == whole[kind]


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path, files, capsys):
    pytest.importorskip("distributed")
    assert main([*arguments("matrices", files, tmp_path / "out", 1), "--scheduler", "tcp://127.0.0.1:9"]) == 1
    told = "structmat sweep: error: --scheduler: there is no Dask scheduler at tcp://127.0.0.1:9\n"
    assert capsys.readouterr().err == told
