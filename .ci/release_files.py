"""Write what CITATION.cff and conda/recipe.yaml repeat: version, date, addresses, requirements.

`python .ci/release_files.py` writes it, `--check` names the files that are out of date. The version comes from
structmat/__init__.py, its date from CHANGELOG.md, all else from pyproject.toml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ADDRESSES = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]

CONDA_NAMES = {
    "dask[distributed]": "distributed",
    "matplotlib": "matplotlib-base",
    "ml-dtypes": "ml_dtypes",
    "torch": "pytorch",
}
"""The names that conda-forge has for what the Python package index calls otherwise."""

EXTRAS = ("torch", "jax", "peft", "io", "plot", "fast", "cli", "studies", "distributed")
"""The extras whose lower bounds hold in a conda environment too, where their packages are installed by hand."""


def version() -> str:
    """Return the version, from its one place."""
    text = (ROOT / "structmat/__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def released() -> str | None:
    """Return the date of the version from the heading of its changes; None before the release."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heading = re.search(rf"^## {re.escape(version())} \((.+)\)$", text, re.MULTILINE)
    if heading is None:
        raise SystemExit(f"CHANGELOG.md has no heading '## {version()} (...)' with a date or 'not released yet'")
    return None if heading[1] == "not released yet" else heading[1]


def conda_requirement(requirement: str) -> str:
    """Return a requirement of pyproject.toml in the form of conda."""
    name, bound = requirement.split(">=")
    return f"{CONDA_NAMES.get(name, name)} >={bound}"


def replace_lines(text: str, after: str, keys: str, lines: list[str]) -> str:
    """Return the text with new lines after that of a pattern, in place of those that now begin with some keys."""
    old = rf"^({after})\n(?:^(?:{keys}).*\n)*"
    new, n_places = re.subn(old, lambda found: "\n".join([found[1], *lines, ""]), text, count=1, flags=re.MULTILINE)
    if n_places != 1:
        raise SystemExit(f"no line like {after!r}")
    return new


def citation(text: str) -> str:
    """Return CITATION.cff with the version, its date and the addresses."""
    lines = [f"version: {version()}"]
    if date := released():
        lines.append(f"date-released: {date}")
    if address := ADDRESSES["repository"]:
        lines.append(f'repository-code: "{address}"')
    if address := ADDRESSES["documentation"]:
        lines.append(f'url: "{address}"')
    keys = "version|date-released|repository-code|url"
    return replace_lines(text, '  - name: "The structmat developers"', keys, lines)


def recipe(text: str) -> str:
    """Return conda/recipe.yaml with the version, the addresses and the requirements."""
    project = PROJECT["project"]
    text = replace_lines(text, "context:", "  version", [f'  version: "{version()}"'])
    run = [f"    - {conda_requirement(each)}" for each in project["dependencies"]]
    text = replace_lines(text, r"    - python >=\$\{\{ python_min \}\}", "    - ", run)
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    bounds = sorted({conda_requirement(each) for each in extras if not each.startswith("structmat[")})
    text = replace_lines(text, "  run_constraints:", "    - ", [f"    - {bound}" for bound in bounds])
    about = [f"  summary: >-\n    {project['description']}"]
    if address := ADDRESSES["repository"]:
        about += [f"  homepage: {address}", f"  repository: {address}"]
    if address := ADDRESSES["documentation"]:
        about.append(f"  documentation: {address}")
    return replace_lines(text, "about:", "  summary|    |  homepage|  repository|  documentation", about)


FILES = {"CITATION.cff": citation, "conda/recipe.yaml": recipe}


def outdated() -> dict[str, str]:
    """Return the files that are out of date, and what they should be."""
    texts = {name: (ROOT / name).read_text("utf-8") for name in FILES}
    wanted = {name: FILES[name](text) for name, text in texts.items()}
    return {name: text for name, text in wanted.items() if text != texts[name]}


if __name__ == "__main__":
    changes = outdated()
    if "--check" in sys.argv[1:]:
        sys.exit(f"run python .ci/release_files.py, which changes {', '.join(changes)}" if changes else 0)
    for name, text in changes.items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(f"wrote {name}")
