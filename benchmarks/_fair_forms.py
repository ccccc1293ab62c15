"""Forms of adapters that `fair_adapters.py` tries on held-back rows, beside the methods of the examples."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from finetune.methods import Method, Plan, Prepared
from structmat.torch import CDDLinear, adapt

SCALE_OF_SCALES = 10.0
"""Scales of rows and columns are learned at a third of the rate of the factors of a product: 0.03 is too high there."""


class ScaledWeight(nn.Module):
    """``y = r * (W (c * x)) + b``, and the change of an adapter if there is one; the scales r and c start at one."""

    def __init__(self, layer: CDDLinear, *, product: bool) -> None:
        super().__init__()
        self.base = layer.base
        self.rows = nn.Parameter(torch.zeros(layer.base.out_features))
        self.columns = nn.Parameter(torch.zeros(layer.base.in_features))
        self.adapter = layer.adapter if product else None

    def forward(self, x: Tensor) -> Tensor:
        y = linear(x * (1 + SCALE_OF_SCALES * self.columns), self.base.weight)
        y = (y * (1 + SCALE_OF_SCALES * self.rows) + self.base.bias).to(y.dtype)
        return y if self.adapter is None else self.adapter.add_to(y, x)


class ScaledEntries(nn.Module):
    """``y = (W + W * D C D / s) x + b``, entry by entry, where s is the root mean square of the entries of W."""

    def __init__(self, layer: CDDLinear) -> None:
        super().__init__()
        self.base, self.adapter = layer.base, layer.adapter
        weight = layer.base.weight
        self.register_buffer("entries", weight / weight.square().mean().sqrt())
        self.register_buffer("columns", torch.eye(weight.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + self.entries * self.adapter(self.columns).T
        return linear(x, weight, self.base.bias)


def _prepare(encoder: nn.Module, plan: Plan, form: type[nn.Module], **options: bool) -> Prepared:
    summary = adapt(encoder, targets=plan.targets, n_factors=plan.size or 3)
    for path in summary.layers:
        encoder.set_submodule(path, form(encoder.get_submodule(path), **options))
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    return Prepared(encoder, [{"params": list(trained.values()), "lr": plan.lr}], lambda: trained)


RATES = (0.0003, 0.001, 0.003)
FORMS = {
    "scales": Method(partial(_prepare, form=ScaledWeight, product=False), 0.001, RATES, "D W D"),
    "cdd-scales": Method(partial(_prepare, form=ScaledWeight, product=True), 0.001, RATES, "D W D + D C D"),
    "cdd-entries": Method(partial(_prepare, form=ScaledEntries), 0.001, RATES, "W * (D C D)"),
}
