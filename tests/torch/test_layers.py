"""Layers of every kind: outputs, gradients, conversions, and what they refuse."""

from __future__ import annotations

import copy

import pytest

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils.prune import l1_unstructured

from structmat import ArgumentTypeError
from structmat.torch import CDDConv, CDDEmbedding, CDDExperts, CDDLinear
from tests.torch.common import (
    KINDS,
    dense,
    dtypes,
    factors_of,
    fill,
    input_of,
    kept_bytes,
    kinds,
    layer_around,
    layer_of,
    quietly,
)


@kinds
def test_layers_are_in_the_mode_of_their_base(kind):
    layer, base = layer_of(kind)
    assert layer.training
    assert layer.adapter.training
    evaluated = layer_around(kind, base.eval())
    assert not evaluated.training
    assert not evaluated.adapter.training


# Embeddings gather and keep that; convolutions keep the sum of their kernel and the change.
@in_one_test("kind", [kind for kind in KINDS if "embedding" not in kind and "conv " not in kind])
@in_one_test("needs_gradient", [False, True])
def test_layers_keep_nothing_but_their_input(kind, needs_gradient):
    layer, _ = layer_of(kind)
    fill(layer)
    x = input_of(kind).requires_grad_(needs_gradient)
    assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0


def test_a_stack_keeps_what_the_frozen_stack_needs_and_each_input():
    """Every input is an output that the activation before keeps anyway, so nothing is added at all."""
    torch.manual_seed(0)
    stack = nn.Sequential(*[part for _ in range(12) for part in (nn.Linear(32, 32), nn.Tanh())])
    x = torch.randn(20, 32, requires_grad=True)
    stack.requires_grad_(requires_grad=False)
    frozen = kept_bytes(lambda: stack(x), x, *stack.parameters())[0]
    for i in range(0, 24, 2):
        stack[i] = fill(CDDLinear.from_linear(stack[i]))
    assert kept_bytes(lambda: stack(x), x, *stack.parameters())[0] == frozen == 12 * x.numel() * 4


@in_one_test("shape", [(7,), (1, 7), (30, 7), (2, 3, 7), (0, 3, 7)])
@in_one_test("autocast", [False, True])
def test_outputs_may_be_changed_in_place(shape, autocast):
    """By `ReLU(inplace=True)`, say, as those of the base may."""
    layer, _ = layer_of("linear")
    fill(layer)
    for x in (torch.randn(shape, dtype=torch.float64), torch.randn(*shape, 2, dtype=torch.float64)[..., 0]):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs, gradients = [], []
            for y in (layer(x), layer(x).clone()):
                outputs.append(nn.functional.relu(y.add_(1).mul_(2), inplace=True))
                gradients.append(torch.autograd.grad(outputs[-1].square().sum(), list(layer.adapter.vectors)))
        assert torch.equal(*outputs)
        assert all(map(torch.equal, *gradients))


@in_one_test("kind", ["conv 1", "conv 2", "conv 3 x 2"])
@in_one_test("single", [False, True])
def test_outputs_of_convolutions_are_stored_as_those_of_the_base(kind, single):
    layer, base = layer_of(kind)
    fill(layer)
    x = input_of(kind)
    for given in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):  # the second with the channels last
        own = given[0] if single else given
        assert layer(own).stride() == base(own).stride()
        torch.testing.assert_close(layer(given)[0], layer(given[0]))


def test_the_padding_row_of_an_embedding_stays():
    layer = CDDEmbedding(nn.Embedding(6, 4, padding_idx=2), init="normal")
    tokens = torch.tensor([[2, 1], [2, 5]])
    optimizer = torch.optim.AdamW(layer.adapter.parameters(), lr=0.1)
    for _ in range(3):
        layer(tokens).square().sum().backward()
        optimizer.step()
    assert not layer(tokens)[:, 0].any()
    assert not layer.delta().to_dense()[2].any()
    assert layer.delta().to_dense()[1].any()


REGISTER = [nn.modules.module.register_module_forward_hook, nn.modules.module.register_module_full_backward_pre_hook]


@pytest.mark.parametrize("register", [*REGISTER, "own"])
def test_hooks_see_the_base(register):
    """As profilers and loggers set them."""
    layer, base = layer_of("linear")
    fill(layer)
    x = input_of("linear").requires_grad_()
    expected, seen = layer(x), []
    add = base.register_forward_hook if register == "own" else register
    with add(lambda module, *_: seen.append(module)):
        y = layer(x)
        y.sum().backward()
    torch.testing.assert_close(y, expected)
    assert base in seen


def test_trained_bases_and_replaced_forwards_are_heeded():
    layer, base = layer_of("linear")
    fill(layer)
    x = input_of("linear")
    change = layer(x) - base(x)
    base.requires_grad_()
    layer(x).sum().backward()
    assert base.weight.grad is not None
    base.forward = lambda x: nn.Linear.forward(base, x) + 1
    torch.testing.assert_close(layer(x), base(x) + change)


