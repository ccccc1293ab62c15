"""Writing: nothing is ever half written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

import structmat as sm
from structmat import _files, io


def test_existing_files_need_force_and_keep_their_mode(tmp_path):
    path = tmp_path / "f"
    io.save(sm.Identity(2), path)
    path.chmod(0o640)
    with pytest.raises(FileExistsError):
        io.save(sm.Identity(3), path)
    assert io.load(path).shape == (2, 2)
    io.save(sm.Identity(3), path, force=True)
    assert io.load(path).shape == (3, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        io.save(sm.Identity(2), tmp_path / "f")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_symbolic_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "f")
    io.save(sm.Identity(2), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert io.load(tmp_path / "real" / "f").shape == (2, 2)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "write", "chmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_moment_leaves_everything_as_it_was(tmp_path, monkeypatch, before, where, error):
    path = tmp_path / "f"
    if before is not None:
        path.write_bytes(before)
    elif where == "chmod":
        pytest.skip("a new file has no mode to keep")
    if where.startswith("os."):
        monkeypatch.setattr(where, raising(error))
    if where == "chmod":
        monkeypatch.setattr(Path, "chmod", raising(error))
    with pytest.raises(type(error)) as caught, _files.atomic_write(path, force=True) as file:  # noqa: PT012
        file.write(b"half")
        file.flush()
        if where == "write":
            raise error
    if isinstance(error, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["f"])
    assert before is None or path.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device(tmp_path, monkeypatch):
    real = os.open
    full = lambda path, *rest: real("/dev/full", os.O_WRONLY) if str(path).endswith(".tmp") else real(path, *rest)
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        io.save(sm.Identity(3), tmp_path / "f")
    assert caught.value.filename == str(tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_devices_and_folders_are_never_replaced(tmp_path):
    with pytest.raises(OSError, match="not a regular file"):
        io.save(sm.Identity(3), os.devnull, force=True)
    assert not Path(os.devnull).is_file()
    with pytest.raises(IsADirectoryError):
        io.save(sm.Identity(3), tmp_path, force=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        io.save(sm.Identity(3), tmp_path / "no" / "f")
    for name in ("f.npy", "f.NPZ", "f.pt"):
        with pytest.raises(ValueError, match=r"save: path .* must not end in \.(npy|npz|pt)$"):
            io.save(sm.Identity(3), tmp_path / name)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="not writable"):
        _files.check_output(tmp_path / "f")
