"""The layers: starts, merging, several adapters, conversions, every kind of base."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from structmat.torch import CDDAdapter, CDDConv, CDDEmbedding, CDDLinear, select_adapters
from tests.torch.common import dense, fill

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def conv1d(rows, cols, dtype=torch.float64):
    """transformers' Conv1D, whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(rows, cols).to(dtype)
    torch.nn.init.normal_(layer.bias)
    return layer


def base_of(kind, rows=5, cols=7, dtype=torch.float64):
    match kind:
        case "linear":
            return torch.nn.Linear(cols, rows, dtype=dtype)
        case "no bias":
            return torch.nn.Linear(cols, rows, bias=False, dtype=dtype)
        case "Conv1D":
            pytest.importorskip("transformers")
            return conv1d(rows, cols, dtype)
        case "conv 1":
            return torch.nn.Conv1d(cols, rows, 1, dtype=dtype)
        case "conv 2":
            return torch.nn.Conv2d(cols, rows, 1, dtype=dtype)
        case "embedding":
            return torch.nn.Embedding(rows, cols, dtype=dtype)


def layer_of(kind, dtype=torch.float64, **options):
    base = base_of(kind, dtype=dtype)
    make = {"embedding": CDDEmbedding, "conv 1": CDDConv, "conv 2": CDDConv}.get(kind, CDDLinear.from_linear)
    return make(base, **options), base


def input_of(kind, dtype=torch.float64):
    match kind:
        case "embedding":
            return torch.randint(0, 5, (4, 6))
        case "conv 1":
            return torch.randn(4, 7, 3, dtype=dtype)
        case "conv 2":
            return torch.randn(4, 7, 3, 2, dtype=dtype)
        case _:
            return torch.randn(4, 6, 7, dtype=dtype)


KINDS = ["linear", "no bias", "Conv1D", "conv 1", "conv 2", "embedding"]
kinds = pytest.mark.parametrize("kind", KINDS)


def with_weight(base, weight):
    """A copy of a base with another weight, given as (rows, cols)."""
    other = copy.deepcopy(base)
    with torch.no_grad():
        transposed = type(base).__name__ == "Conv1D"
        other.weight.copy_((weight.T if transposed else weight).reshape(other.weight.shape))
    return other


def dense_of(base):
    weight = base.weight.detach()
    return weight.T if type(base).__name__ == "Conv1D" else weight.flatten(1)


@kinds
@dtypes
def test_a_new_layer_gives_the_outputs_of_its_base(kind, dtype):
    layer, base = layer_of(kind, dtype)
    x = input_of(kind, dtype)
    assert torch.equal(layer(x), base(x))
    assert layer.base is base
    assert layer.weight is base.weight
    assert not any(p.requires_grad for p in base.parameters())
    assert layer.adapters["default"].factors[0].dtype == dtype
    assert not layer.delta().to_dense().any()


@kinds
def test_outputs_are_those_of_the_changed_weight(kind):
    layer, base = layer_of(kind, alpha=0.7)
    fill(layer)
    x = input_of(kind)
    change = dense(layer.adapters["default"].factors, 5, 7, 0.7)
    other = with_weight(base, dense_of(base) + change)
    torch.testing.assert_close(layer(x), other(x))
    torch.testing.assert_close(layer.delta().to_dense(), change)

    dy = torch.randn_like(layer(x))
    other.weight.requires_grad_()
    gradient = torch.autograd.grad(other(x), other.weight, dy)[0]
    gradient = gradient.T if kind == "Conv1D" else gradient.flatten(1)
    got = torch.autograd.grad(layer(x), list(layer.adapters["default"].factors), dy)
    factors = list(layer.adapters["default"].factors)
    expected = torch.autograd.grad(layer.delta().to_dense(), factors, gradient)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@kinds
@pytest.mark.parametrize("n_factors", [3, 5, 7])
def test_all_vectors_move_within_as_many_steps(kind, n_factors):
    """The first diagonal moves first; from then on the others have gradients too."""
    if kind == "embedding" and n_factors != 3:
        pytest.skip("embeddings have three factors")
    layer, _ = layer_of(kind, n_factors=n_factors)
    x, wanted = input_of(kind), None
    trained = list(layer.adapters["default"].factors)
    before = [t.detach().clone() for t in trained]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _step in range(3):
        optimizer.zero_grad()
        y = layer(x)
        wanted = torch.randn_like(y) if wanted is None else wanted
        (y - wanted).square().mean().backward()
        optimizer.step()
    assert all((a != b).any() for a, b in zip(trained, before, strict=True))


