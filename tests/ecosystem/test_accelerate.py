"""Accelerator of accelerate, and models that it offloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

accelerate = pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

import torch

from structmat.torch import adapt, load_adapter, save_adapter
from tests.ecosystem.programs import causal_outputs, check

TOOLS = ("accelerate",)


def test_the_program_of_the_guide(base: Path) -> None:
    check("accelerate", base, **causal_outputs(base), losses="losses")


def dispatched(model: Any, folder: Path) -> Any:
    places = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu"}
    places |= dict.fromkeys(("model.norm", "model.rotary_emb", "lm_head"), "cpu")
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder / "offload", force_hooks=True)


@pytest.mark.parametrize("offload", [lambda model, _: accelerate.cpu_offload(model, "cpu"), dispatched])
@pytest.mark.parametrize("way", ["adapt", "PEFT"])
def test_offloaded_weights_and_changes_are_used(way: str, offload: Any, base: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(base / "base").eval()
    ids = torch.arange(4, 12)[None]
    plain = model(ids).logits.detach()
    if way == "adapt":
        adapt(model, ["q_proj", "v_proj"], init="normal")
    else:
        from peft import inject_adapter_in_model

        from structmat.peft import CDDConfig

        inject_adapter_in_model(CDDConfig(target_modules=["q_proj", "v_proj"], init_weights=False), model)
    expected = model(ids).logits.detach()
    assert not torch.allclose(expected, plain, atol=1e-3)
    model = offload(model, base)
    assert any(parameter.is_meta for parameter in model.parameters())
    torch.testing.assert_close(model(ids).logits.detach(), expected)


@pytest.mark.parametrize("first", ["adapted", "offloaded"])
def test_offloaded_models_are_trained_or_saved(first: str, base: Path) -> None:
    def fresh() -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(base / "base").eval()

    model, ids = fresh(), torch.arange(4, 12)[None]
    if first == "adapted":
        adapt(model, ["q_proj", "v_proj"], init="normal")
        accelerate.cpu_offload(model, "cpu")
        with pytest.raises(ValueError, match="load_adapter: model has vectors on the device meta"):
            load_adapter(model, save_adapter(model, base / "unused"))
    else:
        plain = model(ids).logits
        accelerate.cpu_offload(model, "cpu")
        adapt(model, ["q_proj", "v_proj"])
        torch.testing.assert_close(model(ids).logits, plain)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
        for _ in range(3):
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()
        assert not torch.allclose(model(ids).logits, plain, atol=1e-3)
    other = fresh()
    load_adapter(other, save_adapter(model, base / "adapter"))
    torch.testing.assert_close(other(ids).logits, model(ids).logits)
