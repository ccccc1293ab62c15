"""State dicts and files of adapters, and training that is interrupted."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations

import structmat
from structmat.torch import (
    CDDLinear,
    adapt,
    adapter_state_dict,
    load_adapter,
    merge_adapters,
    remove_adapters,
    save_adapter,
    unmerge_adapters,
)
from tests.torch.common import adapted_mlp, assert_same_state, fill, mlp, state

X = torch.randn(5, 6, dtype=torch.float64)


@pytest.fixture
def plain():
    return mlp()


@pytest.fixture
def trained(plain):
    """A copy of `plain` with an adapter of random vectors."""
    model = copy.deepcopy(plain)
    adapt(model, block_size=3, alpha=0.5)
    return fill(model)


@pytest.fixture
def file(trained, tmp_path):
    return save_adapter(trained, tmp_path / "adapter.safetensors")


def rewritten(file, change_tensors=lambda t: t, change_metadata=lambda m: m):
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata())
    tensors = safetensors.load_file(file)
    safetensors.save_file(change_tensors(tensors), file, change_metadata(metadata))


class TestRoundTrips:
    def test_into_a_plain_model(self, plain, trained, file):
        assert load_adapter(plain, file) == ["0", "2"]
        assert torch.equal(plain(X), trained(X))
        assert plain[0].adapters["default"].options() == trained[0].adapters["default"].options()
        assert all(p.requires_grad == ("factors" in name) for name, p in plain.named_parameters())

    def test_what_is_not_wrapped_is_frozen_too(self, plain, tmp_path):
        model = copy.deepcopy(plain)
        adapt(model, ["0"])
        load_adapter(plain, save_adapter(model, tmp_path / "adapter"))
        assert {name for name, p in plain.named_parameters() if p.requires_grad} == {
            f"0.adapters.default.factors.{i}" for i in range(3)
        }

    def test_options_of_each_layer_are_kept(self, plain, tmp_path):
        model = copy.deepcopy(plain)
        adapt(model, dropout=0.25, n_factors_pattern={"2": 5}, block_size_pattern={"0": 2}, alpha_pattern={"0": 3.0})
        load_adapter(plain, save_adapter(fill(model), tmp_path / "adapter"))
        assert torch.equal(plain.eval()(X), model.eval()(X))
        for i in (0, 2):
            assert plain[i].adapters["default"].options() == model[i].adapters["default"].options()

    def test_an_adapted_model_keeps_its_dropout(self, plain, file):
        adapt(plain, block_size=3, dropout=0.25)
        load_adapter(plain, file)
        assert (plain[0].adapters["default"].dropout, plain[0].adapters["default"].alpha) == (0.25, 0.5)

    def test_into_an_adapted_model(self, plain, trained, file):
        adapt(plain, block_size=3)
        load_adapter(plain, file)
        assert torch.equal(plain(X), trained(X))

    def test_under_another_name(self, plain, trained, file):
        adapt(plain, name="mine", block_size=3, alpha=0.5)
        for source in (file, adapter_state_dict(trained)):
            fill(plain)
            load_adapter(plain, source, "mine")
            assert torch.equal(plain(X), trained(X))
        load_adapter(trained, file, "more")
        assert list(trained[0].adapters) == ["default", "more"]

    def test_of_five_factors_and_every_kind_of_layer(self, tmp_path):
        model = torch.nn.ModuleDict({
            "a": torch.nn.Linear(5, 7), "b": torch.nn.Conv1d(3, 4, 1),
            "c": torch.nn.ModuleDict({"d": torch.nn.Linear(3, 3)}),
        })  # fmt: skip
        twin = copy.deepcopy(model)
        adapt(model, ["a", "b", "d"], n_factors=5)
        fill(model)
        load_adapter(twin, save_adapter(model, str(tmp_path / "file")))
        assert str(twin) == str(model)
        assert all(torch.equal(v, twin.state_dict()[k]) for k, v in model.state_dict().items())

    def test_half_precision_is_kept(self, tmp_path):
        model = adapted_mlp(dtype=torch.bfloat16)
        tensors = safetensors.load_file(save_adapter(model, tmp_path / "file"))
        assert {t.dtype for t in tensors.values()} == {torch.bfloat16}

    @pytest.mark.parametrize(
        ("base", "vectors", "expected"),
        [
            (torch.bfloat16, torch.float32, torch.float32),
            (torch.float32, torch.bfloat16, torch.float32),
            (torch.float16, torch.float16, torch.float16),
            (torch.float16, torch.bfloat16, torch.float32),
            (torch.float64, torch.float32, torch.float64),
            (torch.float32, torch.float64, torch.float32),  # the layer's, as that of half precision would not be
        ],
    )
    def test_loading_rounds_nothing_to_half_precision(self, tmp_path, base, vectors, expected):
        model = mlp().to(base)
        fresh = copy.deepcopy(model)
        adapt(model, dtype=vectors)
        fill(model)
        load_adapter(fresh, save_adapter(model, tmp_path / "file"))
        kept, loaded = adapter_state_dict(model), adapter_state_dict(fresh)
        assert {vector.dtype for vector in loaded.values()} == {expected}
        assert all(torch.equal(vector, kept[key].to(expected)) for key, vector in loaded.items())

    def test_averaged_models_have_the_keys_of_their_copy(self, trained, file, tmp_path):
        averaged = torch.optim.swa_utils.AveragedModel(trained)
        path = save_adapter(averaged, tmp_path / "averaged")
        assert safetensors.load_file(path).keys() == safetensors.load_file(file).keys()
        fill(averaged)
        load_adapter(averaged, path)
        assert torch.equal(averaged(X), trained(X))

    @pytest.mark.parametrize("wrap", [torch.nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
    def test_wrappers_are_not_in_the_keys(self, plain, trained, file, tmp_path, wrap):
        path = save_adapter(wrap(trained), tmp_path / "wrapped")
        assert safetensors.load_file(path).keys() == safetensors.load_file(file).keys()
        assert adapter_state_dict(wrap(trained)).keys() == adapter_state_dict(trained).keys()
        for again in range(2):  # wrapped and adapted by the file, then adapted already
            assert load_adapter(wrap(plain), path) == ["0", "2"], again
            assert torch.equal(plain(X), trained(X))

    def test_a_layer_without_a_base_gets_the_dtype_of_the_file(self, tmp_path):
        model = torch.nn.Sequential(CDDLinear(6, 4, init="normal", dtype=torch.bfloat16))
        other = copy.deepcopy(model)
        load_adapter(other, save_adapter(model, tmp_path / "file"), "second")
        found = adapter_state_dict(other, "second")
        assert all(torch.equal(vector, found[key]) for key, vector in adapter_state_dict(model).items())
        assert {vector.dtype for vector in found.values()} == {torch.bfloat16}

    @pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), checkpoint_wrapper])
    def test_blocks_may_be_wrapped_one_by_one(self, plain, trained, tmp_path, wrap):
        model = torch.nn.Sequential(wrap(trained), torch.nn.Linear(4, 4, dtype=torch.float64))
        path = save_adapter(model, tmp_path / "file")
        keys = safetensors.load_file(path)
        assert {key.split(".factors")[0] for key in keys if "factors" in key} == {"0.0", "0.2"}
        fresh = torch.nn.Sequential(wrap(plain), torch.nn.Linear(4, 4, dtype=torch.float64))
        for _ in range(2):
            assert load_adapter(fresh, path) == ["0.0", "0.2"]
            assert torch.equal(fresh(X), model(X))  # the layer after it is trained as well, so it is in the file

    def test_of_one_layer(self, tmp_path):
        layer = fill(CDDLinear.from_linear(torch.nn.Linear(6, 4)))
        path = save_adapter(layer, tmp_path / "file")
        other = CDDLinear.from_linear(torch.nn.Linear(6, 4))
        assert load_adapter(other, path) == [""]
        torch.testing.assert_close(other.delta().to_dense(), layer.delta().to_dense())
        linear = torch.nn.Linear(6, 4)
        before = state(linear)
        with pytest.raises(ValueError, match="single layer"):
            load_adapter(linear, path)
        assert_same_state(before, linear)


class Heads(nn.Module):
    """A model with whatever may be trained beside adapted layers."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.second = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)  # collects statistics, frozen or not
        self.memory = nn.LSTM(6, 6)
        self.scaled = parametrizations.weight_norm(nn.Linear(6, 6))
        self.turn = nn.Linear(6, 6, dtype=torch.complex64)
        self.gain = nn.ParameterList([torch.ones(6)])
        self.head = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7, affine=False), nn.Linear(7, 7))
        self.head.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        self.head.register_buffer("passing", torch.zeros(1), persistent=False)
        self.logits = nn.Linear(6, 7, bias=False)
        self.logits.weight = self.table.weight

    def forward(self, tokens):
        x = self.norm(self.second(torch.tanh(self.first(self.table(tokens)))))
        x = self.scaled(x + self.memory(x)[0]) * self.gain[0] + self.turn(x.to(torch.complex64)).real
        return self.head(x) + self.logits(x)