@kinds
@dtypes
def test_merging_is_undone_bit_for_bit(kind, dtype):
    layer, base = layer_of(kind, dtype)
    fill(layer)
    x, before, parameter = input_of(kind, dtype), base.weight.detach().clone(), base.weight
    unmerged = layer(x)
    layer.merge()
    assert layer.is_merged
    assert not torch.equal(base.weight, before)
    merged = layer(x)
    assert torch.equal(merged, base(x))
    # The weight is rounded to its dtype when merged: each output is off by the rounding of its row.
    scale = unmerged.detach().double().abs().max()
    assert (merged.double() - unmerged.double()).abs().max() <= 64 * torch.finfo(dtype).eps * scale
    layer.merge()  # once more does nothing
    with layer.merged():
        pass
    assert layer.is_merged
    layer.unmerge()
    assert not layer.is_merged
    assert base.weight is parameter
    assert torch.equal(base.weight, before)
    assert torch.equal(layer(x), unmerged)
    with layer.merged():
        assert torch.equal(layer(x), merged)
    with pytest.raises(ZeroDivisionError), layer.merged():
        raise ZeroDivisionError
    assert torch.equal(base.weight, before)


def test_merged_layers_move_and_copy():
    layer, base = layer_of("linear")
    fill(layer)
    before = base.weight.detach().clone()
    layer.merge()
    twin = copy.deepcopy(layer)
    layer.to(torch.float32)
    layer.unmerge()
    assert torch.equal(base.weight, before.float())
    twin.unmerge()
    assert torch.equal(twin.base.weight, before)


def test_nothing_changes_under_a_merged_weight():
    layer, _ = layer_of("linear")
    layer.merge()
    for change in (
        lambda: layer.add_adapter("b"),
        lambda: layer.remove_adapter("default"),
        lambda: setattr(layer, "active_adapters", ()),
    ):
        with pytest.raises(RuntimeError, match="unmerge"):
            change()


@kinds
def test_a_broken_adapter_is_not_merged(kind):
    layer, base = layer_of(kind)
    before = base.weight.detach().clone()
    with torch.no_grad():
        layer.adapters["default"].factors[0].fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        layer.merge()
    assert not layer.is_merged
    assert torch.equal(base.weight, before)


@kinds
def test_adapters_sum(kind):
    layer, base = layer_of(kind)
    layer.add_adapter("second", block_size=3, alpha=-0.5)
    fill(layer)
    x = input_of(kind)
    changes = {
        name: dense(layer.adapters[name].factors, 5, 7, alpha) for name, alpha in (("default", 1.0), ("second", -0.5))
    }
    for names in (("default", "second"), ("second",), ("default",), ()):
        layer.active_adapters = names
        assert layer.active_adapters == names
        other = with_weight(base, dense_of(base) + sum(changes[name] for name in names))
        torch.testing.assert_close(layer(x), other(x))
        with layer.merged():
            torch.testing.assert_close(layer(x), other(x))
        if names:
            torch.testing.assert_close(layer.delta().to_dense(), sum(changes[name] for name in names))
    with pytest.raises(ValueError, match="no adapter is active"):
        layer.delta()
    torch.testing.assert_close(layer.delta("second").to_dense(), changes["second"])
    layer.active_adapters = "second"
    layer.remove_adapter("second")
    assert layer.active_adapters == ()
    with pytest.raises(KeyError, match="no adapter 'second'"):
        layer.delta("second")
    with pytest.raises(KeyError, match="no adapter 'second'"):
        layer.active_adapters = ["second"]


@kinds
def test_each_sample_may_have_an_adapter_of_its_own(kind):
    layer, base = layer_of(kind)
    layer.add_adapter("second")
    fill(layer)
    x = input_of(kind)
    chosen = ["second", None, "default", "second"]
    expected = []
    for i, name in enumerate(chosen):
        layer.active_adapters = () if name is None else (name,)
        expected.append(layer(x[i : i + 1]))
    for active in (("default", "second"), ()):  # what is active otherwise does not matter
        layer.active_adapters = active
        with select_adapters(layer, chosen):
            y = layer(x)
            y.square().sum().backward()
        torch.testing.assert_close(y, torch.cat(expected))
    assert torch.equal(layer(x), base(x))
    with select_adapters(layer, chosen[:2]), pytest.raises(ValueError, match="2 names for a batch of 4 samples"):
        layer(x)


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
    with pytest.raises(TypeError, match="missing"):
        layer.merge()
    with pytest.raises(ValueError, match="there is no base"):
        layer.dense_weight()


