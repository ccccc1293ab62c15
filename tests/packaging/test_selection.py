"""The quick selection of tests: what it leaves out, and what it does not let grow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import time

import pytest


def busy():
    start = time.process_time()
    while time.process_time() - start < 1.2:
        pass


def test_without_the_marker():
    busy()


@pytest.fixture(scope="module")
def shared():
    busy()


def test_first_of_those_that_share(shared):
    pass


@pytest.mark.slow
def test_with_the_marker():
    busy()


@pytest.mark.slow(n=2, name=("a", "b"))
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_with_slow_cases(n, name):
    assert n == 1 or name == "c" or busy() is None
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ([], "1 failed, 5 passed, 3 deselected"),
        (["--slow"], "9 passed"),
        (["-m", "slow"], "3 passed, 6 deselected"),
    ],
)
def test_slow_tests_are_left_out_and_need_the_marker(options: list[str], outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-W", "ignore", *options]
    run = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert outcome in run.stdout, run.stdout + run.stderr
    assert ("3 slow tests left out: --slow runs them" in run.stdout) == (not options)
    assert ("mark it @pytest.mark.slow" in run.stdout) == ("failed" in outcome)
