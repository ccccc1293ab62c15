"""`WorkFolder`: killed at any moment, damaged, full, locked, with other settings."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structmat.studies import WorkFolder
from tests.studies import units

ROOT = Path(__file__).parents[2]
SETTINGS = {"seed": 1, "options": {"n_factors": 3, "tol": 0.1}}


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_records_come_back_and_pending_is_what_is_left(tmp_path):
    arrays = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.array([True, False])}
    with WorkFolder.open(tmp_path / "out", SETTINGS) as folder:
        folder.write("a/b c", {"x": 0.1, "text": "é", "list": [1, None]}, arrays)
        folder.write("empty", {})
    with WorkFolder.open(tmp_path / "out", SETTINGS) as folder:
        assert folder.pending(["new", "empty", "a/b c"]) == ["new"]
        record = folder.read("a/b c")
        assert record.values == {"x": 0.1, "text": "é", "list": [1, None]}
        assert set(record.arrays) == {"a", "b"}
        for name, array in arrays.items():
            assert record.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(record.arrays[name], array)
        assert folder.read("empty") == ({}, {})
        with pytest.raises(KeyError):
            folder.read("new")


@settings(max_examples=12)  # each waits for the disk several times
@given(
    key=st.text(min_size=1, max_size=300),
    values=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.integers()),
    array=hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, min_side=0)),
)
def test_any_record_survives(tmp_path_factory, key, values, array):
    key = key.encode("utf-8", "replace").decode()
    path = tmp_path_factory.mktemp("folder")
    with WorkFolder.open(path / "out", {}) as folder:
        folder.write(key, values, {"x": array})
    with WorkFolder.open(path / "out", {}) as folder:
        assert folder.done == {key}
        record = folder.read(key)
        assert record.values == values
        np.testing.assert_array_equal(record.arrays["x"], array)
    shutil.rmtree(path)


def test_values_that_json_cannot_hold_are_refused_and_nothing_counts(tmp_path):
    with WorkFolder.open(tmp_path, {}) as folder:
        for values in ({"x": float("nan")}, {"x": float("inf")}):
            with pytest.raises(ValueError, match="JSON"):
                folder.write("a", values)
        assert folder.done == set()
    assert not list((tmp_path / "work" / "units").iterdir())


def test_other_settings_are_refused_by_name_and_nothing_changes(tmp_path):
    with WorkFolder.open(tmp_path, SETTINGS) as folder:
        folder.write("a", {})
    before = tree(tmp_path)
    other = {"seed": 1, "options": {"n_factors": 5, "tol": 0.1}, "mask": "m"}
    with pytest.raises(
        ValueError, match=r"other settings: mask null there, \"m\" now, options.n_factors 3 there, 5 now"
    ):
        WorkFolder.open(tmp_path, other).__enter__()
    with pytest.raises(ValueError, match="more; choose another folder"):
        WorkFolder.open(tmp_path, {str(k): k for k in range(20)}).__enter__()
    assert tree(tmp_path) == before


def test_a_folder_in_which_nothing_was_done_takes_other_settings(tmp_path):
    with WorkFolder.open(tmp_path, SETTINGS):
        pass
    with WorkFolder.open(tmp_path, {"seed": 2}) as folder:
        folder.write("a", {})
    with pytest.raises(ValueError, match="seed 2 there"):
        WorkFolder.open(tmp_path, SETTINGS).__enter__()


def test_another_version_is_refused(tmp_path, monkeypatch):
    with WorkFolder.open(tmp_path, SETTINGS) as folder:
        folder.write("a", {})
    monkeypatch.setattr("structmat.__version__", "9")
    with pytest.raises(ValueError, match=r'structmat ".*" there, "9" now'):
        WorkFolder.open(tmp_path, SETTINGS).__enter__()


def test_two_runs_at_once(tmp_path):
    with WorkFolder.open(tmp_path, SETTINGS) as folder:
        with pytest.raises(BlockingIOError, match="another run is active in this folder"):
            WorkFolder.open(tmp_path, SETTINGS).__enter__()
        folder.write("a", {})
        code = f"from structmat.studies import WorkFolder\nwith WorkFolder.open({str(tmp_path)!r}, {{}}): pass"
        other = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
        assert other.returncode == 1
        assert "another run is active in this folder" in other.stderr
    with WorkFolder.open(tmp_path, SETTINGS) as folder:
        assert folder.done == {"a"}


def test_final_files_that_are_not_of_an_earlier_run_are_never_overwritten(tmp_path):
    (tmp_path / "result.bin").write_text("mine")
    with pytest.raises(FileExistsError, match="not of an earlier run"):
        WorkFolder.open(tmp_path, {}, outputs=["result.bin"]).__enter__()
    assert tree(tmp_path) == {"result.bin": b"mine"}
    with WorkFolder.open(tmp_path / "new", {}, outputs=["result.bin"]) as folder:
        folder.write_output("result.bin", b"1")
        with pytest.raises(ValueError, match="name must be one of"):
            folder.write_output("other", b"")
    with WorkFolder.open(tmp_path / "new", {}, outputs=["result.bin"]) as folder:
        folder.write_output("result.bin", b"2")
    assert (tmp_path / "new" / "result.bin").read_bytes() == b"2"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "renamed"])
def test_a_damaged_record_is_removed_and_done_again(tmp_path, caplog, damage):
    with WorkFolder.open(tmp_path / "a", SETTINGS) as folder:
        folder.write("one", {"x": 1}, {"v": np.ones(4)})
        folder.write("two", {"x": 2}, {"v": np.ones(4)})
    with WorkFolder.open(tmp_path / "b", {}) as folder:
        folder.write("one", {"x": 7})
    (file,) = (tmp_path / "a" / "work" / "units").glob("one.*")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        shutil.copy(tmp_path / "b" / "work" / "units" / file.name, file)
    else:
        file.rename(file.with_name("other.safetensors"))
    with WorkFolder.open(tmp_path / "a", SETTINGS) as folder:
        assert folder.done == {"two"}
        folder.write("one", {"x": 1}, {"v": np.ones(4)})
    assert file.read_bytes() == content
    assert damage == "renamed" or file.name in caplog.text


def test_temporary_files_of_killed_runs_go_and_others_stay(tmp_path):
    with WorkFolder.open(tmp_path, {}, outputs=["result.bin"]) as folder:
        folder.write("a", {})
    ours = [
        f".{name}.0123456789abcdef.tmp" for name in ("result.bin", "work/settings.json", "work/units/a.safetensors")
    ]
    ours = [tmp_path / Path(name[1:]).parent / f".{Path(name[1:]).name}" for name in ours]
    theirs = [tmp_path / ".mine.0123456789abcdef.tmp", tmp_path / ".result.bin.tmp", tmp_path / "x.tmp"]
    for path in (*ours, *theirs):
        path.write_text("half")
    with WorkFolder.open(tmp_path, {}, outputs=["result.bin"]):
        pass
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


def test_damaged_or_lost_settings(tmp_path):
    with WorkFolder.open(tmp_path, {}) as folder:
        folder.write("a", {})
    file = tmp_path / "work" / "settings.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        WorkFolder.open(tmp_path, {}).__enter__()
    file.unlink()
    with pytest.raises(ValueError, match="their settings are unknown"):
        WorkFolder.open(tmp_path, {}).__enter__()


def test_a_full_disk_keeps_what_is_done(tmp_path):
    with WorkFolder.open(tmp_path, {}) as folder:
        folder.write("small", {"x": 1})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                folder.write("large", {}, {"x": np.ones(1 << 14)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert caught.value.errno == errno.EFBIG
        assert Path(caught.value.filename).name.startswith("large.")
        assert folder.done == {"small"}
    assert len(list((tmp_path / "work" / "units").iterdir())) == 1
    with WorkFolder.open(tmp_path, {}) as folder:
        assert folder.done == {"small"}


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    with WorkFolder.open(tmp_path / "out", {}):
        pass
    before = tree(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="the folder is not writable"):
        WorkFolder.open(tmp_path / "out", {}).__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as caught:
        WorkFolder.open(tmp_path / "file" / "out", {}).__enter__()
    assert caught.value.filename == str(tmp_path / "file" / "out")
    (tmp_path / "file").unlink()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_and_resumed(tmp_path, workers):
    """As often as `STRUCTMAT_KILLS` says; the final file is that of a run that nobody killed."""
    units.run(tmp_path / "whole", 1)
    want = (tmp_path / "whole" / "result.bin").read_bytes()
    command = [sys.executable, "-m", "tests.studies.units", str(tmp_path / "out"), str(workers)]
    rng, done = np.random.default_rng(workers), 0
    for _ in range(int(os.environ.get("STRUCTMAT_KILLS", "1"))):
        process = subprocess.Popen(command, cwd=ROOT)
        done += int(rng.integers(1, 10))  # imports take longer than the work: what is kept tells how far it is
        while process.poll() is None and len(list((tmp_path / "out" / "work" / "units").glob("*"))) < done:
            time.sleep(0.001)
        process.kill()
        process.wait()
    assert any((tmp_path / "out" / "work" / "units").glob("*.safetensors"))
    subprocess.run(command, cwd=ROOT, check=True)
    files = tree(tmp_path / "out")
    assert files["result.bin"] == want
    assert files == tree(tmp_path / "whole")
