"""The layer: dtypes, starts, sums, scales."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import get_peft_model
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured
from transformers.pytorch_utils import Conv1D

from structmat.peft import CDDConfig, CDDTunerLinear
from structmat.torch import CDDLinear, param_groups
from tests.peft import tiny
from tests.peft.tiny import adapted, logits, loss

pytestmark = tiny.QUIET


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


@pytest.mark.parametrize("safe", [False, True])
def test_what_is_computed_is_no_weight_to_merge_into(safe: bool) -> None:
    """Layers with `torch.nn.utils.parametrizations` PEFT cannot wrap, for any method."""
    base = nn.Linear(6, 6)
    l1_unstructured(base, "weight", 0.5)
    layers = nn.Sequential(nn.Linear(6, 6), base)
    model = get_peft_model(layers, CDDConfig(target_modules=["0", "1"], init_weights=False))
    x = torch.randn(3, 6)
    expected = model(x)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(TypeError, match=r"the weight of Linear is no parameter, as after .*, in 1"):
            merge(safe_merge=safe)
        assert torch.equal(model(x), expected)
        assert not layers[0].merged
    with pytest.raises(TypeError, match="no parameter"):
        layers[1].merge()


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("unload", [False, True])
def test_weights_merged_in_inference_mode_can_be_trained_with(safe: bool, unload: bool) -> None:
    layers = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4))
    model = get_peft_model(layers, CDDConfig(target_modules=["0", "1"], init_weights=False))
    x = torch.randn(3, 6)
    y = model(x)
    with torch.inference_mode():
        if unload:
            model = model.merge_and_unload(safe_merge=safe)
        else:
            model.merge_adapter(safe_merge=safe)
            model.unmerge_adapter()
    inputs = x.clone().requires_grad_()
    again = model(inputs)
    torch.testing.assert_close(again, y, atol=1e-5, rtol=1e-5)
    again.sum().backward()
    assert inputs.grad is not None


def mixed_layers(dtype: torch.dtype) -> tuple[Any, list[CDDTunerLinear], list[Tensor]]:
    """Two adapters on a linear layer and on a transposed one, and copies of the weights."""
    base = nn.Sequential(nn.Linear(6, 6), Conv1D(4, 6)).to(dtype)
    config = CDDConfig(target_modules=["0", "1"], init_weights=False)
    model: Any = get_peft_model(base, config)
    model.add_adapter("other", config)
    model.base_model.set_adapter(["default", "other"])
    return model, list(model.base_model.model), [layer.weight.detach().clone() for layer in model.base_model.model]


def scaled(layers: list[CDDTunerLinear]) -> None:
    for layer in layers:
        layer.set_scale("default", 1.0)


def unscaled(layers: list[CDDTunerLinear]) -> None:
    for layer in layers:
        layer.scale_layer(3.0)
        layer.unscale_layer()


def trained(layers: list[CDDTunerLinear]) -> None:
    with torch.no_grad():
        layers[0].cdd_adapters["other"].factors[1].mul_(5)


def deleted(layers: list[CDDTunerLinear]) -> None:
    for layer in layers:
        layer.delete_adapter("other")


def switched(layers: list[CDDTunerLinear]) -> None:
    for layer in layers:
        layer.set_adapter("default")


@pytest.mark.parametrize("change", [scaled, unscaled, trained, deleted, switched])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.filterwarnings("ignore:Adapter other was active which is now deleted")
def test_unmerging_takes_out_what_was_merged_bit_for_bit(change: Any, dtype: torch.dtype) -> None:
    model, layers, weights = mixed_layers(dtype)
    for layer in layers:
        layer.set_scale("default", 2.0)
    model.merge_adapter()
    assert not torch.equal(layers[0].weight, weights[0])
    change(layers)
    model.unmerge_adapter()
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, weights, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_unmerging_takes_out_broken_changes(value: float) -> None:
    model, layers, weights = mixed_layers(torch.float32)
    with torch.no_grad():
        layers[0].cdd_adapters["default"].factors[0][0] = value
    model.merge_adapter()
    model.unmerge_adapter()
    assert torch.equal(layers[0].weight, weights[0])


def test_unmerging_leaves_what_others_did_to_the_weight() -> None:
    model, layers, weights = mixed_layers(torch.float32)
    model.merge_adapter()
    with torch.no_grad():
        layers[0].weight.add_(1)
    model.unmerge_adapter()
    torch.testing.assert_close(layers[0].weight, weights[0] + 1)
    model.merge_adapter()
    model.to(torch.bfloat16)
    model.unmerge_adapter()
    torch.testing.assert_close(layers[1].weight.float(), weights[1], atol=0.05, rtol=0.05)


def test_layers_that_share_a_weight_are_unmerged_in_any_order() -> None:
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    base[1].weight = base[0].weight
    weight = base[0].weight.detach().clone()
    model = get_peft_model(base, CDDConfig(target_modules=["0", "1"], init_weights=False))
    model.merge_adapter()
    model.unmerge_adapter()
    torch.testing.assert_close(base[0].weight, weight)


def test_a_copy_of_a_merged_model_is_unmerged_by_itself() -> None:
    model, layers, weights = mixed_layers(torch.float32)
    model.merge_adapter()
    twin = copy.deepcopy(model)
    twin.unmerge_adapter()
    assert torch.equal(twin.base_model.model[0].weight, weights[0])
    assert layers[0].merged
    assert not torch.equal(layers[0].weight, weights[0])


def test_weights_without_values_are_not_merged_into() -> None:
    model, _, _ = mixed_layers(torch.float32)
    model.to("meta")
    with pytest.raises(ValueError, match="the weight is on the device meta"):
        model.merge_adapter()


def test_hooks_of_all_modules_see_the_base_layer() -> None:
    """As profilers and loggers set them."""
    model, layers, _ = mixed_layers(torch.float32)
    x = torch.randn(3, 6)
    expected, seen = model(x), []
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)):
        torch.testing.assert_close(model(x), expected)
    assert all(any(module is layer.base_layer for module in seen) for layer in layers)


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


def test_scaling() -> None:
    model = adapted("llama", init_weights=False, alpha=2.0)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    change = layer.get_delta_weight("default")
    layer.scale_layer(0.5)
    torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * change)
    layer.scale_layer(3.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 1.5 * change)
    layer.unscale_layer(3.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * change)
    layer.unscale_layer()
    torch.testing.assert_close(layer.get_delta_weight("default"), change)
    layer.set_scale("default", 3.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 3 * change)


def test_a_merged_model_whose_adapters_are_disabled_is_the_base() -> None:
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    x = torch.randn(3, 6)
    plain = base(x).detach()
    model = get_peft_model(base, CDDConfig(target_modules=["0", "1"], init_weights=False))
    tuned = model(x)
    for names in (None, ["default"]):
        model.merge_adapter(names)
        torch.testing.assert_close(model(x), tuned)
        with model.disable_adapter():
            torch.testing.assert_close(model(x), plain)
        torch.testing.assert_close(model(x), tuned)


def test_adapters_of_a_model_in_evaluation_drop_nothing() -> None:
    """Neither the first one, which replaces the layer, nor another one, which joins it."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)).eval()
    x = torch.randn(50, 6)
    config = CDDConfig(target_modules=["0"], dropout=0.5, init_weights=False)
    model = get_peft_model(net, config)
    assert torch.equal(model(x), model(x))
    model.add_adapter("other", config)
    model.set_adapter("other")
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))
