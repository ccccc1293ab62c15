"""A folder with files of all kinds, and the command in it."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

import structmat as sm
from structmat import io
from structmat.cli import main

W = np.random.default_rng(0).standard_normal((9, 6))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of all kinds, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    np.save("W.npy", W)
    np.savez("two.npz", a=W, b=W.T)
    save_file({"layer.weight": W.astype("float32")}, "plain.safetensors")
    io.save(sm.Circulant(np.ones(5, "float32")), "operator.safetensors", metadata={"note": "hello"})
    np.savez("nothing.npz")
    np.save("square.npy", W[:4, :4])
    np.save("nan.npy", np.where(W > 1, np.nan, W))
    np.save("infinite.npy", np.where(W > 1, np.inf, W))
    np.save("empty.npy", W[:0])
    np.save("three.npy", W[None])
    np.save("text.npy", W.astype(str))
    np.save("object.npy", W.astype(object), allow_pickle=True)
    content = (tmp_path / "W.npy").read_bytes()
    (tmp_path / "truncated.npy").write_bytes(content[:-1])
    (tmp_path / "foreign.npy").write_text("not a matrix")
    (tmp_path / "none.npy").touch()
    for name in ("old.safetensors", "old.png", "old.csv"):
        (tmp_path / name).write_text("old")
    return tmp_path


@pytest.fixture
def cli(capfd):
    """Run the command; give its exit status, stdout and stderr."""

    def run(*arguments):
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        return status, *capfd.readouterr()

    return run
