"""Weighted sums of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
from peft import PeftModel, get_peft_model
from torch import nn

from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.peft.tiny import adapted
from tests.torch.common import assert_same_state, state

pytestmark = tiny.QUIET


def test_weighted_combination() -> None:
    model = adapted("llama", init_weights=False, target_modules=["q_proj"])
    model.add_adapter("other", CDDConfig(target_modules=["q_proj"], init_weights=False, alpha=2.0))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    with pytest.raises(ValueError, match="no sum that is a product of 3 factors"):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum")
    assert set(model.peft_config) == {"default", "other"}
    assert set(layer.cdd_adapters) == {"default", "other"}
    model.add_weighted_adapter(["other"], [-0.5], "scaled")
    torch.testing.assert_close(layer.get_delta_weight("scaled"), -0.5 * layer.get_delta_weight("other"))
    with torch.no_grad():  # two adapters that share the outer diagonals
        for k in (0, 2):
            layer.cdd_adapters["other"].factors[k].copy_(layer.cdd_adapters["default"].factors[k])
        second = model.base_model.model.model.layers[1].self_attn.q_proj
        for k in (0, 2):
            second.cdd_adapters["other"].factors[k].copy_(second.cdd_adapters["default"].factors[k])
    model.add_weighted_adapter(["default", "other"], [0.3, 2.0], "mean")
    expected = 0.3 * layer.get_delta_weight("default") + 2.0 * layer.get_delta_weight("other")
    torch.testing.assert_close(layer.get_delta_weight("mean"), expected)
    model.add_weighted_adapter(["default", "scaled"], [1.0, 1.0], "fitted", combination_type="fit")
    assert 0 < layer.cdd_adapters["fitted"].fit.error < 1


def test_a_sum_that_fails_leaves_no_name_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CDDConfig(target_modules=["0"], init_weights=False)
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), config, "first")

    def failing(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(model.base_model), "inject_adapter", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            model.add_weighted_adapter(["first"], [2.0], "sum")
    assert set(model.peft_config) == {"first"}
    model.add_weighted_adapter(["first"], [2.0], "sum")
    assert set(model.peft_config) == {"first", "sum"}


def test_patterns_of_layers_whose_names_end_alike() -> None:
    model = nn.Module()
    model.fc, model.block = nn.Linear(8, 8), nn.ModuleDict({"fc": nn.Linear(8, 8)})
    options = {"block_size_pattern": {"block.fc": 4}, "n_factors_pattern": {"block.fc": 5}}
    adapted = get_peft_model(model, CDDConfig(target_modules=["fc"], init_weights=False, **options), "first")
    adapted.add_weighted_adapter(["first"], [-2.0], "sum")
    for layer in (model.fc, model.block["fc"]):
        torch.testing.assert_close(layer.get_delta_weight("sum"), -2 * layer.get_delta_weight("first"))


@pytest.mark.parametrize("cast", [True, False])
def test_sums_have_the_precision_of_their_terms(cast: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8)).bfloat16()
    config = CDDConfig(target_modules=["0"], init_weights=False)
    adapted = get_peft_model(model, config, "first", autocast_adapter_dtype=cast)
    adapted.add_weighted_adapter(["first"], [-1 / 3], "third")
    first, third = (model[0].cdd_adapters[name] for name in ("first", "third"))
    dtypes = {factor.dtype for factor in third.factors}
    assert dtypes == {factor.dtype for factor in first.factors} == {torch.float32 if cast else torch.bfloat16}
    tolerance = 1e-6 if cast else 1e-2
    torch.testing.assert_close(-3 * third.dense(), first.dense(), rtol=tolerance, atol=tolerance)
    assert torch.isfinite(adapted(torch.ones(1, 8, dtype=torch.bfloat16))).all()


SAVED_PARTS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"modules_to_save": ["classifier"]}),
    ("bert", {"task_type": "SEQ_CLS"}),
    ("bert", {"trainable_token_indices": {"word_embeddings": [4, 9]}}),
    ("llama", {"trainable_token_indices": [4, 9], "modules_to_save": ["lm_head"]}),
]


@pytest.mark.parametrize(("kind", "settings"), SAVED_PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weighted_copy_has_the_saved_modules_and_tokens(
    kind: str, settings: dict[str, Any], dtype: Any, tmp_path: Path
) -> None:
    config = CDDConfig(target_modules=tiny.TARGETS[kind], init_weights=False, **settings)
    model = get_peft_model(tiny.model(kind, dtype), config, "first")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.rand_like(parameter))
    expected = tiny.logits(kind, model)
    model.add_weighted_adapter(["first"], [1.0], "same")
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if ".same" in name)
    assert torch.equal(tiny.logits(kind, model), expected)
    model.set_adapter("same")
    assert torch.equal(tiny.logits(kind, model), expected)
    model.save_pretrained(tmp_path, selected_adapters=["same"])
    loaded = PeftModel.from_pretrained(tiny.model(kind, dtype), tmp_path / "same")
    assert torch.equal(tiny.logits(kind, loaded), expected)


@pytest.mark.parametrize(("kind", "settings"), SAVED_PARTS)
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
def test_no_sum_of_saved_modules_or_tokens(kind: str, settings: dict[str, Any], second: bool, swapped: bool) -> None:
    options: dict[str, Any] = {"target_modules": ["query", "q_proj"], "init_weights": False}
    model = get_peft_model(tiny.model(kind), CDDConfig(**options, **settings), "one")
    alike = settings if second else {key: value for key, value in settings.items() if key == "task_type"}
    model.add_adapter("two", CDDConfig(**options, **alike))
    before = state(model)
    names = ["two", "one"] if swapped else ["one", "two"]
    with pytest.raises(ValueError, match=r"adapters include .*, whose modules_to_save or trained tokens have no sum"):
        model.add_weighted_adapter(names, [1.0, 1.0], "sum", "fit")
    assert_same_state(before, model)
    assert set(model.peft_config) == {"one", "two"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["default"], [1.0], "default"), "already exists"),
        ((["default"], [1.0, 2.0], "new"), "one for each of .*, got 2"),
        ((["nobody"], [1.0], "new"), "'nobody' does not exist"),
        ((["default"], [1.0], "new", "svd"), '"exact" or "fit"'),
    ],
)
def test_bad_weighted_combination(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted("llama").add_weighted_adapter(*arguments)
