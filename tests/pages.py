"""What README, the pages of the documentation and the files of results say, for tests that compare them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a file of results."""
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page(name: str) -> str:
    """A page in one line."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text("utf-8"))


def lines(name: str) -> list[list[str]]:
    """The cells of every line of every table of a page."""
    text = (ROOT / name).read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text if line.startswith("|")]


def stated(name: str, pattern: str) -> list[float]:
    """The figures in a sentence of a page."""
    found = re.search(pattern, page(name))
    assert found is not None, f"{name} has no {pattern}"
    return [float(number) for number in found.groups()]
