"""Training in other processes: transformers' Trainer, killed and resumed; two processes by DDP and FSDP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *arguments]
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(ended.stdout[-2000:], ended.stderr[-4000:])  # noqa: T201  # pytest shows it where the test fails
    return ended.returncode


def run(folder: Path, *arguments: str) -> int:
    return python("-m", "tests.peft.trainer_script", str(folder), *arguments)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed here")
def test_two_processes() -> None:
    # Standalone takes a free port: other workers of the suite use torch's default one.
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert python(*launch, "-m", "tests.peft.distributed_script") == 0


def test_killed_and_resumed_gives_the_same_weights(tmp_path: Path) -> None:
    assert run(tmp_path, "5") == -signal.SIGKILL
    assert not (tmp_path / "killed" / "adapter").exists()
    assert run(tmp_path) == 0
    whole, resumed = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert set(whole) == set(resumed)
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key
