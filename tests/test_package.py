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


MISSING = """
import importlib, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import structmat as sm
try:
    {call}
except ImportError as error:
    assert 'pip install "structmat[{extra}]"' in str(error), error
else:
    raise AssertionError("no error")
"""


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("jax", "jax", "import structmat.jax"),
        ("jax", "jax", "sm.jax"),
        ("torch", "torch", "import structmat.torch"),
        ("peft", "peft", "sm.peft"),
        ("matplotlib", "plot", "sm.plot"),
        ("safetensors", "io", "sm.io.save(sm.Circulant([1.0, 2.0]), 'file.safetensors')"),
        ("ducc0", "fast", "sm.Circulant([1.0, 2.0]).prepare(engine='ducc0')"),
        ("joblib", "studies", "sm.studies"),
    ],
)
def test_a_missing_library_is_named_by_its_extra(package: str, extra: str, call: str, tmp_path: Path) -> None:
    code = MISSING.format(package=package, extra=extra, call=call)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_operators_of_jax_are_pytrees_without_an_import() -> None:
    pytest.importorskip("jax")
    code = (
        "import jax, structmat as sm\n"
        "op, x = sm.Toeplitz(jax.numpy.asarray([4.0, 1.0])), jax.numpy.ones(2)\n"
        "assert jax.jit(lambda op, x: op @ x)(op, x).tolist() == [5.0, 5.0]\n"
        "assert abs(op.solve(x) - 0.2).max() < 1e-6\n"
        "assert jax.jit(lambda op, x: op @ x)(sm.Identity(2), x).tolist() == [1.0, 1.0]\n"
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
