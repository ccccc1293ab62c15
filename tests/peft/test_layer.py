"""The layer: dtypes, sums, merging and what it leaves, scales."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cases import in_one_test

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured
from transformers.models.bart.modeling_bart import BartScaledWordEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding
from transformers.pytorch_utils import Conv1D

from structmat.peft import CDDConfig, CDDTunerLayer
from structmat.torch import (
    CDDAdapter,
    CDDLinear,
    adapt,
    load_adapter,
    remove_adapters,
    save_adapter,
)
from structmat.torch._layers import KINDS, AdaptedLayer
from structmat.torch._layers.base_weight import owner_of
from tests.peft import tiny
from tests.torch.common import QuantisedTensor, fill, kept_bytes, quietly

pytestmark = tiny.QUIET


@pytest.mark.parametrize("start", [True, False])
def test_layer_is_that_of_structmat_torch(start: bool) -> None:
    linear = nn.Linear(10, 6)
    torch.manual_seed(3)
    ours = CDDLinear.from_linear(linear, init="zero" if start else "normal")
    torch.manual_seed(3)
    model = get_peft_model(nn.Sequential(linear), CDDConfig(target_modules=["0"], init_weights=start))
    theirs = model.base_model.model[0].cdd_adapters["default"]
    assert all(map(torch.equal, ours.adapter.vectors, theirs.vectors))
    x = torch.randn(4, 10, requires_grad=True)
    assert torch.equal(model(x), ours(x))
    assert kept_bytes(lambda: model(x), x, *model.parameters())[0] == 0


class Product(nn.Module):
    """Multiplies by a weight, and is of no kind of layer that `structmat.torch` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class AdaptedProduct(AdaptedLayer):
    """All that a new kind of layer needs."""

    _plural = "products"

    def __init__(self, base: Product, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return type(module) is Product

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        rows, columns = base.weight.shape
        return columns, rows

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        return adapter.add_to(y, x)

    def forward(self, x: Tensor) -> Tensor:
        return self._outputs(self.base, self.adapter, x, self.base)


class TestKinds:
    """Every kind of layer of `structmat.torch` does the same in PEFT."""

    def test_a_padding_row_stays_and_other_numbers_of_factors_are_refused(self) -> None:
        base = nn.Sequential(nn.Embedding(6, 4, padding_idx=2))
        model = get_peft_model(copy.deepcopy(base), CDDConfig(target_modules=["0"], init_weights=False))
        tokens = torch.tensor([[2, 1], [2, 5]])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            model(tokens).square().sum().backward()
            optimizer.step()
        assert not model(tokens)[:, 0].any()
        assert not torch.equal(model(tokens), base(tokens))
        with pytest.raises(ValueError, match="n_factors must be 3, got 5, in 0"):
            get_peft_model(base, CDDConfig(target_modules=["0"], n_factors=5))
        assert type(base[0]) is nn.Embedding

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("scaled", [BartScaledWordEmbedding, Gemma3TextScaledWordEmbedding])
    def test_embeddings_of_transformers_scale_their_change_too(self, scaled: Any, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        base = scaled(7, 12, padding_idx=0, embed_scale=12**0.5).to(dtype)
        plain = copy.deepcopy(base)
        model = get_peft_model(nn.Sequential(base), CDDConfig(target_modules=["0"], init_weights=False, alpha=0.1))
        layer, tokens = model.base_model.model[0], torch.arange(7)[None]
        assert layer.embed_scale is layer.get_base_layer().embed_scale
        with torch.no_grad():
            plain.weight += layer.get_delta_weight("default").to(dtype)
        expected = plain(tokens)
        torch.testing.assert_close(model(tokens), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
        model.merge_adapter()
        torch.testing.assert_close(model(tokens), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)

    def test_a_new_kind_is_one_class(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        base = nn.Sequential(Product())
        settings = CDDConfig(target_modules=["0"])
        for add in (lambda: adapt(base, ["0"]), lambda: get_peft_model(base, settings)):
            with pytest.raises(TypeError, match=r"can be adapted|is not supported"):
                add()
        monkeypatch.setattr("structmat.torch._layers.kinds.KINDS", (*KINDS, AdaptedProduct))
        ours, fresh = copy.deepcopy(base), copy.deepcopy(base)
        adapt(ours, ["0"])
        assert type(fill(ours)[0]) is AdaptedProduct
        x = torch.randn(4, 7)
        expected = ours(x)
        folder = save_adapter(ours, tmp_path)
        load_adapter(fresh, folder)
        assert torch.equal(fresh(x), expected)
        theirs = PeftModel.from_pretrained(copy.deepcopy(base), folder)
        assert torch.equal(theirs(x), expected)
        remove_adapters(ours, merge=True)
        for merged in (ours, theirs.merge_and_unload(safe_merge=True)):
            assert type(merged[0]) is Product
            torch.testing.assert_close(merged(x), expected)

    @pytest.mark.parametrize("base", [nn.ConvTranspose1d(4, 4, 1), nn.LayerNorm(3), nn.EmbeddingBag(3, 4)], ids=str)
    def test_what_adapt_refuses_is_refused(self, base: nn.Module) -> None:
        for add in (adapt, lambda model, targets: get_peft_model(model, CDDConfig(target_modules=targets))):
            with pytest.raises(TypeError, match=r"can be adapted|is not supported"):
                add(nn.Sequential(base), ["0"])


@in_one_test("dtype", [torch.float16, torch.bfloat16, torch.float64])
@in_one_test("autocast_adapter_dtype", [True, False])
def test_dtypes(dtype: torch.dtype, autocast_adapter_dtype: bool) -> None:
    config = CDDConfig(target_modules=["0"], init_weights=False)
    base = nn.Sequential(nn.Linear(8, 8)).to(dtype)
    model = get_peft_model(base, config, autocast_adapter_dtype=autocast_adapter_dtype)
    vector = model.base_model.model[0].cdd_adapters["default"].vectors[0]
    half = dtype.itemsize == 2
    assert vector.dtype == (torch.float32 if half and autocast_adapter_dtype else dtype)
    x = torch.randn(3, 8, dtype=dtype)
    y = model(x)
    assert y.dtype == dtype
    assert model(x[:0]).shape == (0, 8)
    y.float().sum().backward()
    assert vector.grad is not None
    model.merge_adapter()
    torch.testing.assert_close(model(x), y, atol=0.05 if half else 1e-6, rtol=0.05 if half else 1e-6)
    assert model.base_model.model[0].base_layer.weight.dtype == dtype


def mixed_layers(dtype: torch.dtype = torch.float32) -> tuple[Any, list[CDDTunerLayer], list[Tensor]]:
    """Two adapters on a linear layer and on a transposed one, and copies of the weights."""
    base = nn.Sequential(nn.Linear(6, 6), Conv1D(4, 6)).to(dtype)
    config = CDDConfig(target_modules=["0", "1"], init_weights=False)
    model: Any = get_peft_model(base, config)
    model.add_adapter("other", CDDConfig(target_modules=["0", "1"], block_size=3, init_weights=False))
    model.base_model.set_adapter(["default", "other"])
    return model, list(model.base_model.model), [layer.weight.detach().clone() for layer in model.base_model.model]


@pytest.mark.parametrize("shape", [(4, 6), (6, 6)])
def test_the_change_of_a_layer_that_stores_the_transposed_weight_is_transposed(shape: tuple[int, int]) -> None:
    """Of a square layer no shape would tell."""
    model = get_peft_model(nn.Sequential(Conv1D(*shape)), CDDConfig(target_modules=["0"], init_weights=False))
    (layer,) = model.base_model.model
    x = torch.randn(3, shape[1])
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ layer.get_delta_weight("default"))


def test_active_adapters_sum_merged_or_not() -> None:
    model, (layer, transposed), weights = mixed_layers()
    x = torch.randn(2, 6)
    with model.disable_adapter():
        plain = model(x)
    base = layer.base_layer(x)
    torch.testing.assert_close(layer(x), base + sum(layer.cdd_adapters[name](x) for name in ("default", "other")))
    both = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), both, atol=1e-5, rtol=1e-5)
    changes = sum(transposed.get_delta_weight(name) for name in ("default", "other"))
    torch.testing.assert_close(transposed.weight, weights[1] + changes)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), plain)
    assert not layer.merged
    model.set_adapter("other")
    model.delete_adapter("default")
    assert list(layer.cdd_adapters) == list(layer.cdd_alpha) == ["other"]


