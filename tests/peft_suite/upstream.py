"""PEFT's own tests, of the version that is installed: taken from its source distribution, once for all workers.

`load` returns their modules. Without a package index the tests are skipped, and say so.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PACKAGE = "peft_own_tests"
STUBS = {"datasets": ("load_dataset",), "diffusers": ("StableDiffusionPipeline",)}  # imported there, not needed here


def folder() -> Path:
    """Return the folder of PEFT's tests: what PEFT_TESTS names, else one that is fetched and kept."""
    if given := os.environ.get("PEFT_TESTS"):
        return Path(given)
    release = version("peft")
    kept = Path(__file__).resolve().parents[2] / ".pytest_cache" / "peft_suite" / release
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            command += ["--dest", scratch, f"peft=={release}"]
            run = subprocess.run(command, check=False, capture_output=True, text=True)
            archives = list(Path(scratch).glob("*.tar.gz"))
            if run.returncode or not archives:
                pytest.skip(
                    f"the source of peft {release}, which has its tests, could not be fetched: {run.stderr[-300:]}",
                    allow_module_level=True,
                )
            with tarfile.open(archives[0]) as archive:
                archive.extractall(scratch, filter="data")
            try:
                (Path(scratch) / f"peft-{release}" / "tests").rename(kept)
            except OSError:  # another worker was faster
                if not kept.exists():
                    raise
    return kept


def load(name: str) -> ModuleType:
    """Import one of PEFT's test modules, with stand-ins for packages that it imports and no test here uses."""
    if PACKAGE not in sys.modules:
        source = folder()
        spec = spec_from_file_location(PACKAGE, source / "__init__.py", submodule_search_locations=[str(source)])
        assert spec is not None
        sys.modules[PACKAGE] = module_from_spec(spec)
    added = []
    for stub, names in STUBS.items():
        if stub not in sys.modules and importlib.util.find_spec(stub) is None:
            module: Any = ModuleType(stub)
            for each in names:
                setattr(module, each, type(each, (), {}))
            sys.modules[stub] = module
            added.append(stub)
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        for stub in added:
            del sys.modules[stub]
