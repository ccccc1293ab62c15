"""How the vectors of a change start."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    CDDAdapter,
    CDDLinear,
    adapt,
)
from tests.torch.models import TOKENS


@pytest.mark.parametrize(("rows", "cols"), [(512, 512), (128, 512), (512, 128)])
@pytest.mark.parametrize("n_factors", [3, 5, 7])
def test_a_normal_start_keeps_the_variance(rows, cols, n_factors):
    torch.manual_seed(0)
    layer = CDDLinear(cols, rows, False, n_factors=n_factors)
    with torch.no_grad():
        variance = layer(torch.randn(200, cols)).var()
    assert 0.6 < variance < 1.6


def test_the_seed_decides_the_values():
    def drawn(seed):
        adapter = CDDAdapter(6, 4)
        adapter.reset_parameters("normal", rng=seed)
        return torch.cat([factor.detach().flatten() for factor in adapter.factors])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(drawn(np.int64(1)), drawn(1))


@pytest.mark.parametrize("init", ["zero", "normal", "gradient"])
def test_a_reset_without_a_word_makes_values_of_the_first_kind(init):
    """As of what is built on the device meta, moved, and then reset module by module."""
    gradient = torch.ones(5, 5) if init == "gradient" else None
    adapter = CDDAdapter(5, 5, init=init, gradient=gradient)
    with torch.no_grad():
        for factor in adapter.factors:
            factor.fill_(torch.nan)
    adapter.reset_parameters()
    assert all(torch.isfinite(factor).all() for factor in adapter.factors)
    assert adapter.factors[0].any() == (init == "normal")


def test_a_layer_without_a_base_is_reset_module_by_module():
    with torch.device("meta"):
        layer = CDDLinear(8, 8)
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert not layer.bias.any()
    assert layer(torch.ones(8)).isfinite().all()
    assert layer(torch.ones(8)).any()


class TestGradientStart:
    @pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
    @pytest.mark.parametrize(("rows", "cols"), [(8, 8), (6, 9), (9, 6)])
    def test_vectors_have_the_size_of_a_random_start(self, rows, cols, size):
        """Whatever the size of the gradient, so that one learning rate suits all layers."""
        gradient = size * torch.randn(rows, cols)
        adapter = CDDAdapter(cols, rows, init="gradient", gradient=gradient)
        assert not adapter.factors[0].any()
        for factor, (_, columns) in list(zip(adapter.factors, adapter.layout.factor_shapes, strict=True))[1:]:
            size_of_random = 1.0 if factor.ndim == 1 else columns**-0.5
            assert factor.square().mean().sqrt().item() == pytest.approx(size_of_random, rel=1e-5)

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

    def test_a_gradient_that_is_zero(self):
        """Two factors would be zero, and with them all gradients for ever."""
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        nn.init.zeros_(model[1].weight)
        model(torch.randn(3, 4)).square().sum().backward()
        with pytest.raises(ValueError, match=r"gradient is zero: two factors would be, .*, in 0$"):
            adapt(model, ["0"], init="gradient")
        assert type(model[0]) is nn.Linear

    def test_sparse_gradients(self):
        model = nn.Sequential(nn.Embedding(5, 3, sparse=True))
        model(torch.tensor([1, 2])).square().sum().backward()
        assert model[0].weight.grad.is_sparse
        adapt(model, ["0"], init="gradient")
        assert model[0].adapters["default"].factors[1].any()

    def test_transposed_weights(self):
        pytest.importorskip("transformers")
        from transformers.pytorch_utils import Conv1D

        model = nn.Sequential(Conv1D(5, 3))
        model(torch.randn(2, 3)).sum().backward()
        assert adapt(model, init="gradient").layers[0].shape == (5, 3)
