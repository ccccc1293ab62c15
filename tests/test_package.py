"""The package as a whole: what its import costs, and the maps in its docstrings."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import structmat as sm


def test_import_is_light() -> None:
    code = (
        "import sys, structmat\n"
        "heavy = {'torch', 'jax', 'matplotlib', 'rich', 'cyclopts', 'safetensors', 'scipy.fft', 'scipy.sparse'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "structmat.scipy.as_linear_operator\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


PACKAGE = Path(sm.__file__).parent


@cache
def docstrings() -> dict[str, str]:
    """The docstring of every module by its path."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    return {str(path.relative_to(PACKAGE)): ast.get_docstring(tree) or "" for path, tree in trees.items()}


def modules(folder: Path) -> set[str]:
    return {info.name for info in pkgutil.iter_modules([str(folder)])}


def test_the_docstring_of_the_package_lists_its_modules() -> None:
    listed = set(re.findall(r"`structmat\.(\w+)`", sm.__doc__ or ""))
    assert listed == {name for name in modules(PACKAGE) if not name.startswith("_")}
    assert set(sm.__all__) & set(re.findall(r"`(\w+)`", sm.__doc__ or "")) >= {
        name for name in sm.__all__ if isinstance(getattr(sm, name), type) and not name.endswith(("Error", "Result"))
    }


@pytest.mark.parametrize("path", [path for path in docstrings() if path.endswith("__init__.py")])
def test_lists_of_files_in_docstrings_are_the_files(path: str) -> None:
    heads = re.findall(r"^- (`[^:]*):", docstrings()[path], re.MULTILINE)
    listed = {name for head in heads for name in re.findall(r"`(\w+)`", head)}
    if listed:
        found = modules((PACKAGE / path).parent)
        assert {name for name in listed if name.startswith("_")} <= found
        assert {name for name in found if name.startswith("_")} <= listed


def test_what_docstrings_of_modules_refer_to_exists() -> None:
    for framework in ("jax", "matplotlib", "peft", "safetensors", "torch"):
        pytest.importorskip(framework)
    for path, text in docstrings().items():
        for name in re.findall(r"`(structmat(?:\.\w+)+)`", text):
            assert pkgutil.resolve_name(name) is not None, path
