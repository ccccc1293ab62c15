"""What users of PEFT do, with CDD in the place of LoRA, on tiny models of four kinds."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from torch import nn

import structmat.peft
from structmat.peft import CDDConfig, CDDModel, CDDTunerLinear
from structmat.torch import CDDLinear, param_groups
from tests.peft import tiny

KINDS = ["bert", "gpt2", "llama", "vit"]
ROOT = Path(__file__).resolve().parents[2]

pytestmark = tiny.QUIET


def adapted(kind: str, **settings: Any) -> PeftModel:
    return get_peft_model(tiny.model(kind), CDDConfig(**{"target_modules": tiny.TARGETS[kind], **settings}))


def loss(kind: str, model: Any) -> torch.Tensor:
    inputs = tiny.inputs(kind)
    logits = model(**inputs).logits
    return logits.float().square().mean() + logits[..., 0].float().sum()


def train(kind: str, model: Any, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(kind, model).backward()
        optimizer.step()


def logits(kind: str, model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**tiny.inputs(kind)).logits


LOAD = """
import sys, torch
import structmat.peft
from peft import PeftModel
from tests.peft import tiny
for kind in sys.argv[2:]:
    model = PeftModel.from_pretrained(tiny.model(kind), f"{sys.argv[1]}/{kind}")
    with torch.no_grad():
        torch.save(model(**tiny.inputs(kind)).logits, f"{sys.argv[1]}/{kind}.pt")
"""


def test_train_save_load_in_a_new_process_merge(tmp_path: Path) -> None:
    models = {kind: adapted(kind) for kind in KINDS}
    trained = {}
    for kind, model in models.items():
        before = logits(kind, model)
        assert torch.equal(before, logits(kind, tiny.model(kind)))
        train(kind, model)
        trained[kind] = logits(kind, model)
        assert not torch.allclose(trained[kind], before, atol=1e-4)
        model.save_pretrained(tmp_path / kind)
        assert (tmp_path / kind / "adapter_model.safetensors").stat().st_size < 10_000

    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path), *KINDS]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for kind, model in models.items():
        torch.testing.assert_close(torch.load(tmp_path / f"{kind}.pt"), trained[kind], atol=1e-6, rtol=1e-5)
        merged = model.merge_and_unload(safe_merge=True)
        assert not any(isinstance(module, CDDTunerLinear) for module in merged.modules())
        torch.testing.assert_close(logits(kind, merged), trained[kind], atol=1e-5, rtol=1e-4)


def test_is_a_method_like_others() -> None:
    assert PeftType("CDD") is PeftType.CDD
    assert PeftType.CDD in list(PeftType)
    assert PeftType.CDD.value == "CDD"
    for again in (copy.deepcopy(PeftType.CDD), pickle.loads(pickle.dumps(PeftType.CDD))):
        assert again is PeftType.CDD
    assert json.dumps(PeftType.CDD) == '"CDD"'
    assert isinstance(peft.get_peft_config({"peft_type": "CDD", "n_factors": 5}), CDDConfig)


def test_registering_again_changes_nothing_and_leaves_other_methods_alone() -> None:
    code = """
import peft.mapping as m
from peft import PeftType
names = [n for n in vars(m) if n.startswith("PEFT_TYPE_TO_")]
before = {n: dict(getattr(m, n)) for n in names}
members = list(PeftType)
import structmat.peft as sp
from structmat.peft._registration import register
register(sp.CDDConfig, sp.CDDModel)
for n in names:
    after = dict(getattr(m, n))
    assert {k: v for k, v in after.items() if k != "CDD"} == before[n], n
assert [k for k in PeftType if k != "CDD"] == members and len(list(PeftType)) == len(members) + 1
try:
    register(object, sp.CDDModel)
except ImportError as error:
    assert "already has a method CDD" in str(error)
else:
    raise AssertionError
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_other_versions_of_peft_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from structmat.peft import _registration

    monkeypatch.setattr(_registration, "version", lambda _: "0.20.0")
    with pytest.raises(ImportError, match=r"structmat\.peft works with peft>=0.21,<0.22, found 0\.20\.0"):
        _registration.require_supported()


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
    with pytest.warns(RuntimeWarning, match="block_size_pattern keys did not match"):
        adapted("llama", block_size_pattern={"nowhere": 5})


