"""The documentation: its examples run, every public name has a page, the table of operators is the registry's."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy_doctest import DTChecker

import structmat

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "docs/guide", "docs/tutorials")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
EXECUTED = {
    "conventions.md",
    "edges.md",
    "fine_tuning.md",
    "fitting.md",
    "long_convolutions.md",
    "many_adapters.md",
    "new_operator.md",
    "peft.md",
    "performance.md",
    "questions.md",
    "quickstart.md",
    "reproduction.md",
    "scipy_vocabulary.md",
    "studies.md",
    "testing.md",
    "toeplitz_systems.md",
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load(path: Path) -> ModuleType:
    """Import a script of the docs folder, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_page(path: Path) -> int:
    """Run the Python blocks of a page in one namespace, those with prompts as doctests; return how many there are."""
    text = path.read_text(encoding="utf-8")
    namespace = {"__name__": __name__}
    blocks = list(BLOCK.finditer(text))
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(checker=DTChecker(), optionflags=options, verbose=False)
    for block in blocks:
        line, source = text[: block.start(1)].count("\n"), block.group(1)
        if not source.startswith(">>>"):
            exec(compile("\n" * line + source, path, "exec"), namespace)  # noqa: S102 - our own pages
            continue
        example = doctest.DocTestParser().get_doctest(source, namespace, path.name, str(path), line)
        report: list[str] = []
        failed, _ = runner.run(example, out=report.append, clear_globs=False)
        assert not failed, "".join(report)
        namespace.update(example.globs)
    return len(blocks)


