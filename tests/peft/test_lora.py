"""LoRA adapters turned into CDD ones, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from peft import PeftModel, get_peft_model

from structmat.peft import (
    CDDConfig,
    CDDTunerLinear,
    FittedAdapter,
    from_lora,
    to_lora,
)
from tests.peft import tiny
from tests.peft.tiny import logits

pytestmark = tiny.QUIET


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_from_lora(kind: str, tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=1, target_modules=tiny.TARGETS[kind], init_lora_weights=False, fan_in_fan_out=kind == "gpt2"
    )
    lora = get_peft_model(tiny.model(kind), config)
    expected = logits(kind, lora)
    adapter = from_lora(lora)
    assert adapter.error < 1e-3
    adapter.save(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model(kind), tmp_path)
    torch.testing.assert_close(logits(kind, loaded), expected, atol=2e-3, rtol=2e-3)
    with pytest.raises(ValueError, match="'nobody' is no adapter here"):
        from_lora(lora, "nobody")


def test_from_lora_refuses_what_does_not_add() -> None:
    model = get_peft_model(tiny.model("llama"), peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]))
    with pytest.raises(TypeError, match="does not add to a linear layer"):
        from_lora(model)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_to_lora(kind: str, tmp_path: Path) -> None:
    targets = ["q_proj"] if kind == "llama" else ["c_attn"]
    model = get_peft_model(tiny.model(kind), CDDConfig(target_modules=targets, init_weights=False))
    whole = to_lora(model, 16)
    assert isinstance(whole, FittedAdapter)
    assert whole.error < 1e-5
    half = to_lora(model, 8)
    for layer, module in zip(half.layers, (m for m in model.modules() if isinstance(m, CDDTunerLinear)), strict=True):
        values = torch.linalg.svdvals(module.cdd_adapters["default"].dense())
        assert layer.error == pytest.approx(float((values[8:].square().sum() / values.square().sum()).sqrt()), rel=1e-4)
    whole.save(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model(kind), tmp_path)
    torch.testing.assert_close(logits(kind, loaded), logits(kind, model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("option", ["use_dora", "lora_bias", "bias"])
def test_from_lora_refuses_what_would_be_lost(option: str) -> None:
    config = peft.LoraConfig(r=1, target_modules=["query"], **{option: "lora_only" if option == "bias" else True})
    model = get_peft_model(tiny.model("bert"), config)
    with pytest.raises(TypeError, match="does not add to a linear layer"):
        from_lora(model)


def test_a_rank_by_share_has_one_scale_for_every_reader(tmp_path: Path) -> None:
    """Some readers know `lora_alpha` and the rank of the matrices, but no patterns."""
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"], init_weights=False))
    lora = to_lora(model, 0.7)
    assert not lora.config.alpha_pattern
    lora.save(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
    ranks = []
    for (_, ours), (name, theirs) in zip(
        ((n, m) for n, m in model.named_modules() if isinstance(m, CDDTunerLinear)),
        ((n, m) for n, m in loaded.named_modules() if hasattr(m, "lora_A")),
        strict=True,
    ):
        A, B = (lora.state_dict[f"{name}.lora_{side}.weight"] for side in "AB")
        ranks.append(len(A))
        scaled = lora.config.lora_alpha / len(A) * B @ A
        torch.testing.assert_close(scaled, theirs.get_delta_weight("default"))
        change = ours.get_delta_weight("default")
        error = next(layer.error for layer in lora.layers if name.endswith(layer.name))
        assert float((scaled - change).norm() / change.norm()) == pytest.approx(error, rel=1e-4)
    assert lora.config.r == max(ranks)


@pytest.mark.parametrize(
    ("rank", "name", "error", "message"),
    [
        (2, "nobody", ValueError, "to_lora: adapter_name 'nobody' is no CDD adapter here"),
        (-1, "default", ValueError, "to_lora: rank must be from 1 to 16 for bert.encoder.layer.0.*query, got -1"),
        (0, "default", ValueError, "to_lora: rank must be from 1 to 16"),
        (17, "default", ValueError, "to_lora: rank must be from 1 to 16 for bert.encoder.layer.0.*query, got 17"),
        (0.0, "default", ValueError, "to_lora: rank as a share must be"),
        (1.5, "default", ValueError, "to_lora: rank as a share must be"),
        (float("nan"), "default", ValueError, "to_lora: rank as a share must be"),
        ("8", "default", TypeError, "to_lora: rank must be an integer"),
        (True, "default", TypeError, "to_lora: rank must be an integer"),
    ],
)
def test_to_lora_names_what_is_wrong(rank: Any, name: str, error: type[Exception], message: str) -> None:
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"]))
    with pytest.raises(error, match=message):
        to_lora(model, rank, name)


def test_to_lora_of_one_of_two_adapters_on_other_modules(tmp_path: Path) -> None:
    config = CDDConfig(target_modules=["query"], init_weights=False, task_type="SEQ_CLS")
    model = get_peft_model(tiny.model("bert"), config)
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["default"].weight.add_(1.0)
    model.add_adapter("other", CDDConfig(target_modules=["value"], init_weights=False, task_type="SEQ_CLS"))
    lora = to_lora(model, 16)
    assert lora.config.task_type == "SEQ_CLS"
    lora.save(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
    torch.testing.assert_close(logits("bert", loaded), logits("bert", model), atol=1e-4, rtol=1e-4)
    assert {layer.name.rpartition(".")[2] for layer in to_lora(model, 2, "other").layers} == {"value"}


def test_a_share_gives_the_smallest_rank_for_an_error() -> None:
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"], init_weights=False))
    lora = to_lora(model, 1 - 0.3**2)
    for layer in lora.layers:
        assert layer.svd_rank > 1
        assert (
            layer.error
            <= 0.3
            < next(one.error for one in to_lora(model, layer.svd_rank - 1).layers if one.name == layer.name)
        )
    assert {layer.svd_rank for layer in to_lora(model, 1.0).layers} == {16}
