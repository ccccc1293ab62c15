"""Files for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import torch

from tests.ecosystem.programs import programs, run

TOOLS = ("onnxruntime", "onnxscript")


def test_the_program_of_the_guide(tmp_path: Path) -> None:
    first, second = programs("ONNX Runtime")
    x = "torch.linspace(-2, 2, 48).reshape(3, 16)"
    losses, expected = run(first, tmp_path, f"(losses, model({x}).detach())")
    assert losses[-1] < losses[0]
    found = run(second, tmp_path, f"torch.tensor(session.run(None, {{session.get_inputs()[0].name: {x}.numpy()}})[0])")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
