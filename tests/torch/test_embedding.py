"""`CDDEmbedding`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


from structmat.torch import (
    CDDEmbedding,
)


def test_the_padding_row_of_an_embedding_stays():
    base = torch.nn.Embedding(6, 4, padding_idx=2)
    layer = CDDEmbedding(base, init="normal")
    tokens = torch.tensor([[2, 1], [2, 5]])
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        layer(tokens).square().sum().backward()
        optimizer.step()
    assert not layer(tokens)[:, 0].any()
    assert not layer.delta().to_dense()[2].any()
    assert layer.delta().to_dense()[1].any()
    merged = layer(tokens)
    with layer.merged():
        torch.testing.assert_close(layer(tokens), merged)
