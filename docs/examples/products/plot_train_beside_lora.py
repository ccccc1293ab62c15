"""
Which adapter learns which change? D C D and LoRA
=================================================

An adapter is a small change that is trained beside a frozen layer. Here a layer is trained to imitate a frozen layer
plus a known change, which is either of low rank or a filter between two gains. Each of the two changes suits one of two
adapters: low-rank matrices (LoRA), and the product of a diagonal, a circulant and a diagonal matrix (D C D).
"""

# %%
# Two tasks
# ---------
# Both changes are matrices of 64 rows with the same norm.

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import structmat as sm
from structmat.torch import CDDLinear

n, steps = 64, 150
rng = np.random.default_rng(0)
torch.manual_seed(0)
low_rank = rng.standard_normal((n, 2)) @ rng.standard_normal((2, n))
lag = np.minimum(np.arange(n), n - np.arange(n))
filtered = sm.CDDProduct.from_vectors(
    rng.uniform(0.3, 2, n), np.exp(-((lag / 2.0) ** 2)), rng.uniform(0.3, 2, n)
).to_dense()
changes = {
    name: torch.tensor(change / np.linalg.norm(change) * np.sqrt(n), dtype=torch.float32)
    for name, change in {"a change of rank 2": low_rank, "a filter between gains": filtered}.items()
}
base = nn.Linear(n, n)


class LoRALinear(nn.Module):
    """A frozen layer plus B A."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer.requires_grad_(requires_grad=False)
        self.A = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + x @ self.A.T @ self.B.T


# %%
# Training
# --------
# Inputs and steps are the same for all; the learning rate is chosen for each method.


def trained(layer, groups, change):
    """Train a layer towards the base plus the change; return the relative losses."""
    optimizer, losses = torch.optim.AdamW(groups), []
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(128, n, generator=generator)
        target = x @ change.T
        loss = (layer(x) - base(x) - target).square().mean() / target.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def from_gradient(change):
    """A layer whose vectors begin along the gradient of the loss, still with no change at all."""
    layer = copy.deepcopy(base).requires_grad_()
    x = torch.randn(2048, n, generator=torch.Generator().manual_seed(2))
    (layer(x) - base(x) - x @ change.T).square().mean().backward()
    start = CDDLinear.from_delta(base, layer.weight.grad)
    first, circulant, second = (factor.detach() for factor in start.adapter.factors)
    start.adapter.factors = [0 * first, circulant / circulant.norm(), second / second.abs().mean()]
    return start


losses = {}
for task, change in changes.items():
    for name, layer in {"D C D": CDDLinear.from_linear(base), "D C D from the gradient": from_gradient(change)}.items():
        groups = [{"params": list(layer.adapter.parameters()), "lr": 1e-3, "weight_decay": 0.0}]
        losses[task, f"{name}, {3 * n} parameters"] = trained(layer, groups, change)
    for rank in (2, 8):
        layer = LoRALinear(base, rank)
        groups = [{"params": [layer.A, layer.B], "lr": 0.01, "weight_decay": 0.0}]
        losses[task, f"LoRA r = {rank}, {2 * rank * n:,} parameters"] = trained(layer, groups, change)

# %%
# For the change of rank 2 the loss of LoRA falls to nearly zero; D C D cannot represent this change. For the filter,
# which has full rank, low ranks are not sufficient; D C D finds it if it starts from the gradient, but ends in a local
# minimum from its default start. Changes for real tasks are of neither kind, and there the methods are closer:
# :doc:`/reproduction`.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
colours = dict(
    zip(
        ("D C D", "D C D from the gradient", "LoRA r = 2", "LoRA r = 8"),
        ("#fdae6b", "#D55E00", "#4292c6", "#08519c"),
        strict=True,
    )
)
for ax, task in zip(axes, changes, strict=True):
    for (of, name), history in losses.items():
        if of == task:
            ax.semilogy(history, color=colours[name.split(",")[0]], label=name, linewidth=2 if "D C D" in name else 1.4)
    ax.set(title=task, xlabel="step", ylim=(1e-4, 2))
    ax.grid(color="0.9")
axes[0].set_ylabel("loss relative to no change")
figure.legend(*axes[1].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside lower center")
plt.show()
