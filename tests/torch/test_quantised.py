"""Changes over quantised bases: torchao, bitsandbytes, torch's own dynamic quantisation."""

from __future__ import annotations

import copy
import importlib

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import CDDLinear, adapt, adapter_state_dict, load_adapter, merge_adapters
from tests.torch.common import dense, fill, quietly


def imported(name):
    with quietly():
        try:
            return importlib.import_module(name)
        except ImportError:
            return pytest.skip(f"needs {name}")


def torchao_int8(linear):
    quantization = imported("torchao.quantization")
    model = nn.Sequential(copy.deepcopy(linear))
    with quietly():
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model[0], model[0].weight.dequantize()


def bitsandbytes_int8(linear):
    modules = imported("bitsandbytes.nn")
    base = modules.Linear8bitLt(linear.in_features, linear.out_features, has_fp16_weights=False)
    base.load_state_dict(linear.state_dict())
    with quietly():
        base = base.to("cpu")  # which quantises
    return base, base.weight.detach().float() * (base.weight.SCB[:, None] / 127)


def torch_dynamic(linear):
    with quietly():
        base = torch.ao.quantization.quantize_dynamic(nn.Sequential(copy.deepcopy(linear)), {nn.Linear})[0]
    return base, base.weight().dequantize()


@pytest.fixture(params=[torchao_int8, bitsandbytes_int8, torch_dynamic], ids=lambda f: f.__name__)
def quantised(request):
    torch.manual_seed(0)
    return request.param(nn.Linear(48, 32))


@pytest.fixture(autouse=True)
def quiet():
    with quietly():
        yield


def test_outputs_and_gradients_are_those_over_the_dequantised_weight(quantised):
    base, weight = quantised
    layer = fill(CDDLinear.from_linear(base, alpha=0.5))
    factors = list(layer.adapters["default"].factors)
    assert {f.dtype for f in factors} == {torch.float32}
    x = torch.randn(20, 48)
    dequantised = nn.Linear(48, 32)
    with torch.no_grad():
        dequantised.weight.copy_(weight)
        dequantised.bias.copy_(layer.bias)
    reference = CDDLinear.from_linear(dequantised, alpha=0.5)
    reference.load_state_dict({k: v for k, v in layer.state_dict().items() if "factors" in k}, strict=False)
    y, expected = layer(x), reference(x)
    # Activations are quantised too by two of the three: nothing but the base differs.
    torch.testing.assert_close(y - base(x), expected - dequantised(x), atol=1e-4, rtol=1e-4)
    assert (base(x) - dequantised(x)).abs().max() < 0.05
    dy = torch.randn_like(y)
    got = torch.autograd.grad(y, factors, dy)
    for a, b in zip(got, torch.autograd.grad(expected, list(reference.adapters["default"].factors), dy), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_reach_the_input_where_the_library_has_them(quantised):
    base, weight = quantised
    x = torch.randn(20, 48, requires_grad=True)
    if "torch.ao" in type(base).__module__:
        pytest.skip("torch's dynamic quantisation has no gradient of its input")
    layer = fill(CDDLinear.from_linear(base))
    W = weight.double() + dense(layer.adapters["default"].factors, 32, 48)
    dy = torch.randn(20, 32)
    torch.testing.assert_close(torch.autograd.grad(layer(x), x, dy)[0].double(), dy.double() @ W, atol=0.05, rtol=0.02)


def test_merging_is_refused_and_to_linear_works(quantised):
    base, weight = quantised
    layer = fill(CDDLinear.from_linear(base))
    torch.testing.assert_close(layer.dense_weight(), weight, atol=0.01, rtol=0)
    x = torch.randn(20, 48)
    y = layer(x)
    with pytest.raises(TypeError, match="not a plain floating tensor"):
        layer.merge()
    assert not layer.is_merged
    assert torch.equal(layer(x), y)
    linear = layer.to_linear()
    assert linear.weight.dtype == torch.float32
    torch.testing.assert_close(linear(x), y, atol=0.05, rtol=0.01)
    assert not layer.dense_weight().requires_grad


def test_whole_models(quantised):
    base, _ = quantised
    model = nn.Sequential(base, nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(20, 48)
    before = model(x)
    summary = adapt(model)
    assert [layer.shape for layer in summary.layers] == [(32, 48), (4, 32)]
    assert torch.equal(model(x), before)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
    assert model(x).square().mean() < before.square().mean()
    saved = adapter_state_dict(model)
    y = model(x)
    saved = {key: value.clone() for key, value in saved.items()}
    fill(model)
    load_adapter(model, saved)
    assert torch.equal(model(x), y)
    with pytest.raises(TypeError, match="not a plain floating tensor"):
        merge_adapters(model)
    assert torch.equal(model(x), y)
    assert not model[2].is_merged


def test_from_weights_over_a_quantised_base(quantised):
    base, _ = quantised
    layer = CDDLinear.from_linear(base)
    tuned = layer.dense_weight() + torch.randn(32, 1) * torch.randn(1, 48)
    layer = CDDLinear.from_weights(base, tuned)
    torch.testing.assert_close(layer.to_linear().weight.detach(), tuned, atol=1e-3, rtol=1e-3)


def test_a_failure_leaves_a_quantised_model_alone(quantised):
    base, _ = quantised
    model = nn.Sequential(nn.Linear(3, 3), base)
    x = torch.randn(4, 48)
    flags, y = [p.requires_grad for p in model.parameters()], base(x)
    with pytest.raises(ValueError, match="gradient must have shape"):
        adapt(model, init="gradient", gradient=torch.ones(3, 3))
    assert type(model[0]) is nn.Linear
    assert model[1] is base
    assert [p.requires_grad for p in model.parameters()] == flags
    assert torch.equal(base(x), y)


def test_vectors_over_a_base_in_float8_are_in_float32():
    base = nn.Linear(4, 4, bias=False)
    base.weight = nn.Parameter(base.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    assert {factor.dtype for factor in CDDLinear.from_linear(base).adapters["default"].factors} == {torch.float32}