# The blocks of README.md run by themselves, with no more installed than it asks for: .ci/run_readme_blocks.py.
RUN_HERE = [page for page in PAGES if page.name != "README.md"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # called by peft
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_examples_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for package in ("gpytorch", "jax", "lineax", "peft", "torch"):
        pytest.importorskip(package)
    blocks = run_page(page)
    assert blocks or page.name not in EXECUTED


def test_ci_finds_the_blocks_of_readme_and_what_they_need() -> None:
    script = load(ROOT / ".ci/run_readme_blocks.py")
    text = (ROOT / "README.md").read_text("utf-8")
    found = script.blocks(text)
    assert [block.extras for block in found] == [(), ("examples",), ("torch",)]
    assert [text.split("\n")[block.line - 1] for block in found] == ["```python"] * 3
    # These extras are in the environment of the tests; "examples" asks for more, which the check installs later.
    for extras, has_torch in (((), False), (("peft",), True), (("torch",), True)):
        needed = script.required(extras)
        assert "numpy" in needed
        assert ("torch" in needed) is has_torch
        assert ("transformers" in needed) is (extras == ("peft",))
    other = script.blocks("the extras `files` and `jax`, or the extra `torch`:\n\n```python\n1\n```\n")
    assert other == [(3, ("files", "jax", "torch"), "1\n")]


@pytest.mark.parametrize(
    ("source", "fault"), [("1 / 0", "ZeroDivisionError"), ("open('left', 'w')", "it leaves left"), ("", "")]
)
def test_a_block_fails_where_it_raises_or_leaves_a_file(source: str, fault: str) -> None:
    script = load(ROOT / ".ci/run_readme_blocks.py")
    with pytest.raises(RuntimeError, match=fault) if fault else nullcontext():
        script.run_twice(sys.executable, source)


def test_the_likelihood_of_readme_is_that_of_the_dense_covariance() -> None:
    """Of a shorter series, with its derivative: all numbers are of the dtype of the data, the number of points too."""
    torch = pytest.importorskip("torch")
    sources = [match.group(1) for match in BLOCK.finditer((ROOT / "README.md").read_text("utf-8"))]
    source = next(each for each in sources if "log_likelihood.backward()" in each)
    assert "n = 100_000" in source
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    exec(source.replace("n = 100_000", "n = 300"), namespace)  # noqa: S102 - our own page

    seen, noise = namespace["seen"], namespace["noise"]
    length = torch.tensor(50.0, dtype=torch.float64, requires_grad=True)
    steps = torch.arange(300, dtype=torch.float64)
    covariance = 1 / (1 + 0.5 * ((steps[:, None] - steps) / length) ** 2) + torch.diag(noise)
    measured = namespace["y"][seen]
    distribution = torch.distributions.MultivariateNormal(torch.zeros_like(measured), covariance[seen][:, seen])
    expected = distribution.log_prob(measured)
    expected.backward()
    found = namespace["log_likelihood"]
    assert abs(found - expected) <= 1e-10 * abs(expected)
    assert abs(namespace["length"].grad - length.grad) <= 1e-8 * abs(length.grad)


SITE_ALONE = {"toctree", "grid", "grid-item-card", "image", "literalinclude", "include"}
"""Directives of pages that are nothing but a way to others, or show what the build makes."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_page_reads_well_as_it_is(page: Path) -> None:
    """Plain Markdown, as forges show it: no roles, no labels, and no directives in a page that README links to."""
    text = page.read_text("utf-8")
    prose = load(ROOT / "docs/plain_pages.py").CODE.sub("", text)
    assert re.findall(r"^.*\{[a-z:]+\}`.*$", prose, re.MULTILINE) == []
    assert re.findall(r"^\([a-z-]+\)=$", prose, re.MULTILINE) == []
    directives = set(re.findall(r"^(?:```|:::+)\{([a-z-]+)\}", text, re.MULTILINE))
    linked = re.findall(r"\]\((\S+\.md)\)", (ROOT / "README.md").read_text("utf-8"))
    assert page.relative_to(ROOT).as_posix() not in linked or not directives
    assert directives <= SITE_ALONE


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    """Where the repository is browsed; the build checks those of the site."""
    prose = load(ROOT / "docs/plain_pages.py").CODE.sub("", page.read_text("utf-8"))
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", prose):
        target = page.parent / link if link else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, link


def test_the_site_reads_plain_pages_with_links_of_its_own() -> None:
    pages = load(ROOT / "docs/plain_pages.py")
    source = (
        "`structmat.io.save`, `sm.save`, [a](../examples/series/plot_x.py), "
        "[b](../../benchmarks/tried.md#rank-and-factors), ![c](../../benchmarks/d.png)\n"
        "```py\n`structmat.io.save`\n```\n"
    )
    expected = (
        "{py:obj}`structmat.io.save`, `sm.save`, [a](../auto_examples/series/plot_x.rst), "
        "[b](path:../../benchmarks/tried.md), ![c](../../benchmarks/d.png)\n```py\n`structmat.io.save`\n```\n"
    )
    assert pages.for_the_site(source, ROOT / "docs/guide") == expected
    included = pages.for_the_site("<!-- included: ../benchmarks/results/fits.md | beside the SVD -->", ROOT / "docs")
    assert included.startswith("| ")
    with pytest.raises(ValueError, match="0 times"):
        pages.for_the_site("<!-- included: ../benchmarks/results/fits.md | none -->", ROOT / "docs")


def test_no_line_of_a_page_is_a_comment() -> None:
    """As one that begins with a per cent sign is: it would vanish from the site."""
    lines = [(page.name, line) for page in PAGES for line in page.read_text(encoding="utf-8").split("\n")]
    assert [pair for pair in lines if pair[1].lstrip().startswith("%")] == []


def test_every_public_name_has_a_page() -> None:
    for framework in ("jax", "matplotlib", "safetensors", "torch"):
        pytest.importorskip(framework)
    documented = []
    for page in sorted((ROOT / "docs/api").glob("*.rst")):
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = importlib.import_module(found[1])
            elif found := re.match(r"(?:   |\.\. (?:autodata|py:data):: )(\w+)$", line):
                documented.append(getattr(module, found[1]))  # an AttributeError: the page names what does not exist
    public = load(ROOT / "docs/public_api.py").names()
    missing = [name for name, value in public.items() if not any(value is other for other in documented)]
    assert not missing
    assert len(documented) == len(public)


def test_table_of_operators_is_the_registry() -> None:
    command = [sys.executable, str(ROOT / "docs/capabilities.py"), "--check"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_page_of_an_operator_has_the_methods_that_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no others: each method with a closed form stands in one of two tables of the page."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = load(ROOT / "docs/api_pages.py")
    table = (ROOT / "docs/capabilities.md").read_text("utf-8")
    heads = re.findall(r"^\| operator \| (.+) \|$", table, re.MULTILINE)[0].split(" | ")
    columns = [re.findall(r"`(\w+)`", head) or ["sqrtm", "expm", "funm"] for head in heads]
    rows = re.findall(r"^\| ([A-Z].+?) \| (.+) \|$", table, re.MULTILINE)
    named = {name for row, _ in rows for name in re.findall(r"\w+", row)}
    kinds = {name: getattr(structmat, name) for name in named if hasattr(structmat, name)}
    assert len(kinds) > 20
    for name, kind in kinds.items():
        claimed = [cells.split(" | ") for row, cells in rows if name in re.findall(r"\w+", row)]
        shown, _, lacking = pages.methods(kind)
        for column, *cells in zip(columns, *claimed, strict=True):
            assert set(column) <= set(lacking if set(cells) == {"-"} else shown), name
    assert {"cholesky", "reflection_coefficients"} <= set(pages.methods(structmat.Toeplitz)[0])
    assert {"convolve", "from_covariance"} <= set(pages.methods(structmat.MultilevelToeplitz)[0])


def test_every_public_function_has_an_example() -> None:
    for framework in ("jax", "matplotlib", "safetensors", "torch", "peft"):
        pytest.importorskip(framework)
    public = load(ROOT / "docs/public_api.py").names()
    missing = [
        name for name, value in public.items() if inspect.isfunction(value) and ">>>" not in (value.__doc__ or "")
    ]
    assert not missing


def test_the_page_on_tools_has_a_version_of_each() -> None:
    """Of each package that its programs import, and of what its text names instead of a program."""
    page = (ROOT / "docs" / "guide" / "tools.md").read_text("utf-8")
    table = (ROOT / "docs" / "guide" / "tools_versions.md").read_text("utf-8")
    versions = dict(re.findall(r"^\| ([\w-]+) \| (\d[\w.]+) \|$", table, re.MULTILINE))
    programs = "".join(re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    imported = {name.replace("_", "-") for name in re.findall(r"^(?:import|from) (\w+)", programs, re.MULTILINE)}
    assert imported - {"structmat"} <= versions.keys()
    assert "bitsandbytes" in versions
    assert re.search(r"deepspeed \d[\d.]+\d ", page)
