"""Outputs of a base with changes: what bases may do themselves."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import CDDLinear
from tests.torch.common import compiler, fill
from tests.torch.layers import dtypes, input_of, kinds, layer_of


def test_hooks_on_the_base_and_trained_bases_are_heeded():
    layer, base = layer_of("linear")
    fill(layer)
    x = input_of("linear")
    expected, seen = layer(x), []
    with base.register_forward_hook(lambda *a: seen.append(1)):
        torch.testing.assert_close(layer(x), expected)
    assert seen
    base.requires_grad_()
    layer(x).sum().backward()
    assert base.weight.grad is not None
    assert base.bias.grad is not None


REGISTER = {
    "forward": nn.modules.module.register_module_forward_hook,
    "before": nn.modules.module.register_module_forward_pre_hook,
    "backward": nn.modules.module.register_module_full_backward_hook,
    "before backward": nn.modules.module.register_module_full_backward_pre_hook,
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients are computed with respect to module o")
@kinds
@pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)
def test_hooks_of_all_modules_see_the_base(kind, register):
    """As profilers and loggers set them."""
    layer, base = layer_of(kind)
    fill(layer)
    x = input_of(kind)
    flows_back = x.is_floating_point()  # nothing does through a frozen table of integers
    if flows_back:
        x.requires_grad_()
    expected, seen = layer(x), []
    with register(lambda module, *_: seen.append(module)):
        y = layer(x)
        y.sum().backward()
    torch.testing.assert_close(y, expected)
    assert any(module is base for module in seen) == (flows_back or "backward" not in register.__name__)


@pytest.mark.filterwarnings("ignore:Using `torch.compile.module.` when there are global hooks")
@compiler
def test_compiled_layers_heed_hooks_of_all_modules():
    layer = fill(CDDLinear.from_linear(nn.Linear(6, 4)))
    x = torch.randn(3, 6)
    seen = []
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module is layer.base)):
        torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x), layer(x))
    assert seen.count(True) == 2


def assert_may_be_changed_in_place(layer, x):
    """Compare values and gradients with those of a copy of the outputs."""
    parameters = [p for p in layer.parameters() if p.requires_grad]
    outputs, gradients = [], []
    for y in (layer(x), layer(x).clone()):
        outputs.append(torch.nn.functional.relu(y.add_(1).mul_(2), inplace=True))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), parameters))
    assert torch.equal(*outputs)
    assert all(map(torch.equal, *gradients))


@kinds
@dtypes
@pytest.mark.parametrize("mode", ["recompute", "cache"])
def test_outputs_may_be_changed_in_place(kind, dtype, mode):
    """By `ReLU(inplace=True)`, say, as those of the base may."""
    layer, _ = layer_of(kind, dtype=dtype, mode=mode)
    assert_may_be_changed_in_place(fill(layer), input_of(kind, dtype))


@pytest.mark.parametrize("kind", ["linear", "no bias"])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (30, 7), (2, 3, 7), (2, 3, 4, 7), (0, 3, 7), (0, 7)], ids=str)
def test_outputs_of_all_shapes_may_be_changed_in_place(kind, shape):
    layer, _ = layer_of(kind)
    fill(layer)
    x = torch.randn(shape, dtype=torch.float64)
    assert_may_be_changed_in_place(layer, x)
    assert_may_be_changed_in_place(layer, torch.randn(*shape, 2, dtype=torch.float64)[..., 0])
    with torch.autocast("cpu", torch.bfloat16):
        assert_may_be_changed_in_place(layer, x)


@pytest.mark.parametrize("mode", ["recompute", "cache"])
def test_tracers_of_graphs_see_plain_operations(mode):
    from torch.fx.experimental.proxy_tensor import make_fx

    layer, _ = layer_of("linear", mode=mode)
    fill(layer)
    x = input_of("linear")
    graph = make_fx(layer)(torch.randn_like(x))
    torch.testing.assert_close(graph(x), layer(x))


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("kind", ["structmat.torch", "structmat.peft"])
def test_nested_tensors(layout, kind):
    layer = CDDLinear.from_linear(torch.nn.Linear(6, 4))
    if kind == "structmat.peft":
        pytest.importorskip("peft")
        from structmat.peft import CDDTunerLinear

        layer = CDDTunerLinear(layer.base)
        layer.update_layer("default")
        layer.set_adapter("default")
    fill(layer)
    samples = [torch.randn(2, 6), torch.randn(3, 6)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors", UserWarning)
        y = layer(torch.nested.nested_tensor(samples, layout=layout))
        assert y.layout == layout
        for one, sample in zip(y.unbind(), samples, strict=True):
            torch.testing.assert_close(one, layer(sample))
        parameters = [p for p in layer.parameters() if p.requires_grad]
        found = torch.autograd.grad(y.to_padded_tensor(0).square().sum(), parameters)
    expected = torch.autograd.grad(sum(layer(sample).square().sum() for sample in samples), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_forward_that_was_replaced_is_called():
    """As accelerate does in order to bring weights in when they are needed."""
    layer, base = layer_of("linear")
    fill(layer)
    x = input_of("linear")
    change = layer(x) - base(x)
    base.forward = lambda x: torch.nn.Linear.forward(base, x) + 1
    torch.testing.assert_close(layer(x), base(x) + change)


@pytest.mark.parametrize("first", ["adapted", "offloaded"])
def test_weights_and_vectors_that_accelerate_keeps_elsewhere(first):
    accelerate = pytest.importorskip("accelerate")
    layer, base = layer_of("linear")
    fill(layer)
    x, vectors = input_of("linear"), list(layer.adapters["default"].factors)
    expected = layer(x)
    if first == "offloaded":
        accelerate.cpu_offload(base, "cpu")
        layer = type(layer).from_linear(base)
        with torch.no_grad():
            for vector, value in zip(layer.adapters["default"].factors, vectors, strict=True):
                vector.copy_(value)
    else:
        accelerate.cpu_offload(layer, "cpu")
        assert layer.adapters["default"].factors[0].is_meta
    assert base.weight.is_meta
    torch.testing.assert_close(layer(x), expected)
