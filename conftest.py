"""Settings of every run of pytest, that of the doctests of the package alone included; the quick selection of tests."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from time import process_time  # itself, where tests replace that of the module
from typing import Any

import pytest
import threadpoolctl
from _pytest.doctest import DoctestItem, DoctestModule

import structmat

# One thread for XLA and torch, which read this when they start, and for what a plugin has loaded before. Tests run side
# by side, and threads that wait for each other take ten times the time of the processor.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
threadpoolctl.threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))

PACKAGE = Path(structmat.__file__).resolve().parent
"""The folder of the package, whether it is that of a clone or the installed one."""

DURATIONS = Path(__file__).resolve().parent / "tests" / "durations.json"
"""The record of what each test took that takes long: for each file, its tests and their seconds."""

SLOW = 0.15
"""The seconds of the processor in the record above which a test is slow."""

NOTED = 0.1
"""The seconds above which a test is in the record, for the order of files."""

LIMIT = 1.0
"""The seconds of the processor above which a test that is not slow is named at the end of a run.

This is several times `SLOW`, since the first test that JAX compiles for pays for others.
"""

FAR = 5
"""How many times its limit a test must take to fail.

What a test takes for once differs two to three times between runs on one machine, as by what JAX has compiled before,
and a run must not fail for that. A test that takes several seconds where the record has been made fails anywhere, since
the limit is that of the machine it runs on: by `slowness`, which is measured beside the test.
"""

YARDSTICK = 0.016
"""The seconds of the processor that the work of `slowness` takes on the machine of the record."""

TAKEN = "seconds of the processor"
"""The name of the property of a test that says what it took."""

OVER_THE_LIMIT = "over the limit"
"""The name of the property of a test that took longer than it may, and did not fail for it."""

left_out = pytest.StashKey[int]()
"""The number of slow tests that the quick selection leaves out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that run all tests, and record what they take."""
    parser.addoption("--slow", action="store_true", help="run the slow tests as well, which are left out otherwise")
    text = f"run the slow tests as well, and write what each test takes into {DURATIONS.name}"
    parser.addoption("--record-durations", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Let one process write the record: that which gets the reports of all workers."""
    if config.getoption("record_durations"):
        config.option.slow = True
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(Recorder(config))


def recorded() -> dict[str, dict[str, float]]:
    """Return the record: for each file the tests that take long, with their seconds."""
    return json.loads(DURATIONS.read_text("utf-8")) if DURATIONS.exists() else {}


class Recorder:
    """A plugin that writes into the record what the tests take that pass; of others it keeps what is there."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.taken: dict[str, float] = {}
        self.others: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over the seconds of a test that has ended."""
        if not report.passed:
            self.others.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid not in self.others:
            self.taken[report.nodeid] = dict(report.user_properties)[TAKEN]

    def pytest_sessionfinish(self) -> None:
        """Write the record. Files of which all tests have run, and those that are gone, lose the entries of before."""
        record = {file: tests for file, tests in recorded().items() if (DURATIONS.parents[1] / file).exists()}
        are_parts = any("::" in each for each in self.config.args)
        if not (are_parts or self.config.getoption("keyword") or self.config.getoption("markexpr")):
            for file in {node.partition("::")[0] for node in self.taken}:
                kept = record.pop(file, {})
                record[file] = {test: took for test, took in kept.items() if f"{file}::{test}" in self.others}
        for node, took in self.taken.items():
            file, _, test = node.partition("::")
            record.setdefault(file, {}).pop(test, None)
            if took > NOTED:
                record[file][test] = float(f"{took:.2g}")
        ordered = {file: dict(sorted(record[file].items())) for file in sorted(record) if record[file]}
        DURATIONS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Look for doctests in public modules alone: what private ones define, these show."""
    if not collection_path.is_relative_to(PACKAGE):
        return None
    parts = collection_path.relative_to(PACKAGE).parts
    return any(part.startswith("_") and part != "__init__.py" for part in parts) or None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[Any], list[Any]]:
    """Look for doctests in the package alone."""
    collectors = yield
    if file_path.is_relative_to(PACKAGE):
        return collectors
    return [collector for collector in collectors if not isinstance(collector, DoctestModule)]


def of_another_library(item: pytest.Item) -> bool:
    """Whether a doctest is of a method such as `torch.nn.Module.to`, or of a base class itself."""
    if not isinstance(item, DoctestItem):
        return False
    filename = None if item.dtest is None else item.dtest.filename
    if filename is not None and not Path(filename).resolve().is_relative_to(PACKAGE):
        return True
    owner = getattr(pkgutil.resolve_name(item.name), "__module__", None)
    return owner is not None and owner.partition(".")[0] != "structmat"


def without_repetition(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the items where one is left of all doctests with the same text, that of the class that has written it.

    A class shows the methods that it inherits, and a package what is in packages below it.
    """

    def rank(item: DoctestItem) -> tuple[bool, bool, str]:
        shown = pkgutil.resolve_name(item.name)
        written = getattr(shown, "__qualname__", item.name)
        # scipy-doctest gives the texts of base classes the name of the class that it looks at
        return shown.__doc__ != item.dtest.docstring, not item.name.endswith(f".{written}"), item.name

    of_texts: dict[str, DoctestItem] = {}
    for item in items:
        if isinstance(item, DoctestItem):
            text = item.dtest.docstring
            of_texts[text] = min(of_texts.get(text, item), item, key=rank)
    kept = set(of_texts.values())
    return [item for item in items if not isinstance(item, DoctestItem) or item in kept]


