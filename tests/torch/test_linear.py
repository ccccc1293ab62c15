"""`CDDLinear`: conversions, and layers without a base."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn.utils.prune import l1_unstructured

from structmat.torch import CDDAdapter, CDDLinear, adapters_per_sample, merge_adapters
from tests.torch.common import dense, fill
from tests.torch.layers import dense_of, dtypes, input_of, layer_of


@pytest.mark.parametrize("kind", ["linear", "no bias", "Conv1D"])
@pytest.mark.parametrize("merged", [False, True])
def test_to_linear_does_the_same(kind, merged):
    layer, base = layer_of(kind)
    fill(layer)
    x = input_of(kind)
    expected = layer(x)
    if merged:
        layer.merge()
    linear = layer.to_linear()
    assert type(linear) is torch.nn.Linear
    torch.testing.assert_close(linear(x), expected)
    assert linear.weight.requires_grad
    assert linear.weight.data_ptr() != base.weight.data_ptr()
    layer.unmerge()
    layer.active_adapters = ()
    assert torch.equal(layer.to_linear().weight, dense_of(base))
    torch.testing.assert_close(layer.dense_weight(), dense_of(base))


@pytest.mark.parametrize("change", [
    torch.nn.utils.parametrizations.weight_norm,
    torch.nn.utils.parametrizations.orthogonal,
    lambda base: l1_unstructured(base, "weight", 0.5),
], ids=["weight_norm", "orthogonal", "pruned"])  # fmt: skip
def test_a_weight_that_is_computed_is_not_merged_into(change):
    """The next forward pass would compute the old one again."""
    layer, base = layer_of("linear")
    change(base)
    fill(layer)
    x = input_of("linear")
    expected = layer(x)
    with pytest.raises(TypeError, match=r"merge: the weight of .*Linear is no parameter, as after"):
        layer.merge()
    assert torch.equal(layer(x), expected)
    torch.testing.assert_close(layer.to_linear()(x), expected)


def test_a_weight_that_was_computed_is_merged_into_as_a_parameter():
    """Where a frozen layer loses its parametrization, torch leaves a buffer."""
    layer, base = layer_of("linear")
    torch.nn.utils.parametrizations.weight_norm(base)
    fill(layer)
    x = input_of("linear")
    expected = layer(x)
    torch.nn.utils.parametrize.remove_parametrizations(base, "weight")
    if not isinstance(base.weight, torch.nn.Parameter):
        with pytest.raises(TypeError, match=r"is a buffer, to be made a torch\.nn\.Parameter first"):
            layer.merge()
        base.weight = torch.nn.Parameter(base.weight, requires_grad=False)
    layer.merge()
    torch.testing.assert_close(layer(x), expected)


class Scaled(torch.nn.Linear):
    """Multiplies by a tenth of its weight, or by what it is told."""

    def forward(self, x, scale=0.1):
        return torch.nn.functional.linear(x, scale * self.weight, self.bias)


class Halved(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) / 2


class Rectified(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x).relu()


class Renamed(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x)


def test_classes_that_do_not_multiply_by_their_weight_are_not_merged_into():
    layer = fill(CDDLinear.from_linear(Scaled(7, 5, dtype=torch.float64)))
    x = input_of("linear")
    expected = layer(x)
    with pytest.raises(TypeError, match=r"merge: Scaled does something else.*what its to_linear\(\) returns"):
        layer.merge()
    torch.testing.assert_close(layer.to_linear()(x), expected)
    halved = fill(CDDLinear.from_linear(Halved(7, 5, dtype=torch.float64)))
    torch.testing.assert_close(halved.to_linear()(x), halved(x))
    rectified = fill(CDDLinear.from_linear(Rectified(7, 5, dtype=torch.float64)))
    torch.nn.init.constant_(rectified.base.bias, 0.5)  # with which small inputs do not show it
    with pytest.raises(TypeError, match="Rectified does something else than multiply by a matrix and add a bias"):
        rectified.to_linear()
    model = torch.nn.Sequential(rectified)
    with pytest.raises(TypeError, match=r"Rectified .*, in 0$"):
        merge_adapters(model)
    layer = fill(CDDLinear.from_linear(Renamed(7, 5, dtype=torch.float64)))
    expected = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), expected)


def test_further_arguments_are_those_of_the_base():
    base = Scaled(7, 5, dtype=torch.float64)
    layer = fill(CDDLinear.from_linear(base))
    x = input_of("linear")
    for options in ((2.0,), ()), ((), {"scale": 2.0}):
        torch.testing.assert_close(
            layer(x, *options[0], **dict(options[1])), base(x, 2.0) + layer.adapters["default"](x)
        )
    with adapters_per_sample(layer, [None] * len(x)):
        assert torch.equal(layer(x, scale=2.0), base(x, 2.0))
    plain = CDDLinear.from_linear(torch.nn.Linear(7, 5))
    with pytest.raises(TypeError, match="scale"):
        plain(x, scale=2.0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("given", [torch.float64, torch.bfloat16, torch.float16])
def test_a_layer_without_a_base_has_outputs_in_the_dtype_of_its_inputs(bias, given):
    assert CDDLinear(4, 3, bias)(torch.ones(2, 4, dtype=given)).dtype == given


@dtypes
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_without_a_base_is_the_product_alone(bias, dtype):
    torch.manual_seed(0)
    layer = CDDLinear(9, 6, bias, dtype=dtype, alpha=0.5)
    if bias:
        torch.nn.init.normal_(layer.bias)
    assert (layer.bias is not None) == bias
    x = torch.randn(3, 9, dtype=dtype)
    W = dense(layer.adapters["default"].factors, 6, 9, 0.5)
    expected = x.double() @ W.T + (layer.bias.detach().double() if bias else 0)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x).double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
    linear = layer.to_linear()
    assert linear.weight.dtype == dtype
    torch.testing.assert_close(linear.weight.double(), W, rtol=torch.finfo(dtype).eps, atol=1e-6)
    with pytest.raises(TypeError, match="merge: the layer has no base"):
        layer.merge()
    with pytest.raises(RuntimeError, match="there is no base"):
        layer.dense_weight()


@settings(max_examples=15, derandomize=True)
@given(rows=st.integers(2, 9), cols=st.integers(2, 9), block=st.integers(1, 9), seed=st.integers(0, 99))
def test_from_delta_recovers_an_exact_product(rows, cols, block, seed):
    torch.manual_seed(seed)
    block = min(block, rows, cols)
    base = torch.nn.Linear(cols, rows, dtype=torch.float64)
    planted = CDDAdapter(cols, rows, block_size=block, init="normal", dtype=torch.float64)
    with torch.no_grad():
        for factor in planted.factors:
            factor.add_(torch.randn_like(factor), alpha=0.2)
    change = dense(planted.factors, rows, cols)
    layer = CDDLinear.from_delta(base, change, block_size=block, alpha=0.5)
    error = (layer.delta().to_dense() - change).norm() / change.norm()
    fitted = layer.adapters["default"].fit.error
    torch.testing.assert_close(error.item(), float(fitted), atol=1e-7, rtol=1e-5)
    assert error < 1e-5


def test_from_weights_takes_tensors_and_half_precision():
    weight = torch.randn(6, 4)
    tuned = weight + torch.randn(6, 1) * torch.randn(1, 4)
    layer = CDDLinear.from_weights(weight, tuned)
    assert layer.weight.data_ptr() == weight.data_ptr()
    assert layer.bias is None
    torch.testing.assert_close(layer.to_linear().weight.detach(), tuned, atol=1e-4, rtol=1e-4)
    half = CDDLinear.from_weights(weight.bfloat16(), tuned.bfloat16())
    assert half.adapters["default"].factors[0].dtype == torch.bfloat16
    assert (half.delta().to_dense() - (tuned - weight)).abs().max() < 0.1
    for wrong in (tuned.T, tuned[:5]):
        with pytest.raises(ValueError, match="must have the shape of base"):
            CDDLinear.from_weights(weight, wrong)
    delta = tuned - weight
    by_delta = CDDLinear.from_delta(weight, delta)
    torch.testing.assert_close(by_delta.delta().to_dense(), layer.delta().to_dense(), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="delta must have shape"):
        CDDLinear.from_delta(weight, delta.T)
    with pytest.raises(ValueError, match="NaN or infinity"):
        CDDLinear.from_weights(weight, tuned / 0)
    with pytest.raises(ValueError, match="out_features, in_features"):
        CDDLinear.from_weights(weight[0], tuned[0])
    with pytest.raises(RuntimeError, match="alpha is 0"):
        CDDLinear.from_weights(weight, tuned, alpha=0)


@pytest.mark.parametrize(("rows", "cols", "block"), [(6, 6, "min"), (5, 8, 3), (9, 4, "min")])
def test_from_lora_of_rank_one_is_exact(rows, cols, block):
    A, B = torch.randn(1, cols, dtype=torch.float64), torch.randn(rows, 1, dtype=torch.float64)
    base = torch.nn.Linear(cols, rows, dtype=torch.float64)
    layer = CDDLinear.from_lora(base, A, B, 2.0, block_size=block)
    torch.testing.assert_close(layer.delta().to_dense().detach(), 2 * B @ A, atol=1e-6, rtol=1e-6)
    for wrong in ((A[0], B), (A, B[:-1]), (A[:, :-1], B), (A, B.expand(rows, 2))):
        with pytest.raises(ValueError, match=r"no product B A|must have shape"):
            CDDLinear.from_lora(base, *wrong)


@pytest.mark.parametrize("dtypes", [(torch.bfloat16,) * 2, (torch.float16,) * 2, (torch.float32, torch.float64)])
def test_from_lora_multiplies_in_full_precision(dtypes):
    A, B = torch.randn(1, 6).to(dtypes[0]), torch.randn(6, 1).to(dtypes[1])
    layer = CDDLinear.from_lora(torch.nn.Linear(6, 6), A, B)
    torch.testing.assert_close(
        layer.delta().to_dense().detach(), (B.double() @ A.double()).float(), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(("change", "block"), [("normal", "min"), ("permutation", 4)])
def test_fitted_changes_are_the_same_merged_and_not(change, block):
    """Fits could drive factors to ranges that dense matrices survive and transforms do not."""
    torch.manual_seed(0)
    delta = torch.randn(12, 8) if change == "normal" else torch.eye(12)[torch.randperm(12)]
    cols = delta.shape[1]
    fitted = CDDLinear.from_delta(torch.zeros(12, cols), delta, block_size=block).adapters["default"]
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 2**-7)):
        layer = CDDLinear.from_linear(torch.nn.Linear(cols, 12, dtype=dtype), block_size=block, dtype=torch.float32)
        layer.adapters["default"].load_state_dict(fitted.state_dict())
        x = torch.randn(32, cols, dtype=dtype)
        y = layer(x).double()
        with layer.merged():
            merged = layer(x).double()
        assert torch.linalg.vector_norm(y - merged) < bound * torch.linalg.vector_norm(merged)
