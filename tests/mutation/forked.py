"""A plugin of pytest: test the mutants of a session of cosmic-ray in forks of a process that holds all tests already.

``bash tests/mutation/run session.sqlite``. Each mutant is tried on the tests of its folder, in the
order of `TESTS`, until one fails or `SECONDS` of processor time are over.
"""

from __future__ import annotations

import ast
import gc
import os
import random
import resource
import sys
import time
import types
from collections.abc import Iterator
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

SECONDS = float(os.environ.get("MUTANT_SECONDS", "20"))
"""Of processor time for the tests of a mutant; one that takes as much again hangs."""
EXAMPLES = 12
"""Of each law: half of the mutants die of the first."""

OPERATORS = ["tests/operators/test_laws.py", "tests/operators", "tests/engine", "structmat/operators"]
TESTS = {
    "structmat/_arrays": ["tests/operators/test_dtypes.py", *OPERATORS, "tests/fit/test_arguments.py"],
    "structmat/_engine": ["tests/engine", *OPERATORS],
    "structmat/_files": ["tests/files", "tests/io", "tests/studies/test_folder.py"],
    "structmat/_layer_fits": ["tests/layer_fits", "tests/peft/test_from_weights.py", "tests/studies"],
    "structmat/_toeplitz_solver": ["tests/test_toeplitz_solver.py", *OPERATORS],
    "structmat/fit/_curve": ["tests/fit/curve", "tests/plot"],
    "structmat/fit/_exact": ["tests/fit/exact", "tests/fit"],
    "structmat/fit/_baselines": ["tests/fit/baselines", "tests/fit"],
    "structmat/fit/_three_factors": ["tests/fit/three_factors", "tests/fit"],
    "structmat/fit/_many_factors": ["tests/fit/many_factors", "tests/fit"],
    "structmat/fit": ["tests/fit"],
    "structmat/io": ["tests/io", "tests/files"],
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
    settings.register_profile("mutation", settings.get_profile("ci"), max_examples=EXAMPLES, phases=phases)
    settings.load_profile("mutation")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try every mutant in a fork, and write what became of it into the session."""
    from cosmic_ray.work_db import WorkDB, use_db  # a tool of this session alone
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    log = Path(session.config.getoption("--mutants")).with_suffix(".log")
    with use_db(session.config.getoption("--mutants"), WorkDB.Mode.open) as database:
        functions = _functions()
        for item in list(database.pending_work_items):  # in random order
            (mutation,) = item.mutations
            path = mutation.module_path
            old, new = path.read_text(encoding="utf-8"), _mutated(mutation)
            diff = "".join(unified_diff(old.splitlines(True), new.splitlines(True), str(path), str(path), n=2))
            start = time.monotonic()
            outcome = _tried(session, path, old, new, functions)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{outcome}, {time.monotonic() - start:.1f} s\n{diff}\n")
            outcomes = {"survived": TestOutcome.SURVIVED, "lost": TestOutcome.INCOMPETENT}
            verdict = outcomes.get(outcome.partition(" ")[0], TestOutcome.KILLED)
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
    """Return the functions that were imported, by file."""
    gc.unfreeze()
    found: dict[str, list[types.FunctionType]] = {}
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType and "structmat" in thing.__code__.co_filename:
            found.setdefault(str(Path(thing.__code__.co_filename).resolve()), []).append(thing)
    gc.freeze()
    return found


def _tried(session: pytest.Session, path: Path, old: str, new: str, functions: dict[str, list[Any]]) -> str:
    """Return what became of a mutant."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        code, limit = 1, int(time.process_time() + 2 * SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        try:
            verdict = _verdict(session, path, old, new, functions.get(str(path.resolve()), []))
            os.write(write, verdict.encode()[:4000])
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        verdict = pipe.read()
    os.waitpid(child, 0)
    return verdict or "killed by a crash or the clock"


def _verdict(session: pytest.Session, path: Path, old: str, new: str, functions: list[Any]) -> str:
    try:
        if not _applied(path, old, new, functions):
            return "lost: not in a function, nor a constant"
    except Exception as error:  # noqa: BLE001  # a module that cannot be imported
        return f"killed by its import: {error!r}"
    begun = time.process_time()
    items = list(_tests(session, str(path)))
    for i, item in enumerate(items):
        if time.process_time() - begun > SECONDS:
            return f"survived {i} of {len(items)} tests"
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=items[i + 1] if i + 1 < len(items) else None)
        if session.testsfailed:
            return f"killed by {item.nodeid}"
    return f"survived all of {len(items)} tests"


def _tests(session: pytest.Session, path: str) -> Iterator[pytest.Item]:
    """Yield the tests that concern a file."""
    folder = max((key for key in TESTS if path.startswith(key)), key=len)
    seen: set[str] = set()
    for prefix in [path, *TESTS[folder]]:
        group = [item for item in session.items if item.nodeid.startswith(prefix) and item.nodeid not in seen]
        seen.update(item.nodeid for item in group)
        random.Random(0).shuffle(group)  # neighbours find the same mutants  # noqa: S311
        yield from group


def _applied(path: Path, old: str, new: str, functions: list[Any]) -> bool:
    """Change the functions of a module that is imported; where none differs, run the module again for its constants."""
    file = str(path.resolve())
    before, after = (dict(_codes(compile(source, file, "exec"))) for source in (old, new))
    changed = [function for function in functions if _differ(before, after, function.__code__)]
    for function in changed:
        function.__code__ = after[_key(function.__code__)]
    return bool(changed) or _constants(path, old, new, functions)


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
            if isinstance(value, type):
                done |= _class(getattr(module, key), value)
                continue
            _replaced(getattr(module, key, None), key, value)
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
