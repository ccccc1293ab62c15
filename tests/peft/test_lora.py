"""LoRA adapters turned into CDD ones, and back."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from structmat.peft import (
    CDDConfig,
    CDDTunerLinear,
    FittedAdapter,
    from_delta,
    from_lora,
    lora_errors,
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
    with pytest.raises(TypeError, match="q_proj, a Linear, which does not add to the weight"):
        from_lora(model)
    model = get_peft_model(tiny.model("llama"), peft.MissConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(TypeError, match="MissLinear, whose change depends on the weight that it is added to"):
        from_lora(model)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_from_lora_refuses_starts_that_changed_the_base(start: str) -> None:
    """The matrices are no change of the weight that the model had."""
    made = start if start.startswith(("pissa", "olora")) else False  # the others need data or more packages
    config = peft.LoraConfig(r=1, target_modules=["q_proj"], init_lora_weights=made)
    model = get_peft_model(tiny.model("llama"), config)
    changed = not torch.equal(
        model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight,
        tiny.model("llama").model.layers[0].self_attn.q_proj.weight,
    )
    assert changed == bool(made)
    config.init_lora_weights = start
    with pytest.raises(TypeError, match=f"whose start init_lora_weights='{start}' changed the weight of the base too"):
        from_lora(model)


def test_from_lora_takes_adalora() -> None:
    config = peft.AdaLoraConfig(init_r=2, target_r=1, total_step=10, target_modules=["q_proj"], init_lora_weights=False)
    lora = get_peft_model(tiny.model("llama"), config)
    for name, parameter in lora.named_parameters():
        if "lora_E" in name:  # of rank one, as after pruning
            parameter.data[1:] = 0.0
            parameter.data[0] = 3.0
    expected, before = logits("llama", lora), logits("llama", tiny.model("llama"))
    assert not torch.allclose(expected, before, atol=1e-2)
    adapter = from_lora(lora)
    assert adapter.error < 1e-3
    loaded = get_peft_model(tiny.model("llama"), adapter.config)
    peft.set_peft_model_state_dict(loaded, dict(adapter.state_dict))
    torch.testing.assert_close(logits("llama", loaded), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("direction", ["from_lora", "to_lora", "from_delta", "weighted sum"])
def test_modules_whose_names_end_alike_are_left_alone(direction: str, tmp_path: Path) -> None:
    """PEFT takes names in a list for ends of paths."""

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(8, 8)
            self.block = torch.nn.ModuleDict({"fc": torch.nn.Linear(8, 8)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block["fc"](self.fc(x))

    torch.manual_seed(0)
    net = Both()
    kind = peft.LoraConfig if direction == "from_lora" else CDDConfig
    start = "init_lora_weights" if direction == "from_lora" else "init_weights"
    model = get_peft_model(copy.deepcopy(net), kind(target_modules="fc", **{start: False}))
    if direction == "weighted sum":
        model.add_weighted_adapter(["default"], [-1.0], "negated")
        tuned = [n for n, m in model.base_model.model.named_modules() if "negated" in getattr(m, "cdd_adapters", {})]
        assert tuned == ["fc"]
        return
    if direction == "from_delta":
        adapter = from_delta({"fc": torch.ones(8, 8)})
    else:
        adapter = from_lora(model) if direction == "from_lora" else to_lora(model, 8)
    adapter.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of missing keys
        loaded = PeftModel.from_pretrained(copy.deepcopy(net), tmp_path)
    tuned = [n for n, m in loaded.base_model.model.named_modules() if isinstance(m, BaseTunerLayer)]
    assert tuned == ["fc"]


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


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("use_dora", "of a variant of LoRA that does more than add to the weight"),
        ("lora_bias", "with a trained bias, which a CDD adapter does not have"),
        ("bias", "with a trained bias, which a CDD adapter does not have"),
    ],
)
def test_from_lora_refuses_what_would_be_lost(option: str, message: str) -> None:
    config = peft.LoraConfig(r=1, target_modules=["query"], **{option: "lora_only" if option == "bias" else True})
    model = get_peft_model(tiny.model("bert"), config)
    with pytest.raises(TypeError, match=message):
        from_lora(model)


def test_every_reader_of_the_files_finds_the_same_change(tmp_path: Path) -> None:
    """Some take the rank from the settings, some from the matrices, and not all know patterns."""
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query", "output.dense"], init_weights=False))
    lora = to_lora(model, error=0.3)
    lora.save(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert not settings["rank_pattern"]
    assert not settings["alpha_pattern"]
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
    errors = {layer.name: layer.error for layer in lora.layers}
    tuned = {name: m for name, m in model.base_model.model.named_modules() if isinstance(m, CDDTunerLinear)}
    assert tuned.keys() == errors.keys()
    for name, module in tuned.items():
        A, B = (lora.state_dict[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        assert len(A) == settings["r"] == settings["lora_alpha"]
        theirs = loaded.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(B @ A, theirs)
        change = module.get_delta_weight("default")
        assert float((theirs - change).norm() / change.norm()) == pytest.approx(errors[name], rel=1e-4)


@pytest.mark.parametrize(
    ("rank", "name", "error", "message"),
    [
        (2, "nobody", ValueError, "to_lora: adapter_name 'nobody' is no CDD adapter here"),
        (-1, "default", ValueError, "to_lora: rank must be at least 1, got -1"),
        (0, "default", ValueError, "to_lora: rank must be at least 1, got 0"),
        (17, "default", ValueError, "to_lora: rank must be at most 16 for bert.encoder.layer.0.*query, got 17"),
        (0.5, "default", TypeError, "to_lora: rank must be an integer"),
        (None, "default", ValueError, "to_lora: rank or error must be given, not both, got None and None"),
        ("8", "default", TypeError, "to_lora: rank must be an integer"),
        (True, "default", TypeError, "to_lora: rank must be an integer"),
    ],
)
def test_to_lora_names_what_is_wrong(rank: Any, name: str, error: type[Exception], message: str) -> None:
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"]))
    with pytest.raises(error, match=message):
        to_lora(model, rank, name)


@pytest.mark.parametrize(
    ("rank", "limit", "error", "message"),
    [
        (2, 0.1, ValueError, "rank or error must be given, not both, got 2 and 0.1"),
        (None, 1.0, ValueError, "error must be at least 0 and less than 1, got 1.0"),
        (None, -0.1, ValueError, "error must be at least 0 and less than 1, got -0.1"),
        (None, float("nan"), ValueError, "error must be finite"),
        (None, "small", TypeError, "error must be a number"),
    ],
)
def test_to_lora_refuses_what_is_no_error(rank: Any, limit: Any, error: type[Exception], message: str) -> None:
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"]))
    with pytest.raises(error, match=f"to_lora: {message}"):
        to_lora(model, rank, error=limit)
    with pytest.raises(ValueError, match="lora_errors: adapter_name 'nobody' is no CDD adapter here"):
        lora_errors(model, "nobody")


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


def test_modules_to_save_come_along_whatever_the_task_is(tmp_path: Path) -> None:
    def head(model: Any) -> Any:
        return model.base_model.model.classifier.modules_to_save["default"]

    options = {"target_modules": ["query"], "modules_to_save": ["classifier"]}
    lora_config = peft.LoraConfig(r=1, init_lora_weights=False, **options)
    for config, convert in (
        (CDDConfig(init_weights=False, **options), lambda m: to_lora(m, 16)),
        (lora_config, from_lora),
    ):
        model = get_peft_model(tiny.model("bert"), config)
        with torch.no_grad():
            head(model).weight.add_(1.0)
        converted = convert(model)
        assert converted.config.modules_to_save == ["classifier"]
        converted.save(tmp_path, force=True)
        loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
        assert torch.equal(head(loaded).weight, head(model).weight)
        torch.testing.assert_close(logits("bert", loaded), logits("bert", model), atol=2e-3, rtol=2e-3)


def test_errors_of_every_rank_are_those_of_matrices_of_that_rank() -> None:
    model = get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"], init_weights=False))
    tuned = {name: m for name, m in model.base_model.model.named_modules() if isinstance(m, CDDTunerLinear)}
    errors = lora_errors(model)
    assert errors.keys() == tuned.keys()
    for name, module in tuned.items():
        change = module.get_delta_weight("default").double()
        values, vectors = torch.linalg.eigh(change @ change.T)  # another way to the best matrix of a rank
        assert values[0] < values[-1]
        for r in (0, 1, 5, 15, 16):
            leading = vectors[:, 16 - r :]
            lost = (change - leading @ leading.T @ change).norm() / change.norm()
            assert float(errors[name][r]) == pytest.approx(float(lost), abs=1e-5)


def test_the_smallest_rank_for_an_error() -> None:
    """Layers of two shapes: the smaller ones are met whole, and filled up with zeros."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 2))
    model = get_peft_model(model, CDDConfig(target_modules=["0", "1"], init_weights=False))
    lora = to_lora(model, error=0.3)
    assert 2 < lora.config.r < 16
    assert [layer.svd_rank for layer in lora.layers] == [lora.config.r, 2]
    assert max(layer.error for layer in lora.layers) <= 0.3 < lora_errors(model)["0"][lora.config.r - 1]
    assert to_lora(model, error=0.0).config.r == 16
    with torch.no_grad():
        model.base_model.model[0].cdd_adapters["default"].factors[0].zero_()
        model.base_model.model[1].cdd_adapters["default"].factors[0].zero_()
    assert to_lora(model, error=0.3).config.r == 1
    assert not lora_errors(model)["0"].any()
