"""Trainer of Lightning."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("transformers")

from tests.ecosystem.programs import causal_outputs, check

TOOLS = ("lightning",)


def test_the_program_of_the_guide(base: Path) -> None:
    check("Lightning", base, **causal_outputs(base), losses="tuning.losses")
