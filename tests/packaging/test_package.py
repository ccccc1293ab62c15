"""The package as a whole: what its import costs, what it says where a library is missing, and what a release needs."""

from __future__ import annotations

import ast
import doctest
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from _pytest.doctest import DoctestItem

import structmat as sm
from tests.cases import in_one_test
from tests.docs.test_docs import load

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.slow
def test_import_is_light() -> None:
    code = (
        "import sys, structmat.cli\n"
        "heavy = {'numpy', 'array_api_compat', 'signal', 'typing'} & set(sys.modules)\n"
        "assert not heavy, heavy  # or Ctrl-C would find the command not ready\n"
        "structmat.Circulant\n"
        "heavy = {'torch', 'jax', 'matplotlib', 'rich', 'cyclopts', 'safetensors', 'scipy.fft', 'scipy.sparse'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "structmat.scipy.as_linear_operator\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


MISSING = """
import importlib, sys
import structmat as sm
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
SAVE = "import torch; m = torch.nn.Sequential(torch.nn.Linear(2, 2)); sm.torch.adapt(m, ['0']); "
SAVE += "sm.torch.save_adapter(m, 'folder')"
for package, extra, call in [
    ("jax", "jax", "import structmat.jax"),
    ("jax", "jax", "sm.jax"),
    ("torch", "torch", "import structmat.torch"),
    ("peft", "peft", "import structmat.peft"),
    ("matplotlib", "files", "sm.plot"),
    ("safetensors", "files", "sm.io.save(sm.Circulant([1.0, 2.0]), 'file.safetensors')"),
    ("joblib", "studies", "sm.studies"),
    ("pandas", "studies", "sm.studies"),
    ("safetensors", "torch", SAVE),
    ("lineax", "jax", "import jax; sm.jax.as_lineax(sm.Identity(2))"),
    ("linear_operator", "torch", "import torch; sm.torch.as_linear_operator(sm.Circulant(torch.ones(2)))"),
]:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    try:
        exec(call)
    except ImportError as error:
        assert f'pip install "structmat[{extra}]"' in str(error), error
    else:
        raise AssertionError(call)
"""


@pytest.mark.slow
def test_a_missing_library_is_named_by_its_extra(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", MISSING], check=True, cwd=tmp_path)


@pytest.mark.slow
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


@in_one_test(
    "file, is_of_another",
    [
        (Path(sm.__file__), False),
        (Path(sm.__file__).parent / "linear_systems/_results.py", False),
        (None, False),
        (ROOT.parent / "structmat/.venv/lib/site-packages/numpy/linalg/__init__.py", True),
        (Path(sm.__file__).parent.with_name("numpy") / "linalg/__init__.py", True),
        (Path(sm.__file__).parent.with_name("structmat_other") / "module.py", True),
    ],
)
def test_doctests_of_other_libraries_do_not_run(file: Path | None, is_of_another: bool) -> None:
    """As that of the error of NumPy which ours derives from; the folder of a clone may have the package's name."""
    item = object.__new__(DoctestItem)
    item.name = "structmat.linear_systems.ConvergenceError"
    item.dtest = doctest.DocTest([], {}, item.name, None if file is None else str(file), 0, "")
    assert load(ROOT / "conftest.py").of_another_library(item) is is_of_another


@pytest.mark.slow
def test_what_docstrings_of_modules_refer_to_exists() -> None:
    for framework in ("jax", "matplotlib", "peft", "safetensors", "torch"):
        pytest.importorskip(framework)
    for path in Path(sm.__file__).parent.rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        for name in re.findall(r"`(structmat(?:\.\w+)+)`", text):
            assert pkgutil.resolve_name(name) is not None, path


# What goes out with a release


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def citation(addresses: dict[str, str], changes: str) -> dict[str, str]:
    """What CITATION.cff has to say, by its keys: the version, the date that its changes have, and the addresses."""
    released = re.search(rf"^## {re.escape(sm.__version__)} \((.+)\)$", changes, re.MULTILINE)
    assert released, f"CHANGELOG.md has no heading '## {sm.__version__} (...)' with a date or 'not released yet'"
    date = "" if released[1] == "not released yet" else released[1]
    said = {"date-released": date, "repository-code": addresses["repository"], "url": addresses["documentation"]}
    return {"version": sm.__version__} | {key: text for key, text in said.items() if text}


def test_the_citation_is_up_to_date() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    lines = re.findall(r'^([a-z-]+): "?([^">]+?)"?$', (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    said = {key: text for key, text in lines if key in {"version", "date-released", "repository-code", "url"}}
    assert said == citation(PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"], changes)


def test_a_released_citation_has_a_date_and_addresses() -> None:
    addresses = {"repository": "https://host/us/structmat", "documentation": "https://docs"}
    assert citation(addresses, f"# Changes\n\n## {sm.__version__} (2026-12-31)\n") == {
        "version": sm.__version__,
        "date-released": "2026-12-31",
        "repository-code": "https://host/us/structmat",
        "url": "https://docs",
    }


def test_every_extra_that_a_text_names_is_there() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "noxfile.py", ".ci/run", "pyproject.toml")]
    files += [*ROOT.glob(".github/workflows/*.yml"), ROOT / ".pre-commit-config.yaml"]
    for folder in ("benchmarks", "docs", "structmat"):
        files += [path for kind in ("*.md", "*.py", "*.rst") for path in (ROOT / folder).rglob(kind)]
    named = {}
    for path in files:
        text = path.read_text("utf-8")
        found = re.findall(r'(?:structmat|"\.)\[([a-z,]+)\]', text)
        found += re.findall(r'\bextra (?:``|`|")([a-z]+)(?:``|`|")', text)
        named |= dict.fromkeys({extra for names in found for extra in names.split(",")}, path)
    assert named.keys() <= extras, {extra: path for extra, path in named.items() if extra not in extras}
    assert named.keys() >= {"dev", "fast", "files", "jax", "peft", "studies", "test", "torch"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"])
def test_links_of_the_repository_lead_to_files(name: str) -> None:
    page = ROOT / name
    missing = [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_of_the_package_index_needs_no_files() -> None:
    pytest.importorskip("hatchling")
    hook = load(ROOT / "hatch_build.py")
    text = (ROOT / "README.md").read_text("utf-8")
    assert LINK.search(text)
    page = hook.index_page(text, "")
    assert not LINK.search(page)
    assert "](https://" in page
    page = hook.index_page(text, "https://host/us/structmat")
    assert not LINK.search(page)
    assert "](https://host/us/structmat/raw/main/docs/_static/curve.png)" in page
    assert "[changes](https://host/us/structmat/blob/main/CHANGELOG.md)" in page
    assert set(hook.urls("https://host/us/structmat", "https://docs")) > {"Documentation", "Repository", "Changelog"}
