"""What adapters cost."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


from structmat.torch import (
    CDDAdapter,
    adapt,
    change_flops,
    summarise,
)
from tests.torch.common import mlp


class TestSummary:
    def test_counts(self):
        model = mlp((6, 8, 5), torch.float32)
        summary = adapt(model, block_size=3)
        shapes = [(8, 6), (5, 8)]
        counts = [m + -(-m // 3) * -(-n // 3) * 3 + n for m, n in shapes]
        assert [layer.shape for layer in summary.layers] == shapes
        assert [layer.n_parameters for layer in summary.layers] == counts
        assert summary.n_parameters == summary.n_trainable == sum(counts)
        assert summary.n_bytes == 4 * sum(counts)
        assert summary.n_total == 6 * 8 + 8 + 8 * 5 + 5 + sum(counts)
        assert summary.dense_flops_per_token == 2 * (48 + 40)
        assert summary.flops_per_token == sum(change_flops(m.adapters["default"]) for m in (model[0], model[2]))
        assert summarise(model) == summary
        for part in (f"{sum(counts):,} parameters", "2 layers", "% of the adapted layers' own"):
            assert part in str(summary)

    def test_operations_are_those_of_the_formula(self):
        b = 16
        assert change_flops(CDDAdapter(b, b)) == 2 * b + 2 * 2.5 * b * 4 + 6 * (b // 2 + 1)
        assert change_flops(CDDAdapter(1, 1)) == 2 + 6