class TestTrainedBesides:
    """What a file brings into the model as it was before `adapt`: all that training changed."""

    INPUTS = torch.tensor([1, 4, 0, 6, 5])

    def train(self, model):
        """A few steps with every parameter changed that may be, and statistics collected."""
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001)
        for _ in range(3):
            optimizer.zero_grad()
            (model.train()(self.INPUTS) - 1).square().mean().backward()
            optimizer.step()
        return model.eval()

    def trainable(self, model):
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def pair(self, targets=("first", "second"), **options):
        torch.manual_seed(0)
        fresh = Heads()
        model = copy.deepcopy(fresh)
        adapt(model, targets, init="normal", **options)
        return model, fresh

    @pytest.mark.parametrize(
        "train",
        [
            *((), ["table"], ["norm"], ["memory"], ["scaled"], ["turn"], ["gain"], ["head"], ["logits"], ["head.2"]),
            *("(head|norm|turn)", ".*[mn]", "(?!second).*"),
        ],
        ids=str,
    )
    def test_outputs_and_trainable_parameters_are_the_same(self, tmp_path, train):
        model, fresh = self.pair(["second"], train=train)
        self.train(model)
        assert not torch.equal(model(self.INPUTS), fresh.eval()(self.INPUTS))
        load_adapter(fresh, save_adapter(model, tmp_path / "file"))
        assert torch.equal(model(self.INPUTS), fresh(self.INPUTS))
        assert self.trainable(model) == self.trainable(fresh)
        assert_same_state(state(model), fresh)
        again = adapter_state_dict(fresh.requires_grad_(False))  # frozen, for inference, say
        assert again.keys() == adapter_state_dict(model).keys()

    def test_through_a_state_dict_into_a_model_with_another_train(self):
        model, fresh = self.pair(train=["head"])
        self.train(model)
        adapt(fresh, ("first", "second"), train=["gain"])
        load_adapter(fresh.eval(), adapter_state_dict(model))
        assert torch.equal(model(self.INPUTS), fresh(self.INPUTS))
        assert self.trainable(fresh) == self.trainable(model) | {"gain.0"}

    def test_a_file_without_the_head_leaves_it_as_it_is(self, tmp_path):
        model, fresh = self.pair()
        adapt(fresh, ("first", "second"), train=["head"])
        before = fresh.head[0].weight.clone()
        load_adapter(fresh, save_adapter(model, tmp_path / "file"))
        assert torch.equal(fresh.head[0].weight, before)
        assert fresh.head[0].weight.requires_grad

    def test_frozen_before_it_is_saved(self, tmp_path):
        model, fresh = self.pair(train=["head"])
        trainable = self.trainable(model)
        self.train(model).requires_grad_(False)
        load_adapter(fresh.eval(), save_adapter(model, tmp_path / "file"))
        assert torch.equal(model(self.INPUTS), fresh(self.INPUTS))
        assert self.trainable(fresh) == trainable

    @pytest.mark.parametrize("merges", [False, True])
    def test_parameters_of_bases_that_are_trained_by_hand(self, tmp_path, merges):
        model, fresh = self.pair()
        model.first.base.requires_grad_()
        self.train(model)
        if merges:
            merge_adapters(model)
        file = save_adapter(model, tmp_path / "file")
        assert {"first.weight", "first.bias"} <= safetensors.load_file(file).keys()
        unmerge_adapters(model)
        load_adapter(fresh.eval(), file)
        assert torch.equal(model(self.INPUTS), fresh(self.INPUTS))
        assert self.trainable(model) == self.trainable(fresh)

    def test_what_remains_of_a_removed_adapter_is_saved_with_the_next(self, tmp_path):
        model, fresh = self.pair(train=["head"])
        self.train(model)
        remove_adapters(model)
        adapt(model, ["first"])
        load_adapter(fresh.eval(), save_adapter(model, tmp_path / "file"))
        assert torch.equal(model(self.INPUTS), fresh(self.INPUTS))

    def test_a_layer_without_a_base_has_its_bias(self, tmp_path):
        model = torch.nn.Sequential(CDDLinear(6, 4), nn.Tanh())
        other = copy.deepcopy(model)
        with torch.no_grad():
            model[0].own_bias.normal_()
        load_adapter(other, save_adapter(model, tmp_path / "file"))
        assert torch.equal(model(X.float()), other(X.float()))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("place", ["first.adapters.default.factors.1", "head.0.bias"])
    def test_values_that_are_not_finite_are_not_saved(self, tmp_path, value, place):
        model, _ = self.pair(train=["head"])
        with torch.no_grad():
            model.get_parameter(place)[-1] = value
        key = place.replace("adapters.default.", "")
        with pytest.raises(ValueError, match=f"save_adapter: model holds NaN or infinity in {key}, as torch.float32"):
            save_adapter(model, tmp_path / "file")
        assert not list(tmp_path.iterdir())

    def test_statistics_that_are_not_numbers_are_not_saved(self, tmp_path):
        model, _ = self.pair()
        model.norm.running_var[0] = float("nan")
        with pytest.raises(ValueError, match=r"NaN or infinity in norm\.running_var"):
            save_adapter(model, tmp_path / "file")

    def test_an_alpha_that_is_not_finite_is_not_saved(self, tmp_path):
        model, _ = self.pair()
        model.first.adapters["default"].alpha = float("nan")
        with pytest.raises(ValueError, match="save_adapter: the alpha of first must be finite"):
            save_adapter(model, tmp_path / "file")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t | {"head.0.weight": t["head.0.weight"][:-1]}, r"head\.0\.weight of shape \(6, 6\), the model"),
            (lambda t: t | {"head.0.bias": t["head.0.bias"] * float("nan")}, r"NaN or infinity in head\.0\.bias"),
            (lambda t: t | {"head.0.bias": t["head.0.bias"].to(torch.complex64)}, r"head\.0\.bias in torch\.complex64"),
            (lambda t: t | {"tail.bias": torch.ones(6)}, r"unknown: \['tail\.bias'\]"),
            (lambda t: t | {"head.passing": torch.ones(1)}, r"unknown: \['head\.passing'\]"),
        ],
    )
    @pytest.mark.parametrize("is_adapted", [False, True])
    def test_files_that_do_not_fit_change_nothing(self, tmp_path, change, message, is_adapted):
        model, fresh = self.pair(train=["head"])
        file = save_adapter(self.train(model), tmp_path / "file")
        rewritten(file, change)
        if is_adapted:
            adapt(fresh, ("first", "second"))
        before = state(fresh)
        with pytest.raises((ValueError, TypeError), match=f"load_adapter: source.*{message}"):
            load_adapter(fresh, file)
        assert_same_state(before, fresh)

    def test_heads_on_meta(self, tmp_path):
        model, fresh = self.pair(train=["head"])
        file = save_adapter(model, tmp_path / "file")
        fresh.head.to("meta")
        with pytest.raises(ValueError, match=r"load_adapter: model has head\.0\.\w+ on the device meta"):
            load_adapter(fresh, file)
        model.head.to("meta")
        with pytest.raises(ValueError, match=r"save_adapter: model has head\.\w+(\.\w+)? on the device meta"):
            save_adapter(model, file, force=True)

    def test_complex_numbers_in_double_precision(self, tmp_path):
        model, _ = self.pair(train=["turn"])
        model.turn.weight = nn.Parameter(torch.ones(6, 6, dtype=torch.complex128))
        with pytest.raises(TypeError, match=r"turn\.weight in torch\.complex128, not known to safetensors"):
            save_adapter(model, tmp_path / "file")


