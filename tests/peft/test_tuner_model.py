"""What users of PEFT do, with CDD in the place of LoRA, on tiny models of four kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from peft import PeftModel, get_peft_model
from torch import nn

from structmat.peft import (
    CDDConfig,
    CDDTunerLinear,
)
from tests.peft import tiny
from tests.peft.tiny import adapted, logits, loss, train
from tests.torch.common import compiler

pytestmark = tiny.QUIET


KINDS = ["bert", "gpt2", "llama", "vit"]


ROOT = Path(__file__).resolve().parents[2]


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


@compiler
def test_compile_without_graph_break() -> None:
    model = adapted("llama", init_weights=False).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**tiny.inputs("llama")).logits, model(**tiny.inputs("llama")).logits)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"target_modules": ["nowhere"]}, ValueError, "Target modules .* not found in the base model"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, TypeError, "Target module Embedding.* is not supported"),
        ({"target_modules": ["embed_tokens", "q_proj", "norm"]}, TypeError, "is not supported"),
        ({"target_modules": ["q_proj", "complex"]}, TypeError, "complex weights"),
    ],
)
def test_bad_targets_leave_the_model_as_it_was(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = tiny.model("llama")
    model.complex = nn.Linear(2, 2, dtype=torch.complex64)
    expected, modules = logits("llama", model), list(model.modules())
    with pytest.raises(error, match=message):
        get_peft_model(model, CDDConfig(**settings))
    assert list(model.modules()) == modules
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(logits("llama", model), expected)


def test_all_linear_leaves_out_what_is_not_called(tmp_path: Path) -> None:
    make = lambda: nn.ModuleDict(
        {"block": nn.TransformerEncoderLayer(12, 2, 8, dropout=0.0), "out_proj": nn.Linear(2, 2)}
        | {"complex": nn.Linear(2, 2, dtype=torch.complex64)}
    )
    model = get_peft_model(make(), CDDConfig(target_modules="all-linear", init_weights=False))
    assert set(model.targeted_module_names) == {"block.linear1", "block.linear2", "out_proj"}
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(make(), str(tmp_path))
    assert loaded.targeted_module_names == model.targeted_module_names
    with pytest.raises(TypeError, match="out_proj, whose weight MultiheadAttention reads without calling it"):
        get_peft_model(make(), CDDConfig(target_modules=["block.self_attn.out_proj"]))
    layers = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"'all-linear' leaves nothing: 0\.out_proj, 1 are complex, or read without a"):
        get_peft_model(layers, CDDConfig(target_modules="all-linear"))
