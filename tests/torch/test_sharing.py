"""Circulants that layers share."""

from __future__ import annotations

import copy
import json

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    CDDAdapter,
    adapt,
    adapter_state_dict,
    load_adapter,
    merge_adapters,
    param_groups,
    save_adapter,
    share_circulants,
    summarise,
    unmerge_adapters,
)
from tests.torch.common import assert_same_state, state

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 6)


def blocks(count=3):
    torch.manual_seed(0)
    block = lambda: nn.ModuleDict({"up": nn.Linear(6, 8), "down": nn.Linear(8, 6)})
    return nn.ModuleList(block() for _ in range(count)).double()


def output(model, x=X):
    for block in model:
        x = x + block["down"](torch.tanh(block["up"](x)))
    return x


def adapters(model):
    return [module for module in model.modules() if isinstance(module, CDDAdapter)]


def shared_model(**options):
    torch.manual_seed(1)
    model = blocks()
    adapt(model, share_circulants=True, **options)
    return model


def test_layers_of_one_kind_share_and_others_do_not():
    model = shared_model(init="normal")
    up, down = adapters(model)[::2], adapters(model)[1::2]
    for kind in (up, down):
        assert len({id(adapter.factors[1]) for adapter in kind}) == 1
        assert len({id(adapter.factors[i]) for adapter in kind for i in (0, 2)}) == 6
    assert up[0].factors[1] is not down[0].factors[1]


@pytest.mark.parametrize("n_factors", [3, 5])
def test_counts(n_factors):
    torch.manual_seed(1)
    model = blocks()
    summary = adapt(model, share_circulants=True, n_factors=n_factors)
    distinct = {p for adapter in adapters(model) for p in adapter.parameters()}
    assert summary.n_parameters == summary.n_trainable == sum(p.numel() for p in distinct)
    assert summary.n_bytes == 8 * summary.n_parameters
    assert summary.n_parameters + summary.n_shared == sum(layer.n_parameters for layer in summary.layers)
    groups = param_groups(model, lr=0.1)
    listed = [p for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed)) == len(distinct)
    assert set(listed) == distinct
    assert summarise(model) == summary


def test_the_gradient_is_the_sum_over_the_layers():
    model, apart = shared_model(init="normal"), blocks()
    adapt(apart)
    load_adapter(apart, adapter_state_dict(model))
    assert torch.equal(output(apart), output(model))
    for each in (model, apart):
        output(each).square().sum().backward()
    for kind in (slice(0, None, 2), slice(1, None, 2)):
        total = sum(adapter.factors[1].grad for adapter in adapters(apart)[kind])
        torch.testing.assert_close(adapters(model)[kind][0].factors[1].grad, total)
        for one, other in zip(adapters(model)[kind], adapters(apart)[kind], strict=True):
            torch.testing.assert_close(one.factors[0].grad, other.factors[0].grad)


def test_a_step_of_training_keeps_it():
    model = shared_model(init="normal")
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.1))
    before = output(model).detach()
    output(model).square().sum().backward()
    optimizer.step()
    assert not torch.equal(output(model), before)
    assert len({p for adapter in adapters(model) for p in adapter.parameters()}) == 14
    assert len({p for adapter in adapters(copy.deepcopy(model)) for p in adapter.parameters()}) == 14
    trained = output(model).detach()
    merge_adapters(model)
    torch.testing.assert_close(output(model), trained)
    unmerge_adapters(model)
    assert torch.equal(output(model), trained)


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path):
        pytest.importorskip("safetensors")
        return save_adapter(shared_model(init="normal"), tmp_path / "adapter.safetensors")

    def test_into_a_plain_model(self, file):
        from safetensors.torch import load_file

        model = blocks()
        load_adapter(model, file)
        assert torch.equal(output(model), output(shared_model(init="normal")))
        assert len({p for adapter in adapters(model) for p in adapter.parameters()}) == 14 == len(load_file(file))
        assert summarise(model).n_trainable == summarise(model).n_parameters

    def test_into_adapted_models(self, file):
        expected = output(shared_model(init="normal"))
        model, apart = shared_model(), blocks()
        adapt(apart)
        for each in (model, apart):
            load_adapter(each, file)
            assert torch.equal(output(each), expected)

    def test_other_values_of_what_the_model_shares(self):
        apart, model = blocks(), shared_model()
        adapt(apart, init="normal")
        before = state(model)
        message = "different values for 0.up.factors.1 and 1.up.factors.1, which the model shares"
        with pytest.raises(ValueError, match=message):
            load_adapter(model, adapter_state_dict(apart))
        assert_same_state(before, model)

    def test_a_shared_vector_that_is_written_twice(self, file):
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
        tensors = load_file(file)
        key, owner = next(iter(json.loads(metadata["shared"]).items()))
        save_file(tensors | {key: tensors[owner].clone()}, file, metadata)
        model = blocks()
        before = state(model)
        with pytest.raises(ValueError, match="a shared vector is written twice"):
            load_adapter(model, file)
        assert_same_state(before, model)

    @pytest.mark.parametrize(
        "text", ['{"1.up.factors.1": "9.up.factors.1"}', '{"0.up.factors.1": "1.up.factors.1"}', "[]"]
    )
    def test_broken_metadata(self, file, text):
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata())
        save_file(load_file(file), file, metadata | {"shared": text})
        model = blocks()
        before = state(model)
        with pytest.raises(ValueError, match="load_adapter: source"):
            load_adapter(model, file)
        assert_same_state(before, model)


