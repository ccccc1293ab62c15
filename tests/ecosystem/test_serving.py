"""Export as LoRA, for programs that know nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("peft")

import torch

from tests.ecosystem.programs import causal_outputs, programs, run

TOOLS = ("peft", "torch", "transformers")


def test_the_program_of_the_guide(base: Path) -> None:
    outputs, plain = causal_outputs(base).values()
    first, second = programs("Serving as LoRA")
    losses, expected = run(first, base, f"(losses, {outputs})")
    assert losses[-1] < losses[0]
    loaded, names = run(second, base, f"({outputs}, __import__('sys').modules.keys() & {{'structmat'}})")
    assert not names
    torch.testing.assert_close(loaded, expected, atol=1e-2, rtol=1e-2)
    assert not torch.allclose(loaded, plain, atol=1e-2)