def test_a_state_dict_is_a_view_of_just_the_vectors(trained):
    found = adapter_state_dict(trained)
    assert list(found) == [f"{layer}.factors.{i}" for layer in (0, 2) for i in range(3)]
    found["0.factors.0"].zero_()
    assert not trained[0].adapters["default"].factors[0].any()
    assert not any(t.requires_grad for t in found.values())


def test_vectors_that_are_no_rows_of_memory_are_saved(trained, plain, tmp_path):
    adapter = trained[0].adapters["default"]
    adapter.factors[0] = torch.nn.Parameter(torch.stack([adapter.factors[0].detach(), X[0, 0].expand(8)], 1)[:, 0])
    assert not adapter.factors[0].is_contiguous()
    load_adapter(plain, save_adapter(trained, tmp_path / "file"))
    assert torch.equal(plain(X), trained(X))


def test_a_file_is_small_and_says_what_it_is(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(768, 768))
    adapt(model, ["0"])
    file = save_adapter(model, tmp_path / "file")
    assert 4 * 3 * 768 < file.stat().st_size < 4 * 3 * 768 + 1000
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "structmat adapter 1"
    assert metadata["structmat"] == structmat.__version__
    assert json.loads(metadata["layers"]) == {"0": {"n_factors": 3, "block_size": 768, "alpha": 1.0, "dropout": 0.0}}


