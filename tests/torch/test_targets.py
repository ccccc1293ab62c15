"""Which layers of a model are adapted."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    CDDConv,
    CDDEmbedding,
    CDDLinear,
    adapt,
    merge_adapters,
    remove_adapters,
    unmerge_adapters,
)
from tests.torch.common import fill
from tests.torch.models import TOKENS, names


class TestTargets:
    @pytest.mark.parametrize(("targets", "expected"), [
        ("all-linear", ["block.query", "block.value", "head"]),
        (["query"], ["block.query"]),
        (["query", "value"], ["block.query", "block.value"]),
        (["block.value", "table", "mix"], ["table", "block.value", "mix"]),
        (r"block\..*", ["block.query", "block.value"]),
        (r".*(query|head)", ["block.query", "head"]),
        (("head",), ["head"]),
    ])  # fmt: skip
    def test_forms(self, net, targets, expected):
        before = net(TOKENS)
        summary = adapt(net, targets)
        assert names(summary) == expected
        assert torch.equal(net(TOKENS), before)
        trainable = {key for key, p in net.named_parameters() if p.requires_grad}
        assert trainable == {f"{name}.adapters.default.factors.{i}" for name in expected for i in range(3)}

    def test_kinds_of_layers(self, net):
        adapt(net, ["table", "query", "mix"])
        assert type(net.table) is CDDEmbedding
        assert type(net.block["query"]) is CDDLinear
        assert type(net.mix) is CDDConv

    def test_names_are_whole_parts_of_paths(self, net):
        with pytest.raises(ValueError, match="match no layer"):
            adapt(net, ["uery"])

    def test_exclude_and_train(self, net):
        summary = adapt(net, exclude=["value"], train=["head", "norm"])
        assert names(summary) == ["block.query"]
        trainable = {key for key, p in net.named_parameters() if p.requires_grad and "factors" not in key}
        assert trainable == {"head.weight", "head.bias", "norm.weight", "norm.bias"}
        assert summary.n_trainable == 18 + 15 + 8

    def test_exclude_leaves_out_all_inside_of_a_module(self, net):
        assert names(adapt(net, exclude=["block"])) == ["head"]

    def test_classes_derived_from_linear_are_linear(self):
        class Projection(nn.Linear):
            pass

        model = nn.Sequential(nn.Linear(4, 4), Projection(4, 4))
        assert names(adapt(model)) == ["0", "1"]

    def test_train_keeps_all_inside_of_a_module(self, net):
        assert names(adapt(net, train=["block"])) == ["head"]
        assert net.block["query"].weight.requires_grad

    def test_gradients_of_what_is_frozen_are_freed(self, net):
        net(TOKENS).sum().backward()
        adapt(net, train=["norm"])
        assert {key for key, p in net.named_parameters() if p.grad is not None} == {"norm.weight", "norm.bias"}

    def test_shared_modules_are_wrapped_once_everywhere(self):
        shared = nn.Linear(5, 5)
        model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.Linear(5, 5))})
        for targets in ("all-linear", ["a"], ["b.0"], ["a", "0"]):
            twin = copy.deepcopy(model)
            adapt(twin, targets)
            assert twin["a"] is twin["b"][0]
            assert type(twin["a"].base) is nn.Linear
            assert len(twin["a"].adapters) == 1
            remove_adapters(twin)
            assert str(twin) == str(model)
            assert type(twin["a"]) is type(twin["b"][0]) is nn.Linear
        with pytest.raises(ValueError, match="match no layer"):
            adapt(copy.deepcopy(model), ["a"], exclude=["b.0"])

    def test_tied_weights_stay_tied_and_merge_apart(self):
        table, head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        head.weight = table.weight
        model = nn.ModuleDict({"table": table, "head": head})
        adapt(model)
        fill(model)
        assert model["head"].weight is table.weight
        rows, x = table(torch.arange(7)), torch.randn(3, 5)
        y = model["head"](x)
        merge_adapters(model)
        assert torch.equal(table(torch.arange(7)), rows)
        torch.testing.assert_close(model["head"](x), y)
        unmerge_adapters(model)
        assert model["head"].weight is table.weight

    def test_the_head_of_a_language_model_is_left_out_unless_it_is_named(self):
        transformers = pytest.importorskip("transformers")
        sizes = dict(vocab_size=9, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
        assert "lm_head" not in names(adapt(model))
        assert names(adapt(model, ["lm_head"], name="head")) == ["lm_head"]
        bert = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))
        assert "classifier" in names(adapt(bert))
