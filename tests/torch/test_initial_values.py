"""How the vectors of a change start."""

from __future__ import annotations

import copy

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