@pytest.mark.parametrize(("targets", "options", "message"), [
    (["0.up", "0.down"], {}, "finds no two layers of one kind"),
    ("all-linear", {"init": "gradient"}, 'needs another init than "gradient"'),
    (["0.up", "1.up"], {"n_factors_pattern": {"0.up": 5}}, "finds no two layers of one kind"),
])  # fmt: skip
def test_nothing_to_share(targets, options, message):
    model = blocks()
    before = state(model)
    with pytest.raises(ValueError, match=f"adapt: share_circulants {message}"):
        adapt(model, targets, share_circulants=True, **options)
    assert_same_state(before, model)
    adapt(model, ["0.up"], name="there")
    before = state(model)
    with pytest.raises(ValueError, match=f"adapt: share_circulants {message}"):
        adapt(model, targets, share_circulants=True, **options)
    assert_same_state(before, model)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_switch_of_another_kind(value):
    with pytest.raises(TypeError, match="adapt: share_circulants must be True or False"):
        adapt(blocks(), share_circulants=value)


@pytest.mark.parametrize(
    "adapters_of", [lambda model: model, lambda model: {"0": model[0]["up"]}, lambda model: {0: CDDAdapter(4, 4)}]
)
def test_wrappers_of_layers_pass_adapters_by_path(adapters_of):
    with pytest.raises(TypeError, match="share_circulants: adapters must be a dict of CDDAdapter by path"):
        share_circulants(adapters_of(blocks()))


def test_names_with_numbers_in_them_are_kinds_of_their_own():
    model = nn.ModuleList(nn.ModuleDict({name: nn.Linear(6, 6) for name in ("fc1", "fc2")}) for _ in range(2))
    adapt(model, share_circulants=True)
    one, two = adapters(model)[::2], adapters(model)[1::2]
    assert one[0].factors[1] is one[1].factors[1]
    assert two[0].factors[1] is two[1].factors[1]
    assert one[0].factors[1] is not two[0].factors[1]


def test_circulants_with_vectors_of_one_shape_but_other_columns():
    model = nn.ModuleList([nn.Linear(8, 8), nn.Linear(7, 8), nn.Linear(8, 8)])
    adapt(model, share_circulants=True, block_size=4)
    first, cropped, last = (adapter.factors[1] for adapter in adapters(model))
    assert first is last
    assert first is not cropped
    torch.optim.AdamW(param_groups(model, lr=0.1))


def test_layers_of_another_dtype_share_among_themselves(tmp_path):
    pytest.importorskip("safetensors")

    def mixed():
        model = blocks(4)
        model[2:].float()
        return model

    model = mixed()
    adapt(model, share_circulants=True, init="normal")
    up = [adapter.factors[1] for adapter in adapters(model)[::2]]
    assert up[0] is up[1]
    assert up[2] is up[3]
    assert up[1] is not up[2]
    file = save_adapter(model, tmp_path / "adapter.safetensors")
    loaded = mixed()
    load_adapter(loaded, file)
    assert [a.factors[1].dtype for a in adapters(loaded)] == [a.factors[1].dtype for a in adapters(model)]
    for one, other in zip(adapters(loaded), adapters(model), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.factors, other.factors, strict=True))
    whole = blocks(4)
    adapt(whole, share_circulants=True)
    load_adapter(loaded := mixed(), save_adapter(whole, tmp_path / "whole.safetensors"))
    assert [a.factors[1].dtype for a in adapters(loaded)] == [a.factors[0].dtype for a in adapters(loaded)]
    up = [adapter.factors[1] for adapter in adapters(loaded)[::2]]
    assert up[0] is up[1]
    assert up[1] is not up[2]
    everywhere = blocks(4)  # of one dtype: what was shared in two groups still is
    load_adapter(everywhere, file)
    up = [adapter.factors[1] for adapter in adapters(everywhere)[::2]]
    assert up[0] is up[1]
    assert up[2] is up[3]
    assert up[1] is not up[2]


def test_what_is_trained_shares_nothing_with_what_is_frozen():
    trained, frozen, other = (CDDAdapter(4, 4) for _ in range(3))
    frozen.requires_grad_(False)
    assert share_circulants({"block.0.up": trained, "block.1.up": frozen, "block.2.up": other}) == 1
    assert trained.factors[1] is other.factors[1] is not frozen.factors[1]


def test_diagonals_that_a_user_has_tied_are_in_one_group_once():
    model = shared_model()
    first, second = adapters(model)[::2][:2]
    second.factors[2] = first.factors[2]
    listed = [p for group in param_groups(model, lr=0.1) for p in group["params"]]
    assert len(listed) == len(set(listed)) == 13
    assert summarise(model).n_trainable == summarise(model).n_parameters


def test_a_second_adapter_shares_among_its_own_layers():
    model = shared_model(init="normal")
    first = output(model).detach()
    adapt(model, share_circulants=True, name="second")
    assert torch.equal(output(model), first)
    mine = [layer for layer in adapters(model) if layer.factors[0].requires_grad]
    assert len(mine) == 6
    assert len({p for adapter in mine for p in adapter.parameters()}) == 14