def test_a_file_is_replaced_only_when_asked(trained, file):
    before = file.read_bytes()
    fill(trained)
    with pytest.raises(FileExistsError):
        save_adapter(trained, file)
    assert file.read_bytes() == before
    save_adapter(trained, file, force=True)
    assert file.read_bytes() != before
    with pytest.raises(ValueError, match="'x' is in no layer"):
        save_adapter(trained, file.with_name("other"), "x")
    assert list(file.parent.iterdir()) == [file]


GOOD = dict(n_factors=3, block_size=3, alpha=1.0, dropout=0.0)


class TestErrors:
    def refused(self, model, source, message, kind=ValueError):
        before, y = state(model), model(X)
        with pytest.raises(kind, match=message):
            load_adapter(model, source)
        assert_same_state(before, model)
        assert torch.equal(model(X), y)

    @pytest.fixture(params=["plain", "adapted"])
    def model(self, request, plain):
        model = copy.deepcopy(plain)
        if request.param == "adapted":
            adapt(model, block_size=3, alpha=0.25)
            fill(model)
        return model

    @pytest.mark.parametrize("keep", [0, 4, 100, -1])
    def test_truncated(self, model, file, keep):
        file.write_bytes(file.read_bytes()[:keep])
        self.refused(model, file, "no complete adapter file")

    def test_foreign(self, model, file, tmp_path):
        file.write_text("a text")
        self.refused(model, file, "no complete adapter file")
        safetensors.save_file({"a": torch.ones(2)}, file)
        self.refused(model, file, "its format is None")
        self.refused(model, tmp_path / "missing", "missing", FileNotFoundError)

    @pytest.mark.parametrize("layers", [
        [], 3, {"0": 3}, {"0": {}}, {"0": GOOD}, {"0": GOOD, "1": GOOD},
        *({"0": {**GOOD, **wrong}, "2": GOOD} for wrong in (
            {"alpha": "a"}, {"alpha": float("nan")}, {"n_factors": "x"}, {"n_factors": 5}, {"n_factors": 10**9 + 1},
            {"dropout": -0.5}, {"dropout": 1}, {"dropout": "a"}, {"dropout": float("nan")}, {"block_size": "x"},
        )),
    ], ids=str)  # fmt: skip
    def test_metadata_that_do_not_fit(self, model, file, layers):
        rewritten(file, change_metadata=lambda m: {**m, "layers": json.dumps(layers)})
        self.refused(model, file, "load_adapter|CDDAdapter")

    def test_metadata_that_are_no_json(self, model, file):
        rewritten(file, change_metadata=lambda m: {**m, "layers": "no json"})
        self.refused(model, file, "no complete adapter file")

    def test_another_version_of_the_format(self, model, file):
        rewritten(file, change_metadata=lambda m: {**m, "format": "structmat adapter 2"})
        self.refused(model, file, "not 'structmat adapter 1'")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, model, file, value):
        def change(tensors):
            tensors["2.factors.2"][-1] = value
            return tensors

        rewritten(file, change)
        self.refused(model, file, r"holds NaN or infinity in 2\.factors\.2")

    def test_values_beyond_the_dtype_of_the_model(self, model, file):
        rewritten(file, lambda t: {**t, "2.factors.2": t["2.factors.2"].double() + 1e5})
        half = copy.deepcopy(model).half()
        before = state(half)
        if any("factors" in key for key in before[0]):
            with pytest.raises(ValueError, match=r"holds NaN or infinity in 2\.factors\.2, as torch.float16"):
                load_adapter(half, file)
            assert_same_state(before, half)
        rewritten(file, lambda t: {**t, "2.factors.2": t["2.factors.2"] * 1e200})
        single = copy.deepcopy(model).float()
        before = state(single)
        with pytest.raises(ValueError, match=r"holds NaN or infinity in 2\.factors\.2, as torch.float32"):
            load_adapter(single, file)
        assert_same_state(before, single)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_values_that_are_no_floats(self, model, file, dtype):
        rewritten(file, lambda t: {**t, "2.factors.2": t["2.factors.2"].to(dtype)})
        self.refused(model, file, r"holds 2\.factors\.2 in .*, where vectors are of a floating dtype", TypeError)

    def test_a_folder(self, model, tmp_path):
        self.refused(model, tmp_path, "is a folder, not a file of save_adapter")

    def test_lazy_parameters(self, file):
        model = torch.nn.Sequential(*mlp(), torch.nn.LazyLinear(3))
        with pytest.raises(ValueError, match=r"load_adapter: model has the lazy parameter 3\.weight"):
            load_adapter(model, file)
        assert type(model[0]) is torch.nn.Linear

    def test_keys_and_shapes(self, model, file):
        rewritten(file, lambda t: {k: v for k, v in t.items() if k != "2.factors.1"})
        self.refused(model, file, r"missing: \['2\.factors\.1'\], unknown: none")

    def test_a_shape(self, model, file):
        rewritten(file, lambda t: {**t, "2.factors.1": torch.ones(1, 2, 3)})
        self.refused(model, file, r"2\.factors\.1 of shape \(1, 2, 3\), the model expects")

    @pytest.mark.parametrize(("options", "message"), [
        (dict(block_size=2), "0 has block_size=2, the file 3"),
        (dict(block_size=3, n_factors=5), "0 has n_factors=5, the file 3"),
        (dict(block_size=3, targets=["0"]), r"layers differ between the file and the model: \['2'\]"),
    ])  # fmt: skip
    def test_another_adapter(self, plain, file, trained, options, message):
        adapt(plain, **options)
        fill(plain)
        self.refused(plain, file, message)
        self.refused(plain, adapter_state_dict(trained), "load_adapter: source (has other keys|holds .* of shape)")

    def test_layers_that_the_file_lacks_are_named(self, plain, tmp_path):
        adapt(plain, block_size=3, targets=["0"])
        file = save_adapter(plain, tmp_path / "first")
        other = mlp()
        adapt(other, block_size=3)
        self.refused(other, file, r"layers differ between the file and the model: \['2'\]")

    def test_another_model(self, file):
        for model in (
            mlp((6, 5, 4)),
            mlp((6, 8)),
            torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(6, 6).double()),
        ):
            self.refused(model, file, "load_adapter")

    def test_a_smaller_layer_is_named(self, tmp_path):
        model = torch.nn.Sequential(torch.nn.Linear(64, 64))
        adapt(model, block_size=48)
        file = save_adapter(model, tmp_path / "adapter")
        self.refused(mlp(), file, "load_adapter: source does not fit 0: CDDAdapter: block_size must be")

    def test_weights_on_meta_would_lose_the_vectors(self, file):
        with torch.device("meta"):
            model = mlp()
        with pytest.raises(ValueError, match="load_adapter: model has 0 on the device meta: load its weights first"):
            load_adapter(model, file)
        assert [type(layer) for layer in model[::2]] == [torch.nn.Linear] * 2

    def test_a_state_dict_needs_an_adapted_model(self, plain, trained):
        self.refused(plain, adapter_state_dict(trained), "'default' is in no layer")

    def test_merged_adapters(self, trained, file):
        trained[0].merge()
        self.refused(trained, file, "merged", RuntimeError)