def test_layer_is_that_of_structmat_torch() -> None:
    linear = nn.Linear(10, 6)
    model = get_peft_model(nn.Sequential(linear), CDDConfig(target_modules=["0"], init_weights=False))
    layer = CDDLinear.from_linear(linear)
    layer.adapters["default"] = model.base_model.model[0].cdd_adapters["default"]
    x = torch.randn(4, 10)
    assert torch.equal(model(x), layer(x))
    assert len(param_groups(model, lr=0.01)) == 2  # diagonals, circulants


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast_adapter_dtype", [True, False])
def test_dtypes(dtype: torch.dtype, autocast_adapter_dtype: bool) -> None:
    config = CDDConfig(target_modules=["0"], init_weights=False)
    base = nn.Sequential(nn.Linear(8, 8)).to(dtype)
    model = get_peft_model(base, config, autocast_adapter_dtype=autocast_adapter_dtype)
    factor = model.base_model.model[0].cdd_adapters["default"].factors[0]
    half = dtype.itemsize == 2
    assert factor.dtype == (torch.float32 if half and autocast_adapter_dtype else dtype)
    x = torch.randn(3, 8, dtype=dtype)
    y = model(x)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert factor.grad is not None
    model.merge_adapter()
    torch.testing.assert_close(model(x), y, atol=0.05 if half else 1e-6, rtol=0.05 if half else 1e-6)
    assert model.base_model.model[0].base_layer.weight.dtype == dtype


def test_autocast_and_empty_batch() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), CDDConfig(target_modules=["0"], init_weights=False))
    x = torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), model(x), atol=0.1, rtol=0.05)
    assert model(x[:0]).shape == (0, 8)


