"""A disk that is full when everything is done: what was found is printed, and kept for the next run."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from structmat.cli import main
from structmat.studies import SweepConfig, UnwrittenError, WorkFolder, sweep


@pytest.mark.parametrize("command", ["sweep", "fit-checkpoint"])
def test_the_table_is_printed_and_the_work_kept(command, tmp_path, monkeypatch, capsys):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"x": np.outer(np.arange(1.0, 5.0), np.ones(6))}, tmp_path / "delta.safetensors")
    source = [f"{tmp_path}/delta.safetensors"]
    options = ["--methods", "cdd"] if command == "sweep" else []
    arguments = [command, *options, *(source if command == "sweep" else ["--delta", *source]), "--out", f"{tmp_path}/o"]

    def full(self, name, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(self.path / name))

    monkeypatch.setattr(WorkFolder, "write_output", full)
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert "0.0000" in out or "e-" in out
    assert err.startswith(f"structmat {command}: error: --out: {tmp_path}/o/")
    assert err.endswith(": No space left on device\n")
    monkeypatch.undo()
    assert main(arguments) == 0


def test_the_result_comes_with_the_error(tmp_path, monkeypatch):
    config = SweepConfig({"a": np.eye(3)}, methods=["truncated-svd"])
    monkeypatch.setattr(WorkFolder, "write_output", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
    with pytest.raises(UnwrittenError, match="no disk") as caught:
        sweep(config, tmp_path / "out")
    monkeypatch.undo()
    assert caught.value.result.rows == sweep(config, tmp_path / "out").rows
