"""Files that do not fit, told before a model is touched."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
import safetensors.torch
from peft import PeftModel, get_peft_model

from structmat.peft import CDDConfig, CDDTunerLinear
from tests.peft import tiny
from tests.peft.tiny import adapted, logits
from tests.torch.common import assert_same_state, state

pytestmark = tiny.QUIET


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def no_safetensors(path: Path) -> None:
    path.write_bytes(b"no safetensors at all, but long enough to be read")


def of_lora(path: Path) -> None:
    get_peft_model(tiny.model("llama"), peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(
        path.parent / "lora"
    )
    path.write_bytes((path.parent / "lora" / path.name).read_bytes())


def of_other_sizes(path: Path) -> None:
    config = CDDConfig(target_modules=["q_proj"], block_size=3)
    get_peft_model(tiny.model("llama"), config).save_pretrained(path.parent / "other")
    path.write_bytes((path.parent / "other" / path.name).read_bytes())


def of_other_layers(path: Path) -> None:
    get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["k_proj"])).save_pretrained(path.parent / "other")
    path.write_bytes((path.parent / "other" / path.name).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"the file of the adapter (cannot be read|is broken)"),
        (no_safetensors, r"the file of the adapter (cannot be read|is broken)"),
        (of_lora, "holds no weights of a CDD adapter"),
        (of_other_sizes, "made for another architecture or with other settings: .*q_proj takes vectors"),
        (of_other_layers, "is not adapted in this model"),
    ],
)
@pytest.mark.parametrize("second", [False, True])
def test_failed_load_leaves_the_model_as_it_was(spoil: Any, message: str, second: bool, tmp_path: Path) -> None:
    get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    spoil(tmp_path / "adapter_model.safetensors")
    model: Any = adapted("llama", init_weights=False) if second else tiny.model("llama")
    expected, modules = logits("llama", model), list(model.modules())
    layers = [module for module in modules if isinstance(module, CDDTunerLinear)]
    trainable = [p.requires_grad for p in model.parameters()]
    load = (
        (lambda: model.load_adapter(tmp_path, "other"))
        if second
        else (lambda: PeftModel.from_pretrained(model, tmp_path))
    )
    with pytest.raises(ValueError, match=message):
        load()
    assert list(model.modules()) == modules
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert torch.equal(logits("llama", model), expected)
    if second:
        assert list(model.peft_config) == ["default"]
        assert model.targeted_module_names == [
            path for path, m in model.get_base_model().named_modules() if m in layers
        ]


@pytest.mark.parametrize("fault", ["pickled vectors", "head", "pickled head"])
@pytest.mark.parametrize("second", [False, True])
def test_every_file_and_every_weight_is_looked_at(fault: str, second: bool, tmp_path: Path) -> None:
    config = CDDConfig(target_modules=["query"], modules_to_save=["classifier"], init_weights=False)
    model: Any = tiny.model("bert")
    if second:
        model = get_peft_model(model, config)
    get_peft_model(tiny.model("bert"), config).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = "query.cdd_adapters.factors.0" if "vectors" in fault else "classifier.weight"
    key = next(key for key in tensors if key.endswith(name))
    tensors[key] = torch.ones(5, *tensors[key].shape[1:])
    if "pickled" in fault:
        path.unlink()
        torch.save(tensors, tmp_path / "adapter_model.bin")
    else:
        safetensors.torch.save_file(tensors, path)
    expected, text = logits("bert", model), str(model)
    with pytest.raises(ValueError, match="made for another architecture or with other settings"):
        model.load_adapter(tmp_path, "other") if second else PeftModel.from_pretrained(model, tmp_path)
    assert str(model) == text
    assert torch.equal(logits("bert", model), expected)


def test_a_pickled_file_is_loaded(tmp_path: Path) -> None:
    config = CDDConfig(target_modules=["query"], modules_to_save=["classifier"], init_weights=False)
    model = get_peft_model(tiny.model("bert"), config)
    model.save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / "adapter_model.bin").exists()
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
    assert torch.equal(logits("bert", loaded), logits("bert", model))
    loaded.load_adapter(tmp_path, "other")


def test_adapter_for_another_architecture(tmp_path: Path) -> None:
    get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"])).save_pretrained(tmp_path)
    model = tiny.model("llama")
    modules = list(model.modules())
    with pytest.raises(ValueError, match=r"Target modules .* not found in the base model"):
        PeftModel.from_pretrained(model, tmp_path)
    assert list(model.modules()) == modules


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"], init_weights=False))
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad)[-1] = value
    model.save_pretrained(tmp_path)
    fresh = tiny.model("bert")
    before, text = logits("bert", fresh), str(fresh)
    with pytest.raises(ValueError, match=r"NaN or infinity in .*query\.cdd_adapters\.factors\.0"):
        PeftModel.from_pretrained(fresh, tmp_path)
    assert str(fresh) == text
    assert torch.equal(logits("bert", fresh), before)


@pytest.mark.parametrize("setting", [{"n_factors": 10**9 + 1}, {"n_factors_pattern": {"query": 10**9 + 1}}])
def test_a_number_of_factors_that_would_take_all_memory_is_refused(setting: dict[str, Any], tmp_path: Path) -> None:
    get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **setting}))
    with pytest.raises(ValueError, match="n_factors is 1000000001, more than vectors in the file"):
        PeftModel.from_pretrained(tiny.model("bert"), tmp_path)


def linear(side: int) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(side, side))


def as_it_is(config: CDDConfig) -> CDDConfig:
    return config


def for_training(config: CDDConfig) -> CDDConfig:
    config.inference_mode = False
    return config


def with_more_factors(config: CDDConfig) -> CDDConfig:
    config.n_factors = 5
    return config


def by_get_peft_model(config: CDDConfig) -> Any:
    return get_peft_model(linear(8), config)


def by_add_adapter(config: CDDConfig) -> Any:
    model = get_peft_model(linear(8), CDDConfig(target_modules=["0"]), "first")
    model.add_adapter("second", config)
    return model


def by_injection(config: CDDConfig) -> Any:
    return peft.inject_adapter_in_model(config, linear(8))


@pytest.mark.parametrize("source", [CDDConfig, peft.PeftConfig])
@pytest.mark.parametrize("change", [as_it_is, for_training, with_more_factors, copy.deepcopy])
@pytest.mark.parametrize("use", [by_get_peft_model, by_add_adapter, by_injection])
def test_loaded_settings_are_a_template_for_other_models(source: Any, change: Any, use: Any, tmp_path: Path) -> None:
    get_peft_model(linear(4), CDDConfig(target_modules=["0"])).save_pretrained(tmp_path)
    config = change(source.from_pretrained(tmp_path))
    model = use(config)
    (layer,) = (layer for layer in model.modules() if isinstance(layer, CDDTunerLinear))
    adapter = list(layer.cdd_adapters.values())[-1]
    assert [factor.numel() for factor in adapter.factors] == config.n_factors * [8]
    model(torch.ones(1, 8))
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict({key: torch.ones(3) for key in model.state_dict()})
    assert adapter in layer.cdd_adapters.values()


@pytest.mark.parametrize("config", [None, CDDConfig(target_modules=["0"]), "as saved"])
def test_loads_that_fail_leave_no_trace(config: Any, tmp_path: Path) -> None:
    get_peft_model(linear(4), CDDConfig(target_modules=["0"])).save_pretrained(tmp_path)
    given = peft.PeftConfig.from_pretrained(tmp_path) if config == "as saved" else config
    model = linear(8)
    before, attributes = state(model), set(vars(model))
    with pytest.raises(ValueError, match="made for another architecture"):
        PeftModel.from_pretrained(model, tmp_path, config=given)
    assert_same_state(before, model)
    assert set(vars(model)) == attributes
    assert not any(hooks for name, hooks in vars(model).items() if "hooks" in name)


def other_head() -> Any:
    config = tiny.config("bert")
    config.num_labels = 5
    return transformers.BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("second", [False, True])
def test_sizes_that_differ_can_be_ignored(second: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target_modules": ["query"], "modules_to_save": ["classifier"]}
    saved = adapted("bert", **settings, init_weights=False)
    saved.save_pretrained(tmp_path)
    config = tiny.config("bert")
    config.num_labels = 5
    model: Any = transformers.BertForSequenceClassification(config)
    if second:
        model = get_peft_model(model, CDDConfig(target_modules=["key"]), "first")
        load = model.load_adapter
    else:
        load = functools.partial(PeftModel.from_pretrained, model)
    with pytest.warns(UserWarning, match=r"classifier\.modules_to_save\.other\.weight: found shape"):
        loaded = load(tmp_path, "other", ignore_mismatched_sizes=True)
    ours = peft.get_peft_model_state_dict(model if second else loaded, adapter_name="other")
    theirs = peft.get_peft_model_state_dict(saved)
    vectors = [key for key in theirs if "cdd_" in key]
    assert vectors
    for key in vectors:
        assert torch.equal(ours[key], theirs[key]), key


def test_a_layer_gets_all_its_vectors_or_none(tmp_path: Path) -> None:
    get_peft_model(linear(4), CDDConfig(target_modules=["0"], block_size=2)).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "block_size": 4}))  # of other circulants only
    model = linear(4)
    before = state(model)
    with pytest.raises(ValueError, match=r"0 takes vectors of shapes .*, the file has \[\(4,\), \(4,\)\]"):
        PeftModel.from_pretrained(model, tmp_path, ignore_mismatched_sizes=True)
    assert_same_state(before, model)
    other = linear(8)
    with pytest.warns(UserWarning, match="found shape"), pytest.warns(UserWarning, match="Found missing adapter keys"):
        loaded = PeftModel.from_pretrained(other, tmp_path, ignore_mismatched_sizes=True)
    x = torch.ones(1, 8)
    with loaded.disable_adapter():
        base = loaded(x)
    assert torch.equal(loaded(x), base)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("kept", [[], ["kept"]])
def test_renamed_modules_are_loaded(declared: bool, kept: list[str], tmp_path: Path) -> None:
    """As happens between versions of transformers, which hand PEFT a map of the old names."""
    named = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ["old", *kept]})
    model = get_peft_model(named, CDDConfig(target_modules=["old", *kept], init_weights=False))
    model.save_pretrained(tmp_path)
    config = CDDConfig.from_pretrained(tmp_path)
    config.target_modules = {"new", *kept}  # type: ignore[assignment]
    mapping = {r"^old\.": "new."}
    renamed: Any = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ["new", *kept]})
    if declared:
        renamed._checkpoint_conversion_mapping = mapping
    loaded = PeftModel.from_pretrained(renamed, tmp_path, config=config, key_mapping=None if declared else mapping)
    vectors = [p for name, p in model.named_parameters() if "cdd_" in name]
    others = [p for name, p in loaded.named_parameters() if "cdd_" in name]
    for one, other in zip(vectors, others, strict=True):
        assert torch.equal(one, other)