@pytest.mark.parametrize("kind", ["linear", "no bias", "Conv1D"])
def test_to_linear_does_the_same(kind):
    layer, base = layer_of(kind)
    fill(layer)
    x = input_of(kind)
    linear = layer.eval().to_linear()
    assert type(linear) is nn.Linear
    assert not linear.training
    torch.testing.assert_close(linear(x), layer(x))
    assert linear.weight.requires_grad
    assert linear.weight.data_ptr() != base.weight.data_ptr()
    weight = base.weight
    assert layer.merge_into_base() is base
    assert base.weight is not weight
    torch.testing.assert_close(base(x), linear(x))


class Scaled(nn.Linear):
    """Multiplies by a tenth of its weight, or by what it is told."""

    def forward(self, x, scale=0.1):
        return nn.functional.linear(x, scale * self.weight, self.bias)


class OfAnotherClass(nn.Module):
    """A layer with a weight (out, in) that it scales, or (in, out)."""

    in_features, out_features = 7, 5

    def __init__(self, transposed):
        super().__init__()
        self.weight = nn.Parameter(torch.randn((7, 5) if transposed else (5, 7), dtype=torch.float64))
        self.transposed = transposed

    def forward(self, x):
        return x @ self.weight if self.transposed else x @ (2 * self.weight.T)


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Renamed(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def test_further_arguments_are_those_of_the_base():
    layer = fill(CDDLinear.from_linear(Scaled(7, 5, dtype=torch.float64)))
    x = input_of("linear")
    for y in (layer(x, 2.0), layer(x, scale=2.0)):
        torch.testing.assert_close(y, layer.base(x, 2.0) + layer.adapter(x))


@in_one_test("layout", [torch.strided, torch.jagged])
@in_one_test("kind", ["linear", "no bias", "Conv1D", "embedding", "scaled embedding", "no base"])
def test_rows_of_nested_tensors_are_those_of_their_samples(kind, layout):
    if kind == "no base":
        layer = CDDLinear(7, 6, dtype=torch.float64)
    else:
        layer, _ = layer_of(kind)
    fill(layer)
    rows = input_of(kind)[0]
    samples = [rows[:2], rows[:0], rows]
    with quietly():  # torch calls them a prototype
        found = layer(torch.nested.nested_tensor(samples, layout=layout))
        assert found.is_nested
        assert found.layout == layout
        outputs = found.unbind()
    expected = tuple(layer(sample) for sample in samples)
    torch.testing.assert_close(outputs, expected)
    gradients = [
        torch.autograd.grad(sum(each.square().sum() for each in given), list(layer.adapter.vectors))
        for given in (outputs, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("change", "text"), [
    (nn.utils.parametrizations.weight_norm, "is no parameter, as after"),
    (lambda base: l1_unstructured(base, "weight", 0.5), "is no parameter, as after"),
    (lambda base: setattr(base, "__class__", Scaled), "is not what it multiplies by"),
    (lambda base: base.to("meta"), "device meta"),
])  # fmt: skip
def test_weights_that_a_change_cannot_be_merged_into(change, text):
    """The next forward pass would compute the old one again, say."""
    layer, base = layer_of("linear")
    fill(layer)
    change(base)
    for merge in (layer.to_linear, layer.merge_into_base):
        with pytest.raises(TypeError, match=text):
            merge()


@pytest.mark.parametrize("make", [
    lambda: CDDLinear.from_linear(OfAnotherClass(transposed=False)),
    lambda: CDDLinear.from_linear(OfAnotherClass(transposed=True)),
    lambda: CDDConv(Standardised(7, 5, 1)),
])  # fmt: skip
def test_classes_that_multiply_by_something_else_are_not_merged_into(make):
    layer = fill(make())
    before = layer.base.weight.clone()
    with pytest.raises(TypeError, match="is not what it multiplies by"):
        layer.merge_into_base()
    assert torch.equal(layer.base.weight, before)


def test_classes_that_multiply_by_their_weight_are_merged_into():
    layer = fill(CDDLinear.from_linear(Renamed(7, 5, dtype=torch.float64)))
    x = input_of("linear")
    expected = layer(x)
    torch.testing.assert_close(layer.merge_into_base()(x), expected)


def test_a_broken_adapter_is_not_merged():
    layer, base = layer_of("linear")
    before = copy.deepcopy(base)
    layer.adapter.vectors[0].data.fill_(torch.inf)
    layer.adapter.vectors[1].data.fill_(torch.inf)
    with pytest.raises(ValueError, match="NaN or infinity in the merged weight"):
        layer.merge_into_base()
    assert torch.equal(base.weight, before.weight)


@dtypes
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_without_a_base_is_the_product_alone(bias, dtype):
    torch.manual_seed(0)
    layer = CDDLinear(9, 6, bias, dtype=dtype, alpha=0.5)
    if bias:
        nn.init.normal_(layer.bias)
    assert (layer.bias is not None) == bias
    x = torch.randn(3, 9, dtype=dtype)
    W = dense(factors_of(layer.adapter), 6, 9, 0.5)
    expected = x.double() @ W.T + (layer.bias.detach().double() if bias else 0)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x).double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
    linear = layer.to_linear()
    torch.testing.assert_close(linear.weight.double(), W, rtol=torch.finfo(dtype).eps, atol=1e-6)
    with pytest.raises(TypeError, match="the layer has no base"):
        layer.merge_into_base()
    assert CDDLinear(4, 3, bias)(torch.ones(2, 4, dtype=torch.float16)).dtype == torch.float16


def test_a_layer_without_a_base_shows_its_sizes_and_one_with_a_base_shows_the_base():
    assert "in_features=4, out_features=3, bias=False" in str(CDDLinear(4, 3, bias=False))
    assert "in_features=4, out_features=3, bias=True" in str(CDDLinear(4, 3))
    assert str(CDDLinear.from_linear(nn.Linear(4, 3))).count("bias") == 1


@pytest.mark.parametrize("shape", [(3, 9), (1, 1, 3, 9, 9)])
def test_convolutions_refuse_other_numbers_of_axes(shape):
    for kernel in (1, 3):
        layer = CDDConv(nn.Conv2d(3, 3, kernel))
        with pytest.raises(ValueError, match=r"CDDConv: x must have 3 axes, or 4 with one of samples, got shape"):
            layer(torch.ones(shape))


def test_from_delta():
    linear, delta = nn.Linear(4, 6), torch.randn(6, 1) * torch.randn(1, 4)
    layer = CDDLinear.from_delta(linear, delta)
    assert layer.base is linear
    assert layer.adapter.fit.error < 1e-5
    torch.testing.assert_close(layer.to_linear().weight.detach(), linear.weight + delta, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: CDDLinear.from_linear(nn.LayerNorm(3)), TypeError, "base must have in_features and out_features"),
    (lambda: CDDLinear(nn.Linear(4, 5)), TypeError, "got a Linear: CDDLinear.from_linear wraps a layer"),
    (lambda: CDDLinear(4, 4, base=nn.Linear(4, 5)), ValueError, "base maps 4 to 5 features, got in_features=4"),
    (lambda: CDDLinear.from_linear(nn.Linear(4, 4, dtype=torch.complex64)), TypeError, "complex weights"),
    (lambda: CDDConv(nn.ConvTranspose2d(3, 4, 3)), TypeError, "base must be a Conv1d, Conv2d or Conv3d"),
    (lambda: CDDConv(Standardised(3, 4, 3)), TypeError, "with kernel size and stride 1, one group and no padding only"),
    (lambda: CDDEmbedding(nn.Linear(3, 4)), TypeError, "base must be a torch.nn.Embedding"),
    (lambda: CDDEmbedding(nn.Embedding(3, 4, max_norm=1.0)), ValueError, "base has a max_norm"),
    (lambda: CDDEmbedding(nn.Embedding(3, 4), n_factors=5), ValueError, "n_factors must be 3"),
    (lambda: CDDLinear(4, 4)(torch.ones(2, 5)), ValueError, r"x must have shape \(\.\.\., 4\), got \(\.\.\., 5\)"),
    (lambda: CDDLinear(4, 4)([1.0]), TypeError, "x must be a torch.Tensor, got list"),
    (lambda: CDDLinear(4, 4)(torch.ones(2, 4, dtype=torch.int64)), TypeError, "x must be of a floating dtype"),
    (lambda: CDDLinear(4, 4, r=8), TypeError, "unexpected keyword argument 'r'"),
    (lambda: CDDLinear(4, 4, n_matrices=3), ArgumentTypeError, "CDDLinear: n_matrices is that of the base"),
    (
        lambda: CDDExperts(nn.ParameterDict({"up": torch.ones(3, 6, 4)}), ["up"], n_matrices=3),
        ArgumentTypeError,
        "CDDExperts: n_matrices is that of the base",
    ),
])  # fmt: skip
def test_what_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_a_square_weight_that_is_stored_transposed_gets_the_transposed_change():
    """Where the shapes agree, nothing but the outputs tells."""
    base = pytest.importorskip("transformers.pytorch_utils").Conv1D(6, 6)
    layer = CDDLinear.from_linear(base, init="normal")
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer.to_linear()(x), layer(x))
    torch.testing.assert_close(layer(x) - base(x), x @ layer.adapter.dense().T)
