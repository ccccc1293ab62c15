"""What is beside linear layers: trained tokens, and experts; and how the backward pass is told what to keep."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model

from structmat.peft import CDDConfig, CDDTunerLinear, from_lora, to_lora
from structmat.torch import adapt
from tests.peft import tiny
from tests.peft.tiny import adapted, logits
from tests.torch.common import assert_same_state, state

pytestmark = tiny.QUIET


def test_trained_tokens_are_saved_and_loaded(tmp_path: Path) -> None:
    model = adapted("llama", trainable_token_indices=[5, 7], init_weights=False)
    before = model.get_input_embeddings().original_module.weight.detach().clone()
    tiny.train("llama", model)
    after = model.get_input_embeddings().token_adapter.get_merged_weights(["default"])
    assert (after != before).any(1).nonzero().flatten().tolist() == [5, 7]
    model.save_pretrained(tmp_path / "cdd")
    loaded = PeftModel.from_pretrained(tiny.model("llama"), tmp_path / "cdd")
    torch.testing.assert_close(logits("llama", loaded), logits("llama", model))
    merged = PeftModel.from_pretrained(tiny.model("llama"), tmp_path / "cdd").merge_and_unload()
    torch.testing.assert_close(logits("llama", merged), logits("llama", model), atol=1e-5, rtol=1e-5)
    to_lora(model, error=0.0).save(tmp_path / "lora")
    lora = PeftModel.from_pretrained(tiny.model("llama"), tmp_path / "lora")
    torch.testing.assert_close(logits("llama", lora), logits("llama", model), atol=1e-4, rtol=1e-4)
    from_lora(lora, n_factors=5).save(tmp_path / "back")
    back = PeftModel.from_pretrained(tiny.model("llama"), tmp_path / "back")
    found = back.get_input_embeddings().token_adapter.get_merged_weights(["default"])
    torch.testing.assert_close(found, after)


def test_an_adapter_that_fails_leaves_no_trained_tokens() -> None:
    model = tiny.model("llama")
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match="Target modules"):
        get_peft_model(model, CDDConfig(target_modules=["nowhere"], trainable_token_indices=[5]))
    with pytest.raises(ValueError, match=r"was not found|not found in"):
        get_peft_model(model, CDDConfig(target_modules=["q_proj"], trainable_token_indices={"nowhere": [5]}))
    assert [name for name, _ in model.named_modules()] == names


def tied() -> Any:
    config = tiny.config("llama")
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("model", [lambda: tiny.model("llama"), tied])
def test_a_load_that_fails_leaves_no_tokens(model: Any, tmp_path: Path) -> None:
    for name, side in (("bad", 8), ("good", "min")):
        config = CDDConfig(
            target_modules=["q_proj"], block_size=side, trainable_token_indices=[7, 9], init_weights=False
        )
        saved = get_peft_model(model(), config)
        with torch.no_grad():
            saved.get_input_embeddings().token_adapter.trainable_tokens_delta["default"].add_(1.0)
        saved.save_pretrained(tmp_path / name)
    (tmp_path / "bad" / "adapter_model.safetensors").write_bytes(
        (tmp_path / "good" / "adapter_model.safetensors").read_bytes()
    )
    settings = json.loads((tmp_path / "bad" / "adapter_config.json").read_text())
    (tmp_path / "bad" / "adapter_config.json").write_text(json.dumps({**settings, "trainable_token_indices": [3, 4]}))
    first = get_peft_model(model(), CDDConfig(target_modules=["q_proj"], trainable_token_indices=[5]), "first")
    wrapper = first.get_input_embeddings()
    before = state(first)
    with pytest.raises(ValueError, match="made for another architecture or with other settings"):
        first.load_adapter(tmp_path / "bad", "second")
    assert_same_state(before, first)
    assert (wrapper._adapters, set(wrapper.token_adapter.token_indices)) == ({"first"}, {"first"})
    first.load_adapter(tmp_path / "good", "second")
    assert wrapper.token_adapter.token_indices["second"] == [7, 9]
    first.set_adapter("second")
    assert torch.equal(logits("llama", first), logits("llama", saved))


@pytest.mark.filterwarnings("ignore:Model .*`tie_word_embeddings=True`:UserWarning")
def test_a_head_with_trained_tokens_cannot_be_merged_into() -> None:
    config = CDDConfig(target_modules=["q_proj", "lm_head"], trainable_token_indices=[5], init_weights=False)
    model = get_peft_model(tied(), config)
    before = state(model)
    with pytest.raises(TypeError, match=r"trainable_token_indices.*, in lm_head"):
        model.merge_adapter()
    assert_same_state(before, model)


@pytest.mark.filterwarnings("ignore:Model .*`tie_word_embeddings=True`:UserWarning")
def test_a_head_with_trained_tokens_is_taken_back(tmp_path: Path) -> None:
    config = CDDConfig(target_modules=["q_proj", "lm_head"], trainable_token_indices=[5], init_weights=False)
    get_peft_model(tied(), config).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "block_size": 8}))
    model = tied()
    before = state(model)
    with pytest.raises(ValueError, match="made for another architecture or with other settings"):
        PeftModel.from_pretrained(model, tmp_path)
    assert_same_state(before, model)


def test_the_mode_reaches_every_layer_and_is_saved(tmp_path: Path) -> None:
    model = adapted("llama", mode="cache", init_weights=False)
    model.save_pretrained(tmp_path)
    for each in (model, PeftModel.from_pretrained(tiny.model("llama"), tmp_path)):
        layers = [m for m in each.modules() if isinstance(m, CDDTunerLinear)]
        assert {layer.cdd_adapters["default"].mode for layer in layers} == {"cache"}
    with pytest.raises(ValueError, match='CDDConfig: mode must be "recompute" or "cache", got \'fast\''):
        CDDConfig(mode="fast")  # type: ignore[arg-type]


def experts() -> Any:
    config = transformers.MixtralConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        vocab_size=8, num_local_experts=2, head_dim=8,
    )  # fmt: skip
    return transformers.MixtralModel(config)


def test_stacked_experts_are_named_in_a_warning() -> None:
    message = r"not adapted: layers\.0\.mlp\.experts\.gate_up_proj, layers\.0\.mlp\.experts\.down_proj"
    with pytest.warns(RuntimeWarning, match=message):
        adapt(experts())
    with pytest.warns(RuntimeWarning, match=message):
        get_peft_model(experts(), CDDConfig(target_modules="all-linear"))
    with pytest.warns(RuntimeWarning, match=r"not adapted: layers\.0\.mlp\.experts\.down_proj$"):
        adapt(experts(), r".*(q|down)_proj")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*experts", RuntimeWarning)
        adapt(experts(), ["q_proj"])
        get_peft_model(experts(), CDDConfig(target_modules=["q_proj"]))
