"""A plugin of pytest: test the mutants of a session of cosmic-ray in forks of a process that holds all tests already.

``bash tests/mutation/run session.sqlite``. Each mutant is tried on its own doctests, then on those of the tests of
its folder, in `TESTS`, that name what its file defines, then on the others there, until one fails or `SECONDS` of
processor time are over. A test that fails without the mutant also catches nothing.
"""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

import structmat

SECONDS = float(os.environ.get("MUTANT_SECONDS", "15"))
"""Of processor time for the tests of a mutant; one test that takes as much hangs."""
EXAMPLES = 8
"""Of each law at most: half of the mutants die of the first."""
RECORDING = float(os.environ.get("RECORDING_SECONDS", "300"))
"""For finding out which functions each test calls, those first that are the first of their parameters."""

OPERATORS = ["tests/operators/test_laws.py", "tests/operators", "tests/engine", "structmat/operators"]
TESTS = {
    "structmat/_arrays": ["tests/operators/test_dtypes.py", *OPERATORS, "tests/fit/test_arguments.py"],
    "structmat/_engine": ["tests/engine", *OPERATORS],
    "structmat/_checkpoint.py": ["tests/io", "tests/studies"],
    "structmat/_files.py": ["tests/io", "tests/studies"],
    "structmat/_layer_fits.py": ["tests/peft/test_from_weights.py", "tests/studies"],
    "structmat/_toeplitz_solver": ["tests/test_toeplitz_solver.py", *OPERATORS],
    "structmat/fit/_curve": ["tests/fit/curve", "tests/plot"],
    "structmat/fit/_exact": ["tests/fit/exact", "tests/fit"],
    "structmat/fit/_baselines": ["tests/fit/baselines", "tests/fit"],
    "structmat/fit/_three_factors": ["tests/fit/three_factors", "tests/fit"],
    "structmat/fit/_many_factors": ["tests/fit/many_factors", "tests/fit"],
    "structmat/fit": ["tests/fit"],
    "structmat/io": ["tests/io"],
    "structmat/linear_systems": ["tests/test_linear_systems.py"],
    "structmat/operators": OPERATORS,
    "structmat/peft": ["tests/peft"],
    "structmat/plot": ["tests/plot"],
    "structmat/preconditioners.py": ["tests/test_preconditioners.py", "tests/test_linear_systems.py"],
    "structmat/sampling.py": ["tests/test_sampling.py"],
    "structmat/scipy.py": ["tests/test_scipy.py", "tests/operators/test_interfaces.py"],
    "structmat/jax.py": ["tests/operators/test_jax_trees.py"],
    "structmat/studies": ["tests/studies"],
    "structmat/torch/_adapter": ["tests/torch/test_autograd.py", "tests/torch"],
    "structmat/torch/_layers": ["tests/torch/test_linear.py", "tests/torch/test_adapted_layer.py", "tests/torch"],
    "structmat/torch/_model": ["tests/torch/test_adapt_model.py", "tests/torch/test_files.py", "tests/torch"],
    "structmat": ["tests/test_package.py", *OPERATORS],
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Name the session."""
    parser.addoption("--mutants", required=True, help="session of cosmic-ray")


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Let laws fail without looking for the simplest example."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutation", settings.get_profile("ci"), phases=phases)
    settings.load_profile("mutation")
    _at_most(EXAMPLES)


def _at_most(examples: int) -> None:
    """Limit the examples of every law, whatever its own settings say."""
    type.__setattr__(settings, "max_examples", property(lambda law: min(law._max_examples, examples)))


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try every mutant in a fork, and write what became of it into the session."""
    from cosmic_ray.work_db import WorkDB, use_db  # a tool of this session alone
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    log = Path(session.config.getoption("--mutants")).with_suffix(".log")
    with use_db(session.config.getoption("--mutants"), WorkDB.Mode.open) as database:
        functions, reached = _functions(), _reached(session, log.with_name("reached.json"))
        for item in list(database.pending_work_items):  # in random order
            (mutation,) = item.mutations
            path = mutation.module_path
            old, new = path.read_text(encoding="utf-8"), _mutated(mutation)
            diff = "".join(unified_diff(old.splitlines(True), new.splitlines(True), str(path), str(path), n=2))
            start = time.monotonic()
            outcome = _tried(session, path, old, new, functions, reached)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{outcome}, {time.monotonic() - start:.1f} s\n{diff}\n")
            outcomes = {"survived": TestOutcome.SURVIVED, "lost": TestOutcome.INCOMPETENT}
            verdict = outcomes.get(outcome.split(" ")[0].strip(":"), TestOutcome.KILLED)
            database.set_result(item.job_id, WorkResult(WorkerOutcome.NORMAL, outcome, verdict, diff))
    return True


def _mutated(mutation: Any) -> str:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    code: str | None = mutate_code(mutation.module_path.read_text(encoding="utf-8"), operator, mutation.occurrence)
    assert code is not None
    return code


def _functions() -> dict[str, list[types.FunctionType]]:
    """Return the functions of the package, by file."""
    for module in pkgutil.walk_packages(structmat.__path__, "structmat."):
        if not module.name.startswith("structmat.cli") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # some are imported by the first call that needs them
    gc.unfreeze()
    found: dict[str, list[types.FunctionType]] = {}
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType and "structmat" in thing.__code__.co_filename:
            found.setdefault(str(Path(thing.__code__.co_filename).resolve()), []).append(thing)
    gc.freeze()
    return found


def _tried(
    session: pytest.Session, path: Path, old: str, new: str, functions: dict[str, list[Any]], reached: dict[str, Any]
) -> str:
    """Return what became of a mutant."""
    try:
        compile(new, str(path), "exec")
    except SyntaxError:
        return "lost: no Python"
    items = _tests(session, path, _changed(path, old, new), reached)
    while True:
        failed = _forked(lambda: _verdict(session, path, old, new, functions.get(str(path.resolve()), []), items))
        verdict, _, test = failed.partition(" by ")
        if verdict != "killed" or not (item := next((item for item in items if item.nodeid == test), None)):
            return failed
        if test not in SOUND:
            SOUND[test] = _forked(lambda: _first_failure(session, [item])).startswith("survived")  # noqa: B023
        if SOUND[test]:
            return failed
        items.remove(item)


SOUND: dict[str, bool] = {}
"""Whether a test that failed for a mutant passes without it."""


def _forked(run: Callable[[], Iterator[str]]) -> str:
    """Return the last line that `run` yields in a fork: where that dies, the test it was at."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        code = 1
        try:
            for line in run():
                os.write(write, f"{line}\n".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    return lines[-1]


def _verdict(
    session: pytest.Session, path: Path, old: str, new: str, functions: list[Any], items: list[Any]
) -> Iterator[str]:
    yield "killed by the clock in its import"
    _limit()
    try:
        applied = _applied(path, old, new, functions)
    except Exception as error:  # noqa: BLE001  # a module that cannot be imported
        yield f"killed by its import: {error!r}"
        return
    if applied:
        yield from _first_failure(session, items)
    else:
        yield "lost: not in a function, nor a constant"


def _first_failure(session: pytest.Session, items: list[Any]) -> Iterator[str]:
    """Run tests until one fails: yield the blame of each before it runs, and in the end that none is to blame."""
    begun = time.process_time()
    for i, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
        if time.process_time() - begun > SECONDS:
            yield f"survived {i} of {len(items)} tests"
            return
        yield f"killed by {item.nodeid}"
        _limit()
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return
    yield f"survived all of {len(items)} tests"


def _limit() -> None:
    """End this process when it takes too long from now on."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + SECONDS) + 1, resource.RLIM_INFINITY))
    signal.alarm(int(10 * SECONDS))


def _tests(session: pytest.Session, path: Path, changed: set[str], reached: dict[str, Any]) -> list[Any]:
    """Return the tests that reach one of some functions, the fast ones and those that name the file first."""
    words = re.compile("|".join(word for word in path.stem.split("_") if word), re.IGNORECASE)
    calls: Counter[object] = Counter()
    order: dict[Any, tuple[bool, float]] = {}
    items = list(session.items)
    random.Random(0).shuffle(items)  # neighbours find the same mutants  # noqa: S311
    by_test: dict[object, set[str]] = {}
    for item in items:
        by_test.setdefault(_function(item), set()).update(reached.get(item.nodeid, (0.0, ()))[1])
    reaching = any(changed & names for names in by_test.values())
    for item in items:
        function, near = _function(item), bool(words.search(item.nodeid))
        seconds, names = reached.get(item.nodeid, (1.0, by_test[function]))
        if changed.intersection(names) or (
            _in_folder(item, path) and (not reaching or (near and item.nodeid not in reached))
        ):
            calls[function] += 1
            order[item] = (calls[function] > 3, (seconds + 0.01) * (1 if near else 3))
    return sorted(order, key=order.__getitem__)


def _function(item: Any) -> object:
    return getattr(item, "function", item)


def _in_folder(item: Any, path: Path) -> bool:
    folder = max((key for key in TESTS if str(path).startswith(key)), key=len)
    return item.nodeid.startswith((str(path), *TESTS[folder]))


def _name(code: types.CodeType) -> str:
    return f"{Path(code.co_filename).resolve()}:{code.co_firstlineno}:{code.co_qualname}"


def _reached(session: pytest.Session, file: Path) -> dict[str, Any]:
    """Return of each test its seconds and the functions of the package that it calls; kept in a file."""
    if not file.exists():
        _forked(lambda: _record(session, file))
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _record(session: pytest.Session, file: Path) -> Iterator[str]:
    found: dict[str, Any] = {}
    seen: set[types.CodeType] = set()
    calls: Counter[object] = Counter()
    turns = {}
    for item in session.items:
        calls[_function(item)] += 1
        turns[item] = calls[_function(item)]
    _at_most(2)
    sys.settrace(lambda frame, _event, _argument: seen.add(frame.f_code))
    end = time.monotonic() + RECORDING
    items = sorted(session.items, key=turns.__getitem__)
    for item, following in zip(items, [*items[1:], None], strict=True):
        if time.monotonic() > end:
            break
        seen.clear()
        begun = time.process_time()
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        names = sorted(_name(code) for code in tuple(seen) if "structmat" in code.co_filename)
        found[item.nodeid] = (round(time.process_time() - begun, 3), names)
    file.write_text(json.dumps(found), encoding="utf-8")
    yield "recorded"


def _applied(path: Path, old: str, new: str, functions: list[Any]) -> bool:
    """Change the functions of a module that is imported; where none differs, run the module again for its constants."""
    file = str(path.resolve())
    before, after = (dict(_codes(compile(source, file, "exec"))) for source in (old, new))
    changed = [function for function in functions if _differ(before, after, function.__code__)]
    for function in changed:
        function.__code__ = after[_key(function.__code__)]
    return bool(changed) or _constants(path, old, new, functions)


def _changed(path: Path, old: str, new: str) -> set[str]:
    """Return the names of the functions that differ: none where only constants do."""
    file = str(path.resolve())
    before, after = (dict(_codes(compile(source, file, "exec"))) for source in (old, new))
    names = [key for key in before if key in after and key[0] != "<module>" and before[key] != after[key]]
    return {f"{file}:{line}:{name}" for name, line in names}


def _key(code: types.CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _codes(code: types.CodeType) -> Iterator[tuple[tuple[str, int], types.CodeType]]:
    yield _key(code), code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _differ(before: dict[Any, types.CodeType], after: dict[Any, types.CodeType], code: types.CodeType) -> bool:
    key = _key(code)
    return key in before and key in after and before[key] != after[key]


def _constants(path: Path, old: str, new: str, functions: list[Any]) -> bool:
    """Run the statements of a module that differ: constants, and functions with other defaults or decorators."""
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    module = sys.modules.get(name)
    if module is None:
        return False
    done = False
    for before, after in zip(ast.parse(old).body, ast.parse(new).body, strict=True):
        if ast.dump(before) == ast.dump(after):
            continue
        space = dict(vars(module))
        exec(compile(ast.Module([after], []), str(path.resolve()), "exec"), space)  # noqa: S102
        values = {key: value for key, value in space.items() if vars(module).get(key) is not value}
        for key, value in values.items():
            if key not in vars(module):  # imported for annotations alone
                setattr(module, key, value)
                continue
            if isinstance(value, type):
                done |= _class(getattr(module, key), value)
                continue
            _replaced(getattr(module, key), key, value)
            for function in functions if isinstance(value, types.FunctionType) else ():
                if _key(function.__code__) == _key(value.__code__):
                    function.__defaults__, function.__kwdefaults__ = value.__defaults__, value.__kwdefaults__
            done = True
    return done


def _replaced(old: Any, key: str, value: Any) -> None:
    """Give a constant another value wherever it was imported."""
    for name, module in list(sys.modules.items()):
        if name.startswith("structmat") and vars(module).get(key) is old:
            setattr(module, key, value)


def _class(live: type, mutant: type) -> bool:
    """Give a class the constants and the defaults of another."""
    done = False
    for key, value in vars(mutant).items():
        old = vars(live).get(key)
        if isinstance(value, types.FunctionType) and isinstance(old, types.FunctionType):
            done |= (old.__defaults__, old.__kwdefaults__) != (value.__defaults__, value.__kwdefaults__)
            old.__defaults__, old.__kwdefaults__ = value.__defaults__, value.__kwdefaults__
        elif isinstance(value, (bool, int, float, str, tuple)) and not key.startswith("__"):
            with suppress(Exception):
                done |= bool(old != value)
                setattr(live, key, value)
    return done
