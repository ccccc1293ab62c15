"""A model with layers of every kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn


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


TOKENS = torch.tensor([[1, 2, 3, 4], [0, 9, 10, 3]])


def names(summary):
    return [layer.name for layer in summary.layers]