@pytest.mark.parametrize(("rows", "cols"), [(512, 512), (128, 512), (512, 128)])
@pytest.mark.parametrize("n_factors", [3, 5, 7])
def test_a_normal_start_keeps_the_variance(rows, cols, n_factors):
    torch.manual_seed(0)
    layer = CDDLinear(cols, rows, False, n_factors=n_factors)
    with torch.no_grad():
        variance = layer(torch.randn(200, cols)).var()
    assert 0.6 < variance < 1.6


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
    layer = CDDLinear.from_delta(base, base.weight.detach() + change, block_size=block, alpha=0.5)
    error = (layer.delta().to_dense() - change).norm() / change.norm()
    fitted = layer.adapters["default"].fit.error
    torch.testing.assert_close(error.item(), float(fitted), atol=1e-7, rtol=1e-5)
    assert error < 1e-5


def test_from_delta_takes_tensors_and_half_precision():
    weight = torch.randn(6, 4)
    tuned = weight + torch.randn(6, 1) * torch.randn(1, 4)
    layer = CDDLinear.from_delta(weight, tuned)
    assert layer.weight.data_ptr() == weight.data_ptr()
    assert layer.bias is None
    torch.testing.assert_close(layer.to_linear().weight.detach(), tuned, atol=1e-4, rtol=1e-4)
    half = CDDLinear.from_delta(weight.bfloat16(), tuned.bfloat16())
    assert half.adapters["default"].factors[0].dtype == torch.bfloat16
    assert (half.delta().to_dense() - (tuned - weight)).abs().max() < 0.1
    for wrong in (tuned.T, tuned[:5]):
        with pytest.raises(ValueError, match="differ"):
            CDDLinear.from_delta(weight, wrong)
    with pytest.raises(ValueError, match="NaN or infinity"):
        CDDLinear.from_delta(weight, tuned / 0)
    with pytest.raises(ValueError, match="out_features, in_features"):
        CDDLinear.from_delta(weight[0], tuned[0])
    with pytest.raises(ValueError, match="alpha is 0"):
        CDDLinear.from_delta(weight, tuned, alpha=0)


@pytest.mark.parametrize(("rows", "cols", "block"), [(6, 6, None), (5, 8, 3), (9, 4, None)])
def test_from_lora_of_rank_one_is_exact(rows, cols, block):
    A, B = torch.randn(1, cols, dtype=torch.float64), torch.randn(rows, 1, dtype=torch.float64)
    base = torch.nn.Linear(cols, rows, dtype=torch.float64)
    layer = CDDLinear.from_lora(base, A, B, 2.0, block_size=block)
    torch.testing.assert_close(layer.delta().to_dense().detach(), 2 * B @ A, atol=1e-6, rtol=1e-6)
    for wrong in ((A[0], B), (A, B[:-1]), (A[:, :-1], B), (A, B.expand(rows, 2))):
        with pytest.raises(ValueError, match="do not fit"):
            CDDLinear.from_lora(base, *wrong)


@kinds
def test_copies_pickles_and_state_dicts(kind):
    layer, base = layer_of(kind, alpha=0.5)
    fill(layer)
    x = input_of(kind)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    assert twin.base is not base
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    fresh, other = layer_of(kind, alpha=0.5)
    assert not torch.equal(fresh(x), layer(x))
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))
    assert torch.equal(other.weight, base.weight)
    assert [key for key in layer.state_dict() if "factors" in key] == [
        f"adapters.default.factors.{i}" for i in range(3)
    ]


def test_repr_says_what_matters():
    layer, _ = layer_of("linear")
    for part in ("active=['default']", "(base): Linear", "block_size=5", "mode=lean", "alpha=1.0"):
        assert part in repr(layer)
    layer.merge()
    assert "merged" in repr(layer)


def test_training_mode_is_that_of_the_base():
    for training in (True, False):
        for kind in KINDS:
            base = base_of(kind).train(training)
            make = {"embedding": CDDEmbedding, "conv 1": CDDConv, "conv 2": CDDConv}.get(kind, CDDLinear.from_linear)
            layer = make(base)
            assert {m.training for m in layer.modules()} == {training}


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