TRAINING = """
import os, signal, sys
import torch
from structmat.torch import adapt, load_adapter, param_groups, save_adapter

def train(folder, first, kill):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(24, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    adapt(model, ["0"], train=["2"])
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.03))
    if first:
        load_adapter(model, f"{folder}/adapter{first}")
        optimizer.load_state_dict(torch.load(f"{folder}/optimizer{first}", weights_only=True))
    for step in range(first, 10):
        data = torch.Generator().manual_seed(step)
        x, y = torch.randn(32, 24, generator=data), torch.randint(0, 3, (32,), generator=data)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if kill and step == 4:
            save_adapter(model, f"{folder}/adapter5")
            torch.save(optimizer.state_dict(), f"{folder}/optimizer5")
        if kill and step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
    torch.save(model.state_dict(), f"{folder}/end{first}")

folder, first = sys.argv[1], int(sys.argv[2])
train(folder, first, kill=False)
if not first:
    train(folder, first, kill=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_interrupted_training_resumes_to_identical_weights(tmp_path):
    def run(first):
        return subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path), first], check=False).returncode

    assert run("0") == -signal.SIGKILL
    whole = torch.load(tmp_path / "end0", weights_only=True)
    assert run("5") == 0
    resumed = torch.load(tmp_path / "end5", weights_only=True)
    assert list(resumed) == list(whole)
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    assert whole["0.adapters.default.factors.0"].any()
