"""Collects nothing unless asked, since every program is a process; writes the table of versions that work."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest

ASKED = os.environ.get("STRUCTMAT_ECOSYSTEM")
collect_ignore_glob = [] if ASKED else ["test_*.py"]
TOOLS = (
    "accelerate", "bitsandbytes", "datasets", "diffusers", "lightning", "onnxruntime", "onnxscript", "peft",
    "sentence-transformers", "torch", "torchao", "transformers", "trl",
)  # fmt: skip
TABLE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "tools_versions.md"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a folder with the folder of a causal language model in it."""
    from tests.ecosystem.programs import write_base

    write_base(tmp_path)
    return tmp_path


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """Return a folder with the folder of a sentence encoder in it."""
    from tests.ecosystem.programs import write_encoder

    write_encoder(tmp_path)
    return tmp_path


def pytest_sessionfinish(exitstatus: int) -> None:
    """Write the versions of all tools, if their tests passed."""
    if ASKED != "write" or exitstatus:
        return
    lines = ["| package | version |", "|---|---|"]
    lines += [f"| {name} | {importlib.metadata.version(name).partition('+')[0]} |" for name in TOOLS]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
