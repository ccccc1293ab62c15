"""Export as LoRA, for programs that know nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("peft")

import torch

from tests.ecosystem.programs import causal_outputs, programs, run

TOOLS = ("gguf", "peft", "torch", "transformers")


def test_the_program_of_the_guide(base: Path) -> None:
    outputs, plain = causal_outputs(base).values()
    first, second = programs("Serving as LoRA")
    losses, errors, expected = run(first, base, f"(losses, [max(c) for c in curves.values()], {outputs})")
    assert losses[-1] < losses[0]
    assert errors == [1.0] * 4
    loaded, names = run(second, base, f"({outputs}, __import__('sys').modules.keys() & {{'structmat'}})")
    assert not names
    torch.testing.assert_close(loaded, expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(loaded, plain, atol=1e-2)


def test_a_file_of_gguf(tmp_path: Path) -> None:
    from tests.peft.test_serving import test_a_file_of_gguf_holds_every_change

    test_a_file_of_gguf_holds_every_change(tmp_path)
