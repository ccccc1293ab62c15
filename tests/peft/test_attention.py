"""Attention modules of torch in PEFT; tests/torch/test_attention.py has the laws of the layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from peft import LoraConfig, PeftModel, get_peft_model

from structmat.peft import CDDConfig
from structmat.torch import adapt, load_adapter, save_adapter
from tests.torch.common import fill, quietly
from tests.torch.test_attention import HEADS, E, base_of, encoder, inputs_of

PADDING = torch.arange(6) >= torch.tensor([[4], [6], [5], [6]])


def adapted_encoder() -> tuple[Any, torch.Tensor]:
    """An encoder of two layers with two adapters whose changes are random, and inputs."""
    model: Any = get_peft_model(encoder(), CDDConfig(target_modules=["self_attn"], init_weights=False), "first")
    model.add_adapter("second", CDDConfig(target_modules=["self_attn"], init_weights=False, block_size=3, alpha=0.5))
    return model.eval(), torch.randn(4, 6, E, dtype=torch.float64)


def test_peft_and_adapt_read_each_other(tmp_path: Path) -> None:
    ours, x = encoder(), torch.randn(4, 6, E, dtype=torch.float64)
    adapt(ours, ["self_attn"])
    folder = save_adapter(fill(ours), tmp_path / "ours")
    theirs: Any = PeftModel.from_pretrained(encoder(), folder, is_trainable=True)
    assert torch.equal(theirs(x, src_key_padding_mask=PADDING), ours(x, src_key_padding_mask=PADDING))
    gradients = [
        torch.autograd.grad(model(x).square().sum(), [p for p in model.parameters() if p.requires_grad])
        for model in (ours, theirs)
    ]
    assert len(gradients[0]) == 6
    assert all(map(torch.equal, *gradients))
    theirs.save_pretrained(tmp_path / "theirs")
    fresh = encoder()
    load_adapter(fresh, tmp_path / "theirs")
    assert torch.equal(fresh(x), ours(x))


def test_adapters_add_up_scale_merge_and_leave_again() -> None:
    model, x = adapted_encoder()
    layer = model.base_model.model.layers[0].self_attn
    assert layer.get_delta_weight("first").shape == (4 * E, E)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.base_model.set_adapter(["first", "second"])
    layer.scale_layer(0.5)
    both = model(x)
    for alone in ("first", "second"):
        model.base_model.set_adapter(alone)
        assert not torch.allclose(model(x), both)
    model.base_model.set_adapter(["first", "second"])
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), both)
    with pytest.raises(ValueError, match="when there are merged adapters"):
        model(x, adapter_names=["first"] * 4)
    model.unmerge_adapter()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with model.disable_adapter():
        torch.testing.assert_close(model(x), encoder().eval()(x))
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(x), both)


@pytest.mark.parametrize("name", ["of torch", "batch first"])
def test_samples_have_adapters_of_their_own(name: str) -> None:
    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = base_of(name)

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.attention(*inputs)

    model: Any = get_peft_model(Alone(), CDDConfig(target_modules=["attention"], init_weights=False), "first")
    model.add_adapter("second", CDDConfig(target_modules=["attention"], init_weights=False))
    given = inputs_of(base_of(name))
    padding = torch.tensor([[0.0] * 4 + [-1.0], [0.0] * 5, [-2.0] + [0.0] * 4], dtype=torch.float64)
    mask = torch.randn(3 * HEADS, 4, 5, dtype=torch.float64)
    for masks in ((), (padding, True, mask)):
        found = model.eval()(*given, *masks, adapter_names=["second", "__base__", "first"])
        with model.disable_adapter():
            plain = model(*given, *masks)
        alone = {}
        for each in ("first", "second"):
            model.set_adapter(each)
            alone[each] = model(*given, *masks)
        for place, axis in ((0, 0 if name == "batch first" else 1), (1, 0)):  # outputs, and weights
            expected = [each[place].select(axis, i) for i, each in enumerate((alone["second"], plain, alone["first"]))]
            torch.testing.assert_close(found[place], torch.stack(expected, axis))
    with pytest.raises(ValueError, match="got 2 and 3 respectively"):
        model(*given, adapter_names=["first", "second"])


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"out_proj, whose weight .*; name the whole module, .*self_attn, or"):
        get_peft_model(encoder(), CDDConfig(target_modules=["out_proj"]))
    base = torch.nn.ModuleDict({"a": torch.nn.MultiheadAttention(E, HEADS)})
    lora = get_peft_model(base, LoraConfig(target_modules=["a"]))
    with quietly(), pytest.raises(TypeError, match=r"has an adapter of peft\.tuners\.lora\.layer"):
        get_peft_model(lora.base_model.model, CDDConfig(target_modules=["a"]))


@pytest.mark.parametrize("name", ["in_proj_weight", "out_proj.weight"])
def test_a_weight_that_another_module_shares_stays_its_own(name: str) -> None:
    model = torch.nn.ModuleList(torch.nn.MultiheadAttention(8, 2, bias=False) for _ in range(2))
    path, _, own = name.rpartition(".")
    first, second = (each.get_submodule(path) for each in model)
    setattr(second, own, getattr(first, own))
    before = getattr(first, own).detach().clone()
    adapted = get_peft_model(model, CDDConfig(target_modules=["0"], init_weights=False))
    adapted.merge_adapter()
    assert torch.equal(getattr(second, own), before)
    assert not torch.equal(getattr(first, own), before)
    adapted.unmerge_adapter()
    assert getattr(first, own) is getattr(second, own)
    assert torch.equal(getattr(first, own), before)
