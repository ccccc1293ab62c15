"""`CDDConv`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import CDDConv, adapters_per_sample
from tests.torch.common import fill
from tests.torch.layers import input_of, layer_of


def test_convolutions_take_single_samples():
    for kind in ("conv 1", "conv 2"):
        layer, _ = layer_of(kind)
        fill(layer)
        x = input_of(kind)
        torch.testing.assert_close(layer(x[0]), layer(x)[0])


@pytest.mark.parametrize("kind", ["conv 1", "conv 2"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("single", [False, True])
def test_outputs_are_stored_as_those_of_the_base(kind, memory_format, single):
    """So that what follows can look at them by `view`."""
    layer, base = layer_of(kind)
    x = input_of(kind)
    if memory_format is torch.channels_last and kind == "conv 2":
        x = x.to(memory_format=memory_format)
    x = x[0] if single else x
    expected = base(x)
    for filled in (False, True):
        if filled:
            fill(layer)
        assert layer(x).stride() == expected.stride()
    if not single:
        with adapters_per_sample(layer, [None] * len(x)):
            assert layer(x).stride() == expected.stride()


@pytest.mark.parametrize("padding", ["valid", "same", 0])
def test_words_for_no_padding(padding):
    base = torch.nn.Conv1d(4, 3, 1, padding=padding)
    x = torch.randn(2, 4, 5)
    assert torch.equal(CDDConv(base)(x), base(x))