def scaled(layers: list[CDDTunerLayer]) -> None:
    for layer in layers:
        layer.set_scale("default", 1.0)


def trained(layers: list[CDDTunerLayer]) -> None:
    with torch.no_grad():
        layers[0].cdd_adapters["other"].vectors[1].mul_(5)


def deleted(layers: list[CDDTunerLayer]) -> None:
    for layer in layers:
        layer.delete_adapter("other")


@in_one_test("change", [scaled, trained, deleted])
@in_one_test("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.filterwarnings("ignore:Adapter other was active which is now deleted")
def test_unmerging_takes_out_what_was_merged_bit_for_bit(change: Any, dtype: torch.dtype) -> None:
    model, layers, weights = mixed_layers(dtype)
    for layer in layers:
        layer.set_scale("default", 2.0)
    model.merge_adapter()
    assert not torch.equal(layers[0].weight, weights[0])
    change(layers)
    twin = copy.deepcopy(model)
    for each in (model, twin):
        each.unmerge_adapter()
        found = [layer.weight for layer in each.base_model.model]
        assert all(map(torch.equal, found, weights))


def test_unmerging_takes_out_broken_changes_and_leaves_what_others_did() -> None:
    model, layers, weights = mixed_layers()
    with torch.no_grad():
        layers[1].cdd_adapters["default"].vectors[0][0] = torch.nan
    model.merge_adapter()
    with torch.no_grad():
        layers[0].weight.add_(1)
    model.unmerge_adapter()
    torch.testing.assert_close(layers[0].weight, weights[0] + 1)
    assert torch.equal(layers[1].weight, weights[1])
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        model.merge_adapter(safe_merge=True)


def test_layers_that_share_a_weight_are_unmerged_in_any_order() -> None:
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    base[1].weight = base[0].weight
    weight = base[0].weight.detach().clone()
    model = get_peft_model(base, CDDConfig(target_modules=["0", "1"], init_weights=False))
    model.merge_adapter()
    model.unmerge_adapter()
    torch.testing.assert_close(base[0].weight, weight)


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, 2 * self.weight, self.bias)


