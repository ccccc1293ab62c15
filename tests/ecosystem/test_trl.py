"""SFTTrainer of TRL."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.ecosystem.programs import LOGGED, causal_outputs, check

TOOLS = ("datasets", "trl")


def test_the_program_of_the_guide(base: Path) -> None:
    check(
        "TRL",
        base,
        **causal_outputs(base),
        losses=LOGGED,
    )
