"""Where PEFT's own tests are: in its source distribution, of the version that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("peft")

ROOT = Path(__file__).resolve().parents[2]
RELEASE = version("peft")
KEPT = ROOT / ".pytest_cache" / "peft_suite" / RELEASE
SOURCE = Path(os.environ.get("PEFT_TESTS") or KEPT)
"""The folder of PEFT's tests: what PEFT_TESTS names, else one that is fetched and kept."""


def fetch() -> None:
    """Fetch the tests into the folder where they are kept; without a package index skip, and say so."""
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--dest", scratch, f"peft=={RELEASE}"]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        archives = list(Path(scratch).glob("*.tar.gz"))
        if run.returncode or not archives:
            pytest.skip(f"the source of peft {RELEASE}, with its tests, could not be fetched: {run.stderr[-300:]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        (Path(scratch) / f"peft-{RELEASE}" / "tests").rename(KEPT)