class QuantisedLinear(nn.Module):
    """Multiplies by a scale times a weight of few bits, which may be a parameter or a buffer, or packed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.in_features = self.out_features = 6
        dense = torch.randn(6, 6)
        integers = (127 / dense.abs().max() * dense).round().to(torch.int8)
        self.register_buffer("scale", dense.abs().max() / 127)
        if kind == "buffer":
            self.register_buffer("weight", integers)
        elif kind == "packed":
            self.register_buffer("weight", integers[:3])
        else:
            made = {
                "parameter": integers,
                "float8": dense.to(torch.float8_e4m3fn),
                "class": QuantisedTensor(integers, self.scale),
            }
            self.weight = nn.Parameter(made[kind], requires_grad=False)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "class":
            return nn.functional.linear(x, self.weight)
        weight = torch.cat([self.weight, -self.weight]) if self.kind == "packed" else self.weight
        return x @ (self.scale * weight.to(x.dtype)).T


def quantised_by_torch() -> nn.Module:
    with quietly():
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 6)), {nn.Linear})[0]


def with_own_forward() -> nn.Module:
    linear = nn.Linear(6, 6)
    linear.forward = partial(nn.functional.linear, weight=2 * linear.weight.detach())
    return linear


@pytest.mark.parametrize("safe", [False, True])
@in_one_test("make, text", [
    (lambda: l1_unstructured(nn.Linear(6, 6), "weight", 0.5), "of Linear is no parameter, as after"),
    (lambda: Scaled(6, 6), "of Scaled is not what it multiplies by"),
    (with_own_forward, "of Linear is not what it multiplies by"),
    (lambda: QuantisedLinear("parameter"), "of QuantisedLinear is Tensor of torch.int8, not a plain"),
    (lambda: QuantisedLinear("buffer"), "of QuantisedLinear is Tensor of torch.int8, not a plain"),
    (lambda: QuantisedLinear("packed"), "of QuantisedLinear is Tensor of torch.int8, not a plain"),
    (lambda: QuantisedLinear("float8"), "of QuantisedLinear is Tensor of torch.float8_e4m3fn, not a plain"),
    (lambda: QuantisedLinear("class"), "of QuantisedLinear is QuantisedTensor of torch.float32, not a plain"),
    (quantised_by_torch, "of Linear is method, not a plain"),
])  # fmt: skip
def test_what_cannot_be_merged_into(safe: bool, make: Callable[[], nn.Module], text: str) -> None:
    """Layers with `torch.nn.utils.parametrizations` PEFT cannot wrap, for any method."""
    layers = nn.Sequential(nn.Linear(6, 6), make())
    model = get_peft_model(layers, CDDConfig(target_modules=["0", "1"], init_weights=False))
    x = torch.randn(3, 6)
    expected = model(x)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(TypeError, match=rf"the weight {text}.*, in 1"):
            merge(safe_merge=safe)
        assert torch.equal(model(x), expected)
        assert not layers[0].merged
    model, _, _ = mixed_layers()
    with pytest.raises(ValueError, match="the weight is on the device meta"):
        model.to("meta").merge_adapter()


@pytest.mark.parametrize(("make", "name"), [
    (lambda: nn.Conv1d(6, 6, 1), "weight"),
    (lambda: nn.Embedding(6, 6), "weight"),
    (lambda: nn.MultiheadAttention(6, 2), "in_proj_weight"),
    (lambda: nn.MultiheadAttention(6, 2), "out_proj.weight"),
])  # fmt: skip
def test_no_kind_of_layer_is_merged_into_quantised_weights(make: Callable[[], nn.Module], name: str) -> None:
    base = make()
    owner, own = owner_of(base, name)
    weight = base.get_parameter(name).detach()
    scale = weight.abs().max() / 127
    setattr(owner, own, nn.Parameter(QuantisedTensor((weight / scale).round().to(torch.int8), scale), False))
    model = get_peft_model(nn.ModuleDict({"layer": base}), CDDConfig(target_modules=["layer"], init_weights=False))
    for merge in (model.merge_adapter, model.merge_and_unload, model.base_model.model["layer"].merge):
        with pytest.raises(TypeError, match=f"the {own} of .* is QuantisedTensor of torch.float32, not a plain"):
            merge(safe_merge=True)


def test_no_layer_is_merged_where_one_is_quantised_for_good() -> None:
    model, layers, weights = mixed_layers()
    layers[1].quantization_backend = ForwardOnlyQuantizationBackend("awq")
    with pytest.raises(TypeError, match=r"PEFT cannot merge into weights that awq quantised.*, in 1"):
        model.merge_adapter()
    assert torch.equal(layers[0].weight, weights[0])


@pytest.mark.parametrize("unload", [False, True])
def test_weights_merged_in_inference_mode_can_be_trained_with(unload: bool) -> None:
    model, _, _ = mixed_layers()
    x = torch.randn(3, 6)
    y = model(x)
    with torch.inference_mode():
        if unload:
            model = model.merge_and_unload()
        else:
            model.merge_adapter()
            model.unmerge_adapter()
    inputs = x.clone().requires_grad_()
    again = model(inputs)
    torch.testing.assert_close(again, y, atol=1e-5, rtol=1e-5)
    again.sum().backward()
    assert inputs.grad is not None


def test_nested_tensors_are_for_all_adapters_alike() -> None:
    model, _, _ = mixed_layers()
    samples = [torch.randn(2, 6), torch.randn(3, 6)]
    for layout in (torch.strided, torch.jagged):
        with quietly():  # torch calls them a prototype
            x = torch.nested.nested_tensor(samples, layout=layout)
            torch.testing.assert_close(model(x).unbind(), tuple(map(model, samples)))
            with pytest.raises(
                ValueError, match="x must not be a nested tensor where samples have changes of their own"
            ):
                model.eval()(x, adapter_names=["default", "other"])


def test_scaling() -> None:
    _, (layer, _), _ = mixed_layers()
    change = layer.get_delta_weight("default")
    for scale, expected in ((0.5, 0.5), (3.0, 1.5)):
        layer.scale_layer(scale)
        torch.testing.assert_close(layer.get_delta_weight("default"), expected * change)
    layer.unscale_layer(3.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * change)
    layer.unscale_layer()
    torch.testing.assert_close(layer.get_delta_weight("default"), change)
    layer.set_scale("default", 3.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 3 * change)


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


def test_a_scale_that_is_taken_back_leaves_the_alpha_of_the_adapter():
    model = get_peft_model(
        nn.Sequential(nn.Linear(6, 8)), CDDConfig(target_modules=["0"], init_weights=False, alpha=1.5)
    )
    layer, x = model.base_model.model[0], torch.randn(3, 6)
    before = layer(x).detach()
    base = layer.base_layer(x).detach()
    layer.scale_layer(2.0)
    torch.testing.assert_close(layer(x) - base, 2 * (before - base))
    layer.unscale_layer(2.0)
    torch.testing.assert_close(layer(x), before)
    layer.scale_layer(3.0)
    layer.unscale_layer()
    torch.testing.assert_close(layer(x), before)


def test_all_linear_means_linear_layers_for_a_second_adapter_too() -> None:
    """PEFT tells the kind of an adapted layer by the name of its class."""
    base = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Flatten(0, 0), nn.Conv1d(4, 3, 2))
    model = get_peft_model(base, CDDConfig(target_modules=["0", "1", "3"]), "first")
    model.add_adapter("second", CDDConfig(target_modules="all-linear"))
    layers = [model.base_model.model[i] for i in (0, 1, 3)]
    assert ["second" in layer.cdd_adapters for layer in layers] == [False, True, False]