def shared_compilation(node: str) -> str:
    """Return a name of the tests that are slow together: all cases of a test by JAX, if a single one of them is slow.

    That one compiles for all, and without it the next would take as long. Where several are slow, each compiles by
    itself. Any other test is slow by itself.
    """
    function, _, case = node.partition("[")
    return f"{function}[jax]" if "jax" in case else node


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep our own doctests, in a fixed order: scipy-doctest collects from sets, and parallel workers must agree.

    The record says which tests are slow; without ``--slow`` these are left out. Those that are marked `quick`, laws
    that draw many cases each and what alone catches a fault of the list, are slow from `LIMIT` on.
    """
    items[:] = without_repetition([item for item in items if not of_another_library(item)])
    record = {f"{file}::{test}": took for file, tests in recorded().items() for test, took in tests.items()}
    slow = {node for node, took in record.items() if took > SLOW}
    groups = Counter(shared_compilation(node) for node in slow)
    of_files: Counter[str] = Counter()
    for item in items:
        took = record.get(item.nodeid, 0.0)
        of_files[str(item.path)] += took
        if item.get_closest_marker("quick") and took <= LIMIT:
            continue
        if item.nodeid in slow or groups[shared_compilation(item.nodeid)] == 1:
            item.add_marker("slow")
    # The files that take longest come first, so that parallel workers end at about the same time.
    items.sort(
        key=lambda item: (
            -of_files[str(item.path)],
            str(item.path),
            item.nodeid if isinstance(item, DoctestItem) else "",
        )
    )
    if config.getoption("slow") or "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.stash[left_out] = len(slow)
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker of pytest-xdist whole files, in our order: their tests share what JAX compiles."""
    if config.getoption("dist") != "load":  # another way was asked for
        return None
    config.option.loadscopereorder = False  # not by the number of tests
    return importlib.import_module("xdist.scheduler").LoadFileScheduling(config, log)


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
        uncounted["seconds"] += process_time() * (1 if phase == "stop" else -1)


gc.callbacks.append(count_collection)


class Uncounted:
    """Leave out what takes place from `start` to `stop`."""

    def start(self) -> None:
        """Note the time."""
        self.started = processor_time()

    def stop(self) -> None:
        """Leave out what has passed since."""
        uncounted["seconds"] += processor_time() - self.started


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    """Leave out fixtures that several tests share, and their ends, which the last of these tests would pay for."""
    if fixturedef.scope == "function":
        return (yield)
    setup, end = Uncounted(), Uncounted()
    fixturedef.addfinalizer(end.stop)  # these run in reverse order, and that of the fixture itself comes between
    setup.start()
    try:
        return (yield)
    finally:
        setup.stop()
        fixturedef.addfinalizer(end.start)


def slowness() -> float:
    """Return how many times longer than on the machine of the record the same work takes here and now, at least one.

    The work is that of an interpreter, as is most of that of the tests, JAX's tracing included.
    """
    start = process_time()
    made = {}
    for k in range(100_000):
        made[k % 1000] = str(k)  # which asks for no collection of garbage
    return max(1.0, (process_time() - start) / YARDSTICK)


started = pytest.StashKey[tuple[float, int]]()
"""The time of the processor at the start of a test, and the number of modules then."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note when a test starts, with what it needs."""
    item.stash[started] = (processor_time(), len(sys.modules))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Name or fail a test that is not slow and takes long, with all it needs, unless it is the first to import it.

    So do runs of the quick selection alone: what JAX compiles for one test depends on those before it.
    """
    yield
    if item.config.getoption("slow"):
        return
    start, modules = item.stash[started]
    took = processor_time() - start
    if took <= LIMIT or item.get_closest_marker("slow") or len(sys.modules) - modules >= 50:
        return
    limit = LIMIT * slowness()
    if took <= limit:
        return
    text = (
        f"took {took:.1f} s of the processor, where a quick test has {limit:.2g} s on this machine: make it smaller, "
        "or call it slow by pytest --record-durations and keep a quick test of what it alone guards"
    )
    if took > FAR * limit:
        pytest.fail(text, pytrace=False)
    item.user_properties.append((OVER_THE_LIMIT, text))  # these reach the process that prints from each worker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Note what a test took, for the record."""
    yield
    item.user_properties.append((TAKEN, processor_time() - item.stash[started][0]))


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
