"""What tests of several benchmarks share."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def modules():
    """The modules of the benchmark, by their names."""
    folders = [str(ROOT / "benchmarks"), str(ROOT / "docs/examples")]
    sys.path[:0] = folders
    try:
        yield __import__
    finally:
        for folder in folders:
            sys.path.remove(folder)
        own = ("finetune", "_common", "_fair_", "_few_", "_generation_", "_pair_", "_statements")
        for name in [name for name in sys.modules if name.startswith(own)]:
            del sys.modules[name]
