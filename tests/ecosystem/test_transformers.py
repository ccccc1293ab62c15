"""Trainer of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

from tests.ecosystem.programs import LOGGED, causal_outputs, check

TOOLS = ("peft", "torch", "transformers")


def test_the_program_of_the_guide(base: Path) -> None:
    check(
        "transformers",
        base,
        **causal_outputs(base),
        losses=LOGGED,
    )
