"""Layers of every kind, their bases and inputs."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import CDDConv, CDDEmbedding, CDDLinear

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def conv1d(rows, cols, dtype=torch.float64):
    """transformers' Conv1D, whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(rows, cols).to(dtype)
    torch.nn.init.normal_(layer.bias)
    return layer


def base_of(kind, rows=5, cols=7, dtype=torch.float64):
    match kind:
        case "linear":
            return torch.nn.Linear(cols, rows, dtype=dtype)
        case "no bias":
            return torch.nn.Linear(cols, rows, bias=False, dtype=dtype)
        case "Conv1D":
            pytest.importorskip("transformers")
            return conv1d(rows, cols, dtype)
        case "conv 1":
            return torch.nn.Conv1d(cols, rows, 1, dtype=dtype)
        case "conv 2":
            return torch.nn.Conv2d(cols, rows, 1, dtype=dtype)
        case "embedding":
            return torch.nn.Embedding(rows, cols, dtype=dtype)


def layer_of(kind, dtype=torch.float64, **options):
    base = base_of(kind, dtype=dtype)
    make = {"embedding": CDDEmbedding, "conv 1": CDDConv, "conv 2": CDDConv}.get(kind, CDDLinear.from_linear)
    return make(base, **options), base


def input_of(kind, dtype=torch.float64):
    match kind:
        case "embedding":
            return torch.randint(0, 5, (4, 6))
        case "conv 1":
            return torch.randn(4, 7, 3, dtype=dtype)
        case "conv 2":
            return torch.randn(4, 7, 3, 2, dtype=dtype)
        case _:
            return torch.randn(4, 6, 7, dtype=dtype)


KINDS = ["linear", "no bias", "Conv1D", "conv 1", "conv 2", "embedding"]

kinds = pytest.mark.parametrize("kind", KINDS)


def with_weight(base, weight):
    """A copy of a base with another weight, given as (rows, cols)."""
    other = copy.deepcopy(base)
    with torch.no_grad():
        transposed = type(base).__name__ == "Conv1D"
        other.weight.copy_((weight.T if transposed else weight).reshape(other.weight.shape))
    return other


def dense_of(base):
    weight = base.weight.detach()
    return weight.T if type(base).__name__ == "Conv1D" else weight.flatten(1)
