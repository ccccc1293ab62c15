"""The files of a folder."""

import errno
import os

import pytest

from structmat._files.folders import files_in


def test_files_in_order(tmp_path):
    for name in ("b.npy", "a.npy", ".c.npy", "d.npz", "[e].npy"):
        (tmp_path / name).touch()
    assert [path.name for path in files_in(tmp_path, "*.npy")] == [".c.npy", "[e].npy", "a.npy", "b.npy"]
    assert files_in(tmp_path, "*.txt") == files_in(tmp_path / "missing", "*") == []


def test_a_folder_that_cannot_be_read_is_not_empty(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(path))

    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Input/output error"):
        files_in(tmp_path, "*")
