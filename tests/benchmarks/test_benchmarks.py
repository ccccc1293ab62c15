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
def test_a_page_of_results_names_its_command_date_and_engine(common, monkeypatch, tmp_path, engine):
    if engine == "ducc0":
        pytest.importorskip("ducc0")
    chosen = ["--engine", "ducc0"] if engine == "ducc0" else []
    monkeypatch.setattr("sys.argv", ["folder/script.py", "--quick", *chosen, "--out", str(tmp_path)])
    options = common.begin(common.parser("A claim."))
    assert bool(engines.ducc()) == (engine == "ducc0")
    common.finish(options.out, "page", "Title", "A table.")
    (page,) = tmp_path.iterdir()
    assert page.name == ("page_fast.md" if engine == "ducc0" else "page.md")
    command, said, facts = page.read_text(encoding="utf-8").split("\n\n")[1:4]
    assert command == f"`{' '.join(['python benchmarks/script.py --quick', *chosen])}`"
    assert said == f"Engine: {common.ENGINES[engine]}."
    assert re.match(r"\d{4}-\d\d-\d\d; ", facts)


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


@pytest.mark.parametrize("page", sorted((FOLDER / "results").glob("*.md")), ids=lambda path: path.stem)
def test_a_page_of_results_was_written_with_its_origin(page):
    title, command, engine, facts = page.read_text(encoding="utf-8").split("\n\n")[:4]
    assert title.startswith("# ")
    script = re.fullmatch(r"`python benchmarks/(\w+\.py)[^`]*`", command)
    assert script, "was not written by `finish`"
    assert (FOLDER / script[1]).exists()
    assert re.fullmatch(r"Engine: .+\.", engine)
    assert re.match(r"\d{4}-\d\d-\d\d; (load .+; )?.+ cores, \w+; Python ", facts)
