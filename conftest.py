"""Settings of every run of pytest, that of the doctests of the package alone included."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path

import pytest
from _pytest.doctest import DoctestItem

import structmat

# One thread for XLA, read when JAX starts: tests run side by side.
os.environ.setdefault("NPROC", "1")

PACKAGE = Path(structmat.__file__).resolve().parent
"""The folder of the package, whether it is that of a clone or the installed one."""


def inherited(item: pytest.Item) -> bool:
    """Whether a doctest is of another library: of a method such as `torch.nn.Module.to`, or of a base class itself."""
    if not isinstance(item, DoctestItem):
        return False
    filename = None if item.dtest is None else item.dtest.filename
    if filename is not None and not Path(filename).resolve().is_relative_to(PACKAGE):
        return True
    owner = getattr(pkgutil.resolve_name(item.name), "__module__", None)
    return owner is not None and owner.partition(".")[0] != "structmat"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep our own doctests, in a fixed order: scipy-doctest collects from sets, and parallel workers must agree."""
    items[:] = [item for item in items if not inherited(item)]
    items.sort(key=lambda item: (str(item.path), item.nodeid if isinstance(item, DoctestItem) else ""))
