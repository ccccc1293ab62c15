"""`CDDConv`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


from tests.torch.common import fill
from tests.torch.layers import input_of, layer_of


def test_convolutions_take_single_samples():
    for kind in ("conv 1", "conv 2"):
        layer, _ = layer_of(kind)
        fill(layer)
        x = input_of(kind)
        torch.testing.assert_close(layer(x[0]), layer(x)[0])
