"""Weights quantised by torchao."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torchao")
pytest.importorskip("peft")

from tests.ecosystem.programs import causal_outputs, check

TOOLS = ("torchao",)


def test_the_program_of_the_guide(base: Path) -> None:
    kinds = "{type(p).__name__ for p in model.parameters()}"
    losses = f"losses if 'Int8Tensor' in {kinds} else {kinds}"
    check("Quantised bases", base, **causal_outputs(base), losses=losses)
