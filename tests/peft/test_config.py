"""Settings: patterns, defaults, errors."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from structmat.peft import (
    CDDConfig,
    CDDTunerLinear,
)
from tests.peft import tiny
from tests.peft.tiny import adapted

pytestmark = tiny.QUIET


def test_default_targets_are_those_of_lora() -> None:
    ours = get_peft_model(tiny.model("gpt2"), CDDConfig())
    theirs = get_peft_model(tiny.model("gpt2"), peft.LoraConfig(fan_in_fan_out=True))
    assert set(ours.targeted_module_names) == set(theirs.targeted_module_names)


def test_parameters_are_five_n_with_five_factors() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(12, 12)), CDDConfig(target_modules=["0"], n_factors=5))
    assert model.get_nb_trainable_parameters()[0] == 5 * 12


def test_patterns_layers_and_exclusion() -> None:
    model = adapted(
        "llama",
        target_modules=["q_proj", "v_proj"],
        exclude_modules=["v_proj"],
        layers_to_transform=[1],
        block_size_pattern={"q_proj": 5},
        alpha_pattern={"q_proj": 0.5},
    )
    found = {name: m for name, m in model.named_modules() if isinstance(m, CDDTunerLinear)}
    assert [name.removeprefix("base_model.model.") for name in found] == ["model.layers.1.self_attn.q_proj"]
    (layer,) = found.values()
    assert (layer.cdd_adapters["default"].block_size, layer.cdd_adapters["default"].alpha) == (5, 0.5)
    config = CDDConfig(target_modules=["q_proj"], block_size_pattern={"nowhere": 5})
    with pytest.warns(RuntimeWarning, match="block_size_pattern keys did not match") as seen:
        get_peft_model(tiny.model("llama"), config)
    ours = [warning.filename for warning in seen if warning.category is RuntimeWarning]
    assert ours == [__file__]  # of the caller, through PEFT


def test_factors_by_layer_and_dropout_are_saved(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_factors_pattern": {"layers.1.self_attn.q_proj": 5, "v_proj": 7}, "dropout": 0.25}
    model = adapted("llama", target_modules=["q_proj", "v_proj"], init_weights=False, **settings)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model("llama"), tmp_path, is_trainable=True)
    layers = [layer.cdd_adapters["default"] for layer in loaded.modules() if isinstance(layer, CDDTunerLinear)]
    assert [layer.n_factors for layer in layers] == [3, 7, 5, 7]
    assert {layer.dropout for layer in layers} == {0.25}
    assert torch.equal(tiny.logits("llama", loaded), tiny.logits("llama", model))
    loaded.train()
    assert not torch.equal(loaded(**tiny.inputs("llama")).logits, loaded(**tiny.inputs("llama")).logits)
    with pytest.warns(RuntimeWarning, match="n_factors_pattern keys did not match"):
        adapted("llama", n_factors_pattern={"nowhere": 5})
    with pytest.warns(RuntimeWarning, match=r"alpha_pattern keys were ignored, since earlier .*: \['layers.0.self"):
        adapted("llama", alpha_pattern={"q_proj": 5, "layers.0.self_attn.q_proj": 7})


def test_a_weighted_sum_keeps_the_factors_of_each_layer() -> None:
    model = adapted("llama", target_modules=["q_proj", "v_proj"], init_weights=False, n_factors_pattern={"v_proj": 5})
    model.add_weighted_adapter(["default"], [2.0], "twice")
    for layer in model.modules():
        if isinstance(layer, CDDTunerLinear):
            torch.testing.assert_close(layer.get_delta_weight("twice"), 2 * layer.get_delta_weight("default"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rank": 8}, TypeError, "unexpected keyword argument 'rank'"),
        ({"block_size": 0}, ValueError, "CDDConfig: block_size"),
        ({"block_size": 2.5}, TypeError, "CDDConfig: block_size"),
        ({"block_size_pattern": {"q_proj": -1}}, ValueError, r"block_size_pattern\['q_proj'\]"),
        ({"n_factors_pattern": {"q_proj": 4}}, ValueError, r"n_factors_pattern\['q_proj'\] must be odd"),
        ({"n_factors_pattern": ["q_proj"]}, TypeError, "n_factors_pattern must be a dict"),
        ({"alpha": "a"}, TypeError, "CDDConfig: alpha must be a number, got 'a'"),
        ({"alpha": None}, TypeError, "CDDConfig: alpha must be a number"),
        ({"alpha": float("nan")}, ValueError, "CDDConfig: alpha must be finite"),
        ({"alpha_pattern": {"(q": 1.0}}, ValueError, r"alpha_pattern has '\(q', no regular expression"),
        ({"n_factors_pattern": {3: 5}}, ValueError, "n_factors_pattern has 3, no regular expression"),
        ({"alpha_pattern": {"q_proj": "a"}}, TypeError, r"alpha_pattern\['q_proj'\] must be a number"),
        ({"dropout": 1}, ValueError, "CDDConfig: dropout must be at least 0 and less than 1"),
        ({"dropout": "a"}, TypeError, "CDDConfig: dropout must be a number"),
        ({"n_factors": 4}, ValueError, "n_factors must be odd and at least 3, got 4"),
        ({"init_weights": "pissa"}, ValueError, "init_weights must be True, False"),
        ({"bias": "lora_only"}, ValueError, "bias must be one of none, all, cdd_only"),
        ({"target_modules": "*q"}, ValueError, "is no regular expression"),
        ({"target_modules": "q", "layers_to_transform": 0}, ValueError, "`layers_to_transform` cannot be used"),
        ({"target_modules": ["q"], "layers_pattern": "h"}, ValueError, "`layers_to_transform` must also be specified"),
        ({"task_type": "MAGIC"}, ValueError, "Invalid task type"),
        ({"modules_to_save": "classifier"}, TypeError, r"modules_to_save must be a list of str, got 'classifier'"),
        ({"modules_to_save": [5]}, TypeError, r"modules_to_save must be a list of str, got \[5\]"),
        ({"target_modules": 5}, TypeError, "target_modules must be a str or a list of str, got 5"),
        ({"target_modules": ["q", 5]}, TypeError, "target_modules must be a str or a list of str"),
        ({"target_modules": b"q"}, TypeError, "target_modules must be a str or a list of str"),
        ({"exclude_modules": 5}, TypeError, "exclude_modules must be a str or a list of str, got 5"),
        (
            {"target_modules": ["q"], "layers_to_transform": "1"},
            TypeError,
            "layers_to_transform must be an int or a list",
        ),
        (
            {"target_modules": ["q"], "layers_to_transform": [1.5]},
            TypeError,
            "layers_to_transform must be an int or a list",
        ),
        ({"layers_to_transform": 1, "layers_pattern": 5}, TypeError, "layers_pattern must be a str or a list of str"),
        (
            {"trainable_token_indices": "a"},
            TypeError,
            "trainable_token_indices must be a list of int or a dict of those",
        ),
        ({"trainable_token_indices": 3}, TypeError, "trainable_token_indices must be a list of int or a dict of those"),
        ({"trainable_token_indices": {"a": 3}}, TypeError, "trainable_token_indices must be a list of int or a dict"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CDDConfig(**settings)


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
@pytest.mark.parametrize("option", ["target_modules", "exclude_modules", "modules_to_save", "layers_pattern"])
def test_lists_of_names_are_of_any_kind(option: str, kind: Any) -> None:
    options: dict[str, Any] = {"layers_to_transform": kind([0, 1]), option: kind(["q_proj", "lm_head"])}
    assert set(getattr(CDDConfig(**options), option)) == {"q_proj", "lm_head"}


def test_options_of_lora_are_answered_with_their_counterparts() -> None:
    with pytest.raises(TypeError, match="CDDConfig: got an unexpected keyword argument of LoRA") as raised:
        CDDConfig(r=8, lora_alpha=16, lora_dropout=0.1, use_rslora=True, use_dora=True)  # type: ignore[call-arg]
    for text in (
        "r (there is no rank: n_factors and block_size", "lora_alpha (here alpha,", "lora_dropout (here dropout)",
        "use_rslora (not needed", "use_dora (nothing like it here)",
    ):  # fmt: skip
        assert text in str(raised.value)


def test_it_is_a_dataclass_like_others() -> None:
    config = CDDConfig(n_factors=5, alpha=2.0)
    names = [each.name for each in dataclasses.fields(CDDConfig)]
    assert list(inspect.signature(CDDConfig).parameters) == names
    assert dataclasses.replace(config, alpha=1.0) == CDDConfig(n_factors=5)
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config


def test_layers_have_the_defaults_of_the_configuration() -> None:
    defaults = {name: each.default for name, each in inspect.signature(CDDTunerLinear.update_layer).parameters.items()}
    shared = {field.name: field.default for field in dataclasses.fields(CDDConfig) if field.name in defaults}
    assert {"n_factors", "block_size", "alpha"} <= set(shared)
    assert shared == {name: defaults[name] for name in shared}


def test_errors_name_the_module() -> None:
    with pytest.raises(ValueError, match=r"block_size must be at most .*, in model\.layers\.0\.self_attn\.q_proj"):
        adapted("llama", target_modules=["q_proj"], block_size=1000)
    model = adapted("llama", target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"block_size must be at most .*, in model\.layers\.1\.self_attn\.q_proj"):
        model.add_adapter("b", CDDConfig(target_modules=["q_proj"], block_size_pattern={"layers.1.*": 1000}))


def test_unknown_options_of_a_newer_file_are_dropped_with_a_warning(tmp_path: Path) -> None:
    get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "from_the_future": 1}))
    with pytest.warns(UserWarning, match="Unexpected keyword arguments"):
        assert isinstance(PeftConfig.from_pretrained(tmp_path), CDDConfig)
