"""`benchmarks/_common.py`: what a page of results says of its origin, and which engine it is of."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from structmat._fourier import engines

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    pytest.importorskip("threadpoolctl")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(engines, "ducc", engines.ducc)
    return import_module("_common")


@pytest.mark.parametrize("engine", ["scipy", "ducc0"])
def test_a_section_of_results_names_its_command_date_and_engine(common, monkeypatch, tmp_path, engine):
    if engine == "ducc0":
        pytest.importorskip("ducc0")
    chosen = ["--engine", "ducc0"] if engine == "ducc0" else []
    monkeypatch.setattr("sys.argv", ["folder/script.py", "--quick", *chosen, "--out", str(tmp_path)])
    options = common.begin(common.parser("A claim."))
    assert bool(engines.ducc()) == (engine == "ducc0")
    common.finish(options.out, "kronecker", "Title", "A table.", data="numbers", header=["n"], rows=[[3]])
    ending = "_fast" if engine == "ducc0" else ""
    assert {path.name for path in tmp_path.iterdir()} == {"kronecker.md", f"numbers{ending}.csv"}
    head, title, command, said, facts, part = (tmp_path / "kronecker.md").read_text(encoding="utf-8").split("\n\n")
    assert (head, part) == (f"# {common.PAGES['kronecker']}", "A table.\n")
    assert title == "## Title" + ", with `fast`" * (engine == "ducc0")
    assert command == f"`{' '.join(['python benchmarks/script.py --quick', *chosen])}`"
    assert said == f"Engine: {common.ENGINES[engine]}."
    revision = common.commit() or "not recorded"
    assert re.match(rf"\d{{4}}-\d\d-\d\d; revision {revision}; ", facts)


def test_a_section_takes_the_place_of_the_one_of_its_title_alone(common, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["script.py"])
    cases = [("A", "first"), ("B", "## Below\n\nsecond"), ("A", "third"), ("C", "fourth"), ("C", "fourth")]
    with common.engine("scipy"):
        for title, part in cases:
            common.finish(tmp_path, "fits", title, part)
    text = (tmp_path / "fits.md").read_text(encoding="utf-8")
    assert re.findall(r"^#.*$", text, re.MULTILINE) == ["# Fits", "## A", "## B", "### Below", "## C"]
    assert [part for part in ("first", "second", "third", "fourth") if part in text] == ["second", "third", "fourth"]


def test_both_engines_serve_one_script(common):
    pytest.importorskip("ducc0")
    with common.engine("scipy"):
        assert engines.engine_of("numpy") == "numpy"
        with common.engine("ducc0"):
            assert engines.engine_of("numpy") == "ducc0"
        assert engines.engine_of("numpy") == "numpy"


@pytest.mark.parametrize("script", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_results_are_written_by_one_function(script):
    text = script.read_text(encoding="utf-8")
    assert "write_text" not in text
    if script.stem != "engine_table":  # which prints lines for structmat/_fourier/engines.py
        assert re.search(r"\bfinish\(", text)


PAGES = sorted((FOLDER / "results").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_section_of_results_was_written_with_its_origin(common, page):
    head, *sections = re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert head == f"# {common.PAGES[page.stem]}\n\n"
    assert sections
    for section in sections:
        title, command, engine, facts = section.split("\n\n")[:4]
        script = re.fullmatch(r"`python benchmarks/(\w+\.py)[^`]*`", command)
        assert script, f"{title} was not written by `finish`"
        text = (FOLDER / script[1]).read_text(encoding="utf-8")
        assert re.search(rf'\bfinish\(\s*[\w.]+,\s*"{page.stem}"', text), f"{script[1]} does not write {page.name}"
        assert re.fullmatch(r"Engine: .+\.", engine)
        revision = r"revision ([0-9a-f]{8,12}(-dirty)?|not recorded(, first in [0-9a-f]{12})?)"
        assert re.match(rf"\d{{4}}-\d\d-\d\d; {revision}; (load .+; )?.+ cores, \w+; Python ", facts), title


def test_every_page_of_results_is_listed_and_linked(common):
    """In the list of benchmarks, and from the documentation."""
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    docs = "".join(page.read_text(encoding="utf-8") for page in (FOLDER.parent / "docs").rglob("*.md"))
    assert {page.stem for page in PAGES} == set(common.PAGES)
    assert [page.name for page in PAGES if f"`{page.name}`" not in listed or f"results/{page.name}" not in docs] == []
