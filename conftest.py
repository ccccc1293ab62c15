"""Settings of every run of pytest, that of the doctests of the package alone included; the quick selection of tests."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
from _pytest.doctest import DoctestItem

import structmat

# One thread for XLA and torch, which read this when they start, and for what a plugin has loaded before. Tests run side
# by side, and threads that wait for each other take ten times the time of the processor.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
threadpoolctl.threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))

PACKAGE = Path(structmat.__file__).resolve().parent
"""The folder of the package, whether it is that of a clone or the installed one."""

LIMIT = 1.0
"""The seconds of the processor that a test without the marker `slow` may take.

What takes more than a quarter of it where it is written gets the marker, since other machines are slower. A test that
takes up to twice the limit is named at the end, since a busy machine is slower than itself; one that takes more fails.
"""

SLOW_DOCTESTS = {"structmat.jax.as_lineax", "structmat.plot.draw_study", "structmat.studies.Study"}
"""Examples of docstrings that are slow: these take no marker."""

OVER_THE_LIMIT = "over the limit"
"""The name of the property of a test that took longer than it may, and did not fail for it."""

left_out = pytest.StashKey[int]()
"""The number of slow tests that the quick selection leaves out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs all tests."""
    parser.addoption("--slow", action="store_true", help="run the slow tests as well, which are left out otherwise")


def inherited(item: pytest.Item) -> bool:
    """Whether a doctest is of another library: of a method such as `torch.nn.Module.to`, or of a base class itself."""
    if not isinstance(item, DoctestItem):
        return False
    filename = None if item.dtest is None else item.dtest.filename
    if filename is not None and not Path(filename).resolve().is_relative_to(PACKAGE):
        return True
    owner = getattr(pkgutil.resolve_name(item.name), "__module__", None)
    return owner is not None and owner.partition(".")[0] != "structmat"


def applies(marker: pytest.Mark, item: pytest.Item) -> bool:
    """Whether a marker `slow` is of a test: `slow(backend="jax", n=(8, 9))` is of cases with these parameters alone.

    A value is written as it is, or as the attribute `name` that it has.
    """
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    for name, value in marker.kwargs.items():
        given = parameters[name]
        allowed = value if isinstance(value, tuple) else (value,)
        if not any(getattr(given, "name", given) == each for each in allowed):
            return False
    return True


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep our own doctests, in a fixed order: scipy-doctest collects from sets, and parallel workers must agree.

    Without ``--slow`` slow tests are left out.
    """
    items[:] = [item for item in items if not inherited(item)]
    items.sort(key=lambda item: (str(item.path), item.nodeid if isinstance(item, DoctestItem) else ""))
    for item in items:
        if isinstance(item, DoctestItem) and item.name in SLOW_DOCTESTS:
            item.add_marker("slow")
        item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "slow" or applies(mark, item)]
    if config.getoption("slow") or "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.stash[left_out] = len(slow)
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let frameworks start before the first test that uses them, which would pay for it."""
    if session.config.getoption("collectonly"):
        return
    if "matplotlib" in sys.modules:
        importlib.import_module("matplotlib.font_manager")  # looks for all fonts of a machine, and keeps a list of them
    if "torch" in sys.modules:
        sys.modules["torch"].fft.rfft(sys.modules["torch"].ones(4))
    if "jax" in sys.modules:
        jax = sys.modules["jax"]
        jax.jit(jax.numpy.fft.rfft)(jax.numpy.ones(4))


def processor_time() -> float:
    """Return the seconds of this process and of those that it has waited for, without what is not counted."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system - uncounted["seconds"]


uncounted = {"seconds": 0.0}
"""The time of what one test pays for many: full collections of garbage, and fixtures that tests share."""


def count_collection(phase: str, info: dict[str, int]) -> None:
    """Add the time from the start to the stop of a full collection."""
    if info["generation"] == 2:
        uncounted["seconds"] += time.process_time() * (1 if phase == "stop" else -1)


gc.callbacks.append(count_collection)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    """Leave out fixtures that several tests share."""
    start = processor_time()
    result = yield
    if fixturedef.scope != "function":
        uncounted["seconds"] += processor_time() - start
    return result


started = pytest.StashKey[tuple[float, int]]()
"""The time of the processor at the start of a test, and the number of modules then."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note when a test starts, with what it needs."""
    item.stash[started] = (processor_time(), len(sys.modules))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Name or fail a test without the marker that takes long, with all it needs, unless it is the first to import it.

    So do runs of the quick selection alone: what JAX compiles for one test depends on those before it.
    """
    yield
    if item.config.getoption("slow"):
        return
    start, modules = item.stash[started]
    took = processor_time() - start
    if took <= LIMIT or item.get_closest_marker("slow") or len(sys.modules) - modules >= 50:
        return
    text = (
        f"took {took:.1f} s of the processor, where a quick test has {LIMIT:g} s: make it smaller, or mark it "
        "@pytest.mark.slow and keep a quick test of what it alone guards"
    )
    if took > 2 * LIMIT:
        pytest.fail(text, pytrace=False)
    item.user_properties.append((OVER_THE_LIMIT, text))  # these reach the process that prints from each worker


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints how many tests a worker of pytest-xdist left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(left_out, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker said: all of them collect the same tests."""
    node.config.stash[left_out] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which tests took too long; what was left out, and how to run it."""
    for report in terminalreporter.getreports("passed"):
        if text := dict(report.user_properties).get(OVER_THE_LIMIT):
            terminalreporter.write_line(f"{report.nodeid} {text}")
    if number := config.stash.get(left_out, 0):
        terminalreporter.write_line(f"{number} slow tests left out: --slow runs them")
