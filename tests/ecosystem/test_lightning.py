"""Trainer of Lightning, and its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

lightning = pytest.importorskip("lightning")
pytest.importorskip("transformers")

import torch

from structmat.torch import adapt
from tests.ecosystem.programs import causal_outputs, check

TOOLS = ("lightning",)


def test_the_program_of_the_guide(base: Path) -> None:
    check("Lightning", base, **causal_outputs(base), losses="tuning.losses")


@pytest.mark.parametrize("dynamo", [False, True])
def test_its_export_for_onnx_runtime(dynamo: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    class Tuned(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.GELU(), torch.nn.Linear(16, 16))
            adapt(self.model, init="normal")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

    tuned, x = Tuned(), torch.linspace(-2, 2, 36).reshape(3, 12)
    axes: dict[str, Any] = {"input_names": ["x"], "dynamo": dynamo}
    axes |= {"dynamic_shapes": ({0: torch.export.Dim("rows")},)} if dynamo else {"dynamic_axes": {"x": {0: "rows"}}}
    tuned.to_onnx(tmp_path / "model.onnx", (x,), **axes)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for rows in (x, torch.cat([x, -x])):
        (found,) = session.run(None, {"x": rows.numpy()})
        expected = tuned.eval()(rows).detach()
        assert not torch.allclose(expected, tuned.model[2].base(torch.nn.functional.gelu(tuned.model[0].base(rows))))
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)
