"""Whole models: adapt, its targets and errors, switches, learning rates."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    CDDAdapter,
    CDDConv,
    CDDEmbedding,
    CDDLinear,
    activate_adapters,
    adapt,
    change_flops,
    disable_adapters,
    merge_adapters,
    param_groups,
    remove_adapters,
    select_adapters,
    summarise,
    unmerge_adapters,
)
from tests.torch.common import adapted_mlp, assert_same_state, dense, fill, mlp, state


class Net(nn.Module):
    """One layer of every kind, and some that cannot be adapted."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.block = nn.ModuleDict({"query": nn.Linear(6, 6), "value": nn.Linear(6, 6, bias=False)})
        self.mix, self.wide = nn.Conv1d(6, 4, 1), nn.Conv1d(4, 4, 3, padding=1)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.table(tokens)
        x = torch.tanh(self.block["query"](x)) * self.block["value"](x)
        x = self.wide(self.mix(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.norm(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


TOKENS = torch.tensor([[1, 2, 3, 4], [0, 9, 10, 3]])


def names(summary):
    return [layer.name for layer in summary.layers]


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


class TestErrors:
    @pytest.mark.parametrize(("arguments", "kind", "message"), [
        (dict(targets=["nope"]), ValueError, "match no layer; could be adapted: table, block.query"),
        (dict(targets="nope"), ValueError, "match no layer"),
        (dict(targets=[]), ValueError, "match no layer"),
        (dict(targets="("), ValueError, "no regular expression"),
        (dict(exclude="("), ValueError, "no regular expression"),
        (dict(train="("), ValueError, "no regular expression"),
        (dict(exclude=["query", "value", "head"]), ValueError, "match no layer"),
        (dict(train=["nope"]), ValueError, "train .* matches no module"),
        (dict(targets=["head"], train=["head"]), ValueError, "stay trainable"),
        (dict(targets=["norm"]), TypeError, "norm is a LayerNorm"),
        (dict(targets=["wide"]), TypeError, "wide is a Conv1d"),
        (dict(targets=["query", "block"]), TypeError, "block is a ModuleDict"),
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

    def test_a_model_that_is_a_layer(self):
        with pytest.raises(ValueError, match="match no layer"):
            adapt(nn.Linear(3, 3))
        layer = CDDLinear.from_linear(nn.Linear(3, 3))
        with pytest.raises(ValueError, match="itself the adapted layer"):
            remove_adapters(layer)

    @pytest.mark.parametrize("function", [
        merge_adapters, unmerge_adapters, remove_adapters, summarise, lambda m: param_groups(m, 0.1),
        lambda m: activate_adapters(m, "a"), lambda m: disable_adapters(m).__enter__(),
        lambda m: select_adapters(m, ["a"]).__enter__(),
    ])  # fmt: skip
    def test_plain_models(self, function):
        with pytest.raises(ValueError, match=r"no (adapted layer|layer has|trainable)"):
            function(mlp())

    def test_a_name_twice(self, net):
        adapt(net)
        before = state(net)
        with pytest.raises(ValueError, match="is taken"):
            adapt(net)
        assert_same_state(before, net)


class TestSwitches:
    def test_merge_and_remove(self):
        plain = mlp()
        model = copy.deepcopy(plain)
        before = state(model)[0]
        adapt(model)
        fill(model)
        x = torch.randn(5, 6, dtype=torch.float64)
        y = model(x)
        merge_adapters(model)
        torch.testing.assert_close(model(x), y)
        unmerge_adapters(model)
        assert torch.equal(model(x), y)
        merge_adapters(model)
        removed = copy.deepcopy(model)
        remove_adapters(removed)
        assert str(removed) == str(plain)
        assert all(torch.equal(v, before[k]) for k, v in removed.state_dict().items())
        assert torch.equal(removed(x), plain(x))
        remove_adapters(model, merge=True)
        assert str(model) == str(plain)
        torch.testing.assert_close(model(x), y)

    def test_a_merge_that_fails_half_way_is_undone(self):
        model = adapted_mlp()
        with torch.no_grad():
            model[2].adapters["default"].factors[0].fill_(torch.inf)
        before = state(model)
        for function in (merge_adapters, lambda m: remove_adapters(m, merge=True)):
            with pytest.raises(ValueError, match="NaN or infinity"):
                function(model)
            assert_same_state(before, model)

    def test_disable(self):
        plain = mlp()
        model = copy.deepcopy(plain)
        adapt(model)
        fill(model)
        x = torch.randn(5, 6, dtype=torch.float64)
        y = model(x)
        with disable_adapters(model):
            assert torch.equal(model(x), plain(x))
            with disable_adapters(model):
                pass
            assert torch.equal(model(x), plain(x))
        assert torch.equal(model(x), y)
        merge_adapters(model)
        with pytest.raises(ZeroDivisionError), disable_adapters(model):
            raise ZeroDivisionError
        torch.testing.assert_close(model(x), y)
        assert model[0].is_merged

    def test_two_adapters(self, net):
        first = adapt(net, ["query", "head"], name="first")
        second = adapt(net, ["query", "value"], name="second", block_size=2)
        assert (names(first), names(second)) == (["block.query", "head"], ["block.query", "block.value"])
        assert {key for key, p in net.named_parameters() if p.requires_grad} == {
            f"block.{name}.adapters.second.factors.{i}" for name in ("query", "value") for i in range(3)
        }
        fill(net)
        both, outputs = net(TOKENS), {}
        for name in ("first", "second"):
            activate_adapters(net, name)
            outputs[name] = net(TOKENS)
            assert not torch.allclose(outputs[name], both)
        with select_adapters(net, ["second", "first"]):
            chosen = net(TOKENS)
        torch.testing.assert_close(chosen, torch.stack([outputs["second"][0], outputs["first"][1]]))
        with select_adapters(net, [None, "first"]), disable_adapters(net):
            base = net(TOKENS)
        activate_adapters(net, ())
        assert torch.equal(net(TOKENS), base)
        activate_adapters(net, ["first", "second"])
        torch.testing.assert_close(net(TOKENS), both)
        for function in (activate_adapters, lambda m, n: select_adapters(m, n).__enter__()):
            with pytest.raises(ValueError, match=r"no layer has an adapter 'x', only \['first', 'second'\]"):
                function(net, ["first", "x"])
        torch.testing.assert_close(net(TOKENS), both)
        merge_adapters(net)
        for function in (activate_adapters, lambda m, n: select_adapters(m, n).__enter__()):
            with pytest.raises(RuntimeError, match="merged"):
                function(net, ["first", "second"])


class TestGradientStart:
    def test_the_first_step_goes_further_than_from_a_random_start(self):
        """The target differs from the layer by a product, which the gradient shows."""
        torch.manual_seed(0)
        x = torch.randn(400, 16)
        planted = CDDAdapter(16, 16, init="normal")
        model = nn.Sequential(nn.Linear(16, 16, bias=False))
        wanted = (model(x) + planted(x)).detach()

        def step(init):
            own = copy.deepcopy(model)
            nn.functional.mse_loss(own(x), wanted).backward()
            adapt(own, init=init)
            before = nn.functional.mse_loss(own(x), wanted)
            assert torch.equal(own(x), model(x))
            before.backward()
            diagonal = own[0].adapters["default"].factors[0]
            with torch.no_grad():
                diagonal -= 0.1 * diagonal.grad / diagonal.grad.abs().mean()
            return (before - nn.functional.mse_loss(own(x), wanted)).item()

        assert step("gradient") > 2 * abs(step("zero"))

    def test_every_kind_of_layer(self, net):
        net(TOKENS).square().sum().backward()
        before = net(TOKENS)
        adapt(net, ["table", "query", "value", "mix", "head"], init="gradient")
        assert torch.equal(net(TOKENS), before)
        net(TOKENS).square().sum().backward()
        assert all(layer.adapters["default"].factors[0].grad.any() for layer in (net.table, net.mix, net.head))

    def test_transposed_weights(self):
        pytest.importorskip("transformers")
        from transformers.pytorch_utils import Conv1D

        model = nn.Sequential(Conv1D(5, 3))
        model(torch.randn(2, 3)).sum().backward()
        assert adapt(model, init="gradient").layers[0].shape == (5, 3)


class TestSummary:
    def test_counts(self):
        model = mlp((6, 8, 4), torch.float32)
        summary = adapt(model, block_size=3)
        shapes = [(8, 6), (4, 8)]
        counts = [m + -(-m // 3) * -(-n // 3) * 3 + n for m, n in shapes]
        assert [layer.shape for layer in summary.layers] == shapes
        assert [layer.n_parameters for layer in summary.layers] == counts
        assert summary.n_parameters == summary.n_trainable == sum(counts)
        assert summary.n_bytes == 4 * sum(counts)
        assert summary.n_total == 6 * 8 + 8 + 8 * 4 + 4 + sum(counts)
        assert summary.dense_flops_per_token == 2 * (48 + 32)
        assert summary.flops_per_token == sum(change_flops(m.adapters["default"]) for m in (model[0], model[2]))
        assert summarise(model) == summary
        for part in (f"{sum(counts):,} parameters", "2 layers", "% of the adapted layers' own"):
            assert part in str(summary)

    def test_operations_are_those_of_the_formula(self):
        b = 16
        assert change_flops(CDDAdapter(b, b)) == 2 * b + 2 * 2.5 * b * 4 + 6 * (b // 2 + 1)
        assert change_flops(CDDAdapter(1, 1)) == 2 + 6


class TestParameterGroups:
    def test_every_trainable_parameter_is_in_one_group(self, net):
        adapt(net, ["query", "mix", "head"], train=["norm"], n_factors=5)
        groups = param_groups(net, 0.1, other_lr=0.01, weight_decay=0.5)
        given = [id(p) for group in groups for p in group["params"]]
        assert sorted(given) == sorted(id(p) for p in net.parameters() if p.requires_grad)
        assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
            "diagonals": (0.1, 0.0),
            "circulants of 3 columns": (0.1 * 3**-0.5, 0.0),
            "circulants of 4 columns": (0.05, 0.0),
            "circulants of 6 columns": (0.1 * 6**-0.5, 0.0),
            "others": (0.01, 0.5),
        }
        optimizer = torch.optim.AdamW(groups)
        net(TOKENS).sum().backward()
        optimizer.step()

    def test_what_is_frozen_is_left_out(self):
        model = adapted_mlp()
        for p in model[0].parameters():
            p.requires_grad_(requires_grad=False)
        assert sum(p.numel() for g in param_groups(model, 0.1) for p in g["params"]) == 4 + 8 + 8

    def test_one_rate_moves_changes_of_every_size_alike(self):
        """The spectral norm of a change moves by about the same after a step of Adam, whatever its size."""
        torch.manual_seed(0)
        moved = []
        for n in (16, 64, 256):
            model = nn.Sequential(nn.Linear(n, n, bias=False))
            adapt(model, init="normal")
            before = model[0].delta().to_dense().detach()
            optimizer = torch.optim.Adam(param_groups(model, 0.01))
            x = torch.randn(64, n)
            (model(x) * torch.randn(64, n)).sum().backward()
            optimizer.step()
            moved.append(torch.linalg.matrix_norm(model[0].delta().to_dense() - before, 2).item())
        assert max(moved) < 3 * min(moved)


class TestOtherFrameworks:
    @pytest.mark.parametrize("targets", ["all-linear", ["0.linear2"], ["layers.1.linear1"]])
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("norm_first", [False, True])
    def test_fast_path_of_transformer_encoders(self, targets, padded, norm_first):
        """In evaluation torch reads weights without calling layers, and makes nested tensors of padded batches."""
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
        plain = copy.deepcopy(encoder).eval()
        adapt(encoder, targets)
        fill(encoder)
        x, mask = torch.randn(3, 5, 8), None
        if padded:
            mask = torch.zeros(3, 5, dtype=torch.bool)
            mask[0, 3:] = True
        real = slice(None) if mask is None else ~mask
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", "The PyTorch API of nested tensors", UserWarning)
            trained = encoder.train()(x, src_key_padding_mask=mask)[real]
            fast = encoder.eval()(x, src_key_padding_mask=mask)[real]
            torch.testing.assert_close(fast, trained, atol=1e-5, rtol=1e-5)
            before = plain(x, src_key_padding_mask=mask)[real]
            assert not torch.allclose(before, fast, atol=1e-2)
            remove_adapters(encoder)
            assert torch.equal(encoder(x, src_key_padding_mask=mask)[real], before)

    def test_layers_that_are_wrapped_by_hand_or_copied_are_called_too(self):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        layer.linear1 = CDDLinear.from_linear(layer.linear1)
        fill(layer)
        x = torch.randn(3, 5, 8)
        expected = layer(x)  # with gradients there is no fast path
        for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            with torch.no_grad():
                torch.testing.assert_close(twin(x), expected)

    def test_projections_of_attention_that_are_never_called(self):
        model = nn.TransformerEncoderLayer(8, 2, 16)
        before = state(model)
        with pytest.raises(TypeError, match=r"MultiheadAttention reads the weight of self_attn\.out_proj"):
            adapt(model, ["linear1", "out_proj"])
        assert_same_state(before, model)
        assert names(adapt(model)) == ["linear1", "linear2"]

    def test_gpt2(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(
            n_layer=2, n_head=2, n_embd=8, vocab_size=20, n_positions=16, bos_token_id=0, eos_token_id=0
        )
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
        tokens = torch.randint(0, 20, (2, 6))
        before = model(tokens).logits
        summary = adapt(model, exclude=["lm_head"])
        assert len(summary.layers) == 8
        assert (24, 8) in {layer.shape for layer in summary.layers}
        assert torch.equal(model(tokens).logits, before)
        fill(model)
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        outputs = model(tokens).logits
        c_attn = model.transformer.h[0].attn.c_attn
        W = c_attn.base.weight.detach().T.double() + dense(c_attn.adapters["default"].factors, 24, 8)
        torch.testing.assert_close(c_attn.to_linear().weight.double(), W, atol=1e-6, rtol=1e-5)
        merge_adapters(model)
        torch.testing.assert_close(model(tokens).logits, outputs, atol=1e-4, rtol=1e-4)
        remove_adapters(model)
        assert torch.equal(model(tokens).logits, before)
