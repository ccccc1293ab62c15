"""`CDDAdapter`: the scale of its vectors, their start, dropout, fits."""

from __future__ import annotations

import math

import pytest

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from torch.nn.functional import dropout

from structmat.torch import CDDAdapter, CDDLinear
from tests.torch.common import adapter, dense, factors_of, fill, input_of, kinds, layer_of

LORA = 2 * 8 / math.sqrt(3)
"""What a first step of LoRA (r = 8, alpha = 16) takes off a loss, by the rate, the size of the gradient left out."""


class TestScale:
    @pytest.mark.parametrize("shape", [(64, 64), (512, 512), (8192, 8192), (1024, 4096), (4096, 1024)])
    def test_first_steps_go_as_far_relative_to_those_of_lora_at_every_width(self, shape):
        """The loss falls 30 / 9.2 times as much as by LoRA's first step; its later steps grow by themselves."""
        torch.manual_seed(0)
        rows, cols = shape
        x, g, rate = torch.randn(32, cols), torch.randn(32, rows), 1e-4
        A = (torch.rand(8, cols) * 2 - 1) / math.sqrt(cols)  # as PEFT and torch.nn.Linear draw it
        B = torch.zeros(rows, 8, requires_grad=True)
        layer = CDDAdapter(cols, rows)

        def decrease(outputs, parameters):
            optimizer = torch.optim.Adam(parameters, lr=rate)
            (outputs() * g).sum().backward()
            optimizer.step()
            return -(outputs() * g).sum().item()

        ratio = decrease(lambda: layer(x), layer.parameters()) / decrease(lambda: 2 * (x @ A.T) @ B.T, [B])
        assert ratio == pytest.approx(30 / LORA, rel=0.2 if rows < 100 else 0.08)

    @pytest.mark.parametrize(
        ("shape", "block"), [((64, 64), 64), ((1024, 1024), 1024), ((512, 512), 16), ((64, 512), 64)]
    )
    def test_a_step_changes_the_products_of_all_factors_alike(self, shape, block):
        torch.manual_seed(0)
        change = CDDAdapter(shape[1], shape[0], n_factors=5, block_size=block, init="normal")
        stepped = CDDAdapter(shape[1], shape[0], n_factors=5, block_size=block)
        steps = [1e-3 * torch.sign(torch.randn_like(vector)) for vector in change.vectors]
        x = torch.randn(200, shape[1])
        for k in range(5):
            stepped.load_state_dict(change.state_dict())
            with torch.no_grad():
                stepped.vectors[k] += steps[k]
                moved = (stepped(x) - change(x)).square().mean().sqrt()
            assert moved.item() == pytest.approx(0.03, rel=0.3)

    def test_factors_are_read_and_set_as_they_are_multiplied(self):
        change = CDDAdapter(6, 4, alpha=0.5, dtype=torch.float64)
        factors = [torch.randn_like(factor) for factor in change.factors]
        change.factors = factors
        torch.testing.assert_close(change.factors, factors)
        torch.testing.assert_close(change.dense(), dense(factors, 4, 6, 0.5))
        x = torch.randn(3, 6, dtype=torch.float64)
        torch.testing.assert_close(change(x), x @ dense(factors, 4, 6, 0.5).T)
        for wrong in (factors[:2], [torch.ones(1), *factors[1:]]):
            with pytest.raises(ValueError, match=r"factors must have shapes \(\(4,\), \(1, 2, 4\), \(6,\)\), got"):
                change.factors = wrong
        assert torch.equal(change.vectors[0], factors[0] / 30)
        torch.testing.assert_close(change.vectors[1], factors[1] / 30 * math.sqrt(6))
        sum(factor.sum() for factor in change.factors).backward()
        assert all(vector.grad.any() for vector in change.vectors)

    def test_the_operator_shares_gradients(self):
        change = adapter(4, 6, alpha=0.5)
        x = torch.randn(3, 6, dtype=torch.float64)
        by_operator = torch.autograd.grad((change.operator() @ x.T).square().sum(), list(change.vectors))
        by_rows = torch.autograd.grad(change(x).square().sum(), list(change.vectors))
        torch.testing.assert_close(by_operator, by_rows)

    @pytest.mark.parametrize("n_factors", [3, 9, 21])
    def test_single_precision_holds_many_factors(self, n_factors):
        torch.manual_seed(0)
        change = CDDAdapter(16, 16, n_factors=n_factors, init="normal")
        wide = CDDAdapter(16, 16, n_factors=n_factors, dtype=torch.float64)
        wide.factors = change.factors
        x = torch.randn(5, 16)
        torch.testing.assert_close(change(x), wide(x.double()).float(), rtol=1e-4, atol=1e-4)
        assert all(g.isfinite().all() for g in torch.autograd.grad(change(x).sum(), list(change.vectors)))


