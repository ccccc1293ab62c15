"""Which tests run: what the quick selection leaves out and does not let grow, and what may be skipped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import time

import pytest


def busy(seconds=1.2):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


def test_without_the_marker():
    busy()


def test_long_without_the_marker():
    busy(2.4)


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
        ([], "1 failed, 6 passed, 3 deselected"),
        (["--slow"], "10 passed"),
        (["-m", "slow"], "3 passed, 7 deselected"),
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
    named = re.findall(r"(\S+) took \d\.\d s of the processor", run.stdout)
    assert ("test_some.py::test_without_the_marker" in named) == (not options)
    assert ("FAILED test_some.py::test_long_without_the_marker" in run.stdout) == (not options)


def run_of(skipped: dict[str, int], passed: int) -> str:
    """What pytest prints in the end of a run."""
    lines = [f"SKIPPED [{number}] tests/test_some.py:3: {reason}" for reason, number in skipped.items()]
    return "\n".join([*lines, f"{passed} passed, {sum(skipped.values())} skipped in 3.00s"])


@pytest.mark.parametrize(
    ("skipped", "passed", "text"),
    [
        ({"needs a GPU": 2, "compiles too much": 3}, 10, None),
        ({}, 10, None),
        ({"could not import 'torch': No module named 'torch'": 1}, 10, "not in the list: could not import 'torch'"),
        ({"needs a GPU too": 1}, 10, "not in the list: needs a GPU too"),
        ({"needs a GPU": 100}, 1000, "at most 60 may be: needs a GPU"),
        ({"needs a GPU": 6}, 5, "6 tests were skipped, and 5 passed"),
        ({}, 0, "0 tests were skipped, and 0 passed"),
    ],
)
def test_skips_are_compared_with_the_list(
    skipped: dict[str, int], passed: int, text: str | None, tmp_path: Path
) -> None:
    (tmp_path / "output").write_text(run_of(skipped, passed))
    command = [sys.executable, str(ROOT / ".ci/check_skips.py"), str(tmp_path / "output")]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == (text is not None)
    assert (text or "all as allowed") in run.stdout