def test_active_adapters_sum_merged_or_not() -> None:
    model = adapted("llama", init_weights=False)
    model.add_adapter("other", CDDConfig(target_modules=["q_proj"], block_size=3, init_weights=False))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(2, 16)
    base = layer.base_layer(x)
    model.base_model.set_adapter(["default", "other"])
    both = layer(x)
    expected = base + sum(layer.cdd_adapters[name](x) for name in ("default", "other"))
    torch.testing.assert_close(both, expected)
    weight = layer.base_layer.weight.clone()
    model.merge_adapter()
    torch.testing.assert_close(layer(x), both, atol=1e-5, rtol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(layer.base_layer.weight, weight)
    with model.disable_adapter():
        torch.testing.assert_close(layer(x), base)
    model.set_adapter("other")
    model.delete_adapter("default")
    assert list(layer.cdd_adapters) == ["other"]
    assert list(layer.cdd_alpha) == ["other"]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_mixed_batches(kind: str) -> None:
    model = adapted(kind, init_weights=False).eval()
    model.add_adapter("other", CDDConfig(target_modules=tiny.TARGETS[kind][:1], init_weights=False))
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    with torch.no_grad():
        mixed = model(**tiny.inputs(kind), adapter_names=["other", "__base__", "default"]).logits
    for index, name in enumerate(["other", "__base__", "default"]):
        if name == "__base__":
            with model.disable_adapter():
                alone = logits(kind, model)
        else:
            model.set_adapter(name)
            alone = logits(kind, model)
        torch.testing.assert_close(mixed[index], alone[index])
    with pytest.raises(ValueError, match="non-existing adapter"):
        model(**tiny.inputs(kind), adapter_names=["other", "__base__", "nobody"])
    with pytest.raises(ValueError, match="Length of `adapter_names`"):
        model(**tiny.inputs(kind), adapter_names=["other"])
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_mixed_batches_with_beam_search(kind: str) -> None:
    model = adapted(kind, init_weights=False, alpha=3.0).eval()
    model.add_adapter("other", CDDConfig(target_modules=tiny.TARGETS[kind], init_weights=False, alpha=3.0))
    inputs = {"input_ids": tiny.inputs(kind)["input_ids"]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    settings = dict(num_beams=3, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    names = ["default", "__base__", "other"]
    mixed = model.generate(**inputs, **settings, adapter_names=names)
    outputs = []
    for index, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                outputs.append(model.generate(**inputs, **settings)[index])
        else:
            model.set_adapter(name)
            outputs.append(model.generate(**inputs, **settings)[index])
    assert torch.equal(mixed, torch.stack(outputs))
    assert not torch.equal(outputs[0], outputs[1])


def test_low_cpu_mem_usage_and_auto_classes(tmp_path: Path) -> None:
    tiny.model("llama").save_pretrained(tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    settings = CDDConfig(target_modules=["q_proj"], init_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, settings)
    expected = logits("llama", model)
    model.save_pretrained(tmp_path / "adapter")

    def fresh() -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")

    loaded = PeftModel.from_pretrained(fresh(), tmp_path / "adapter", low_cpu_mem_usage=True)
    assert torch.equal(logits("llama", loaded), expected)
    assert torch.equal(logits("llama", peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")), expected)
    assert torch.equal(
        logits("llama", transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")), expected
    )
    direct = fresh()
    direct.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(logits("llama", direct), expected)


def test_inject_adapter_in_model_and_state_dicts() -> None:
    config = CDDConfig(target_modules=["q_proj"], init_weights=False)
    model = peft.inject_adapter_in_model(config, tiny.model("llama"))
    state = peft.get_peft_model_state_dict(model)
    assert set(state) == {
        f"model.layers.{i}.self_attn.q_proj.cdd_adapters.factors.{k}" for i in (0, 1) for k in range(3)
    }
    other = peft.inject_adapter_in_model(config, tiny.model("llama"), state_dict=state)
    peft.set_peft_model_state_dict(other, state)
    assert torch.equal(logits("llama", other), logits("llama", model))


def test_adapter_called_like_a_module_survives_saving(tmp_path: Path) -> None:
    model = get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["q_proj"], init_weights=False), "layers")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.model("llama"), tmp_path / "layers", adapter_name="other")
    assert torch.equal(logits("llama", loaded), logits("llama", model))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant: bool) -> None:
    plain, saving = adapted("llama", init_weights=False).train(), adapted("llama").train()
    saving.load_state_dict(plain.state_dict())
    saving.enable_input_require_grads()
    saving.gradient_checkpointing_enable(dict(use_reentrant=use_reentrant))
    for model in (plain, saving):
        loss("llama", model).backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(q.grad, p.grad, msg=name)


def test_compile_without_graph_break() -> None:
    model = adapted("llama", init_weights=False).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**tiny.inputs("llama")).logits, model(**tiny.inputs("llama")).logits)


@pytest.mark.parametrize("start", [True, False])
def test_a_seed_starts_it_as_structmat_torch_does(start: bool) -> None:
    torch.manual_seed(3)
    ours = CDDLinear(16, 24, init="zero" if start else "normal", base=nn.Linear(16, 24))
    torch.manual_seed(3)
    base = nn.Sequential(nn.Linear(16, 24))
    theirs = get_peft_model(base, CDDConfig(target_modules=["0"], init_weights=start)).base_model.model[0]
    for mine, other in zip(ours.adapters["default"].factors, theirs.cdd_adapters["default"].factors, strict=True):
        assert torch.equal(mine, other)


def test_gradient_start() -> None:
    base = tiny.model("llama").train()
    with pytest.raises(ValueError, match=r"loss\.backward"):
        get_peft_model(base, CDDConfig(target_modules=["q_proj"], init_weights="gradient"))
    assert not any(isinstance(m, CDDTunerLinear) for m in base.modules())
    assert all(p.requires_grad for p in base.parameters())
    loss("llama", base).backward()
    expected = logits("llama", base)
    config = CDDConfig(target_modules=["q_proj"], init_weights="gradient")
    model = get_peft_model(base, config)
    assert torch.equal(logits("llama", model), expected)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert config.to_dict()["init_weights"] is True


def test_encoder_layer_of_torch_keeps_calling_its_children() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        fast = encoder(x)
        model = get_peft_model(nn.Sequential(encoder), CDDConfig(target_modules=["linear1"], init_weights=False)).eval()
        assert not torch.allclose(model(x), fast)
        assert torch.allclose(model.unload()(x), fast, atol=1e-6)
    assert encoder.activation_relu_or_gelu == 1
    with pytest.raises(TypeError, match="whose weight MultiheadAttention reads"):
        get_peft_model(nn.Sequential(encoder), CDDConfig(target_modules=["out_proj"]))


# ---- weighted sums


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


def test_scaling() -> None:
    model = adapted("llama", init_weights=False, alpha=2.0)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    change = layer.get_delta_weight("default")
    layer.scale_layer(0.5)
    torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * change)
    layer.unscale_layer()
    layer.set_scale("default", 3.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 3 * change)


