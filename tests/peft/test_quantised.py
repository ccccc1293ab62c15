"""Quantised bases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import get_peft_model

from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.peft.tiny import logits, train

pytestmark = tiny.QUIET


def quantised(kind: str) -> Any:
    base = tiny.model("llama")
    if kind == "torchao":
        torchao = pytest.importorskip("torchao", reason="torchao is not installed: its int8 layers are not tested")
        torchao.quantize_(base, torchao.quantization.Int8WeightOnlyConfig())
        return base
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: its layers are not tested")
    for layer in base.model.layers:
        old = layer.self_attn.q_proj
        if kind == "bnb8":
            new = bnb.nn.Linear8bitLt(16, 16, bias=False, has_fp16_weights=False)
        else:
            new = bnb.nn.Linear4bit(16, 16, bias=False, compute_dtype=torch.float32)
        new.load_state_dict(old.state_dict())
        layer.self_attn.q_proj = new.to("cpu")
    return base


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["torchao", "bnb8", "bnb4"])
def test_quantised_bases(kind: str) -> None:
    def answer(model: Any) -> torch.Tensor:  # in training mode: 4-bit layers of other sizes than these pack themselves
        with torch.no_grad():
            return model.train()(**tiny.inputs("llama")).logits

    base = quantised(kind)
    expected = answer(base)
    model = get_peft_model(base, CDDConfig(target_modules=["q_proj"]))
    torch.testing.assert_close(answer(model), expected)
    train("llama", model, steps=3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert len(parameters) == 6
    assert all(p.grad.abs().sum() > 0 for p in parameters)
    trained = answer(model)
    assert not torch.allclose(trained, expected, atol=1e-4)
    if kind == "bnb8":
        model.merge_adapter()
        torch.testing.assert_close(answer(model), trained, atol=0.02, rtol=0.02)
        model.base_model.model.model.layers[0].self_attn.q_proj.set_scale("default", 100.0)  # not as it was merged
        model.unmerge_adapter()
        with model.disable_adapter():
            torch.testing.assert_close(answer(model), expected, atol=0.02, rtol=0.02)
    elif kind == "torchao":
        with pytest.raises(TypeError, match="Dequantization is not supported for torchao layers"):
            model.merge_adapter()


@pytest.mark.filterwarnings("default")
def test_quantised_by_transformers_merges(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao", reason="torchao is not installed: its int8 layers are not tested")
    tiny.model("llama").save_pretrained(tmp_path)
    settings = transformers.TorchAoConfig(torchao.quantization.Int8WeightOnlyConfig())
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings)
    model = get_peft_model(base, CDDConfig(target_modules=["q_proj"], init_weights=False))
    expected = logits("llama", model)
    model.merge_adapter()
    torch.testing.assert_close(logits("llama", model), expected, atol=0.02, rtol=0.02)
