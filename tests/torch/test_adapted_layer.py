"""What all layers share: outputs, merging, several adapters, copies, errors."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")


from structmat.torch import (
    CDDAdapter,
    CDDConv,
    CDDEmbedding,
    CDDLinear,
    adapters_per_sample,
)
from tests.torch.common import dense, fill
from tests.torch.layers import KINDS, base_of, dense_of, dtypes, input_of, kinds, layer_of, with_weight


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


@kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_merged_weight_is_rounded_once(kind, dtype):
    """However many changes there are; a sum of several that is rounded each time is off in the last place."""
    layer, base = layer_of(kind, dtype)
    for name in ("second", "third", "fourth"):
        layer.add_adapter(name)
    fill(layer)
    exact = base.weight.detach().float()
    for adapter in layer.adapters.values():
        change = adapter.dense()
        exact = exact + (change.T if kind == "Conv1D" else change.reshape(exact.shape)).float()
    layer.merge()
    assert torch.equal(base.weight, exact.to(dtype))


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


@kinds
def test_merged_layers_go_to_the_device_meta(kind):
    layer, base = layer_of(kind)
    fill(layer).merge()
    layer.to("meta")
    assert base.weight.is_meta
    layer.unmerge()
    assert base.weight.is_meta


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
    with pytest.raises(RuntimeError, match="no adapter is active"):
        layer.delta()
    torch.testing.assert_close(layer.delta("second").to_dense(), changes["second"])
    layer.active_adapters = "second"
    layer.remove_adapter("second")
    assert layer.active_adapters == ()
    with pytest.raises(ValueError, match="'second' is no adapter here"):
        layer.delta("second")
    with pytest.raises(ValueError, match="'second' is no adapter here"):
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
        with adapters_per_sample(layer, chosen):
            y = layer(x)
            y.square().sum().backward()
        torch.testing.assert_close(y, torch.cat(expected))
    assert torch.equal(layer(x), base(x))
    with adapters_per_sample(layer, chosen[:2]), pytest.raises(ValueError, match="2 entries for a batch of 4 samples"):
        layer(x)


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
    for part in ("active=['default']", "(base): Linear", "block_size=5", "mode=recompute", "alpha=1.0"):
        assert part in repr(layer)
    layer.merge()
    assert "merged" in repr(layer)


def test_training_mode_is_that_of_the_base():
    for training in (True, False):
        for kind in KINDS:
            base = base_of(kind).train(training)
            make = {"embedding": CDDEmbedding, "conv 1": CDDConv, "conv 2": CDDConv}.get(kind, CDDLinear.from_linear)
            layer = make(base)
            layer.add_adapter("second", dropout=0.5)
            assert {m.training for m in layer.modules()} == {training}


@kinds
def test_a_state_dict_of_merged_layers_is_that_of_unmerged_ones(kind):
    layer, _ = layer_of(kind)
    fill(layer)
    model = torch.nn.Sequential(layer)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer.merge()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert isinstance(model.state_dict(keep_vars=True)["0.base.weight"], torch.nn.Parameter)


@kinds
def test_a_merged_layer_stays_unmerged_with_a_broken_adapter_of_a_state_dict(kind):
    """What follows it in the model is loaded all the same."""
    layer, base = layer_of(kind)
    model = torch.nn.Sequential(layer, torch.nn.Linear(2, 2))
    state = {key: torch.full_like(value, 0.5) for key, value in model.state_dict().items()}
    state["0.adapters.default.factors.0"] += torch.nan
    layer.merge()
    with pytest.warns(RuntimeWarning, match="load_state_dict: a layer stays unmerged: .*NaN or infinity"):
        model.load_state_dict(state)
    assert not layer.is_merged
    assert (base.weight == 0.5).all()
    assert (model[1].weight == 0.5).all()


@kinds
def test_a_merged_layer_takes_a_state_dict(kind):
    layer, _ = layer_of(kind)
    fill(layer)
    other, _ = layer_of(kind)
    fill(other)
    x = input_of(kind)
    for twin in (layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        model = torch.nn.Sequential(twin)
        twin.merge()
        model.load_state_dict(torch.nn.Sequential(other).state_dict())
        assert twin.is_merged
        torch.testing.assert_close(model(x), other(x))
        twin.unmerge()
        assert torch.equal(model(x), other(x))
        assert torch.equal(twin.base.weight, other.base.weight)


class TestErrors:
    @pytest.mark.parametrize(("options", "message"), [
        (dict(n_factors=4), "n_factors must be (odd|3)"),
        (dict(n_factors=1), "n_factors must be (odd|3)"),
        (dict(block_size=0), "block_size"),
        (dict(init="ones"), "init must be one of"),
        (dict(init="gradient"), "gradient is for init="),
        (dict(init="gradient", gradient=torch.ones(7, 5)), r"gradient must have shape \(5, 7\), got \(7, 5\)"),
        (dict(init="gradient", gradient=torch.full((5, 7), torch.nan)), "gradient holds NaN"),
        (dict(gradient=torch.ones(5, 7)), "gradient is for init="),
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
            torch.nn.Conv1d(4, 4, 3, padding="same"),
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
        with pytest.raises(ValueError, match=r"\(\.\.\., 7\), got \(\.\.\., 1\)"):
            layer(torch.ones(2, 1, dtype=torch.float64))
        adapter = CDDAdapter(7, 5)
        for shape in ((2, 1), (2, 8), ()):
            with pytest.raises(ValueError, match=r"x must have shape \(..., 7\)"):
                adapter(torch.ones(shape)) if shape else adapter.add_to(torch.ones(5), torch.ones(()))
        with pytest.raises(ValueError, match=r"y \(..., 5\)"):
            adapter.add_to(torch.ones(1, 5), torch.ones(2, 7))

    def test_names(self):
        layer, _ = layer_of("linear")
        for name in ("keys", "train", "half"):
            with pytest.raises(ValueError, match=f"'{name}' is an attribute"):
                layer.add_adapter(name)
        with pytest.raises(ValueError, match="names must name each adapter once"):
            layer.active_adapters = ["default", "default"]
        with pytest.raises(ValueError, match="is taken"):
            layer.add_adapter("default")
        with pytest.raises(ValueError, match="'x' is no adapter here"):
            layer.remove_adapter("x")
