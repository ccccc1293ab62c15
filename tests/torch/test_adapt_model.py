"""`adapt` and its errors: nothing has changed when it fails."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat._array_tools import ArgumentError
from structmat.torch import (
    CDDAdapter,
    CDDLinear,
    adapt,
    adapters_per_sample,
    disable_adapters,
    load_adapter,
    merge_adapters,
    param_groups,
    remove_adapters,
    set_adapters,
    summarise,
    unmerge_adapters,
)
from tests.torch.common import assert_same_state, fill, mlp, state
from tests.torch.models import TOKENS


class TestErrors:
    @pytest.mark.parametrize(("arguments", "kind", "message"), [
        (dict(targets=["nope"]), ValueError, "match no layer; could be adapted: table, block.query"),
        (dict(targets="nope"), ValueError, "match no layer"),
        (dict(targets=[]), ValueError, "match no layer"),
        (dict(targets=["query", "nope"]), ValueError, r"targets \['nope'\] match no layer, the others do"),
        (dict(targets="("), ValueError, "no regular expression"),
        (dict(exclude="("), ValueError, "no regular expression"),
        (dict(train="("), ValueError, "no regular expression"),
        (dict(exclude=["query", "value", "head"]), ValueError, "match no layer"),
        (dict(train=["nope"]), ValueError, "train .* matches no module"),
        (dict(train=["head", "nope"]), ValueError, r"train \['nope'\] matches no module"),
        (dict(exclude=["nope"]), ValueError, r"exclude \['nope'\] matches no module"),
        (dict(exclude="nope.*"), ValueError, "exclude 'nope.\\*' matches no module"),
        (dict(targets=["head"], train=["head"]), ValueError, "stay trainable"),
        (dict(targets=["norm"]), TypeError, "norm, a LayerNorm"),
        (dict(targets=["wide"]), TypeError, "wide, a Conv1d"),
        (dict(targets=["query", "block"]), TypeError, "block, a ModuleDict"),
        (dict(n_factors=4), ValueError, "n_factors must be odd"),
        (dict(block_size=0), ValueError, "block_size"),
        (dict(size=3), TypeError, "size"),
        (dict(init="gradient"), ValueError, r"gradient of block\.query\.weight"),
        (dict(name="a.b"), ValueError, "contains a dot"),
        # fails at the second layer only:
        (dict(targets=["query", "head"], init="gradient", gradient=torch.ones(6, 6)), ValueError, "gradient must have"),
        (dict(targets=["head", "table"], n_factors=5), ValueError, "n_factors must be 3"),
    ])  # fmt: skip
    @pytest.mark.parametrize("adapted", [False, True])
    def test_nothing_has_changed(self, net, arguments, kind, message, adapted):
        if adapted:
            adapt(net, ["query", "head"], name="first", train=["norm"])
            fill(net)
            message = message.replace("could be adapted: table, block.query", "could be adapted")
        net.norm.bias.requires_grad_(requires_grad=False)
        before, outputs = state(net), net(TOKENS)
        with pytest.raises(kind, match=message):
            adapt(net, **arguments)
        assert_same_state(before, net)
        assert torch.equal(net(TOKENS), outputs)

    @pytest.mark.parametrize("options", [{}, dict(exclude=["first"]), dict(train=["first"])], ids=str)
    @pytest.mark.parametrize("adapted", [False, True])
    def test_names_that_it_suggests_are_accepted(self, options, adapted):
        model = torch.nn.ModuleDict({
            "attention": torch.nn.MultiheadAttention(4, 2), "first": torch.nn.Linear(4, 4),
            "second": torch.nn.Linear(4, 4), "turn": torch.nn.Linear(4, 4, dtype=torch.complex64),
            "out_proj": torch.nn.Linear(4, 4), "bounded": torch.nn.Embedding(4, 4, max_norm=1.0),
            "inner": torch.nn.ModuleDict({"third": torch.nn.Conv1d(4, 4, 1), "fourth": torch.nn.Embedding(5, 4)}),
        })  # fmt: skip
        if adapted:
            adapt(model, ["second"])
        with pytest.raises(ValueError, match=r"'secnd'\] match no layer; could be adapted: ") as raised:
            adapt(model, ["secnd"], **options)
        names = str(raised.value).partition("could be adapted: ")[2].split(", ")
        expected = {"first", "second", "inner.third", "inner.fourth"} - ({"first"} if options else set())
        assert set(names) == expected - ({"second"} if adapted else set())
        for name in names:
            adapt(copy.deepcopy(model), [name], **options)

    @pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"groups": 2}], ids=str)
    def test_other_convolutions_are_told_what_can_be_adapted(self, options):
        model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1, **options))
        with pytest.raises(TypeError, match="kernel size and stride 1, one group and no padding"):
            adapt(model, ["0"])

    @pytest.mark.parametrize("base", [
        torch.nn.Linear(4, 4, dtype=torch.complex64),
        torch.nn.Conv1d(4, 4, 1, dtype=torch.complex64),
        torch.nn.Embedding(4, 4, dtype=torch.complex64),
    ], ids=lambda base: type(base).__name__)  # fmt: skip
    @pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
    def test_complex_weights(self, base):
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), base)
        with pytest.raises(TypeError, match=r"base must be real.* complex weights, in 1"):
            adapt(model, ["0", "1"])
        assert model[1] is base
        assert type(model[0]) is torch.nn.Linear
        assert [layer.name for layer in adapt(model).layers] == ["0"]
        model[0].register_buffer("other", torch.zeros(1, dtype=torch.complex64))  # which the vectors need not be like
        adapt(model, ["0"], name="second")

    def test_a_model_that_is_a_layer(self):
        layer = CDDLinear.from_linear(nn.Linear(3, 3))
        for model in (nn.Linear(3, 3), layer):
            with pytest.raises(ValueError, match=r"model is a layer itself.*from_linear"):
                adapt(model)
        with pytest.raises(ValueError, match="itself the adapted layer"):
            remove_adapters(layer)

    @pytest.mark.parametrize("function", [
        merge_adapters, unmerge_adapters, remove_adapters, summarise, lambda m: param_groups(m, 0.1),
        lambda m: set_adapters(m, "a"), lambda m: disable_adapters(m).__enter__(),
        lambda m: adapters_per_sample(m, ["a"]).__enter__(),
    ])  # fmt: skip
    def test_plain_models(self, function):
        with pytest.raises(ValueError, match=r"no (adapted layer|layer|trainable)"):
            function(mlp())

    def test_lazy_parameters(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3))
        with pytest.raises(ValueError, match=r"adapt: model has the lazy parameter 1\.weight: run a batch"):
            adapt(model, ["0"])
        assert type(model[0]) is nn.Linear
        assert model[0].weight.requires_grad
        model(torch.ones(1, 4))
        adapt(model)

    def test_a_name_twice(self, net):
        adapt(net)
        before = state(net)
        with pytest.raises(ValueError, match="is taken"):
            adapt(net)
        assert_same_state(before, net)


def test_adapters_of_one_name_are_trained_together(net):
    """Such as those of two calls with other options, which a summary counts as one adapter."""
    adapt(net, ["query"])
    adapt(net, ["value"], alpha=2.0)
    summary = adapt(net, ["head"], name="other")
    assert summary.n_trainable == summary.n_parameters
    summary = adapt(net, ["mix"])
    assert summary.n_trainable == summary.n_parameters == 3 * 18


def test_errors_name_the_layer(net):
    with pytest.raises(ValueError, match=r"block_size must be at most .*, in head$"):
        adapt(net, ["query", "head"], block_size=10)
    adapt(net, ["head"])
    with pytest.raises(ValueError, match=r"block_size must be at most .*, in head$"):
        adapt(net, ["head"], name="second", block_size=10)


def adapted():
    model = torch.nn.Sequential(torch.nn.Linear(6, 6))
    adapt(model)
    return model


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: adapt(adapted(), None), TypeError, "adapt: targets must be a regular expression or a list of names"),
    (lambda: adapt(adapted(), [1]), TypeError, "adapt: targets must be a regular expression or a list of names"),
    (lambda: adapt(adapted(), exclude=None), TypeError, "adapt: exclude must be"),
    (lambda: adapt(adapted(), train=3), TypeError, "adapt: train must be"),
    (lambda: adapt(adapted(), name="x", alpha=True), TypeError, "alpha must be a number, got True"),
    (lambda: adapt("model"), TypeError, "adapt: model must be a torch.nn.Module, got str"),
    (lambda: adapt(adapted(), name=3), TypeError, "add_adapter: name must be a str"),
    (lambda: adapt(adapted(), name="x", dtype="float32"), TypeError, "dtype must be a torch.dtype"),
    (lambda: set_adapters(adapted(), None), TypeError, "set_adapters: names must be a name or a list of names"),
    (lambda: set_adapters(adapted(), [3]), TypeError, "set_adapters: names must be"),
    (lambda: set_adapters(adapted(), ["default"] * 2), ValueError, "set_adapters: names must name each adapter once"),
    (lambda: merge_adapters(adapted().parameters()), TypeError, "merge_adapters: model must be a torch.nn.Module"),
    (lambda: adapted()[0].adapters["default"].reset_parameters(rng="1"), TypeError, "rng must be an integer"),
    (lambda: adapted()[0].adapters["default"](torch.ones(2, 6, dtype=int)), TypeError, "x must be of a floating dtype"),
    (lambda: CDDLinear(6, 6)(torch.ones(2, 6, dtype=bool)), TypeError, "CDDLinear: x must be of a floating dtype"),
    (lambda: CDDLinear(6, 6)(torch.ones(2, 6, dtype=torch.complex64)), TypeError, "x must be of a floating dtype"),
    (lambda: CDDLinear.from_lora(torch.ones(6, 6), torch.ones(1, 6), torch.ones(6, 1), "2"), TypeError, "scale must"),
    (lambda: setattr(adapted()[0], "active_adapters", None), TypeError, "active_adapters: names must be"),
    (lambda: adapters_per_sample(adapted(), None).__enter__(), TypeError, "names must be a list of names or None"),
    (lambda: adapters_per_sample(adapted(), "default").__enter__(), TypeError, "names must be a list of names or None"),
    (lambda: param_groups(adapted(), lr=None), TypeError, "param_groups: lr must be a number, got None"),
    (lambda: param_groups(adapted(), lr=float("nan")), ValueError, "param_groups: lr must be finite"),
    (lambda: param_groups(adapted(), lr=-1), ValueError, "param_groups: lr must be finite and not negative"),
    (lambda: param_groups(adapted(), lr=1, other_lr="a"), TypeError, "param_groups: other_lr must be a number"),
    (lambda: param_groups(adapted(), lr=1, weight_decay=-1), ValueError, "param_groups: weight_decay must be"),
    (lambda: adapted()[0](np.ones((2, 6))), TypeError, "CDDLinear: x must be a torch.Tensor, got numpy.ndarray"),
    (lambda: adapted()[0].adapters["default"].fit_(np.ones((6, 6))), TypeError, "delta must be a torch.Tensor"),
    (lambda: CDDLinear.from_delta(np.ones((6, 6)), np.ones(6)), TypeError, "base must be a torch.Tensor"),
    (lambda: CDDLinear.from_weights(torch.ones(6, 6), np.ones(6)), TypeError, "tuned must be a torch.Tensor"),
    (lambda: CDDLinear.from_lora(torch.ones(6, 6), np.ones(6), np.ones(6)), TypeError, "A must be a torch.Tensor"),
    (lambda: load_adapter(adapted(), {f"0.factors.{i}": [1.0] for i in range(3)}), TypeError, "holds 0.factors.0 of"),
])  # fmt: skip
def test_arguments_of_wrong_kinds_are_named(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert isinstance(raised.value, ArgumentError)


FITS = {
    "fit_": CDDAdapter(6, 6).fit_,
    "gradient": lambda W: adapt(adapted(), name="x", init="gradient", gradient=W),
    "from_delta": lambda W: CDDLinear.from_delta(nn.Linear(6, 6), W),
    "from_weights": lambda W: CDDLinear.from_weights(nn.Linear(6, 6), W),
    "from_lora": lambda W: CDDLinear.from_lora(nn.Linear(6, 6), W[:2], W[:, :2]),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_changes_that_are_complex_or_without_values_are_refused(fit):
    for dtype in (torch.complex64, torch.complex32):
        with pytest.raises(TypeError, match=f"(delta|gradient|tuned|A) must be real, as the vectors are, got {dtype}"):
            fit(torch.ones(6, 6).to(dtype))
    with pytest.raises(ValueError, match=r"(delta|gradient|tuned|A) .* device meta"):
        fit(torch.ones(6, 6, device="meta"))


def test_models_on_the_device_meta_have_shapes_and_no_values():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    adapt(model, ["0"])
    layer, x = model[0], torch.ones(2, 6, device="meta", requires_grad=True)
    assert model(x).shape == (2, 6)
    model(x).sum().backward()
    assert layer.adapters["default"].factors[0].grad.is_meta
    layer.adapters["default"].reset_parameters("normal", rng=1)
    for refused in (lambda: merge_adapters(model), lambda: remove_adapters(model, merge=True), layer.to_linear):
        with pytest.raises(ValueError, match="is on the device meta: load it; merge before offloading"):
            refused()
    with pytest.raises(ValueError, match="delta has no values on the device meta: it is on cpu, the vectors on meta"):
        layer.adapters["default"].fit_(torch.ones(6, 6))
    model[0] = layer.to_empty(device="cpu")
    layer.adapters["default"].reset_parameters()
    assert layer(torch.ones(2, 6)).shape == (2, 6)


def test_integer_parameters_of_trained_modules_stay_as_they_are():
    model = mlp()
    head = list(model)[-1]
    head.scale = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    name = str(len(model) - 1)
    adapt(model, ["0"], train=[name])
    assert head.weight.requires_grad
    assert not head.scale.requires_grad