def test_convolutions_take_single_samples():
    for kind in ("conv 1", "conv 2"):
        layer, _ = layer_of(kind)
        fill(layer)
        x = input_of(kind)
        torch.testing.assert_close(layer(x[0]), layer(x)[0])


def test_the_padding_row_of_an_embedding_stays():
    base = torch.nn.Embedding(6, 4, padding_idx=2)
    layer = CDDEmbedding(base, init="normal")
    tokens = torch.tensor([[2, 1], [2, 5]])
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        layer(tokens).square().sum().backward()
        optimizer.step()
    assert not layer(tokens)[:, 0].any()
    assert not layer.delta().to_dense()[2].any()
    assert layer.delta().to_dense()[1].any()
    merged = layer(tokens)
    with layer.merged():
        torch.testing.assert_close(layer(tokens), merged)


class TestErrors:
    @pytest.mark.parametrize(("options", "message"), [
        (dict(n_factors=4), "n_factors must be (odd|3)"),
        (dict(n_factors=1), "n_factors must be (odd|3)"),
        (dict(block_size=0), "block_size"),
        (dict(init="ones"), "init must be one of"),
        (dict(init="gradient"), "gradient= go together"),
        (dict(init="gradient", gradient=torch.ones(7, 5)), r"gradient must have shape \(5, 7\), got \(7, 5\)"),
        (dict(init="gradient", gradient=torch.full((5, 7), torch.nan)), "gradient holds NaN"),
        (dict(gradient=torch.ones(5, 7)), "gradient= go together"),
        (dict(mode="slow"), "mode must be"),
        (dict(alpha=float("nan")), "alpha must be finite"),
        (dict(dtype=torch.int32), "floating dtype"),
        (dict(name="a.b"), "contains a dot"),
        (dict(name=""), "is empty"),
    ])  # fmt: skip
    def test_a_wrong_option_leaves_the_base_alone(self, options, message):
        for kind in ("linear", "conv 1", "embedding"):
            base = base_of(kind)
            make = {"embedding": CDDEmbedding, "conv 1": CDDConv}.get(kind, CDDLinear.from_linear)
            with pytest.raises(ValueError, match=message):
                make(base, **options)
            assert base.weight.requires_grad

    def test_kinds_of_bases(self):
        for base in (torch.nn.ReLU(), torch.nn.Conv2d(3, 3, 3)):
            with pytest.raises(TypeError, match="in_features and out_features"):
                CDDLinear.from_linear(base)
        for base in (
            torch.nn.Conv2d(3, 3, 3),
            torch.nn.Conv1d(4, 4, 1, stride=2),
            torch.nn.Conv1d(4, 4, 1, groups=2),
            torch.nn.Conv1d(4, 4, 1, padding=1),
            torch.nn.Linear(3, 3),
        ):
            with pytest.raises(TypeError, match="kernel size and stride 1"):
                CDDConv(base)
        with pytest.raises(TypeError, match=r"torch\.nn\.Embedding"):
            CDDEmbedding(torch.nn.EmbeddingBag(3, 3))
        with pytest.raises(ValueError, match="max_norm"):
            CDDEmbedding(torch.nn.Embedding(3, 3, max_norm=1.0))
        with pytest.raises(ValueError, match="n_factors must be 3"):
            CDDEmbedding(torch.nn.Embedding(3, 3), n_factors=5)
        with pytest.raises(ValueError, match="base maps 3 to 4 features, got in_features=4"):
            CDDLinear(4, 3, base=torch.nn.Linear(3, 4))

    def test_shapes_of_inputs(self):
        layer, _ = layer_of("linear")
        with pytest.raises(ValueError, match=r"\(..., 7\), got \(2, 1\)"):
            layer(torch.ones(2, 1, dtype=torch.float64))
        adapter = CDDAdapter(7, 5)
        for shape in ((2, 1), (2, 8), ()):
            with pytest.raises(ValueError, match=r"x must have shape \(..., 7\)"):
                adapter(torch.ones(shape)) if shape else adapter.add_to(torch.ones(5), torch.ones(()))
        with pytest.raises(ValueError, match=r"y \(..., 5\)"):
            adapter.add_to(torch.ones(1, 5), torch.ones(2, 7))

    def test_names(self):
        layer, _ = layer_of("linear")
        with pytest.raises(ValueError, match="is taken"):
            layer.add_adapter("default")
        with pytest.raises(KeyError, match="no adapter 'x'"):
            layer.remove_adapter("x")
