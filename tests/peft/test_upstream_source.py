"""Fetching PEFT's own tests where they are not kept yet, and running them then: nothing is fetched while collecting."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from tests.peft.upstream_source import KEPT, ROOT, SOURCE, fetch


@pytest.mark.skipif(SOURCE.is_dir(), reason="PEFT's tests are here: test_upstream.py has run them one by one")
def test_pefts_own_tests_pass() -> None:
    assert SOURCE == KEPT, f"PEFT_TESTS names {SOURCE}, which is no folder"
    fetch()
    # A run of its own, neither a worker of this one nor with its options.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "pytest", "-q", "--slow", "tests/peft/test_upstream.py"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=own)
    assert run.returncode == 0, run.stdout[-5000:]