class TestStart:
    @in_one_test("rows, cols", [(512, 512), (128, 512), (512, 128)])
    @in_one_test("n_factors", [3, 7])
    def test_a_normal_start_keeps_the_variance(self, rows, cols, n_factors):
        torch.manual_seed(0)
        layer = CDDLinear(cols, rows, False, n_factors=n_factors)
        with torch.no_grad():
            variance = layer(torch.randn(200, cols)).var()
        assert 0.6 < variance < 1.6

    @pytest.mark.parametrize("init", ["zero", "normal"])
    def test_a_reset_without_a_word_makes_values_of_the_first_kind(self, init):
        change = CDDAdapter(5, 5, init=init)
        first = change.factors
        for vector in change.vectors:
            vector.data.fill_(torch.nan)
        change.reset_parameters(rng=1)
        again = change.factors
        assert torch.equal(again[2].abs(), first[2].abs())
        assert torch.allclose(again[2].abs(), torch.ones(5))
        assert again[0].any() == (init == "normal")
        change.reset_parameters(rng=1)
        assert all(map(torch.equal, change.factors, again))

    @in_one_test("options, error, text", [
        ({"init": "gradient"}, ValueError, "init must be one of zero, normal"),
        ({"n_factors": 4}, ValueError, "n_factors must be odd and at least 3"),
        ({"alpha": "a"}, TypeError, "alpha must be a number"),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and less than 1"),
        ({"dtype": torch.int8}, ValueError, "dtype must be a floating dtype"),
        ({"block_size": 8}, ValueError, "block_size"),
        ({"factor_scale": 0.0}, ValueError, "factor_scale must be positive"),
        ({"factor_scale": float("nan")}, ValueError, "factor_scale must be finite"),
        ({"n_factors": 51}, ValueError, "n_factors is too large for the factor_scale 30"),
    ])  # fmt: skip
    def test_bad_options(self, options, error, text):
        with pytest.raises(error, match=text):
            CDDAdapter(4, 4, **options)


class TestDropout:
    @pytest.mark.parametrize("kind", ["linear", "Conv1D", "conv 2", "conv 3 x 2"])
    def test_the_change_gets_dropped_inputs_and_the_base_all(self, kind):
        layer, base = layer_of(kind, dropout=0.5)
        fill(layer)
        x = input_of(kind)
        torch.manual_seed(1)
        y = layer.train()(x)
        torch.manual_seed(1)
        kept = dropout(x, 0.5)
        layer.eval()
        torch.testing.assert_close(y - base(x), layer(kept) - base(kept))

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
        assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dense_matrix_is_in_float32_at_least(dtype):
    change = adapter(5, 7, dtype=dtype, alpha=0.1)
    found = change.dense()
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), dense(factors_of(change), 5, 7, 0.1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "cols", "block"), [(6, 6, "min"), (5, 8, 3), (9, 4, "min")])
def test_fits_recover_products(rows, cols, block):
    torch.manual_seed(0)
    planted = CDDAdapter(cols, rows, block_size=block, init="normal", dtype=torch.float64).dense()
    change = CDDAdapter(cols, rows, block_size=block, alpha=0.5, dtype=torch.float64)
    error = change.fit_(planted).error
    torch.testing.assert_close((change.dense() - planted).norm() / planted.norm(), torch.tensor(error).double())
    assert error < 1e-5
    A, B = torch.randn(1, cols), torch.randn(rows, 1)
    assert change.fit_(B @ A).error < 1e-5  # rank one


@pytest.mark.parametrize(("delta", "error", "text"), [
    (torch.ones(6, 4), ValueError, r"delta must have shape \(4, 6\), got \(6, 4\)"),
    (torch.full((4, 6), torch.nan), ValueError, "delta holds NaN"),
    (torch.ones(4, 6, dtype=torch.complex64), TypeError, "delta must be a real torch.Tensor"),
    (torch.ones(4, 6, device="meta"), ValueError, "device meta"),
    ([[1.0]], TypeError, "delta must be a real torch.Tensor, got list"),
])  # fmt: skip
def test_changes_that_cannot_be_fitted(delta, error, text):
    with pytest.raises(error, match=text):
        CDDAdapter(6, 4).fit_(delta)
    with pytest.raises(RuntimeError, match="alpha is 0"):
        CDDAdapter(6, 4, alpha=0).fit_(torch.ones(4, 6))
