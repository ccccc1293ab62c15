"""Tests go through public names, but for a list of private modules that are tested on their own, with the reason."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

ON_THEIR_OWN = {
    "_arrays": "the seam to array libraries, which all functions share and none shows",
    "_parametrised": "what operators are to JAX and torch",
    "_rules": "what a library is able to do beside the standard",
    "_torch_rules": "what a library is able to do beside the standard",
    "_fourier": "transforms and plans: which of them a product takes shows in its time alone",
    "_long_convolutions": "transforms and plans: how an image is tiled shows in its time alone",
    "operators._families.grid_spectrum": "pairs of frequencies of grids, which several families share",
    "operators._base": "the hooks, by whose names tests go through all operators",
    "_krylov": "single steps of iterations, and when they end",
    "_toeplitz_systems": "recursions and factors, of which a solver takes one by sizes that tests cannot reach",
    "_ways": "which of the ways to an answer is taken, with ways and costs of a test's own",
    "linear_systems": "when a solution or an estimate is accepted, step by step",
    "fit": "starts, steps and bounds: of a result nobody sees which of them has made it",
    "torch": "the mathematics of changes, low bits, and the kinds of layers, which PEFT's layers share",
    "_adapter_format": "names and bytes of files that were written before",
    "peft": "what is registered with PEFT, and the base of its layers",
    "io": "a write that fails half-way",
    "_files": "a write that fails half-way",
    "studies": "what is written and read again where a run was ended, and parts of large checkpoints",
    "cli": "what a command shows where no terminal is",
    "_progress": "how long a bar waits before it is drawn",
    "testing": "how operators are drawn and which laws run on them, as structmat.testing does",
}
"""The packages and modules whose private names tests import, and why these are tested on their own."""


@cache
def imported() -> list[tuple[str, str, str]]:
    """Return the file, the module and the name of all that tests import from private modules."""
    return [
        (file.relative_to(TESTS).as_posix(), str(node.module), each.name)
        for file in sorted(TESTS.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "structmat"
        for each in node.names
        if any(part.startswith("_") for part in f"{node.module}.{each.name}".split("."))
    ]


def public(package: str = "structmat") -> Iterator[tuple[int, str]]:
    """Yield what a package and those below it show, by identity, and under which name."""
    module = importlib.import_module(package)
    yield from ((id(getattr(module, name)), f"{package}.{name}") for name in module.__all__)
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith("_"):
            yield from public(f"{package}.{found.name}")


def place_of(module: str, name: str) -> str | None:
    """Return the entry of the list that a private name lies in."""
    full = f"{module}.{name}".removeprefix("structmat.")
    return max((place for place in ON_THEIR_OWN if f"{full}.".startswith(f"{place}.")), key=len, default=None)


def test_what_is_private_and_tested_on_its_own_is_listed() -> None:
    found = {each: place_of(each[1], each[2]) for each in imported()}
    assert [each for each, place in found.items() if place is None] == []
    assert set(found.values()) == set(ON_THEIR_OWN)


def test_what_has_a_public_name_is_imported_by_it() -> None:
    names = dict(public())
    again = []
    for file, module, name in imported():
        shown = getattr(importlib.import_module(module), name, None)  # None for a module below
        if shown is not None and id(shown) in names:
            again.append(f"{file} imports {name} of {module}, which is {names[id(shown)]}")
    assert again == []
