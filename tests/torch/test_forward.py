"""Outputs of a base with changes: what bases may do themselves."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


from tests.torch.common import fill
from tests.torch.layers import input_of, layer_of


def test_hooks_on_the_base_and_trained_bases_are_heeded():
    layer, base = layer_of("linear")
    fill(layer)
    x = input_of("linear")
    expected, seen = layer(x), []
    with base.register_forward_hook(lambda *a: seen.append(1)):
        torch.testing.assert_close(layer(x), expected)
    assert seen
    base.requires_grad_()
    layer(x).sum().backward()
    assert base.weight.grad is not None
    assert base.bias.grad is not None


def test_a_forward_that_was_replaced_is_called():
    """As accelerate does in order to bring weights in when they are needed."""
    layer, base = layer_of("linear")
    fill(layer)
    x = input_of("linear")
    change = layer(x) - base(x)
    base.forward = lambda x: torch.nn.Linear.forward(base, x) + 1
    torch.testing.assert_close(layer(x), base(x) + change)
