"""Accelerator of accelerate."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

from tests.ecosystem.programs import causal_outputs, check

TOOLS = ("accelerate",)


def test_the_program_of_the_guide(base: Path) -> None:
    check("accelerate", base, **causal_outputs(base), losses="losses")
