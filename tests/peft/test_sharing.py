"""Circulants that the same layers of all blocks share."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from torch import nn

from structmat.peft import CDDConfig, from_weights
from structmat.peft._tuner_layer import CDDTunerLinear
from structmat.torch import CDDAdapter, param_groups, share_circulants
from tests.peft import tiny
from tests.torch.common import assert_same_state, state

pytestmark = tiny.QUIET
TARGETS = ["intermediate.dense", "query"]
ONE_BLOCK = (16 + 24 + 32) + (16 + 16 + 16)  # 16 x 16, and 24 x 16 with two blocks of 16


def adapters(model: nn.Module, name: str = "default") -> list[CDDAdapter]:
    return [layer.cdd_adapters[name] for layer in model.modules() if isinstance(layer, CDDTunerLinear)]


def circulants(model: nn.Module, name: str = "default") -> int:
    return len({id(adapter.factors[1]) for adapter in adapters(model, name)})


@pytest.fixture
def model() -> Any:
    config = CDDConfig(target_modules=TARGETS, share_circulants=True, init_weights=False)
    return get_peft_model(tiny.model("bert"), config)


def test_parameters(model: Any) -> None:
    assert (len(adapters(model)), circulants(model)) == (4, 2)
    assert model.get_nb_trainable_parameters()[0] == 2 * ONE_BLOCK - 32 - 16
    assert [len(group["params"]) for group in param_groups(model, lr=1.0)] == [8, 2]


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saved_and_loaded(model: Any, tmp_path: Path, low_cpu_mem_usage: bool) -> None:
    model.save_pretrained(tmp_path)
    settings: dict[str, Any] = {"low_cpu_mem_usage": low_cpu_mem_usage, "is_trainable": True}
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path, **settings)
    assert loaded.peft_config["default"].share_circulants is True
    assert circulants(loaded) == 2
    assert loaded.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
    assert torch.equal(tiny.logits("bert", loaded), tiny.logits("bert", model))


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("inner", [None, LoraConfig(target_modules=["key"])])
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_adapters_that_are_injected(model: Any, low_cpu_mem_usage: bool, inner: Any) -> None:
    base = tiny.model("bert")
    if inner:
        base = inject_adapter_in_model(inner, base, "inner")
    config = CDDConfig(target_modules=TARGETS, share_circulants=True)
    injected = inject_adapter_in_model(config, base, low_cpu_mem_usage=low_cpu_mem_usage)
    given = get_peft_model_state_dict(model)
    set_peft_model_state_dict(injected, given, low_cpu_mem_usage=low_cpu_mem_usage)
    assert circulants(injected) == 2
    assert torch.equal(tiny.logits("bert", injected), tiny.logits("bert", model))
    before = state(injected)
    key = next(key for key in given if key.endswith("1.attention.self.query.cdd_adapters.factors.1"))
    with pytest.raises(ValueError, match=r"set share_circulants to false in adapter_config\.json"):
        set_peft_model_state_dict(injected, {**given, key: given[key] + 1})
    assert_same_state(before, injected)


def unpickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("duplicate", [lambda model: model, copy.deepcopy, unpickled])
def test_nothing_of_it_stays_behind(model: Any, duplicate: Any) -> None:
    other = duplicate(model)
    other.load_state_dict({key: value.clone() for key, value in other.state_dict().items()}, assign=True)
    assert circulants(other) == circulants(model) == 2
    merged = other.merge_and_unload()
    hooks = [hook for name, hook in vars(merged).items() if "load_state_dict" in name]
    assert hooks
    assert not any(hooks)


def test_adapters_that_transformers_loads(model: Any, tmp_path: Path) -> None:
    """It puts a parameter of its own into each layer; the guide says how to share them again."""
    model.save_pretrained(tmp_path)
    loaded = tiny.model("bert")
    loaded.load_adapter(str(tmp_path), is_trainable=True)
    found = {path: m.cdd_adapters["default"] for path, m in loaded.named_modules() if isinstance(m, CDDTunerLinear)}
    assert share_circulants(found) == 2
    assert circulants(loaded) == 2
    assert torch.equal(tiny.logits("bert", loaded), tiny.logits("bert", model))


def test_state_dicts_that_are_assigned(model: Any) -> None:
    expected = tiny.logits("bert", model)
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
    assert circulants(model) == 2
    assert torch.equal(tiny.logits("bert", model), expected)


def test_it_stays_shared_in_training(model: Any) -> None:
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.1))
    before = tiny.logits("bert", model)
    model(**tiny.inputs("bert")).logits.square().sum().backward()
    optimizer.step()
    trained = tiny.logits("bert", model)
    assert circulants(model) == 2
    assert not torch.allclose(trained, before)
    merged = model.merge_and_unload()
    torch.testing.assert_close(tiny.logits("bert", merged), trained, atol=1e-5, rtol=1e-4)


def test_adapters_beside_it_share_nothing_with_it(model: Any) -> None:
    model.add_adapter("second", CDDConfig(target_modules=TARGETS, share_circulants=True))
    model.add_adapter("third", CDDConfig(target_modules=TARGETS))
    assert [circulants(model, name) for name in ("default", "second", "third")] == [2, 2, 4]
    assert adapters(model)[0].factors[1] is not adapters(model, "second")[0].factors[1]
    model.add_weighted_adapter(["default"], [-1.0], "negated")
    assert model.peft_config["negated"].share_circulants is False
    model.base_model.set_adapter(["default", "negated"])
    with model.disable_adapter():
        expected = tiny.logits("bert", model)
    torch.testing.assert_close(tiny.logits("bert", model), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_bases_of_half_precision(tmp_path: Path, low_cpu_mem_usage: bool) -> None:
    """PEFT gives each of their layers new parameters in single precision."""
    config = CDDConfig(target_modules=TARGETS, share_circulants=True, init_weights=False)
    model = get_peft_model(tiny.model("bert").bfloat16(), config)
    assert (circulants(model), adapters(model)[0].factors[1].dtype) == (2, torch.float32)
    model.add_adapter("second", CDDConfig(target_modules=TARGETS, share_circulants=True))
    assert circulants(model, "second") == 2
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    settings: dict[str, Any] = {"low_cpu_mem_usage": low_cpu_mem_usage, "is_trainable": True}
    loaded = PeftModel.from_pretrained(tiny.model("bert").bfloat16(), tmp_path, **settings)
    assert circulants(loaded) == 2
    if not low_cpu_mem_usage:  # which rounds vectors to the precision of the base
        assert torch.equal(tiny.logits("bert", loaded), tiny.logits("bert", model))


def test_other_values_for_what_the_model_shares(model: Any, tmp_path: Path) -> None:
    apart = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=TARGETS, init_weights=False))
    before = state(model)
    with pytest.raises(ValueError, match=r"CDDModel: got other values for .*factors\.1 than for .*factors\.1, which"):
        set_peft_model_state_dict(model, get_peft_model_state_dict(apart))
    assert_same_state(before, model)
    set_peft_model_state_dict(apart, get_peft_model_state_dict(model))
    assert torch.equal(tiny.logits("bert", apart), tiny.logits("bert", model))


def test_fits_refuse_it() -> None:
    plain = tiny.model("bert")
    with pytest.raises(ValueError, match="CDDConfig: share_circulants must be False here: each layer is fitted by"):
        from_weights(plain, tiny.model("bert"), target_modules=TARGETS, share_circulants=True)


def test_nothing_to_share() -> None:
    plain = tiny.model("bert")
    before = state(plain)
    with pytest.raises(ValueError, match="CDDConfig: share_circulants finds no two modules of one kind"):
        get_peft_model(plain, CDDConfig(target_modules=["0.attention.self.query"], share_circulants=True))
    assert_same_state(before, plain)


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"share_circulants": "yes"}, TypeError, "share_circulants must be True or False, got 'yes'"),
    ({"share_circulants": True, "init_weights": "gradient"}, ValueError, "share_circulants needs another init_weights"),
])  # fmt: skip
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CDDConfig(**settings)
