"""Adapters of a whole model: merged, removed, disabled, set."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")


from structmat.torch import (
    adapt,
    adapters_per_sample,
    disable_adapters,
    merge_adapters,
    remove_adapters,
    set_adapters,
    train_adapters,
    unmerge_adapters,
)
from tests.torch.common import adapted_mlp, assert_same_state, fill, mlp, state
from tests.torch.models import TOKENS, names


class TestActions:
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

    @pytest.mark.parametrize("how", ["merge and unmerge", "remove", "to_linear"])
    def test_weights_made_in_inference_mode_can_be_trained_with(self, how):
        model = adapted_mlp()
        x = torch.randn(5, 6, dtype=torch.float64)
        y = model(x)
        with torch.inference_mode():
            if how == "to_linear":
                model[0] = model[0].to_linear()
            elif how == "remove":
                remove_adapters(model, merge=True)
            else:
                merge_adapters(model)
                with disable_adapters(model):
                    model(x)
        inputs = x.clone().requires_grad_()
        again = model(inputs)
        torch.testing.assert_close(again, y)
        again.sum().backward()
        assert inputs.grad.any()
        if how != "to_linear":
            assert not any(p.requires_grad and "base" in name for name, p in model.named_parameters())

    def test_a_tied_layer_never_gets_the_merged_weight(self):
        model = mlp((6, 6, 6))
        model[2].weight = model[0].weight
        adapt(model, ["0"], init="normal")
        x = torch.randn(5, 6, dtype=torch.float64)
        y = model(x)
        merge_adapters(model)
        assert not torch.equal(model[0].base.weight, model[0].weight)
        model[2].weight = model[0].weight  # as `tie_weights` of transformers does
        torch.testing.assert_close(model(x), y)
        unmerge_adapters(model)
        assert torch.equal(model(x), y)

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

    @pytest.mark.parametrize("action", [
        merge_adapters, remove_adapters, lambda m: remove_adapters(m, merge=True), lambda m: m[0].merge(),
        lambda m: m[0].remove_adapter("default"),
    ])  # fmt: skip
    @pytest.mark.parametrize("merged", [False, True])
    @pytest.mark.parametrize("block", ["disable_adapters", "adapters_per_sample"])
    def test_nothing_is_merged_or_removed_within_a_block(self, action, merged, block):
        """The block says what is added, and restores it at its end."""
        model = adapted_mlp()
        x = torch.randn(5, 6, dtype=torch.float64)
        before, y = state(model), model(x)
        if merged and block == "disable_adapters":
            merge_adapters(model)
        with disable_adapters(model) if block == "disable_adapters" else adapters_per_sample(model, [None] * 5):
            base = model(x)
            with pytest.raises(RuntimeError, match=f"not within a block of {block}"):
                action(model)
            assert torch.equal(model(x), base)
        torch.testing.assert_close(model(x), y)
        unmerge_adapters(model)
        assert_same_state(before, model)

    @pytest.mark.parametrize("own", [False, True])
    def test_all_layers_leave_a_block_even_if_one_fails(self, own):
        model = adapted_mlp((6, 6, 6, 6))
        merge_adapters(model)
        x = torch.randn(5, 6, dtype=torch.float64)

        def broken():
            with disable_adapters(model):
                torch.nn.init.constant_(model[2].adapters["default"].factors[0], torch.nan)
                if own:
                    raise ZeroDivisionError

        with pytest.raises(ValueError, match="NaN or infinity") as raised:
            broken()
        assert isinstance(raised.value.__context__, ZeroDivisionError) == own
        assert [model[i].is_merged for i in (0, 2, 4)] == [True, False, True]
        model[2].adapters["default"].reset_parameters()
        model[2].merge()
        assert not torch.allclose(model[0](x), model[0].base(x) - model[0].adapters["default"](x))
        assert all(model[i]._enabled for i in (0, 2, 4))

    def test_some_adapters_are_removed(self, net):
        """Layers keep the others, and those without any are the bases again."""
        plain = copy.deepcopy(net)
        adapt(net, ["query", "head"], name="first")
        alone = fill(copy.deepcopy(net))
        adapt(net, ["query", "value"], name="second")
        net.load_state_dict(alone.state_dict(), strict=False)
        remove_adapters(net, "second")
        assert type(net.block["value"]) is torch.nn.Linear
        assert torch.equal(net(TOKENS), alone(TOKENS))
        before = state(net)
        for arguments, message in (("x",), r"'x' is in no layer"), ((["first", "first"],), "once"):
            with pytest.raises(ValueError, match=message):
                remove_adapters(net, *arguments)
        with pytest.raises(ValueError, match="merge is for all adapters"):
            remove_adapters(net, "first", merge=True)
        with pytest.raises(ValueError, match="is itself the adapted layer"):
            remove_adapters(net.head, "first")
        merge_adapters(net)
        with pytest.raises(RuntimeError, match="merged"):
            remove_adapters(net, "first")
        unmerge_adapters(net)
        assert_same_state(before, net)
        remove_adapters(net, ["first"])
        assert torch.equal(net(TOKENS), plain(TOKENS))
        assert str(net) == str(plain)

    def test_earlier_adapters_are_trained_again(self, net):
        for name in ("first", "second"):
            adapt(net, ["query", "head"], name=name, train=["norm"])

        def trained():
            return {key.rpartition(".factors")[0] or key for key, p in net.named_parameters() if p.requires_grad}

        paths = ("block.query.adapters", "head.adapters")
        train_adapters(net, "first")
        assert trained() == {f"{path}.first" for path in paths}
        train_adapters(net, ["first", "second"], train=["mix"])
        assert trained() == {f"{path}.{name}" for path in paths for name in ("first", "second")} | {
            "mix.weight", "mix.bias",
        }  # fmt: skip
        set_adapters(net, "second")
        with pytest.warns(RuntimeWarning, match="train_adapters: 'first' is active nowhere; see set_adapters"):
            train_adapters(net, "first")
        train_adapters(net, "second")
        before = state(net)
        with pytest.raises(ValueError, match="'x' is in no layer"):
            train_adapters(net, ["x"])
        with pytest.raises(ValueError, match=r"train_adapters: train .*'x'.* matches no module"):
            train_adapters(net, "second", train=["x"])
        assert_same_state(before, net)
        train_adapters(net, ())
        assert not trained()

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
            set_adapters(net, name)
            outputs[name] = net(TOKENS)
            assert not torch.allclose(outputs[name], both)
        with adapters_per_sample(net, ["second", "first"]):
            chosen = net(TOKENS)
        torch.testing.assert_close(chosen, torch.stack([outputs["second"][0], outputs["first"][1]]))
        with adapters_per_sample(net, [None, "first"]), disable_adapters(net):
            base = net(TOKENS)
        set_adapters(net, ())
        assert torch.equal(net(TOKENS), base)
        set_adapters(net, ["first", "second"])
        torch.testing.assert_close(net(TOKENS), both)
        for function in (set_adapters, lambda m, n: adapters_per_sample(m, n).__enter__()):
            with pytest.raises(ValueError, match=r"'x' is in no layer, only \['first', 'second'\]"):
                function(net, ["first", "x"])
        torch.testing.assert_close(net(TOKENS), both)
        merge_adapters(net)
        for function in (set_adapters, lambda m, n: adapters_per_sample(m, n).__enter__()):
            with pytest.raises(RuntimeError, match="merged"):
                function(net, ["first", "second"])


class TestThreads:
    """A choice of one thread is never used for the batch of another."""

    def in_another_thread(self, function):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result()

    def test_others_are_refused_meanwhile(self):
        model = adapted_mlp()
        x = torch.randn(2, 6, dtype=torch.float64)
        expected = model(x)

        def choose():
            with adapters_per_sample(model, [None, "default"]):
                return model(x)

        with adapters_per_sample(model, ["default", None]):
            chosen = model(x)
            with pytest.raises(RuntimeError, match="chosen in another thread"):
                self.in_another_thread(lambda: model(x))
            with pytest.raises(RuntimeError, match="are chosen in another thread now"):
                self.in_another_thread(choose)
            assert torch.equal(model(x), chosen)
            with adapters_per_sample(model, [None, None]):
                assert not torch.allclose(model(x), chosen)
            assert torch.equal(model(x), chosen)
        assert torch.equal(self.in_another_thread(lambda: model(x)), expected)
        assert torch.allclose(self.in_another_thread(choose)[1], expected[1])

    def test_autograd_may_compute_a_pass_again_in_a_thread_of_its_own(self):
        model = adapted_mlp()
        x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
        with adapters_per_sample(model, ["default", None]):
            (expected,) = torch.autograd.grad(model(x).sum(), x)
            y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).sum()
            found = self.in_another_thread(lambda: torch.autograd.grad(y, x)[0])
        assert torch.equal(found, expected)
