"""`CDDAdapter`: dropout of its inputs, its dense matrix, its options."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import dropout

from structmat.torch import CDDAdapter, adapters_per_sample
from tests.torch.common import MODES, adapter, dense, fill
from tests.torch.layers import input_of, kinds, layer_of


class TestDropout:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("kind", ["linear", "Conv1D", "conv 2"])
    def test_the_change_gets_dropped_inputs_and_the_base_all(self, kind, mode):
        layer, base = layer_of(kind, dropout=0.5, mode=mode)
        fill(layer)
        x = input_of(kind)
        torch.manual_seed(1)
        y = layer.train()(x)
        torch.manual_seed(1)
        kept = dropout(x.movedim(1, -1) if kind == "conv 2" else x, 0.5)
        kept = kept.movedim(-1, 1) if kind == "conv 2" else kept
        assert (kept == 0).any()
        layer.eval()
        torch.testing.assert_close(y - base(x), layer(kept) - base(kept))

    def test_the_first_of_several_adapters_drops_its_inputs_though_others_do_not(self):
        layer, base = layer_of("linear", dropout=0.5)
        layer.add_adapter("second")
        fill(layer.train())
        x = input_of("linear")
        torch.manual_seed(1)
        y = layer(x)
        torch.manual_seed(1)
        kept = dropout(x, 0.5)
        layer.eval()
        first, second = layer.adapters.values()
        torch.testing.assert_close(y - base(x), first(kept) + second(x))

    @kinds
    def test_none_in_evaluation_nor_for_a_new_adapter(self, kind):
        x = input_of(kind)
        layer, base = layer_of(kind, dropout=0.5)
        assert torch.equal(layer.train()(x), base(x))
        fill(layer)
        layer.eval()
        torch.testing.assert_close(layer(x), layer(x), atol=0, rtol=0)
        y = layer(x)
        with layer.merged():
            torch.testing.assert_close(layer(x), y)

    @kinds
    def test_the_mean_is_that_without(self, kind):
        layer, base = layer_of(kind, dropout=0.25)
        fill(layer)
        torch.manual_seed(0)
        x = input_of(kind)
        with torch.no_grad():
            mean = sum(layer.train()(x) for _ in range(400)) / 400
            change = layer.eval()(x) - base(x)
            assert torch.linalg.vector_norm(mean - base(x) - change) < 0.1 * torch.linalg.vector_norm(change)

    def test_of_an_embedding_drops_tokens(self):
        layer, base = layer_of("embedding", dropout=0.5)
        fill(layer)
        tokens = torch.randint(0, 5, (400,))
        torch.manual_seed(0)
        change = layer.train()(tokens) - base(tokens)
        dropped = (change == 0).all(1)
        assert 0.4 < dropped.double().mean() < 0.6
        full = layer.eval()(tokens) - base(tokens)
        torch.testing.assert_close(change[~dropped], 2 * full[~dropped])

    def test_gradients_are_those_of_the_dropped_input(self):
        layer, base = layer_of("linear", dropout=0.5)
        fill(layer)
        x = input_of("linear").requires_grad_()
        mask = dropout(torch.ones_like(x), 0.5)
        change = layer.adapters["default"]
        torch.manual_seed(3)
        mask = dropout(torch.ones_like(x), 0.5)
        torch.manual_seed(3)
        found = torch.autograd.grad(layer.train()(x).square().sum(), [x, *change.factors])
        y = base(x) + (x * mask) @ dense(change.factors, 5, 7).T
        (expected,) = torch.autograd.grad(y.square().sum(), [x])
        torch.testing.assert_close(found[0], expected)
        again = base(x) + change.eval()(x * mask)
        for one, other in zip(found[1:], torch.autograd.grad(again.square().sum(), list(change.factors)), strict=True):
            torch.testing.assert_close(one, other)

    def test_each_adapter_and_each_sample_drops_its_own(self):
        layer, _ = layer_of("linear", dropout=0.5)
        layer.add_adapter("second", dropout=0.5)
        fill(layer.train())
        x = torch.ones(2, 7, dtype=torch.float64)
        with adapters_per_sample(layer, ["default", "second"]):
            assert not torch.equal(layer(x), layer(x))
        second = layer.adapters["second"]
        with torch.no_grad():
            for factor, like in zip(second.factors, layer.adapters["default"].factors, strict=True):
                factor.copy_(like)
            second.factors[0].neg_()
        assert not torch.allclose(layer(x), layer.base(x))  # two equal masks would cancel

    @pytest.mark.parametrize(("value", "error"), [
        (-0.1, ValueError), (1.0, ValueError), (float("nan"), ValueError), ("a", TypeError), (None, TypeError),
    ])  # fmt: skip
    def test_bad_values(self, value, error):
        with pytest.raises(error, match="CDDAdapter: dropout must"):
            CDDAdapter(4, 4, dropout=value)

    def test_is_told(self):
        assert "dropout=0.1" in repr(CDDAdapter(4, 4, dropout=0.1))


@pytest.mark.parametrize(("value", "error"), [("a", TypeError), (None, TypeError), (float("inf"), ValueError)])
def test_alpha_is_a_finite_number(value, error):
    with pytest.raises(error, match="CDDAdapter: alpha must be"):
        CDDAdapter(4, 4, alpha=value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dense_matrix_is_in_float32_at_least(dtype):
    change = adapter(5, 7, dtype=dtype, alpha=0.1)
    found = change.dense()
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), dense(change.factors, 5, 7, 0.1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_factors", [1, 2, 4])
def test_a_change_takes_an_odd_number_of_factors_from_three_on(n_factors):
    with pytest.raises(ValueError, match=f"n_factors must be odd and at least 3, got {n_factors}"):
        CDDAdapter(6, 6, n_factors=n_factors)