# ---- quantised bases


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


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rank": 8}, TypeError, "unexpected keyword argument 'rank'"),
        ({"block_size": 0}, ValueError, "CDDConfig: block_size"),
        ({"block_size": 2.5}, TypeError, "CDDConfig: block_size"),
        ({"block_size_pattern": {"q_proj": -1}}, ValueError, r"block_size_pattern\['q_proj'\]"),
        ({"n_factors": 4}, ValueError, "n_factors must be odd and at least 3, got 4"),
        ({"init_weights": "pissa"}, ValueError, "init_weights must be True, False"),
        ({"bias": "lora_only"}, ValueError, "bias must be one of none, all, cdd_only"),
        ({"target_modules": "*q"}, ValueError, "is no regular expression"),
        ({"target_modules": "q", "layers_to_transform": 0}, ValueError, "`layers_to_transform` cannot be used"),
        ({"target_modules": ["q"], "layers_pattern": "h"}, ValueError, "`layers_to_transform` must also be specified"),
        ({"task_type": "MAGIC"}, ValueError, "Invalid task type"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CDDConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"target_modules": ["nowhere"]}, ValueError, "Target modules .* not found in the base model"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, TypeError, "Target module Embedding.* is not supported"),
        ({"target_modules": ["embed_tokens", "q_proj", "norm"]}, TypeError, "is not supported"),
    ],
)
def test_bad_targets_leave_the_model_as_it_was(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = tiny.model("llama")
    expected, modules = logits("llama", model), list(model.modules())
    with pytest.raises(error, match=message):
        get_peft_model(model, CDDConfig(**settings))
    assert list(model.modules()) == modules
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(logits("llama", model), expected)


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
        (cut, "is cut short or no safetensors file"),
        (no_safetensors, "is cut short or no safetensors file"),
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


def test_adapter_for_another_architecture(tmp_path: Path) -> None:
    get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"])).save_pretrained(tmp_path)
    model = tiny.model("llama")
    modules = list(model.modules())
    with pytest.raises(ValueError, match=r"Target modules .* not found in the base model"):
        PeftModel.from_pretrained(model, tmp_path)
    assert list(model.modules()) == modules


def test_unknown_options_of_a_newer_file_are_dropped_with_a_warning(tmp_path: Path) -> None:
    get_peft_model(tiny.model("bert"), CDDConfig(target_modules=["query"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "from_the_future": 1}))
    with pytest.warns(UserWarning, match="Unexpected keyword arguments"):
        assert isinstance(PeftConfig.from_pretrained(tmp_path), CDDConfig)


def test_what_this_version_cannot_do_says_so() -> None:
    with pytest.raises(ValueError, match="not compatible with the `PeftMixedModel`"):
        get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["q_proj"]), mixed=True)
    with pytest.raises(ValueError, match="version of PEFT you are using is not compatible"):
        tiny.model("llama").add_adapter(CDDConfig(target_modules=["q_proj"]))


def test_model_is_exported() -> None:
    model = adapted("llama")
    assert isinstance(model.base_model, CDDModel)
    assert repr(model.base_model.model.model.layers[0].self_attn.q_proj).startswith("cdd.CDDTunerLinear(")
    assert structmat.peft._registration.SUPPORTED == ">=0.21,<0.22"
