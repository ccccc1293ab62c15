"""Parameter groups."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    adapt,
    param_groups,
)
from tests.torch.common import adapted_mlp
from tests.torch.models import TOKENS


class TestParameterGroups:
    def test_every_trainable_parameter_is_in_one_group(self, net):
        adapt(net, ["query", "mix", "head"], train=["norm"], n_factors=5)
        groups = param_groups(net, 0.1, other_lr=0.01, weight_decay=0.5)
        given = [id(p) for group in groups for p in group["params"]]
        assert sorted(given) == sorted(id(p) for p in net.parameters() if p.requires_grad)
        assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
            "diagonals": (0.1, 0.0),
            "circulants of 3 columns": (0.1 * 3**-0.5, 0.0),
            "circulants of 4 columns": (0.05, 0.0),
            "circulants of 6 columns": (0.1 * 6**-0.5, 0.0),
            "others": (0.01, 0.5),
        }
        optimizer = torch.optim.AdamW(groups)
        net(TOKENS).sum().backward()
        optimizer.step()

    def test_what_is_frozen_is_left_out(self):
        model = adapted_mlp()
        for p in model[0].parameters():
            p.requires_grad_(requires_grad=False)
        assert sum(p.numel() for g in param_groups(model, 0.1) for p in g["params"]) == 4 + 8 + 8

    def test_one_rate_moves_changes_of_every_size_alike(self):
        """The spectral norm of a change moves by about the same after a step of Adam, whatever its size."""
        torch.manual_seed(0)
        moved = []
        for n in (16, 64, 256):
            model = nn.Sequential(nn.Linear(n, n, bias=False))
            adapt(model, init="normal")
            before = model[0].delta().to_dense().detach()
            optimizer = torch.optim.Adam(param_groups(model, 0.01))
            x = torch.randn(64, n)
            (model(x) * torch.randn(64, n)).sum().backward()
            optimizer.step()
            moved.append(torch.linalg.matrix_norm(model[0].delta().to_dense() - before, 2).item())
        assert max(moved) < 3 * min(moved)

    @pytest.mark.parametrize("options", [
        [dict(n_factors=k) for k in (3, 5, 9)],
        [dict(block_size=b) for b in (32, 8, 2)],
        [dict(sizes=s) for s in ((16, 16), (128, 128), (16, 64), (64, 16))],
    ], ids=["factors", "blocks", "sizes"])  # fmt: skip
    def test_the_first_step_moves_outputs_alike_whatever_the_form(self, options):
        """No factor of rank-stabilised scaling is missing: the step moves each output by about rate times input."""
        moved = []
        for each in options:
            torch.manual_seed(0)
            n, m = each.pop("sizes", (32, 32))
            model = nn.Sequential(nn.Linear(n, m, bias=False))
            adapt(model, **each)
            x = torch.randn(256, n)
            before = model(x).detach()
            optimizer = torch.optim.Adam(param_groups(model, 0.01))
            (before + model(x) * torch.randn(256, m)).sum().backward()
            optimizer.step()
            moved.append((model(x) - before).square().mean().sqrt().item())
        assert min(moved) > 0.007
        assert max(moved) < 0.014

    def test_circulants_are_known_where_sharding_has_flattened_them(self):
        """As the first FSDP does: every parameter is one flat vector then."""
        model = adapted_mlp()
        before = param_groups(model, lr=0.1)
        for parameter in model.parameters():
            parameter.data = parameter.data.flatten()
        after = param_groups(model, lr=0.1)
        assert [(g["name"], g["lr"], len(g["params"])) for g in after] == [
            (g["name"], g["lr"], len(g["params"])) for g in before
        ]
