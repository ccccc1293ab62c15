"""Which tests run: what the quick selection leaves out and does not let grow, and what may be skipped."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import conftest
import pytest


def busy(seconds=0.25):
    conftest.moved += seconds


def test_without_the_marker():
    busy()


def test_long_without_the_marker():
    busy(0.5)


@pytest.fixture(scope="module")
def shared():
    busy()
    yield
    busy()


def test_first_of_those_that_share(shared):
    pass


@pytest.mark.slow
def test_with_the_marker():
    busy()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", ["a", "b"])
def test_with_long_cases(n, name):
    assert n == 1 or name == "b" or busy(0.13) is None
"""


CLOCK = """

moved = 0.0
gc.callbacks.remove(count_collection)


def processor_time() -> float:
    return moved - uncounted["seconds"]
"""
"""The end of the settings of pytest in these runs: a clock that their tests move, so that it shows no load."""


def run_pytest(folder: Path, *options: str) -> str:
    """What pytest prints of a run of the tests in a folder, with a record of its own beside them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", *options, "tests"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)
    return run.stdout + run.stderr


def with_settings(values: dict[str, float]) -> str:
    """The text of the settings of pytest with other values of some names."""
    text = (ROOT / "conftest.py").read_text("utf-8")
    for name, value in values.items():
        text, count = re.subn(rf"^{name} = [\d.]+$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    return text + CLOCK


@pytest.mark.slow
def test_the_record_says_which_tests_are_slow_and_others_must_be_quick(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(TESTS)
    smaller = {"SLOW": 0.08, "NOTED": 0.06, "LIMIT": 0.18, "FAR": 2, "YARDSTICK": 1e9}
    (tmp_path / "conftest.py").write_text(with_settings(smaller), "utf-8")
    said = run_pytest(tmp_path)
    assert "1 failed, 6 passed, 1 deselected" in said, said
    assert "1 slow tests left out: --slow runs them" in said
    assert re.findall(r"(\S+) took \d\.\d s of the processor", said)[0] == "tests/test_some.py::test_without_the_marker"
    assert "FAILED tests/test_some.py::test_long_without_the_marker" in said
    (tmp_path / "conftest.py").write_text(with_settings(smaller | {"YARDSTICK": 1e-9}), "utf-8")
    said = run_pytest(tmp_path)  # on a machine that is slower than any test is long
    assert "7 passed, 1 deselected" in said, said
    assert "of the processor" not in said
    assert "8 passed" in run_pytest(tmp_path, "--record-durations")
    record = json.loads((tmp_path / "tests" / "durations.json").read_text())["tests/test_some.py"]
    long = {"test_with_the_marker", "test_with_long_cases[a-2]"}
    long |= {"test_without_the_marker", "test_long_without_the_marker"}
    assert record.keys() == long
    assert record["test_long_without_the_marker"] == 0.5
    said = run_pytest(tmp_path)
    assert "4 passed, 4 deselected" in said, said
    (tmp_path / "tests" / "test_some.py").write_text(TESTS.replace("test_long_without", "test_renamed_without"))
    assert "2 passed" in run_pytest(tmp_path, "--record-durations", "-k", "case and 1 and a")
    assert json.loads((tmp_path / "tests" / "durations.json").read_text())["tests/test_some.py"] == record
    run_pytest(tmp_path, "--record-durations")
    found = json.loads((tmp_path / "tests" / "durations.json").read_text())["tests/test_some.py"]
    assert found.keys() == long - {"test_long_without_the_marker"} | {"test_renamed_without_the_marker"}


def is_there(test: str, text: str) -> bool:
    """Whether a text of a file has a test; the cases are not looked at, as some depend on the machine."""
    name = test.partition("[")[0]
    if not name.startswith("structmat."):
        own = name.removesuffix("::runTest").rpartition("::")[2]  # that is the name of Hypothesis' own
        return bool(re.search(rf"\b(def|class) {own}\b", text))
    with contextlib.suppress(AttributeError, ImportError):
        pkgutil.resolve_name(name)  # of the example of a docstring
        return True
    return False


def test_the_record_names_tests_that_are_there() -> None:
    for file, tests in json.loads((ROOT / "tests" / "durations.json").read_text("utf-8")).items():
        text = (ROOT / file).read_text("utf-8") if (ROOT / file).exists() else ""
        gone = [test for test in tests if not is_there(test, text)]
        assert not gone, f"{file} has no {gone}: call pytest --record-durations {file if text else ''}"
    assert not is_there("test_gone[1]", "def test_gone_too")
    assert not is_there("structmat.no_such_name", "")


def shown(package: str) -> Iterator[Any]:
    """What a package shows: its public names and modules, and what these show."""
    module = importlib.import_module(package)
    yield module
    for name in module.__all__:
        value = getattr(module, name)
        yield value
        if inspect.isclass(value):
            yield from (member for each, member in inspect.getmembers(value) if not each.startswith("_"))
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith("_"):
            yield from shown(f"{package}.{found.name}")


class Collected:
    """A plugin that keeps the names of what a run has collected."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the names."""
        self.names = [item.name for item in session.items]


@pytest.mark.slow
def test_each_example_of_a_docstring_runs_once() -> None:
    for name in ("jax", "peft", "torch", "pandas"):
        pytest.importorskip(name)
    options = ["--collect-only", "-qq", "--slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    collected = Collected()
    assert pytest.main([*options, str(ROOT / "structmat")], plugins=[collected]) == pytest.ExitCode.OK
    texts = [pkgutil.resolve_name(name).__doc__ for name in collected.names]
    assert len(set(texts)) == len(texts)
    own = [value for value in shown("structmat") if "structmat" in str(getattr(value, "__module__", ""))]
    with_examples = {value.__doc__ for value in own if ">>>" in str(value.__doc__)}
    assert with_examples - {*texts} == set()


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
